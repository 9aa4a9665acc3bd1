"""Whether the packages `beam_jobs` and `trainer` that Python finds are those of multihot.

The names are plain, and other packages have them too: pip lets one package overwrite the files of
another without a word, and a folder of the same name in the working directory comes first.
"""

import importlib.util
import sys
from importlib import metadata
from pathlib import Path

PACKAGES = ("beam_jobs", "trainer")
_MARK = b"multihot"  # in the first line of each package's own __init__.py
_HOME = Path(__file__).resolve().parents[1]
_sound = False


class ReplacedPackage(ImportError):
    """A part of multihot is missing, or another package has taken its name."""


def check() -> None:
    """Raises ReplacedPackage, which says what did it and what to do, unless all is in place."""
    global _sound
    if _sound:
        return
    for name in PACKAGES:
        if problem := problem_of(name, _HOME):
            raise ReplacedPackage(problem)
    _sound = True


def problem_of(name: str, home: Path) -> str | None:
    """What is wrong with a package, what did it and what to do; None: it is in place.

    Args:
      name: of the package.
      home: the directory that it should be in.
    """
    found = _find(name)
    if found is not None and found.parents[1] != home:
        return (
            f"multihot needs its own package `{name}`, which is in {home}, and Python finds "
            f"another one first: {found.parent}. Rename that folder, or start Python elsewhere"
        )
    if found is not None and _MARK in found.read_bytes().partition(b"\n")[0]:
        return None
    state = "is missing" if found is None else "is another package's"
    others = _distributions_with(name)
    remedy = "pip install --force-reinstall --no-deps multihot"
    if others:
        remedy = f"pip uninstall -y {' '.join(others)} && {remedy}"
        return (
            f"multihot needs its own package `{name}`, and {home / name / '__init__.py'} {state}: "
            f"the installed package {' and '.join(others)} has the same name for its own and has "
            f"overwritten it. The two cannot share an environment: `{remedy}`, or make a new one"
        )
    return (
        f"multihot needs its own package `{name}`, and {home / name / '__init__.py'} {state}: "
        "another package of this name was installed and removed, and took files along. Install "
        f"again: `{remedy}`"
    )


def _find(name: str) -> Path | None:
    """The `__init__.py` of a package; None: there is none."""
    if name in sys.modules:
        file = getattr(sys.modules[name], "__file__", None)
        return Path(file).resolve() if file else None
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).resolve() if spec and spec.origin else None


def _distributions_with(package: str) -> list[str]:
    """The names of installed distributions, other than multihot, that hold the package."""
    file = f"{package}/__init__.py"
    names = {
        distribution.metadata["Name"]
        for distribution in metadata.distributions()
        if any(path.as_posix() == file for path in distribution.files or ())
    }
    return sorted(names - {"multihot"})
