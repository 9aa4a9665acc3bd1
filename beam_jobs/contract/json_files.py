"""JSON files that a config names."""

import json
from typing import Any

from beam_jobs.contract import places
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.first_bytes import hint_of


def read_json(path: str, *, key: str, expected: str) -> Any:
    """The content of a JSON file.

    Args:
      path: the file.
      key: of the config that names it, for errors.
      expected: what the file should be, for errors.

    Raises:
      UserError: it cannot be read, or is not JSON.
    """
    try:
        return json.loads(places.read_text(path))
    except (OSError, ValueError) as error:
        raise UserError(f"{key}: cannot read {path}: {error}{hint_of(path)}; {expected}") from None
