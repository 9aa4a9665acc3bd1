"""Apache Flink: the configuration of the cluster in Beam's job server, and what others lack."""

import contextlib
import json
import os
import re
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from beam_jobs.contract.errors import UserError

_EMBEDDED = ("[auto]", "[local]")
# A cluster's own file, from Flink 1.19 on and before it.
FILES = ("config.yaml", "flink-conf.yaml")
# Beam's option --number_of_execution_retries does nothing in a job that is not streaming.
RETRIES = {
    "restart-strategy.type": "fixed-delay",
    "restart-strategy.fixed-delay.attempts": "3",
    "restart-strategy.fixed-delay.delay": "1 s",
}
# Each task that sorts what it sends takes 16 MiB of it at least. 128 MiB were too little for the
# job's stages with two tasks at a time, 512 MiB sufficed.
_LEAST_MIB, _MIB_A_TASK = 512, 256
_SECONDS, _POLL_SECONDS = 10.0, 0.2
_STOPPED = ("FAILED", "CANCELED", "FINISHED")


def is_embedded(master: str) -> bool:
    """Whether the cluster is one that Beam's job server starts in itself."""
    return master.strip() in _EMBEDDED


def address(master: str) -> str:
    """The URL of a cluster's REST interface, which is that of its web page."""
    master = master.strip().rstrip("/")
    return master if re.match("https?://", master) else f"http://{master}"


@contextlib.contextmanager
def configuration(parallelism: int) -> Iterator[str]:
    """A folder for FLINK_CONF_DIR, with what the embedded cluster needs for our jobs.

    Args:
      parallelism: tasks that run at a time; below 1: as many as there are cores.
    """
    memory = f"{network_mib(parallelism)}mb"
    settings = RETRIES | {
        "taskmanager.memory.network.min": memory,
        "taskmanager.memory.network.max": memory,
    }
    text = "".join(f"{key}: {value}\n" for key, value in settings.items())
    with tempfile.TemporaryDirectory(prefix="multihot-flink-") as folder:
        for name in FILES:
            Path(folder, name).write_text(text, encoding="utf-8")
        yield folder


def network_mib(parallelism: int) -> int:
    """Network memory that so many tasks at a time need, in MiB."""
    tasks = parallelism if parallelism >= 1 else os.cpu_count() or 1
    return max(_LEAST_MIB, _MIB_A_TASK * tasks)


def own_configuration_lacks(folder: str | None) -> list[str]:
    """What the user's own configuration of the embedded cluster lacks: a line each.

    Args:
      folder: FLINK_CONF_DIR of the environment; None: the configuration will be ours.

    Raises:
      UserError: it cannot be read.
    """
    if folder is None:
        return []
    settings: dict[str, Any] = {}
    for name in FILES:
        path = Path(folder, name)
        try:
            content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, UnicodeError, YAMLError) as error:
            raise UserError(
                f"FLINK_CONF_DIR: {path} cannot be read: {' '.join(str(error).split())}; expected "
                "Flink's configuration in YAML"
            ) from None
        settings |= dict(_flat(content or {}))
    return [] if _retries(settings) else [_no_retries(f"FLINK_CONF_DIR={folder}")]


def cluster_lacks(url: str, parallelism: int) -> list[str]:
    """What a cluster that runs already lacks for our jobs, and how to set it: a line each.

    Raises:
      UserError: no cluster answers there.
    """
    settings = {entry["key"]: entry["value"] for entry in _get(url, "/jobmanager/config")}
    managers = _get(url, "/taskmanagers")["taskmanagers"]
    lines = [] if _retries(settings) else [_no_retries(url)]
    slots = sum(manager["slotsNumber"] for manager in managers)
    if managers and slots < parallelism:
        lines.append(
            f"{url}: its task managers have {slots} slots, fewer than --parallelism={parallelism}: "
            "unless it starts more of them, the job waits in vain"
        )
    for manager in managers:
        memory = manager.get("memoryConfiguration", {}).get("networkMemory")
        needed = network_mib(manager["slotsNumber"])
        if memory and memory < needed << 20:
            lines.append(
                f"{url}: a task manager with {manager['slotsNumber']} slots has {memory >> 20} MiB "
                "of network memory, and our jobs may fail with 'Insufficient number of network "
                f"buffers'. Set in the cluster's {FILES[0]} ({FILES[1]} before Flink 1.19): "
                f"taskmanager.memory.network.min: {needed}mb, taskmanager.memory.network.max: "
                f"{needed}mb"
            )
            break
    return lines


def running_jobs(url: str, name: str) -> set[str]:
    """The jobs of that name that have not ended on a cluster.

    Raises:
      UserError: no cluster answers there.
    """
    return {
        job["jid"]
        for job in _get(url, "/jobs/overview")["jobs"]
        if job["name"] == name and job["state"] not in _STOPPED
    }


def cancel(url: str, name: str, others: set[str], *, seconds: float = 20.0) -> bool:
    """Cancels the jobs of that name but `others` on a cluster, and waits until they have stopped.

    Returns:
      Whether none of them runs any more.

    Raises:
      UserError: no cluster answers there.
    """
    deadline = time.monotonic() + seconds
    asked: set[str] = set()
    while running := running_jobs(url, name) - others:
        for job in running - asked:
            _get(url, f"/jobs/{job}?mode=cancel", method="PATCH")
        asked |= running
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _get(url: str, path: str, *, method: str = "GET") -> Any:
    """What the REST interface answers."""
    request = urllib.request.Request(url + path, method=method)
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
            return json.loads(answer.read() or b"{}")
    except (OSError, ValueError) as error:  # URLError is an OSError
        reason = getattr(error, "reason", error)
        raise UserError(
            f"--flink_master: {url}{path} does not answer as Flink does: {reason}; expected the "
            "address of a cluster that runs, HOST:PORT of its web page"
        ) from None


def _retries(settings: Mapping[str, Any]) -> bool:
    """Whether a job that loses a worker is tried again."""
    kind = settings.get("restart-strategy.type", settings.get("restart-strategy"))
    return kind is not None and str(kind).lower() not in ("none", "off", "disable", "false")


def _no_retries(where: str) -> str:
    lines = ", ".join(f"{key}: {value}" for key, value in RETRIES.items())
    return (
        f"{where}: its configuration has no restart strategy, so one worker that dies fails the "
        f"job. Set in its {FILES[0]} ({FILES[1]} before Flink 1.19): {lines}"
    )


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of nested YAML."""
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
