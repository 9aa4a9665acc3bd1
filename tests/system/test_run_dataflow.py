"""The Dataflow script without an account: wrong arguments, and the command that it runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_lines import ROOT

GIVEN = ["--project", "p", "--region", "r", "--temp_location", "gs://bucket/tmp"]


# In place of Python: prints what it is to run, and says whether Google Cloud libraries are there.
STAND_IN = """#!/bin/sh
case "$1 $2" in
  "-m "*) printf '%s\\n' "$@" ;;
  *gcsio*) exit {status} ;;
  *) exec {python} "$@" ;;
esac
"""


def run(folder: Path, *arguments: str, has_libraries: bool = True) -> subprocess.CompletedProcess:
    """The script, with the stand-in as its Python."""
    python = folder / "python"
    python.write_text(STAND_IN.format(status=int(not has_libraries), python=sys.executable))
    python.chmod(0o755)
    environment = os.environ | {"PATH": os.pathsep.join((str(folder), os.environ["PATH"]))}
    return subprocess.run(
        [ROOT / "scripts/run_dataflow.sh", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (GIVEN[2:], "error: --project: received none, expected"),
        (GIVEN[:2] + GIVEN[4:], "error: --region: received none, expected"),
        (GIVEN[:4], "error: --temp_location: received '', expected a folder such as gs://"),
        (
            GIVEN[:5] + ["/tmp/x"],
            "error: --temp_location: received '/tmp/x', expected a folder such as gs://",
        ),
        (GIVEN[:5], "error: --temp_location: received no value"),
    ],
)
def test_a_wrong_argument_is_one_message_and_exit_status_2(tmp_path, arguments, message):
    ended = run(tmp_path, "--config", "x.yaml", *arguments)
    assert (
        ended.returncode == 2 and ended.stderr.startswith(message) and ended.stderr.count("\n") == 1
    )
    assert ended.stdout == ""


def test_the_job_gets_its_own_arguments_and_beam_what_dataflow_needs_and_the_rest(tmp_path):
    ended = run(
        tmp_path,
        *GIVEN,
        "--config",
        "a b.yaml",
        "--module",
        "some.job",
        "--force",
        "--",
        "--num_workers=3",
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [
        *("-m", "some.job", "--config", "a b.yaml", "--force", "--"),
        *(
            "--runner=DataflowRunner",
            "--project=p",
            "--region=r",
            "--temp_location=gs://bucket/tmp",
        ),
        "--num_workers=3",
    ]


def test_missing_libraries_are_told(tmp_path):
    ended = run(tmp_path, *GIVEN, "--config", "x.yaml", has_libraries=False)
    assert ended.returncode == 2 and ended.stderr.endswith(
        "has no Google Cloud libraries; pip install 'multihot[gcp]'\n"
    )
