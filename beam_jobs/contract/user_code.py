"""The user's own code, named in the config by a dotted path."""

import importlib
import os
import sys
from typing import Any

from beam_jobs.contract.errors import UserError


def import_named(path: str, *, key: str) -> Any:
    """What `package.module:name` names; also a module of the working directory, where installed commands do not look.

    Args:
      path: the path.
      key: the config key that has it, for the error.

    Raises:
      UserError: it cannot be imported.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"{key}: received {path!r}: {error}; expected package.module:function that Python can import"
        ) from None
