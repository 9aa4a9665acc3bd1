"""The benchmark runs, and says what it measured."""

import re
import subprocess
import sys

import pytest

from tests.command_lines import ROOT

pytestmark = pytest.mark.slow


def test_a_trial_of_the_training_benchmark_prints_rates():
    command = [sys.executable, str(ROOT / "scripts/benchmark_training.py"), "--quick", "input"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stderr
    assert re.search(r"input: 3,750 documents .*\n +[\d,]+/s +[\d,]+/core s \(target 40,000/core s\)", result.stdout), result.stdout
