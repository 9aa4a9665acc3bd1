"""`multihot doctor`: what multihot finds on this machine, and what is wrong."""

import argparse
import dataclasses
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from multihot import ownership

# What each extra gives; those for work on multihot itself are left out.
EXTRAS = {
    "gpu": "TensorFlow's CUDA libraries",
    "gcp": "Google Cloud: Dataflow and gs://",
    "aws": "Amazon S3: s3://",
    "hadoop": "Hadoop's file system: hdfs://",
    "pretrained": "encoders that are trained already, `model.name: pretrained`",
    "serve": "the development server, `multihot serve`",
    "tune": "the search for good values of keys, `multihot tune`",
}
_WORKING_EXTRAS = {"bench", "docs", "test"}
_MIN_MEMORY_GB = 4
_MIN_DISK_GB = 5
_FAILURE = 1
_UNLIMITED = 1 << 60  # what cgroup 1 has for no limit is above it


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
      what: the thing.
      is_good: False: it has to be changed; None: it is only told.
      text: what was found, and what to do.
    """

    what: str
    is_good: bool | None
    text: str

    def __str__(self) -> str:
        mark = {True: "ok", False: "WRONG", None: ""}[self.is_good]
        return f"{mark:6}{self.what:24}{self.text}"


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's arguments."""
    return argparse.ArgumentParser(
        prog="multihot doctor",
        description=(
            "Prints versions, devices, memory and what the extras give. Exit status 1 if something "
            "is wrong."
        ),
    )


def main(argv: list[str]) -> None:
    """Prints the report; exits with status 1 if something is wrong."""
    make_parser().parse_args(argv)
    wrong = 0
    for section in (_packages, _extras, _devices, _machine):
        for finding in section():
            print(finding, flush=True)
            wrong += finding.is_good is False
    print(f"\n{wrong} wrong" if wrong else "\nnothing is wrong")
    if wrong:
        sys.exit(_FAILURE)


def version() -> str:
    """multihot's version and place."""
    return f"multihot {metadata.version('multihot')} in {Path(__file__).resolve().parents[1]}"


def _packages() -> Iterator[Finding]:
    yield Finding("multihot", True, version().removeprefix("multihot "))
    yield Finding("Python", None, f"{platform.python_version()} on {platform.platform()}")
    for name in ownership.PACKAGES:
        problem = ownership.problem_of(name, Path(__file__).resolve().parents[1])
        yield Finding(f"package {name}", not problem, problem or "multihot's own")
    for requirement in _requirements(None):
        yield check_requirement(requirement)


def check_requirement(
    requirement: Requirement, installed: Callable[[str], str] = metadata.version
) -> Finding:
    """Whether a package is there in a version that multihot is known to work with."""
    try:
        found = installed(requirement.name)
    except metadata.PackageNotFoundError:
        return Finding(requirement.name, False, f"missing: pip install '{requirement}'")
    if not requirement.specifier.contains(found, prereleases=True):
        advice = f"expected {requirement.specifier}: pip install '{requirement}'"
        return Finding(requirement.name, False, f"{found}, {advice}")
    return Finding(requirement.name, True, found)


def _extras() -> Iterator[Finding]:
    for extra, gives in EXTRAS.items():
        findings = [check_requirement(requirement) for requirement in _requirements(extra)]
        if extra == "gpu":
            continue  # the device says it
        state = "installed" if all(f.is_good for f in findings) else "not installed"
        how = "" if state == "installed" else f": pip install 'multihot[{extra}]'"
        yield Finding(f"extra {extra}", None, f"{state}{how} ({gives})")


def _requirements(extra: str | None) -> list[Requirement]:
    """What multihot needs, or what an extra adds."""
    requirements = [Requirement(text) for text in metadata.requires("multihot") or ()]
    without = [r for r in requirements if not r.marker or r.marker.evaluate({"extra": ""})]
    if extra is None:
        return without
    return [
        r
        for r in requirements
        if r.marker and r.marker.evaluate({"extra": extra}) and r not in without
    ]


def _devices() -> Iterator[Finding]:
    from beam_jobs.contract.quiet import import_tensorflow_quietly

    try:
        import_tensorflow_quietly()
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
    except Exception as error:  # whatever a broken installation raises
        yield Finding("TensorFlow", False, f"cannot be imported: {error}")
        return
    for gpu in gpus:
        details = tf.config.experimental.get_device_details(gpu)
        yield Finding(gpu.name, True, details.get("device_name", "a GPU"))
    if gpus:
        return
    if any(Path("/dev").glob("nvidia[0-9]*")):
        advice = "pip install 'multihot[gpu]' has the CUDA libraries that TensorFlow needs"
        yield Finding("GPU", False, f"/dev has one, and TensorFlow does not see it: {advice}")
    else:
        yield Finding("GPU", None, "none: training uses the CPU")


def _machine() -> Iterator[Finding]:
    yield Finding("cores", None, f"{len(os.sched_getaffinity(0))}")
    memory = memory_gb(Path("/"))
    enough = memory >= _MIN_MEMORY_GB
    advice = "" if enough else f"; expected {_MIN_MEMORY_GB} GB or more"
    yield Finding("memory", enough, f"{memory:.1f} GB{advice}")
    free = shutil.disk_usage(".").free / 1e9
    enough = free >= _MIN_DISK_GB
    advice = "" if enough else "; the job needs about three times the dataset's size"
    yield Finding("disk", enough, f"{free:.1f} GB free in {os.getcwd()}{advice}")


def memory_gb(root: Path) -> float:
    """What the machine has, or what its container may use, in 10^9 bytes.

    Args:
      root: of the file system.
    """
    lines = (root / "proc/meminfo").read_text().splitlines()
    (total,) = (int(line.split()[1]) << 10 for line in lines if line.startswith("MemTotal:"))
    for file in ("memory.max", "memory/memory.limit_in_bytes"):  # cgroup 2 and 1
        path = root / "sys/fs/cgroup" / file
        text = path.read_text().strip() if path.exists() else "max"
        if text.isdigit() and int(text) < _UNLIMITED:
            total = min(total, int(text))
    return total / 1e9
