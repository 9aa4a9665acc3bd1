"""The job on other engines: the bytes of the local runner, and no loss where a worker dies."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from beam_jobs.contract import child_process
from beam_jobs.contract import manifest as manifests
from tests.command_lines import ROOT, skip_without, succeed

pytestmark = pytest.mark.slow
CONFIG = """
name: tiny
data: {source: custom, reader: 'engine_source:Made', max_reject_fraction: 0.1}
labels: {min_count: 2, keep_unlabeled: false}
splits: {method: stratified, train: 0.6, validation: 0.2, test: 0.2}
output: {shards: 3}
"""
# Eight files, each of which is read on its own as it says it is large. With a file `block` in the
# working directory, the first worker that reads the third file waits to be killed.
SOURCE = """
import os, pathlib, time
from multihot import Document, InputFile, Reject

class Made:
    def files(self):
        return [InputFile(f"{i}.txt", os.path.abspath(f"{i}.txt"), 5 << 20) for i in range(8)]

    def read(self, file):
        number = int(file.name[0])
        for i in range(500):
            # Every ninth text is in all files.
            words = [f"w{(i * j + number * (i % 9)) % 97}" for j in range(1, 30)]
            labels = tuple(f"l{i % k}" for k in (3, 7, 19) if i % k < k - 2)
            text = " ".join(words[: 5 + i % 20])
            yield Document(f"{number}-{i}", (text,), labels, 1.0, file.name, i + 1)
        yield Reject(file.name, 501, "broken", "made so", "")
        if number == 2:
            block = pathlib.Path(file.path).with_name("block")
            if block.exists():
                block.rename(block.with_name("blocking"))
                block.with_name("blocking").write_text(str(os.getpid()))
                time.sleep(600)
"""
# A job module as --module takes it: the preprocessing job, which also writes down Beam's metrics.
COUNTING_JOB = """
import json
from beam_jobs.runtime import document_counters, runners
from beam_jobs import preprocess

run = runners.run

def counted_run(pipeline, options):
    result = run(pipeline, options)
    with open("counted.json", "w") as stream:
        json.dump(document_counters.values(result), stream)
    return result

runners.run = counted_run
preprocess.run()
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def make_home(folder: Path) -> Path:
    """A working directory with a source of its own and a job module."""
    folder.mkdir()
    for name, content in {
        "config.yaml": CONFIG,
        "engine_source.py": SOURCE,
        "counting_job.py": COUNTING_JOB,
    }.items():
        (folder / name).write_text(content)
    for i in range(8):
        (folder / f"{i}.txt").touch()
    return folder


def make_job_server(path: Path, engine: str) -> None:
    """A jar that looks like Beam's job server for an engine."""
    with zipfile.ZipFile(path, "w") as jar:
        name = f"{engine.capitalize()}JobServerDriver.class"
        jar.writestr(f"org/apache/beam/runners/{engine}/{name}", b"")


missing: dict[
    str, str
] = {}  # why an engine cannot be had, once that is known: asking takes a while


def start(engine: str, *arguments: str, cwd: Path) -> subprocess.Popen:
    """Starts `scripts/run_ENGINE.sh arguments` in `cwd`, in a session of its own."""
    if engine in missing:
        skip_without(engine, missing[engine])
    # The workers find the test's source by PYTHONPATH, and the script finds this Python by PATH.
    path = {
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
        "PYTHONPATH": str(cwd),
    }
    command = [str(ROOT / f"scripts/run_{engine}.sh"), *arguments]
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=os.environ | path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(engine: str, process: subprocess.Popen, *, status: int) -> str:
    """What it printed; skips without the engine, and fails if the status is another."""
    try:
        output, _ = process.communicate(
            timeout=900
        )  # the first time the engine is fetched or built
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(f"still running:\n{process.communicate()[0]}") from None
    if process.returncode == 2 and any(cause in output for cause in ("found", "cannot get")):
        missing[engine] = output.strip().splitlines()[-1]
        skip_without(engine, missing[engine])
    assert process.returncode == status, f"status {process.returncode}\n{output}"
    return output


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> Path:
    """A home in which the job has run on the local runner. Read it only."""
    home = make_home(tmp_path_factory.mktemp("local") / "home")
    succeed("beam_jobs.preprocess", "--config", "config.yaml", cwd=home)
    return home


