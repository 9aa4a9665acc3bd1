#!/usr/bin/env python3
"""Preprocessing to an object store beside a local disk: bytes, time, requests, and kills.

Starts an emulator of S3 on localhost (moto, in the extra `test`), runs the config's job to a
directory and from and to a bucket, compares every byte, and counts the requests by their kind, with
their price. With --stages it then trains, evaluates, exports and predicts in bulk, all from and to
the bucket, and counts their requests. With --kills it kills the submitter and its workers again and
again, and compares what the run after that makes.

  python scripts/check_object_stores.py tickets.yaml --stages --kills 10
"""

import argparse
import collections
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from beam_jobs.contract import manifest as manifests  # noqa: E402
from beam_jobs.contract import places  # noqa: E402
from beam_jobs.contract.command_line import run_main  # noqa: E402
from beam_jobs.contract.config import Config, load_config  # noqa: E402

PORT = 5790
ADDRESS = f"http://127.0.0.1:{PORT}"
BUCKET = "check"
# Dollars for a million requests to Amazon's S3 or Google Cloud Storage that read objects, and for
# those that write or list them. Deletions are free.
READS, WRITES = 0.4, 5.0
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "x",
    "AWS_SECRET_ACCESS_KEY": "x",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ENDPOINT_URL": ADDRESS,
}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="an experiment whose inputs are local files")
    parser.add_argument("--stages", action="store_true", help="those after preprocessing, too")
    parser.add_argument("--kills", type=int, default=0, help="default: none")
    parser.add_argument("--workers", type=int, default=2, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of kills")
    arguments = parser.parse_args(argv)
    os.environ.update(CREDENTIALS)
    config = load_config(arguments.config)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "requests.log")
        with open(log, "wb") as stream:
            command = ["moto_server", "-p", str(PORT)]
            server = subprocess.Popen(command, stdout=stream, stderr=stream)
        try:
            wait_for_server()
            _check(arguments, config, Path(folder), log)
        finally:
            server.kill()


def _check(arguments: argparse.Namespace, config: Config, folder: Path, log: Path) -> None:
    import boto3

    boto3.client("s3").create_bucket(Bucket=BUCKET)
    inputs = [f"data.inputs={json.dumps(_copied(config, folder))}"]
    job = Job(arguments.config, arguments.workers)
    row = "| {:<6} | {:>9} | {:>9} |"
    print(row.format("place", "seconds", "processor"))
    local, remote = str(folder / "dataset"), f"s3://{BUCKET}/dataset"
    print(row.format("disk", *job.run(local, *inputs)), flush=True)
    before = log.stat().st_size
    print(row.format("S3", *job.run(remote, *inputs)), flush=True)
    counts = manifests.load(local).counts
    _print_requests("preprocess", _read(log, before), counts.read)
    expected = contents(local)
    if contents(remote) != expected:
        sys.exit("error: the bytes on the store differ from those on the disk")
    print(f"the same bytes: {len(expected)} files")
    if arguments.stages:
        settings = [*inputs, f"output.dataset_dir={remote}"]
        _run_stages(arguments.config, settings, folder, log, counts.read)
    if arguments.kills:
        _kill(arguments, job, inputs, expected)


