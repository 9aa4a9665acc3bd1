"""Processes of their own: signals, workers, engines, packages, a browser."""

from tests.command_lines import two_logical_cpus

two_logical_cpus()  # here, before a test module uses TensorFlow
