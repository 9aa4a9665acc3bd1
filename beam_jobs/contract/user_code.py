"""The user's own code, named in the config by a dotted path: sources, models, callbacks."""

import importlib
import os
import sys
from pathlib import Path
from typing import Any

from beam_jobs.contract.errors import UserError

_config_dirs: list[str] = []
_loaded: list[str] = []


def search_beside(config: str | Path) -> None:
    """Has `load` also search the directory of this config file."""
    search_in(str(Path(config).resolve().parent))


def search_in(directory: str) -> None:
    """Has `load` also search this directory."""
    if directory not in _config_dirs:
        _config_dirs.append(directory)


def searched_directories() -> tuple[str, ...]:
    """Those beside configs, for processes that are begun."""
    return tuple(_config_dirs)


def loaded() -> tuple[str, ...]:
    """The modules that `load` has imported."""
    return tuple(_loaded)


def load(path: str, *, key: str) -> Any:
    """What `package.module:name` names.

    Modules are searched where Python does, then in the working directory, where installed
    commands do not search by themselves, then beside the config file.

    Args:
      path: the dotted path.
      key: the config key that has it, for errors.

    Raises:
      UserError: it cannot be imported; an ImportError in the module itself is shown as it is.
    """
    for directory in (os.getcwd(), *_config_dirs):
        if directory not in sys.path:
            sys.path.append(directory)
    importlib.invalidate_caches()
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and _is_part_of(error.name, module_name):
            raise UserError(
                f"{key}: received {path!r}: {error}; expected package.module:name of a module in "
                "the working directory, beside the config, on PYTHONPATH or installed"
            ) from None
        raise UserError(
            f"{key}: received {path!r}: the module raises {type(error).__name__}: {error}; "
            "expected a module that can be imported"
        ) from None
    _loaded.append(module_name)
    try:
        return getattr(module, name)
    except AttributeError as error:
        raise UserError(
            f"{key}: received {path!r}: {error}; expected package.module:name of what the module "
            f"{module.__file__} defines"
        ) from None


def _is_part_of(missing: str | None, module_name: str) -> bool:
    """Whether the missing module is the named one or a package that it is in."""
    return missing is not None and f"{module_name}.".startswith(f"{missing}.")
