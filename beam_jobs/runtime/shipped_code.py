"""Modules of the user's own, sent with a job to workers that have not got them."""

import contextlib
import os
import sys
from collections.abc import Iterator
from types import ModuleType

from apache_beam.internal.cloudpickle import cloudpickle

from beam_jobs.contract import user_code

_OURS = ("multihot", "beam_jobs", "trainer")
_INSTALLED = ("site-packages", "dist-packages")


@contextlib.contextmanager
def with_the_job() -> Iterator[None]:
    """During the block a job that is submitted holds the code of the user's own modules.

    These are the modules that the config names and what lies beside them, if they are not
    installed: workers have those that are, as they have multihot.
    """
    modules = _own_modules()
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


def _own_modules() -> list[ModuleType]:
    folders = set()
    for name in user_code.loaded():
        top = sys.modules[name.partition(".")[0]]
        if top.__name__ not in _OURS and not _is_installed(top):
            folders.add(_folder(top))
    return [
        module
        for name, module in list(sys.modules.items())
        if "." not in name  # a package stands for what is in it
        and name not in (*_OURS, "__main__")
        and _folder(module) in folders
    ]


def _folder(module: ModuleType) -> str | None:
    """Where a module or package lies; None: it has no file."""
    file = getattr(module, "__file__", None)
    if file is None:
        return None
    folder = os.path.dirname(os.path.abspath(file))
    return os.path.dirname(folder) if hasattr(module, "__path__") else folder


def _is_installed(module: ModuleType) -> bool:
    folder = _folder(module)
    if module.__name__ in sys.stdlib_module_names:
        return True
    return folder is None or any(part in folder.split(os.sep) for part in _INSTALLED)
