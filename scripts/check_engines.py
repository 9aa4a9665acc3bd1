#!/usr/bin/env python3
"""Which engines run the Beam jobs, and with which bytes: a table of engine x place x stage.

Writes a corpus, runs preprocessing (and, with --predict, bulk prediction) on Beam's local runner
and on every engine that is found, over a disk and over an emulator of S3 on localhost (moto, in the
extra `test`), and compares every byte. With --kills it then kills worker processes and submitters
in the middle of runs over S3, and compares what the run after that makes.

scripts/check_engines.sh gives it the job servers of Flink and Spark.

  python scripts/check_engines.py --engines in_memory local prism --kills 20
"""

import argparse
import collections
import contextlib
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import check_object_stores as stores

from beam_jobs.contract import child_process, places
from beam_jobs.contract import manifest as manifests
from beam_jobs.contract.command_line import run_main

ROOT = Path(__file__).resolve().parents[1]
ENGINES = (
    "in_memory",
    "local",
    "prism",
    "prism_pool",
    "flink",
    "spark",
    "flink_pool",
    "spark_pool",
)
POOL_PORT = 50017
CONFIG = """
name: tiny
data: {source: jsonl, inputs: ['corpus/*.jsonl']}
labels: {min_count: 2}
vocabulary: {min_document_count: 1}
output: {shards: 3}
model: {name: bow, embedding_dim: 8}
train: {epochs: 1, batch_size: 64, run_dir: run}
export: {model_dir: model}
"""
# What a process of a worker has in its command line, of whichever kind it is.
WORKERS = ("beam_jobs.worker ", "sdk_worker import SdkHarness")
SECONDS = 900  # for a run, and for the end of one whose worker was killed


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--flink-master", help="HOST:PORT of a cluster, beside worker pools")
    parser.add_argument("--spark-master", help="spark://HOST:PORT, beside worker pools")
    parser.add_argument("--pool", default="localhost:50000", help="of them (default %(default)s)")
    parser.add_argument("--documents", type=int, default=4000, help="default %(default)s")
    parser.add_argument("--predict", action="store_true", help="bulk prediction, too")
    parser.add_argument("--kills", type=int, default=0, help="of each engine (default: none)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of kills")
    arguments = parser.parse_args(argv)
    os.environ.update(stores.CREDENTIALS)
    # Here rather than in /tmp, if TMPDIR says so: a cluster's workers must reach it.
    with tempfile.TemporaryDirectory() as folder, s3(Path(folder)), pool(Path(folder)):
        home = Path(folder, "home")
        _make_home(home, arguments)
        check = Check(home, arguments)
        check.table()
        if arguments.kills:
            check.kills()
        if check.is_wrong:
            sys.exit(1)


@contextlib.contextmanager
def s3(folder: Path) -> Iterator[None]:
    """An emulator of S3 with an empty bucket."""
    import boto3

    with open(folder / "requests.log", "wb") as log:
        command = ["moto_server", "-p", str(stores.PORT)]
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        stores.wait_for_server()
        boto3.client("s3").create_bucket(Bucket=stores.BUCKET)
        yield
    finally:
        server.kill()


