"""Loading TensorFlow without its start-up notes, which are of no use on a machine without a GPU."""

import os
import sys
import tempfile
from pathlib import Path


def import_tensorflow_quietly() -> None:
    """Imports TensorFlow and lists its devices; without an NVIDIA device its notes are dropped.

    TensorFlow writes them before its own log level (TF_CPP_MIN_LOG_LEVEL) takes effect, so they are
    kept from the process's stderr itself. If the import fails they are shown.
    """
    if "tensorflow" in sys.modules:
        return
    if any(Path("/dev").glob("nvidia*")):
        import tensorflow  # noqa: F401

        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()
        except BaseException:
            notes.seek(0)
            os.write(saved, notes.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)
