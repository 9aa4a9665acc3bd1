"""Command lines run by their `main`, whole jobs, exported graphs, and parts that train."""

import pytest

from tests.command_lines import two_logical_cpus

two_logical_cpus()  # here, before a test module uses TensorFlow


@pytest.fixture(autouse=True)
def two_cpus():
    """Two CPUs, of which each test may make a MirroredStrategy."""
    two_logical_cpus()