def _run_stages(config: str, settings: list[str], folder: Path, log: Path, documents: int) -> None:
    """Runs what follows on preprocessing, from and to the bucket, and prints the requests."""
    run, model = f"s3://{BUCKET}/run", f"s3://{BUCKET}/model"
    settings = [*settings, f"train.run_dir={run}", f"export.model_dir={model}"]
    given = ["--config", config, *(part for setting in settings for part in ("--set", setting))]
    predict = ["--model", model, "--output", f"s3://{BUCKET}/predictions"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MULTIHOT_CACHE_DIR": str(folder)}
    for title, module, *more in (
        ("train", "trainer.task", "train"),
        ("evaluate", "trainer.task", "evaluate"),
        ("export", "trainer.task", "export"),
        ("predict in bulk", "beam_jobs.predict", *predict),
    ):
        before = log.stat().st_size
        command = [sys.executable, "-m", module, *more, *given]
        ended = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if ended.returncode:
            sys.exit(ended.stdout)
        _print_requests(title, _read(log, before), documents)


def _read(log: Path, start: int) -> str:
    return log.read_bytes()[start:].decode(errors="replace")


class Job:
    """The preprocessing job of a config, as a process."""

    def __init__(self, config: str, workers: int):
        self._command = [sys.executable, "-m", "beam_jobs.preprocess", "--config", config]
        self._options = [
            *("--", "--direct_running_mode=multi_processing", f"--direct_num_workers={workers}"),
            f"--s3_endpoint_url={ADDRESS}",
        ]

    def start(self, place: str, *settings: str) -> subprocess.Popen:
        given = [f"output.dataset_dir={place}", *settings]
        overrides = [part for setting in given for part in ("--set", setting)]
        return subprocess.Popen(
            [*self._command, *overrides, *self._options],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, place: str, *settings: str) -> tuple[str, str]:
        """The seconds of a run, and those of processors."""
        started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        process = self.start(place, *settings)
        output, _ = process.communicate()
        if process.returncode:
            sys.exit(output)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return f"{time.monotonic() - started:.1f}", f"{used:.1f}"


def _kill(
    arguments: argparse.Namespace, job: Job, inputs: list[str], expected: dict[str, bytes]
) -> None:
    """Kills runs at random moments of the time that one takes, then lets one end."""
    rng, place = random.Random(arguments.seed), f"s3://{BUCKET}/killed"
    started = time.monotonic()
    job.run(f"s3://{BUCKET}/timed", *inputs)
    duration = time.monotonic() - started
    killed = with_files = ended = 0
    while killed < arguments.kills:
        process = job.start(place, *inputs)
        try:
            process.wait(rng.uniform(0.1, 1.0) * duration)
            ended += 1
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
        found = places.list_files(place)
        with_files += bool(found)
        if manifests.MANIFEST in found:
            manifests.load(place)  # raises unless every file is there in its size
            places.delete_directory(place)
    job.run(place, *inputs)
    same = contents(place) == expected
    print(
        f"{killed} kills, {with_files} of them after files were written, {ended} runs ended before "
        f"theirs; then one run: {'the same bytes and nothing else' if same else 'OTHER BYTES'}"
    )
    if not same:
        sys.exit(1)


def _copied(config: Config, folder: Path) -> list[str]:
    """The paths of the inputs, copied to the bucket."""
    from beam_jobs.runtime import file_systems
    from beam_jobs.sources import registry

    file_systems.configure(())
    copied = []
    for file in registry.make_reader(config.data).files():
        path = f"s3://{BUCKET}/inputs/{Path(file.path).name}"
        places.write(path, Path(file.path).read_bytes())
        copied.append(path)
    return copied


def contents(place: str) -> dict[str, bytes]:
    return {name: places.read_bytes(places.join(place, name)) for name in places.list_files(place)}


def _print_requests(title: str, log: str, documents: int) -> None:
    kinds = collections.Counter()
    dollars = 0.0
    for method, path in re.findall(r'"([A-Z]+) (\S+) HTTP', log):
        kinds[method, _kind(path)] += 1
        dollars += _price(method, path) / 1e6
    print(f"{title}: requests for {documents:,} documents, and for 10,000 of them:")
    for (method, kind), count in sorted(kinds.items(), key=lambda item: -item[1]):
        print(f"| {method:<6} | {kind:<12} | {count:>6,} | {count * 1e4 / documents:>8,.1f} |")
    total = kinds.total()
    print(f"| all    |              | {total:>6,} | {total * 1e4 / documents:>8,.1f} |")
    print(f"their price: ${dollars:.6f}, for 10,000 documents ${dollars * 1e4 / documents:.6f}")
    sys.stdout.flush()


def _price(method: str, path: str) -> float:
    """Dollars for a million requests of a kind."""
    if method == "DELETE" or re.search(r"\?delete\b", path):
        return 0.0
    is_listing = method == "GET" and _kind(path) == "listings"
    return READS if method in ("GET", "HEAD") and not is_listing else WRITES


def _kind(path: str) -> str:
    name = path.partition("?")[0]
    for kind, pattern in (
        ("input", "/inputs/"),
        ("spilled rows", "/spill-"),
        ("buckets", r"/work-\w+/\w+-\d{5}\.arrow"),
        ("other work", "/work-"),
        ("shards", r"\.tfrecord-"),
        ("lock", r"/\.lock$"),
        ("checkpoints", "/checkpoints/"),
        ("run", "/run/"),
        ("model", "/model/"),
        ("predictions", "/predictions/"),
        ("listings", rf"/{BUCKET}/?$"),
    ):
        if re.search(pattern, name):
            return kind
    return "other files"


def wait_for_server() -> None:
    import urllib.request

    for _ in range(200):
        try:
            urllib.request.urlopen(ADDRESS).close()
            return
        except OSError:
            time.sleep(0.1)
    sys.exit("error: moto_server does not answer")


if __name__ == "__main__":
    run_main(main)
