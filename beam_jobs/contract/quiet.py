"""Loading TensorFlow without Keras, and without its start-up notes where there is no GPU; and Beam
without its warnings of what is not installed.
"""

import contextlib
import importlib
import logging
import os
import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path

# What TensorFlow imports at its end, to have Keras's optimizers registered, and the part of
# TensorFlow Text that derives layers from those of Keras.
_OPTIMIZERS = "keras.src.optimizers"
_LAYERS = "tensorflow_text.python.keras"


def import_tensorflow_quietly() -> None:
    """Imports TensorFlow and lists its devices; without an NVIDIA device its notes are dropped.

    TensorFlow writes them before its own log level (TF_CPP_MIN_LOG_LEVEL) takes effect, so they are
    kept from the process's stderr itself. If the import fails they are shown.

    Keras is loaded where it is used, such as by the trainer, and not here: to leave it out takes
    2.1 s rather than 3.6 s and 560 MB rather than 734 MB (TensorFlow 2.21, Keras 3.15).
    """
    if "tensorflow" in sys.modules:
        return
    if any(Path("/dev").glob("nvidia*")):
        with _keras_left_out():
            import tensorflow  # noqa: F401

        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            with _keras_left_out():
                import tensorflow as tf

            tf.config.list_physical_devices()
        except BaseException:
            notes.seek(0)
            os.write(saved, notes.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


@contextlib.contextmanager
def _keras_left_out() -> Iterator[None]:
    """TensorFlow finds no Keras to import by itself, and TensorFlow Text, when it is imported, a
    module of Keras layers that is loaded when something of it is asked for.
    """
    if _OPTIMIZERS in sys.modules:
        yield
        return
    sys.modules.setdefault(_LAYERS, Later(_LAYERS))
    sys.modules[_OPTIMIZERS] = None
    try:
        yield
    finally:
        del sys.modules[_OPTIMIZERS]


@contextlib.contextmanager
def no_beam_warnings() -> Iterator[None]:
    """Errors alone are logged while the block imports Beam.

    It warns of client libraries of clouds that are not installed, such as those of the extra `gcp`.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def no_tensorflow_warnings() -> Iterator[None]:
    """TensorFlow logs errors alone while the block runs.

    It warns of functions that are traced again, as those of each of several runs in one process
    are; and in a notebook it says which files of a SavedModel it has written.
    """
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


class Later(types.ModuleType):
    """In the place of a module, which is loaded when something of it is asked for."""

    def __getattr__(self, name: str):
        if name.startswith("__") and name != "__path__":  # those who look through all modules
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)
