"""What the trainer is made of, without commands."""

from tests.command_lines import two_logical_cpus

two_logical_cpus()  # here, before a test module uses TensorFlow
