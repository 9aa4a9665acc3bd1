#!/usr/bin/env python3
"""Which engines run the Beam jobs, and with which bytes: a table of engine x place x stage.

Writes a corpus, runs preprocessing (and, with --predict, bulk prediction) on Beam's local runner
and on every engine that is found, from and to a disk, from and to an emulator of S3 on localhost
(moto, in the extra `test`), and with --hdfs from and to HDFS, and compares every byte. With --kills
it then kills so many worker processes, and so many submitters, in the middle of runs over S3, and
compares what the run after that makes. What was not run is said at the end.

scripts/check_engines.sh gives it the job servers of Flink and Spark.

  python scripts/check_engines.py --engines local prism --kills 20
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

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from beam_jobs.contract import child_process, places  # noqa: E402
from beam_jobs.contract import manifest as manifests  # noqa: E402
from beam_jobs.contract.command_line import run_main  # noqa: E402
from scripts import check_object_stores as stores  # noqa: E402

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
HDFS_FOLDER = "multihot-check-engines"
CONFIG = """
name: tiny
data: {source: jsonl, inputs: ['corpus/*.jsonl'], id_field: id}
labels: {min_count: 2}
vocabulary: {min_document_count: 1}
output: {shards: 3}
model: {name: bow, embedding_dim: 8}
train: {epochs: 1, batch_size: 64, run_dir: run}
export: {model_dir: model}
"""
TRAINER = "trainer.task"
TO_A_MODEL = (
    "beam_jobs.preprocess",
    f"{TRAINER} train",
    f"{TRAINER} evaluate",
    f"{TRAINER} export",
)
NAME_PLACES = ("config.yaml", "manifest.json", "predictions.json")
# What a process of a worker has in its command line, of whichever kind it is.
WORKERS = ("beam_jobs.worker ", "sdk_worker import SdkHarness")
SECONDS = 900  # for a run, and for the end of one whose worker was killed
VICTIMS = ("worker", "submitter")
# Those that do not go on without a worker that was killed.
WITHOUT_RETRIES = ("local", "prism", "prism_pool")
LOOK_SECONDS = 0.2
RUNS_A_KILL = 3  # at most: some end before they are killed


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--flink-master", help="HOST:PORT of a cluster, beside worker pools")
    parser.add_argument("--spark-master", help="spark://HOST:PORT, beside worker pools")
    parser.add_argument("--pool", default="localhost:50000", help="of them (default %(default)s)")
    parser.add_argument("--hdfs", metavar="HOST:PORT", help="of WebHDFS: another place")
    parser.add_argument("--documents", type=int, default=4000, help="default %(default)s")
    parser.add_argument("--predict", action="store_true", help="bulk prediction, too")
    parser.add_argument(
        "--kills", type=int, default=0, help="of each engine and victim (default: none)"
    )
    parser.add_argument(
        "--kills-only", action="store_true", help="without the table: whole runs were compared"
    )
    parser.add_argument(
        "--seconds", type=float, default=1e9, help="begin no more of them after so many"
    )
    parser.add_argument("--victims", nargs="+", choices=VICTIMS, default=VICTIMS)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of kills")
    arguments = parser.parse_args(argv)
    os.environ.update(stores.CREDENTIALS)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    # Here rather than in /tmp, if TMPDIR says so: a cluster's workers must reach it.
    with tempfile.TemporaryDirectory() as folder, s3(Path(folder)), pool(Path(folder)) as session:
        home = Path(folder, "home")
        _make_home(home, arguments)
        roots = {"disk": str(home), "S3": f"s3://{stores.BUCKET}"}
        if arguments.hdfs:
            roots["HDFS"] = f"hdfs://{HDFS_FOLDER}"
            places.configure(hdfs_options(arguments.hdfs))
        for file in (home / "corpus").iterdir():
            for root in list(roots.values())[1:]:
                places.write(f"{root}/corpus/{file.name}", file.read_bytes())
        check = Check(home, roots, arguments, session)
        if not arguments.kills_only:
            check.table()
        if arguments.kills:
            check.kills()
        check.say_what_was_not_run()
        if "HDFS" in roots:
            places.delete_directory(roots["HDFS"])
        if check.is_wrong:
            sys.exit(1)


def hdfs_options(address: str) -> dict[str, str]:
    """Beam's options for HDFS at HOST:PORT."""
    host, _, port = address.partition(":")
    return {"hdfs_host": host, "hdfs_port": port, "hdfs_user": "multihot"}


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
def pool(folder: Path) -> Iterator[int]:
    """A worker pool of this machine, which has nothing of the job's directory; its session."""
    command = [sys.executable, "-m", "beam_jobs.worker_pool", "--port", str(POOL_PORT)]
    with open(folder / "pool.log", "wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=_environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process.pid
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
            for i in range(arguments.documents // 4):
                text = " ".join(rng.choices(words, k=rng.randint(20, 200)))
                labels = rng.sample([f"l{i}" for i in range(20)], 2)
                row = {"id": f"{part}-{i}", "text": text, "labels": labels}
                stream.write(json.dumps(row) + "\n")
    if arguments.predict:
        for command in TO_A_MODEL:
            subprocess.run(
                [sys.executable, "-m", *command.split(), "--config", "config.yaml"],
                cwd=home,
                env=_environment(),
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


@dataclasses.dataclass(frozen=True)
class Kill:
    """What is killed in a run.

    Attributes:
      victim: a worker, or the submitter with all that it started.
      moment: seconds after the start of the run's first worker.
      rng: chooses the worker.
    """

    victim: str
    moment: float
    rng: random.Random

    def is_due(self, first: float | None, workers: Sequence[int]) -> bool:
        """Whether to kill now, where the first worker started at `first` and these are alive."""
        has_victim = bool(workers) or self.victim == "submitter"
        return first is not None and has_victim and time.monotonic() - first >= self.moment

    def carry_out(self, process: subprocess.Popen, workers: Sequence[int]) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self.victim == "worker":
                os.kill(self.rng.choice(workers), signal.SIGKILL)
            else:
                os.killpg(process.pid, signal.SIGKILL)


@dataclasses.dataclass(frozen=True)
class Followed:
    """A run that was followed to its end.

    Attributes:
      ended: how it ended.
      is_killed: whether it ran when its kill was due.
      windows: seconds after the start of its first worker in which there was a victim, by victim.
    """

    ended: Ended
    is_killed: bool
    windows: dict[str, float]


class Check:
    """Runs of the jobs in a home, and what is compared.

    Args:
      home: a folder with config and corpus.
      roots: where inputs and outputs are, by the kind of place: folders with the corpus in it.
      arguments: of the command line.
      pool_session: the session of the worker pool's processes.
    """

    def __init__(
        self, home: Path, roots: dict[str, str], arguments: argparse.Namespace, pool_session: int
    ):
        self._home, self._roots = home, roots
        self._given, self._pool = arguments, pool_session
        self._expected: dict[tuple[str, str], dict[str, bytes]] = {}  # by stage and place
        self._not_run: dict[str, str] = {}  # why, by the engine
        self.is_wrong = False

    def start(self, engine: str, stage: str, place: str) -> subprocess.Popen:
        """Starts a stage on an engine, in a session of its own."""
        module = "beam_jobs.preprocess" if stage == "preprocess" else "beam_jobs.predict"
        job = ["--config", "config.yaml"]
        if places.is_remote(place):
            root = place[: place.index("/", place.index("://") + 3)]
            job += ["--set", f"data.inputs=['{root}/corpus/*.jsonl']"]
        if stage == "preprocess":
            job += ["--set", f"output.dataset_dir={place}"]
        else:
            job += ["--model", "model", "--output", place]
        options = [f"--s3_endpoint_url={stores.ADDRESS}", *self._options(engine)]
        if self._given.hdfs:
            options += [f"--{name}={o}" for name, o in hdfs_options(self._given.hdfs).items()]
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
            env=_environment() | path,
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
                    seconds, what = self._cell(engine, stage, name, place)
                    print(row.format(engine, name, stage, seconds, what), flush=True)

    def _places(self, engine: str, stage: str) -> dict[str, str]:
        places_of_it = {kind: f"{root}/{engine}-{stage}" for kind, root in self._roots.items()}
        if engine in ("flink_pool", "spark_pool"):
            del places_of_it["S3"]  # its emulator is on this machine
        return places_of_it

    def _cell(self, engine: str, stage: str, kind: str, place: str) -> tuple[str, str]:
        """(seconds, what happened) of a run."""
        for master in ("flink", "spark"):
            if engine == f"{master}_pool" and not getattr(self._given, f"{master}_master"):
                self._not_run[engine] = f"no --{master}-master was given"
        if engine in self._not_run:
            return "", "not run"
        ended = self.run(engine, stage, place)
        seconds = f"{ended.seconds:.1f}"
        if ended.status == 2 and any(word in ended.last_line for word in ("found", "cannot get")):
            self._not_run[engine] = ended.last_line.removeprefix("error: ")
            return seconds, "not run"
        if ended.status == 2:
            return seconds, f"refused: {ended.last_line}"
        if ended.status:
            self.is_wrong = True
            return seconds, f"FAILED with status {ended.status}: {ended.last_line}"
        made = stores.contents(place)
        same = made == self._expected.setdefault((stage, kind), made)
        same &= _alike(made) == _alike(self._expected[stage, "disk"])
        self.is_wrong |= not same
        return seconds, f"ran, {'the same bytes' if same else 'OTHER BYTES'}: {len(made)} files"

    def kills(self) -> None:
        """Kills each engine's runs over S3, and prints what came of it."""
        row = "| {:<10} | {:<9} | {:>5} | {:>19} | {:>9} | {:>14} | {}"
        heads = ("engine", "killed", "kills", "after files written", "published", "too late")
        print(row.format(*heads, "the run after"), flush=True)
        if self._given.kills_only:
            place = f"{self._roots['S3']}/in_memory"
            ended = self.run("in_memory", "preprocess", place)
            if ended.status:
                sys.exit(f"error: the run that others are compared with failed:\n{ended.output}")
            self._expected["preprocess", "S3"] = stores.contents(place)
        for engine in self._given.engines:
            if engine in self._not_run or engine in ("in_memory", "flink_pool", "spark_pool"):
                continue
            place = f"{self._roots['S3']}/timed-{engine}"
            timed = self._follow(engine, place)
            for victim in self._given.victims:
                seen = self._kill(engine, victim, timed.windows[victim])
                columns = (seen["kills"], seen["after files"], seen["published"], seen["too late"])
                after = self.run(engine, "preprocess", self._killed(engine, victim))
                made = stores.contents(self._killed(engine, victim))
                same = not after.status and made == self._expected["preprocess", "S3"]
                self.is_wrong |= not same
                what = "the same bytes and nothing else" if same else f"WRONG: {after.last_line}"
                print(row.format(engine, victim, *columns, what), flush=True)

    def _kill(self, engine: str, victim: str, window: float) -> collections.Counter:
        """Kills runs at moments that are spread over those of a run, and counts what is seen.

        Args:
          engine: where they run.
          victim: what is killed.
          window: seconds after the start of a run's first worker in which there is a victim.
        """
        rng = random.Random(f"{self._given.seed} {engine} {victim}")
        place, kills = self._killed(engine, victim), self._given.kills
        parts = rng.sample(range(kills), kills)
        seen: collections.Counter = collections.Counter()
        deadline = time.monotonic() + self._given.seconds
        for _ in range(RUNS_A_KILL * kills):
            if seen["kills"] == kills or time.monotonic() > deadline:
                break
            moment = window * (parts[seen["kills"]] + rng.random()) / kills
            run = self._follow(engine, place, Kill(victim, moment, rng))
            goes_on = victim == "worker" and engine not in WITHOUT_RETRIES
            is_late = not run.is_killed or (run.ended.status == 0 and not goes_on)
            seen["too late" if is_late else "kills"] += 1
            if is_late:
                window = min(window, run.windows[victim])
            found = places.list_files(place)
            seen["after files"] += bool(found) and not is_late
            if manifests.MANIFEST in found:
                manifests.load(place)  # raises unless every file is there in its size
                seen["published"] += not is_late
                places.delete_directory(place)
        return seen

    def _follow(self, engine: str, place: str, kill: Kill | None = None) -> Followed:
        """Preprocesses and, on the way, kills what is to be killed."""
        process = self.start(engine, "preprocess", place)
        sessions = {process.pid, self._pool} if engine.endswith("_pool") else {process.pid}
        started = time.monotonic()
        first = last = None
        is_killed = False
        output = None
        while output is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                output, _ = process.communicate(timeout=LOOK_SECONDS)
            now = time.monotonic()
            if output is None and now - started > SECONDS:
                return Followed(
                    _end(process, started, seconds=0), is_killed, dict.fromkeys(VICTIMS, 0)
                )
            # To look at all processes takes time of a processor, which the run needs.
            is_of_use = kill is None or first is None or now - first >= kill.moment
            is_looked_at = output is None and not is_killed and is_of_use
            workers = _workers(sessions) if is_looked_at else ()
            if workers:
                first, last = first or now, now
            if kill is not None and kill.is_due(first, workers) and not is_killed:
                kill.carry_out(process, workers)
                is_killed = True
        first, last = first or now, last or now
        ended = Ended(process.returncode, output, now - started)
        until = now if kill else last  # where there was to be a kill, not each moment was looked at
        return Followed(ended, is_killed, {"worker": until - first, "submitter": now - first})

    def _killed(self, engine: str, victim: str) -> str:
        return f"{self._roots['S3']}/killed-{engine}-{victim}"

    def say_what_was_not_run(self) -> None:
        """Names the engines that were to be checked and are not here."""
        for engine, why in self._not_run.items():
            # The flag of the engine's own script is called otherwise in that of all engines.
            flag = f"--{engine}-jar of scripts/check_engines.sh"
            print(f"NOT RUN: {engine}: {why.replace('--jar', flag)}", flush=True)


def _environment() -> dict[str, str]:
    """Of runs and of the pool: the address of S3 reaches them by Beam's option alone."""
    return {k: v for k, v in child_process.environment().items() if k != "AWS_ENDPOINT_URL"}


def _alike(files: dict[str, bytes]) -> dict[str, bytes]:
    """Those that do not say where inputs and output are, by their names in the generation."""
    names = {name: name.rpartition("/")[2] for name in files}
    return {names[name]: files[name] for name in files if names[name] not in NAME_PLACES}


def _end(process: subprocess.Popen, started: float, *, seconds: float = SECONDS) -> Ended:
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output = process.communicate()[0] + f"\nstill running after {SECONDS} s"
    return Ended(process.returncode, output, time.monotonic() - started)


def _workers(sessions: set[int]) -> list[int]:
    """The worker processes of this machine that belong to the sessions."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,sid=,stat=,args="], capture_output=True, text=True
    ).stdout
    rows = [line.split(None, 3) for line in listed.splitlines()]
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
