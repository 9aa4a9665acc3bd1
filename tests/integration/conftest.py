"""The command lines, run by their `main` in the tests' own process."""

from tests.command_lines import two_logical_cpus

two_logical_cpus()  # here, before a test module uses TensorFlow
