"""Processes of their own: signals, workers, engines, packages, a browser."""

from tests.command_lines import measure_speed_briefly, two_logical_cpus

two_logical_cpus()  # here, before a test module uses TensorFlow
measure_speed_briefly()
