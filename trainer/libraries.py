"""Loading the libraries that the trainer computes with, without what it does not use of them."""

import sys

from beam_jobs.contract.quiet import Later, import_tensorflow_quietly

# Parts of Keras that import Matplotlib and scikit-learn; and what it imports where it is installed.
_PARTS_OF_KERAS = ("keras.wrappers", "keras.visualization", "keras.src.visualization")
_USED_BY_KERAS = ("pandas", "IPython")


def import_keras_alone() -> None:
    """Imports TensorFlow quietly, and Keras without what only other uses of it need.

    Its parts that draw or that are for scikit-learn are loaded when something of them is asked for.
    pandas and IPython it takes for missing, unless they are loaded, so that it takes no data frames
    later: this is for processes of our own. It takes 0.2 s rather than 1.4 s (Keras 3.15).
    """
    import_tensorflow_quietly()
    if "keras" in sys.modules:
        return
    for name in _PARTS_OF_KERAS:
        sys.modules[name] = Later(name)
    left_out = [name for name in _USED_BY_KERAS if name not in sys.modules]
    sys.modules.update(dict.fromkeys(left_out))
    try:
        import keras  # noqa: F401
    finally:
        for name in left_out:
            del sys.modules[name]
