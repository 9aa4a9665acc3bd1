"""The benchmarks run, and say what they measured."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_lines import ROOT

pytestmark = pytest.mark.slow


def output_of(script: str, *arguments: str, cwd: Path = ROOT) -> str:
    result = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / script), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_trial_of_the_training_benchmark_prints_rates():
    output = output_of("benchmark_training.py", "--quick", "input")
    assert re.search(
        r"input: 3,750 documents .*\n +[\d,]+/s +[\d,]+/core s \(target 40,000/core s\)", output
    ), output


def test_a_trial_of_the_preprocessing_benchmark_finds_the_same_bytes_and_records():
    output = output_of(
        "benchmark_preprocessing.py", "--documents", "2000", "--naive-documents", "4000"
    )
    assert re.search(
        r"job / plain: [\d.]+ x the documents/s; \d\d files with the same bytes", output
    ), output
    assert re.search(r"[1-9][\d,]* records the same on its sample", output), output


def test_the_serving_benchmark_prints_a_row_of_figures_for_each_model(trained):
    models = ("out/small/model", "out/small/model/1")
    arguments = (*models, "--requests", "5", "--batches", "2")
    header, *rows = output_of("benchmark_serving.py", *arguments, cwd=trained.root).splitlines()
    assert header.split() == "MB load s cpu s documents/s p50 ms p95 ms p99 ms cpu ms model".split()
    assert [row.split()[-1] for row in rows] == list(models)
    for row in rows:
        assert all(float(figure.replace(",", "")) > 0 for figure in row.split()[:-1]), row