@pytest.mark.parametrize("engine", ["flink", "spark", "prism"])
def test_an_engine_writes_the_bytes_of_the_local_runner_and_counts_as_the_manifest(
    local, tmp_path, engine
):
    home = make_home(tmp_path / "home")
    finish(
        engine,
        start(engine, "--module", "counting_job", "--config", "config.yaml", cwd=home),
        status=0,
    )
    assert contents(home / "out") == contents(local / "out")
    counts = manifests.load(home / "out/tiny/dataset").counts
    assert (
        counts.read == 4008
        and counts.rejected == {"broken": 8}
        and counts.duplicates
        and counts.dropped_without_labels
    )
    expected = counts.model_dump() | {"rejected": sum(counts.rejected.values())}
    del expected["written_without_labels"]
    counted = json.loads((home / "counted.json").read_text())
    assert {name: number for name, number in counted.items() if number} == {
        name: number for name, number in expected.items() if number
    }


@pytest.mark.parametrize("engine", ["flink", "spark", "prism"])
def test_an_engine_writes_the_bytes_of_the_local_runner_from_real_data(tmp_path, engine):
    data = ROOT / "../shared/data/xed"
    if not data.exists():
        pytest.skip("no ../shared/data")
    arguments = (
        "--config",
        "configs/xed.yaml",
        "--set",
        f"data.inputs=[{data.resolve()}/*.tsv]",
        "--set",
        f"output.dataset_dir={tmp_path / 'dataset'}",
    )
    finish(engine, start(engine, *arguments, cwd=ROOT), status=0)
    (tmp_path / "dataset").rename(tmp_path / "engine")
    succeed("beam_jobs.preprocess", *arguments, cwd=ROOT)
    assert contents(tmp_path / "engine") == contents(tmp_path / "dataset")