@contextlib.contextmanager
def pool(folder: Path) -> Iterator[None]:
    """A worker pool of this machine, which has nothing of the job's directory."""
    command = [sys.executable, "-m", "beam_jobs.worker_pool", "--port", str(POOL_PORT)]
    with open(folder / "pool.log", "wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=child_process.environment(), stdout=log, stderr=log
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _make_home(home: Path, arguments: argparse.Namespace) -> None:
    """A config and its corpus, and a model of it where predictions are wanted."""
    rng = random.Random(1)
    (home / "corpus").mkdir(parents=True)
    (home / "config.yaml").write_text(CONFIG)
    words = [f"word{i}" for i in range(2000)]
    for part in range(4):
        with open(home / f"corpus/{part}.jsonl", "w") as stream:
            for _ in range(arguments.documents // 4):
                text = " ".join(rng.choices(words, k=rng.randint(20, 200)))
                labels = rng.sample([f"l{i}" for i in range(20)], 2)
                stream.write(json.dumps({"text": text, "labels": labels}) + "\n")
    if arguments.predict:
        for command in ("beam_jobs.preprocess", "trainer.task train", "trainer.task export"):
            module, *stage = command.split()
            subprocess.run(
                [sys.executable, "-m", module, *stage, "--config", "config.yaml"],
                cwd=home,
                env=child_process.environment(),
                check=True,
                stdout=subprocess.DEVNULL,
            )


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a run ended: its status, all that it printed, and how long it took."""

    status: int
    output: str
    seconds: float

    @property
    def last_line(self) -> str:
        return (self.output.strip().splitlines() or ["nothing was printed"])[-1]


class Check:
    """Runs of the jobs in a home, and what is compared."""

    def __init__(self, home: Path, arguments: argparse.Namespace):
        self._home, self._given = home, arguments
        self._expected: dict[str, dict[str, bytes]] = {}
        self.is_wrong = False

    def start(self, engine: str, stage: str, place: str) -> subprocess.Popen:
        """Starts a stage on an engine, in a session of its own."""
        module = "beam_jobs.preprocess" if stage == "preprocess" else "beam_jobs.predict"
        job = ["--config", "config.yaml"]
        if stage == "preprocess":
            job += ["--set", f"output.dataset_dir={place}"]
        else:
            job += ["--model", "model", "--output", place]
        options = [f"--s3_endpoint_url={stores.ADDRESS}", *self._options(engine)]
        if engine in ("in_memory", "local"):
            command = [sys.executable, "-m", module, *job, "--", *options]
        else:
            script = ROOT / f"scripts/run_{engine.removesuffix('_pool')}.sh"
            command = [str(script), "--module", module, *job, "--", *options]
        folder = os.path.dirname(sys.executable)
        path = {"PATH": os.pathsep.join((folder, os.environ["PATH"]))}
        return subprocess.Popen(
            command,
            cwd=self._home,
            env=child_process.environment() | path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def _options(self, engine: str) -> list[str]:
        """What Beam is given for an engine, besides what its script gives."""
        if engine == "in_memory":
            return ["--direct_running_mode=in_memory"]
        if engine == "local":
            return ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
        if not engine.endswith("_pool"):
            return []
        address = f"localhost:{POOL_PORT}" if engine == "prism_pool" else self._given.pool
        options = ["--environment_type=EXTERNAL", f"--environment_config={address}"]
        if engine == "flink_pool":
            options.append(f"--flink_master={self._given.flink_master}")
        if engine == "spark_pool":
            options.append(f"--spark_master_url={self._given.spark_master}")
        return options

    def run(self, engine: str, stage: str, place: str) -> Ended:
        started = time.monotonic()
        return _end(self.start(engine, stage, place), started)

    def table(self) -> None:
        """Prints a row for every engine, place and stage."""
        row = "| {:<10} | {:<4} | {:<10} | {:>7} | {}"
        print(row.format("engine", "place", "stage", "seconds", "what happened"), flush=True)
        for engine in ("in_memory", *self._given.engines):
            if engine == "in_memory" and self._expected:
                continue
            for stage in ("preprocess", "predict")[: 2 if self._given.predict else 1]:
                for name, place in self._places(engine, stage).items():
                    seconds, what = self._cell(engine, stage, place)
                    print(row.format(engine, name, stage, seconds, what), flush=True)

    def _places(self, engine: str, stage: str) -> dict[str, str]:
        name = f"{engine}-{stage}"
        places_of_it = {"disk": str(self._home / name), "S3": f"s3://{stores.BUCKET}/{name}"}
        if engine in ("flink_pool", "spark_pool"):
            del places_of_it["S3"]  # its emulator is on this machine
        return places_of_it

    def _cell(self, engine: str, stage: str, place: str) -> tuple[str, str]:
        """(seconds, what happened) of a run."""
        for master in ("flink", "spark"):
            if engine == f"{master}_pool" and not getattr(self._given, f"{master}_master"):
                return "", f"skipped: no --{master}-master"
        ended = self.run(engine, stage, place)
        seconds = f"{ended.seconds:.1f}"
        if ended.status == 2:
            is_there = not any(word in ended.last_line for word in ("found", "cannot get"))
            return seconds, f"{'refused' if is_there else 'skipped'}: {ended.last_line}"
        if ended.status:
            self.is_wrong = True
            return seconds, f"FAILED with status {ended.status}: {ended.last_line}"
        made = stores.contents(place)
        same = made == self._expected.setdefault(stage, made)
        self.is_wrong |= not same
        return seconds, f"ran, {'the same bytes' if same else 'OTHER BYTES'}: {len(made)} files"

    def kills(self) -> None:
        """Kills each engine's runs over S3, and prints what came of it."""
        row = "| {:<10} | {:<9} | {:>5} | {:>14} | {:>9} | {}"
        heads = ("engine", "killed", "kills", "runs that ended", "published", "the run after")
        print(row.format(*heads), flush=True)
        for engine in self._given.engines:
            if engine in ("in_memory", "flink_pool", "spark_pool"):
                continue
            for victim in ("worker", "submitter"):
                self._kill(engine, victim, (self._given.kills + (victim == "worker")) // 2, row)

    def _kill(self, engine: str, victim: str, kills: int, row: str) -> None:
        rng = random.Random(f"{self._given.seed} {engine} {victim}")
        place = f"s3://{stores.BUCKET}/killed-{engine}-{victim}"
        timed = self.run(engine, "preprocess", f"{place}-timed")
        if timed.status:
            print(row.format(engine, victim, 0, "", "", f"skipped: {timed.last_line}"), flush=True)
            return
        seen: collections.Counter = collections.Counter()
        duration = timed.seconds
        while seen["kills"] < kills:
            started = time.monotonic()
            process = self.start(engine, "preprocess", place)
            is_killed = _kill_one(process, victim, rng.uniform(0.1, 1.0) * duration)
            ended = _end(process, started)
            seen["kills"] += is_killed
            if not is_killed:
                duration = min(duration, ended.seconds)
            seen["ended well"] += ended.status == 0
            found = places.list_files(place)
            if manifests.MANIFEST in found:
                manifests.load(place)  # raises unless every file is there in its size
                seen["published"] += 1
                places.delete_directory(place)
        after = self.run(engine, "preprocess", place)
        same = not after.status and stores.contents(place) == self._expected["preprocess"]
        self.is_wrong |= not same
        what = "the same bytes and nothing else" if same else f"WRONG: {after.last_line}"
        columns = (seen["kills"], f"{seen['ended well']} well", seen["published"])
        print(row.format(engine, victim, *columns, what), flush=True)


def _end(process: subprocess.Popen, started: float) -> Ended:
    try:
        output, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output = process.communicate()[0] + f"\nstill running after {SECONDS} s"
    return Ended(process.returncode, output, time.monotonic() - started)


def _kill_one(process: subprocess.Popen, victim: str, seconds: float) -> bool:
    """Kills a run's submitter with all that it started, or one of its workers, so many seconds
    after its start, when it has one. False: the run had ended.
    """
    deadline = time.monotonic() + seconds
    while process.poll() is None:
        found = _workers(process.pid) if victim == "worker" else [process.pid]
        if time.monotonic() >= deadline and found:
            with contextlib.suppress(ProcessLookupError):
                if victim == "worker":
                    os.kill(random.choice(found), signal.SIGKILL)
                else:
                    os.killpg(process.pid, signal.SIGKILL)
                return True
        time.sleep(0.05)
    return False


def _workers(session: int) -> list[int]:
    """The worker processes of this machine that belong to a session, or to the worker pool."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,sid=,stat=,args="], capture_output=True, text=True
    ).stdout
    rows = [line.split(None, 3) for line in listed.splitlines()]
    sessions: Sequence[int] = (session, os.getsid(0))
    return [
        int(pid)
        for pid, sid, state, command in rows
        if int(sid) in sessions
        and not state.startswith("Z")
        and any(mark in command for mark in WORKERS)
        and "worker_pool" not in command
    ]


if __name__ == "__main__":
    run_main(main)
