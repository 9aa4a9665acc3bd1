"""The preprocessing job as a process: killed, on a full disk, where it may not write."""

import os
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.command_lines import fail_cleanly, succeed
from tests.corpus import contents, corpus_lines, make_home
from tests.system.processes import start_job

MULTI_PROCESSING = ["--", "--direct_running_mode=multi_processing", "--direct_num_workers=1"]


@pytest.mark.parametrize("mode", [[], pytest.param(MULTI_PROCESSING, marks=pytest.mark.slow)])
def test_a_disk_that_takes_no_more_ends_the_command_with_one_message_and_publishes_nothing(
    tmp_path, mode
):
    home = make_home(tmp_path / "home", {"all.jsonl": corpus_lines()})
    process = start_job(
        home, *mode, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
    )
    _, error = process.communicate(timeout=300)
    assert process.returncode == 2, error
    assert error.startswith(
        "error: output.dataset_dir: cannot write out/tiny/dataset: File too large; "
        "nothing is published."
    )
    assert error.count("\n") == 1
    assert list((home / "out/tiny").iterdir()) == []


@pytest.fixture
def mounted(tmp_path):
    """Mounts a small file system as the output directory of a home, until the test ends."""
    home = make_home(tmp_path / "home", {"all.jsonl": corpus_lines()})
    place = home / "out/tiny"
    place.mkdir(parents=True)

    def mount(options: str) -> Path:
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)],
            capture_output=True,
            check=False,
        ).returncode:
            pytest.skip("mounting is not permitted here")
        return home

    yield mount
    subprocess.run(["umount", str(place)], capture_output=True, check=False)


@pytest.mark.skipif(shutil.which("mount") is None, reason="there is no mount command here")
def test_a_full_disk_ends_the_command_with_one_message_and_publishes_nothing(mounted):
    home = mounted("size=300k")
    error = fail_cleanly("beam_jobs.preprocess", "--config", "config.yaml", cwd=home)
    assert error.startswith(
        "error: output.dataset_dir: cannot write out/tiny/dataset: No space left on device; "
        "nothing is published."
    )
    assert error.count("\n") == 1
    assert list((home / "out/tiny").iterdir()) == []


@pytest.mark.skipif(shutil.which("mount") is None, reason="there is no mount command here")
def test_a_place_that_may_not_be_written_is_told_before_any_work(mounted):
    home = mounted("ro")
    error = fail_cleanly("beam_jobs.preprocess", "--config", "config.yaml", cwd=home)
    assert error == (
        f"error: output.dataset_dir: cannot write in {home / 'out/tiny'}: Read-only file system; "
        "expected a directory you may write\n"
    )


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A home in which the job has run. Read it only."""
    home = make_home(tmp_path_factory.mktemp("base") / "home", {"all.jsonl": corpus_lines()})
    succeed("beam_jobs.preprocess", "--config", "config.yaml", cwd=home)
    return home


@pytest.mark.slow
@pytest.mark.parametrize("mode", [[], MULTI_PROCESSING])
def test_a_killed_run_publishes_nothing_and_the_next_one_gives_the_same_bytes(base, tmp_path, mode):
    home = make_home(tmp_path / "home", {"all.jsonl": corpus_lines()})
    process = start_job(home, *mode)
    place = home / "out/tiny"
    deadline = time.monotonic() + 240
    while (
        not list(place.glob("dataset/*/work-*/*.arrow"))
        and process.poll() is None
        and time.monotonic() < deadline
    ):
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (place / "dataset/manifest.json").exists()
    assert list(place.glob("dataset/*/work-*"))
    succeed("beam_jobs.preprocess", "--config", "config.yaml", cwd=home)
    assert contents(home / "out") == contents(base / "out")
    assert [path.name for path in place.iterdir()] == ["dataset"]
