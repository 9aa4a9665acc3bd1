"""One system in a process of its own: `python -m peers.worker JOB.json`.

It runs in any environment with NumPy and SciPy.
"""

import time

_STARTED = time.perf_counter()

import contextlib  # noqa: E402
import json  # noqa: E402
import resource  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

from peers.exchange import ScoreWriter, batch_documents, read_split  # noqa: E402
from peers.systems import PEERS  # noqa: E402

_SERVED_DOCUMENTS = 200
_WARM_DOCUMENTS = 20


def run(job: dict) -> dict:
    """Trains and scores the system that a job names; writes its scores, returns its costs.

    Args:
      job: name, of PEERS, or "ours"; options; seed; texts, the directory of `write_split`;
        directory, an empty one for the system; split, the one that is measured.

    Returns:
      seconds and core_seconds: by stage, wall time and processor time of all cores; peak_bytes:
      resident memory of the largest process, until scores are written; model_bytes: of the files
      that serving needs; ms_per_document: the median over documents that are scored one by one.
    """
    seconds: dict[str, float] = {}
    core_seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def stage(name):
        started, core_started = time.perf_counter(), _core_seconds()
        yield
        seconds[name] = time.perf_counter() - started
        core_seconds[name] = _core_seconds() - core_started

    directory = Path(job["directory"])
    train, validation, measured = (
        read_split(Path(job["texts"]), name) for name in ("train", "validation", job["split"])
    )
    if job["name"] in PEERS:
        system_class = PEERS[job["name"]].system
    else:
        from peers.ours import Ours as system_class
    system = system_class(directory, seed=job["seed"], **job["options"])
    system.fit(train, validation, stage)
    # What no stage counts: imports and reading.
    start = time.perf_counter() - _STARTED - sum(seconds.values())
    core_start = _core_seconds() - sum(core_seconds.values())
    with stage("score"):
        _write_scores(system, measured, directory, job["split"])
    if job["split"] != "validation":  # thresholds are tuned on it
        with stage("score validation"):
            _write_scores(system, validation, directory, "validation")
    peak_bytes = _peak_bytes()
    system.save()
    return {
        "seconds": {"start": start} | seconds,
        "core_seconds": {"start": core_start} | core_seconds,
        "peak_bytes": peak_bytes,
        "model_bytes": sum(
            file.stat().st_size for file in system.model_dir.rglob("*") if file.is_file()
        ),
        "ms_per_document": 1000 * _median_seconds(system, measured.rows),
    }


def _write_scores(system, split, directory, name):
    num_labels = split.labels.shape[1]
    writer, step = ScoreWriter(directory, name, num_labels), batch_documents(num_labels)
    for start in range(0, len(split.rows), step):
        writer.add(system.scores(split.rows[start : start + step]))
    writer.close()


def _median_seconds(system, rows):
    times = []
    for i in range(_WARM_DOCUMENTS + _SERVED_DOCUMENTS):
        started = time.perf_counter()
        system.scores([rows[i % len(rows)]])
        times.append(time.perf_counter() - started)
    return sorted(times[_WARM_DOCUMENTS:])[_SERVED_DOCUMENTS // 2]


def _core_seconds() -> float:
    """Of this process and of those it has waited for."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _peak_bytes() -> int:
    """Of this process and of those it has waited for, the largest."""
    unit = 1 if sys.platform == "darwin" else 1024
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    # Linux starts ru_maxrss with the memory of the process that started this one; VmHWM is its own.
    with contextlib.suppress(OSError, StopIteration):
        status = Path("/proc/self/status").read_text().splitlines()
        own = 1024 * int(next(line for line in status if line.startswith("VmHWM")).split()[1])
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit)


if __name__ == "__main__":
    job_file = Path(sys.argv[1])
    result = run(json.loads(job_file.read_text()))
    job_file.with_name("result.json").write_text(json.dumps(result))
