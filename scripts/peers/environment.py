"""A virtual environment for peers that need an older NumPy than ours."""

import subprocess
import sys
from pathlib import Path

# They install from wheels and agree on Python 3.11. libpecos needs NumPy 1, fastText's `predict`
# fails with NumPy 2. libpecos also declares torch and transformers, for models that are not
# measured here, and napkinXC a downloader, so these are installed without their dependencies.
_BASE = ("numpy==1.26.4", "scipy==1.13.1", "scikit-learn==1.5.2", "setuptools==75.8.2")
_PINS = {
    "libpecos": ("libpecos==1.2.8",),
    "napkinxc": ("napkinxc==0.7.2",),
    "fasttext": ("fasttext-wheel==0.9.2", "pybind11==2.13.6"),
}
_IMPORTS = {
    "libpecos": "import pecos.xmc.xlinear.model",
    "napkinxc": "import napkinxc.models",
    "fasttext": "import fasttext",
}


class Unavailable(Exception):
    """A peer cannot be installed; the message says why."""


def python_with(package: str, directory: Path, *, base_python: str) -> str:
    """The Python of an environment that has a package of _PINS; makes it where it is missing.

    Args:
      package: a key of _PINS.
      directory: of the environment; it is kept for the next time.
      base_python: the interpreter that the environment is made with.

    Raises:
      Unavailable: pip or the import failed.
    """
    python = str(directory.absolute() / "bin" / "python")
    if not Path(python).exists():
        print(f"making an environment for peers in {directory}", file=sys.stderr, flush=True)
        _run([base_python, "-m", "venv", str(directory)])
    if not _succeeds(python, _IMPORTS[package]):
        print(f"installing {package} in {directory}", file=sys.stderr, flush=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--only-binary=:all:"]
        _run([*pip, *_BASE])
        _run([*pip, "--no-deps", *_PINS[package]])
        _run([python, "-c", _IMPORTS[package]])
    return python


def _succeeds(python: str, code: str) -> bool:
    return not subprocess.run([python, "-c", code], capture_output=True, check=False).returncode


def _run(command: list[str]) -> None:
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise Unavailable(f"cannot run {command[0]}: {error}") from None
    if result.returncode:
        lines = [line for line in result.stderr.strip().splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower()] or lines or ["no message"]
        raise Unavailable(f"`{' '.join(command[-3:])}` failed: {errors[-1].strip()}")
