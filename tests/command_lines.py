"""Running the command lines as a user would."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[1]


def run_module(
    module: str, *arguments: str, cwd: Path, stdin: str | None = None, timeout: float = 300
) -> subprocess.CompletedProcess:
    """Runs `python -m module arguments` in `cwd`, as a user would."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_NUM_INTRAOP_THREADS": "2"}
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def succeed(module: str, *arguments: str, cwd: Path, **kwargs) -> str:
    """Its stdout; the test fails with all output if the command does not end with status 0."""
    result = run_module(module, *arguments, cwd=cwd, **kwargs)
    assert result.returncode == 0, (
        f"{module} {arguments}: status {result.returncode}\n{result.stdout}\n{result.stderr}"
    )
    return result.stdout


def fail_cleanly(module: str, *arguments: str, cwd: Path, **kwargs) -> str:
    """The one message of a command that ends with status 2 and without a traceback."""
    result = run_module(module, *arguments, cwd=cwd, **kwargs)
    assert result.returncode == 2, f"status {result.returncode}\n{result.stdout}\n{result.stderr}"
    assert "Traceback" not in result.stderr and "Traceback" not in result.stdout
    assert result.stderr.count("error: ") == 1, result.stderr
    return result.stderr


def skip_without(what: str, reason: str) -> NoReturn:
    """Skips a test for want of `what`, such as "prism"; fails it where MULTIHOT_REQUIRE, a list with commas, names that, as CI does."""
    if what in os.environ.get("MULTIHOT_REQUIRE", "").split(","):
        pytest.fail(f"{what} is required by MULTIHOT_REQUIRE: {reason}")
    pytest.skip(reason)
