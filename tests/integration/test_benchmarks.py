"""The benchmarks say what they measured. What they start runs in this process but where told."""

import contextlib
import io
import multiprocessing.pool
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from scripts import measured_process
from scripts.measured_process import Measured, measure
from tests.command_lines import succeed
from tests.scripts import load_script

DOCUMENTS = 400  # as if each took 0.01 s


def test_a_trial_of_the_training_benchmark_prints_rates(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmark_training.py", "--quick", "input"])
    benchmark = load_script("benchmark_training")
    measure, _ = benchmark.MEASURES["input"]
    monkeypatch.setitem(benchmark.MEASURES, "input", (measure, 16 * 1024))
    benchmark.main()
    output = capsys.readouterr().out
    assert re.search(
        r"input: 1,024 documents .*\n +[\d,]+/s +[\d,]+/core s \(target 40,000/core s\)", output
    ), output


@pytest.fixture
def preprocessing(monkeypatch):
    """The benchmark of preprocessing, whose programs run in this process, in memory."""
    benchmark = load_script("benchmark_preprocessing")
    threads = types.SimpleNamespace(Pool=multiprocessing.pool.ThreadPool)
    monkeypatch.setattr(
        benchmark.plain, "multiprocessing", types.SimpleNamespace(get_context=lambda _: threads)
    )

    def in_this_process(arguments: list[str], cwd: Path) -> Measured:
        printed = ""
        if arguments[0] == "-m":
            in_memory = ["--", "--direct_running_mode=in_memory"]
            printed = succeed(*arguments[1 : arguments.index("--")], *in_memory, cwd=cwd)
        else:
            monkeypatch.chdir(cwd)
            monkeypatch.setattr(sys, "argv", arguments)
            benchmark.main()
        seconds = int(re.search(r"\d+", cwd.name)[0]) / 100
        return Measured(seconds, seconds, 300.0, 0.0, printed)

    monkeypatch.setattr(benchmark, "measure", in_this_process)
    return benchmark


def test_the_preprocessing_benchmark_finds_the_same_bytes_and_records(
    preprocessing, monkeypatch, capsys
):
    sizes = ["--documents", str(DOCUMENTS), "--naive-documents", str(DOCUMENTS // 2)]
    monkeypatch.setattr(sys, "argv", ["benchmark_preprocessing.py", *sizes, "--workers", "2"])
    preprocessing.main()
    output = capsys.readouterr().out
    assert re.search(r"^job +400 +4\.0 +100 +300$", output, re.MULTILINE), output
    assert re.search(
        r"job / plain: 1\.00 x the documents/s; \d\d files with the same bytes", output
    ), output
    assert re.search(
        r"job / naive: 1\.0 x .*, naive at 100 documents/s .* [1-9]\d* records the same", output
    ), output


def test_seconds_memory_disk_and_output_of_a_program_are_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(measured_process, "SAMPLE_SECONDS", 0.05)  # many, on a busy machine too
    program = """
import pathlib, sys, time
held = bytearray(b"x" * (64 << 20))
pathlib.Path("file").write_bytes(held[: 4 << 20])
time.sleep(1.2)
pathlib.Path("file").unlink()
print("done")
"""
    measured = measure(["-c", program], tmp_path, watched=tmp_path)
    assert measured.seconds > 1.2 and measured.peak_mb > 64 and measured.printed == "done\n"
    assert measured.peak_disk_mb == pytest.approx((4 << 20) / 1e6)
    assert 0 < measured.processor_seconds < measured.seconds
    with pytest.raises(SystemExit, match="ended with status 3:\n.*wrong"):
        measure(["-c", "import sys; print('wrong'); sys.exit(3)"], tmp_path)


@pytest.mark.slow
def test_the_serving_benchmark_prints_a_row_of_figures_for_each_model(trained, monkeypatch, capsys):
    """The first model is measured in a process of its own, as every model is."""
    benchmark = load_script("benchmark_serving")
    models = ("out/small/model", "out/small/model/1")

    def run(command: list[str], **options):
        if command[2] == models[0]:
            return subprocess.run(command, **options)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            benchmark.main(command[2:])
        return types.SimpleNamespace(returncode=0, stdout=printed.getvalue())

    monkeypatch.chdir(trained.root)
    stand_in = types.SimpleNamespace(run=run, PIPE=subprocess.PIPE)
    monkeypatch.setattr(benchmark, "subprocess", stand_in)
    benchmark.main([*models, "--requests", "5", "--batches", "2"])
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == "MB load s cpu s documents/s p50 ms p95 ms p99 ms cpu ms model".split()
    assert [row.split()[-1] for row in rows] == list(models)
    for row in rows:
        assert all(float(figure.replace(",", "")) > 0 for figure in row.split()[:-1]), row