def test_workers_of_a_pool_that_has_not_the_users_module_write_the_bytes_of_the_local_runner(
    local, tmp_path
):
    home = make_home(tmp_path / "home")
    (tmp_path / "apitools.py").write_text("raise ImportError")  # as without the extra `gcp`
    pool = subprocess.Popen(
        [sys.executable, "-m", "beam_jobs.worker_pool", "--port", "0"],
        cwd=tmp_path,
        env=child_process.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        started = pool.stdout.readline()
        assert started.startswith("worker pool at "), started
        address = started.split()[3].removesuffix(":")
        workers = ("--environment_type=EXTERNAL", f"--environment_config={address}")
        process = start("prism", "--config", "config.yaml", "--", *workers, cwd=home)
        finish("prism", process, status=0)
    finally:
        pool.terminate()
        printed, _ = pool.communicate(timeout=60)
    assert contents(home / "out") == contents(local / "out")
    assert pool.returncode == 143
    told = [line.split()[:2] for line in printed.splitlines() if " worker " in line]
    assert told == [["started", "worker"], ["ended", "worker"]]


def kill_a_worker(engine: str, home: Path) -> subprocess.Popen:
    """Starts the job and kills a worker process in the middle of it."""
    (home / "block").touch()
    process = start(engine, "--config", "config.yaml", cwd=home)
    deadline = time.monotonic() + 900
    while not (home / "blocking").exists() or not (home / "blocking").stat().st_size:
        if process.poll() is not None or time.monotonic() > deadline:
            finish(engine, process, status=0)
            raise AssertionError("the job ended before a worker could be killed")
        time.sleep(0.05)
    worker = int((home / "blocking").read_text())
    assert worker != process.pid
    os.kill(worker, signal.SIGKILL)
    return process


def test_flink_replaces_a_worker_that_is_killed_and_writes_the_same_bytes(local, tmp_path):
    home = make_home(tmp_path / "home")
    finish("flink", kill_a_worker("flink", home), status=0)
    assert contents(home / "out") == contents(local / "out")


def test_prism_publishes_nothing_after_a_killed_worker_and_the_next_run_gives_the_same_bytes(
    local, tmp_path
):
    home = make_home(tmp_path / "home")
    finish("prism", kill_a_worker("prism", home), status=1)
    assert list((home / "out/tiny").iterdir()) == []
    finish("prism", start("prism", "--config", "config.yaml", cwd=home), status=0)
    assert contents(home / "out") == contents(local / "out")


def test_a_signal_to_a_script_stops_job_engine_and_workers(tmp_path):
    home = make_home(tmp_path / "home")
    (home / "block").touch()
    process = start("prism", "--config", "config.yaml", cwd=home)
    deadline = time.monotonic() + 900
    while not (home / "blocking").exists():
        if process.poll() is not None:
            finish("prism", process, status=143)
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    finish("prism", process, status=143)
    listed = subprocess.run(
        ["ps", "-o", "stat=,args=", "--sid", str(process.pid)], capture_output=True, text=True
    ).stdout
    assert [line for line in listed.splitlines() if not line.startswith("Z")] == []
    assert list((home / "out/tiny").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "none"], "error: --workers: received 'none', expected a number from 1"),
        (["--jar", "nowhere.jar"], "error: --jar: there is no file nowhere.jar"),
        (["--config", "x.yaml", "--jar"], "error: --jar: received no value"),
    ],
)
def test_a_wrong_argument_of_a_script_is_one_message_and_exit_status_2(
    tmp_path, arguments, message
):
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    ended = subprocess.run(
        [ROOT / "scripts/run_flink.sh", *arguments],
        cwd=tmp_path,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (
        ended.returncode == 2 and ended.stderr.startswith(message) and ended.stderr.count("\n") == 1
    )


@pytest.mark.parametrize(
    ("flag", "file", "message"),
    [
        ("--flink-jar", "nowhere.jar", "there is no file nowhere.jar"),
        ("--prism", "text.jar", "text.jar is no program: it begins with b'not '; expected Beam's"),
        ("--spark-jar", "text.jar", "text.jar is no jar: File is not a zip file; expected the jar"),
        (
            "--flink-jar",
            "spark.jar",
            "spark.jar is Beam's job server for Spark; expected the jar of Beam's job ",
        ),
        (
            "--flink-jar",
            "flink.jar",
            "java is Java 8, which is too old for Beam's job servers; expected Java 11",
        ),
    ],
)
def test_a_wrong_program_or_java_ends_the_check_of_engines_before_it_runs_anything(
    tmp_path, flag, file, message
):
    (tmp_path / "text.jar").write_text("not a jar")
    for engine in ("flink", "spark"):
        make_job_server(tmp_path / f"{engine}.jar", engine)
    (tmp_path / "java").write_text("#!/bin/sh\necho 'java version \"1.8.0_392\"' >&2\n")
    (tmp_path / "java").chmod(0o755)
    folders = (str(tmp_path), str(Path(sys.executable).parent), os.environ["PATH"])
    ended = subprocess.run(
        [ROOT / "scripts/check_engines.sh", flag, file],
        cwd=tmp_path,
        env=os.environ | {"PATH": os.pathsep.join(folders)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2 and ended.stdout == ""
    assert message in ended.stderr and ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1


def test_a_job_server_that_cannot_be_had_is_told_in_one_message(tmp_path):
    """With a Maven that finds nothing, in the place of the real one."""
    (tmp_path / "mvn").write_text("#!/bin/sh\necho '[ERROR] Could not find artifact'\nexit 1\n")
    (tmp_path / "mvn").chmod(0o755)
    environment = os.environ | {
        "PATH": os.pathsep.join(
            (str(tmp_path), str(Path(sys.executable).parent), os.environ["PATH"])
        ),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    ended = subprocess.run(
        [ROOT / "scripts/run_spark.sh", "--config", "x.yaml"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    assert "[ERROR] Could not find artifact" in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith(
        "error: Maven cannot get org.apache.beam:beam-runners-spark-3-job-server:"
    )
    assert list((tmp_path / "cache/multihot").iterdir()) == []


@pytest.mark.parametrize(
    ("engine", "option"), [("flink", "--flink-master"), ("spark", "--spark-master-url")]
)
def test_a_job_server_that_does_not_start_fails_the_job_and_nothing_is_published(
    tmp_path, engine, option
):
    """With a Java that ends at once in place of the real one, which writes down its arguments."""
    home = make_home(tmp_path / "home")
    (tmp_path / "java").write_text(
        '#!/bin/sh\n[ "$1" != -version ] || exec echo \'openjdk version "17.0.1" 2021\'\n'
        f'echo no port for me; printf "%s\\n" "$@" >{tmp_path}/arguments\nexit 3\n'
    )
    (tmp_path / "java").chmod(0o755)
    make_job_server(tmp_path / "server.jar", engine)
    environment = os.environ | {
        "PATH": os.pathsep.join(
            (str(tmp_path), str(Path(sys.executable).parent), os.environ["PATH"])
        ),
        "PYTHONPATH": str(home),
    }
    command = [
        ROOT / f"scripts/run_{engine}.sh",
        "--jar",
        tmp_path / "server.jar",
        "--workers",
        "3",
        "--config",
        "config.yaml",
    ]
    ended = subprocess.run(
        command, cwd=home, env=environment, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 1 and "Traceback" not in ended.stderr, ended.stderr
    *_, printed, error = ended.stderr.splitlines()
    assert printed == "job server: no port for me"
    assert error == (
        f"error: Beam's job server for {engine.capitalize()} ended with status 3 before it took "
        "the job, as it says above; nothing is published"
    )
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments[arguments.index("-jar") + 1] == str(tmp_path / "server.jar")
    assert (
        arguments[arguments.index(option) + 1] == {"flink": "[auto]", "spark": "local[3]"}[engine]
    )
    assert list((home / "out/tiny").iterdir()) == []
