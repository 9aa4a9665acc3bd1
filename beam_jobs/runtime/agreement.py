"""What a job and workers that others start for it must have alike."""

import hashlib
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
_HEX_DIGITS = 12


def here() -> dict[str, str]:
    """What this process has: the versions, and a hash of the code that a job's steps run."""
    return {
        "multihot": _code(),
        "apache-beam": metadata.version("apache-beam"),
        "tensorflow": metadata.version("tensorflow"),
        "python": ".".join(platform.python_version_tuple()[:2]),
    }


def difference(of_job: Mapping[str, str]) -> str | None:
    """How a job's differ from what is here, in words; None: not at all, or the job does not say."""
    own = here()
    parts = [
        f"{name} {own[name]} here and {of_job[name]} where the job was started"
        for name in own
        if of_job.get(name, own[name]) != own[name]
    ]
    return "; ".join(parts) or None


def _code() -> str:
    """The version of multihot and a hash of the files of `beam_jobs`."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
    try:
        version = metadata.version("multihot")
    except metadata.PackageNotFoundError:  # a checkout on PYTHONPATH
        version = "unreleased"
    return f"{version} with code {digest.hexdigest()[:_HEX_DIGITS]}"
