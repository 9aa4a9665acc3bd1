"""Command lines run by their `main`, whole jobs, exported graphs, and parts that train."""

import pytest

from beam_jobs.contract import places
from tests.command_lines import measure_speed_briefly, two_logical_cpus
from tests.object_stores import gcs_server, make_gcs_bucket

two_logical_cpus()  # here, before a test module uses TensorFlow
measure_speed_briefly()


@pytest.fixture(autouse=True)
def two_cpus():
    """Two CPUs, of which each test may make a MirroredStrategy."""
    two_logical_cpus()


@pytest.fixture(scope="session")
def gcs():
    """A new bucket of Google Cloud Storage."""
    with gcs_server() as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", address)
        yield make_gcs_bucket(address)
    places._store.cache_clear()
