"""Files that appear whole or not at all."""

import os
from pathlib import Path


def write_atomically(path: Path, content: str) -> None:
    """Writes text through a temporary name beside `path`."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(content, encoding="utf-8")
    os.replace(temporary, path)
