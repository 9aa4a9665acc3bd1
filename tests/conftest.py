"""Settings and fixtures that the layers of tests share."""

import gc
import logging
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from beam_jobs.contract.command_line import collect_garbage_rarely

collect_garbage_rarely()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# A command in the background of a script ignores Ctrl-C, and so would what is tested.
if (
    signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    and threading.current_thread() is threading.main_thread()
):
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Tracing a graph makes the first example slow, and shared machines make any example slow. Every run
# draws other examples, so fewer of them find the same defects in time.
hypothesis.settings.register_profile(
    "multihot",
    deadline=None,
    max_examples=25,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("multihot")

TESTS = Path(__file__).parent
LAYERS = ("unit", "integration", "system")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks every test with its layer, which is the folder that it lies in.

    Where processes share the files, those of long tests come first, so that none of the processes
    is left alone with one at the end.
    """
    for item in items:
        layer = item.path.relative_to(TESTS).parts[0]
        assert layer in LAYERS, f"{item.path}: expected a test in one of {LAYERS}"
        item.add_marker(layer)
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: -LAYERS.index(item.path.relative_to(TESTS).parts[0]))


def pytest_collection_finish() -> None:
    """What all tests have imported by now stays: it need not be looked through for garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Fails a test that turns off what later ones of its process log: they would see nothing."""
    before = logging.root.manager.disable
    yield
    after = logging.root.manager.disable
    logging.disable(before)
    assert after == before, "expected the test, and what it imports, to leave logging as it was"


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Path:
    """A folder that all processes of this run of the tests share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def small_dataset(shared_folder) -> Path:
    """A folder with `small.yaml` and its dataset of 500 documents. Copy it; do not change it."""
    from tests.small_experiment import make_shared_dataset

    return make_shared_dataset(shared_folder / "small_dataset", 500)


@pytest.fixture(scope="session")
def trained(shared_folder):
    """A small experiment, from raw text to the exported model. Read it only."""
    from tests.small_experiment import make_trained  # TensorFlow: not for every unit test

    return make_trained(shared_folder / "trained")
