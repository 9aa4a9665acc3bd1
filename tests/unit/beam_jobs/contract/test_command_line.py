"""Command lines: their shared flags, and how a run ends."""

import argparse
import errno
import io
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from beam_jobs.contract import command_line
from beam_jobs.contract.errors import KnownFailure, UserError

ROOT = Path(__file__).parents[4]
MEMORY = (
    "expected more of it, or less at a time: smaller batches, fewer workers; what was finished "
    "before is whole\n"
)
WHOLE = "what was finished before is whole\n"
SPACE = f"expected a place with more space; {WHOLE}"
READ_ONLY = f"Read-only file system; expected a place that may be written; {WHOLE}"
DENIED = f"expected files that you may read, and places that you may write; {WHOLE}"


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog="job")
    command_line.add_config_arguments(result)
    return result


def test_config_and_every_set_reach_the_config(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("name: x\ndata: {source: python_docstrings}\n")
    arguments = parser().parse_args(
        ["--config", str(file), "--set", "train.epochs=3", "--set", "name=y"]
    )
    config = command_line.config_from(arguments)
    assert (config.name, config.train.epochs) == ("y", 3)


def test_list_keys_needs_no_config_and_ends_with_status_0(capsys):
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(["--list-keys"])
    assert ended.value.code == 0
    assert "learning_rate: number, default 0.01" in capsys.readouterr().out


def test_missing_config_is_wrong_usage(capsys):
    with pytest.raises(SystemExit) as ended:
        parser().parse_args([])
    assert ended.value.code == 2
    assert "--config" in capsys.readouterr().err


def test_main_gets_its_arguments_and_a_good_run_returns():
    received = []
    command_line.run_main(received.append, ["--a", "b"])
    assert received == [["--a", "b"]]


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (UserError("mend this"), 2, "error: mend this\n"),
        (KnownFailure("worker 1 was killed"), 1, "error: worker 1 was killed\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (OSError(errno.ENOSPC, "", "run/x"), 2, f"error: run/x: No space left on device; {SPACE}"),
        (OSError(errno.EROFS, "", "run/x"), 2, f"error: run/x: {READ_ONLY}"),
        (PermissionError(errno.EACCES, "", "a"), 2, f"error: a: Permission denied; {DENIED}"),
        (
            FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"),
            2,
            "error: No usable temporary directory found in ['/tmp']; expected a place with more "
            f"space there, or another folder in TMPDIR; {WHOLE}",
        ),
        (OSError(errno.EFBIG, ""), 2, f"error: cannot write: File too large; {SPACE}"),
        (
            tf.errors.ResourceExhaustedError(
                None, None, "{{node a}} run/x; No space left on device [Op:SaveV2]"
            ),
            2,
            f"error: run/x; No space left on device; {SPACE}",
        ),
        (
            tf.errors.FailedPreconditionError(None, None, "a\nrun/x; Read-only file system\nb"),
            2,
            f"error: run/x; {READ_ONLY}",
        ),
        (MemoryError(), 2, f"error: memory ran out: MemoryError; {MEMORY}"),
        (
            OSError(errno.ENOMEM, "no memory"),
            2,
            f"error: memory ran out: [Errno 12] no memory; {MEMORY}",
        ),
        (
            RuntimeError("can't start new thread"),
            2,
            f"error: memory ran out: can't start new thread; {MEMORY}",
        ),
        (
            tf.errors.ResourceExhaustedError(None, None, "OOM when allocating [1,2]\nmore"),
            2,
            f"error: memory ran out: OOM when allocating [1,2]; {MEMORY}",
        ),
    ],
)
def test_expected_endings_are_one_line_and_a_status(capsys, error, status, told):
    def main(argv):
        raise error

    with pytest.raises(SystemExit) as ended:
        command_line.run_main(main, [])
    assert ended.value.code == status
    assert capsys.readouterr().err == told


def test_a_thread_that_gets_no_memory_ends_the_process_and_is_not_waited_for():
    script = """if True:
        import threading
        from beam_jobs.contract.command_line import run_main

        def fails(thread):
            raise MemoryError

        def main(argv):
            threading.Thread._bootstrap = fails
            threading.Thread().start()

        run_main(main, [])
    """
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 2
    assert ended.stderr == f"error: memory ran out as a thread began; {MEMORY}"


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a defect"),
        FileNotFoundError(errno.ENOENT, "", "x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_defects_keep_their_traceback(error):
    def main(argv):
        raise error

    with pytest.raises(type(error)):
        command_line.run_main(main, [])


def test_a_limit_that_tensorflow_ends_without_a_word_at_is_told_of(monkeypatch, capsys):
    for limit, told in ((1 << 30, "leaves this process 1,024 MiB"), (8 << 30, ""), (-1, "")):
        monkeypatch.setattr(resource, "getrlimit", lambda kind, limit=limit: (limit, limit))
        command_line.run_main(lambda argv: None, [])
        received = capsys.readouterr().err
        assert told in received and bool(received) == bool(told)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (SystemError("Graph returned NULL without setting an exception"), "Graph returned NULL"),
        (RuntimeError("in user code:\n  x.so: failed to map segment from shared object"), "x.so"),
    ],
)
def test_a_library_without_memory_is_an_error_in_words_under_a_limit(
    monkeypatch, capsys, error, line
):
    def main(argv):
        raise error

    with pytest.raises(type(error)):
        command_line.run_main(main, [])
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1 << 30, 1 << 30))
    with pytest.raises(SystemExit) as ended:
        command_line.run_main(main, [])
    received = capsys.readouterr().err
    assert ended.value.code == 2
    assert f"error: memory ran out: {line}" in received and received.endswith(MEMORY)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_without_a_character_gets_its_escape(monkeypatch, encoding):
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)

    def main(argv):
        print("caf\u00e9 \u6807\u7b7e \udcff")  # the last is a byte of a file's name
        raise UserError("caf\u00e9 \u6807\u7b7e \udcff")

    with pytest.raises(SystemExit) as ended:
        command_line.run_main(main, [])
    assert ended.value.code == 2
    out.flush()
    err.flush()
    printed = {
        "ascii": r"caf\xe9 \u6807\u7b7e \udcff",
        "latin-1": "caf\u00e9 \\u6807\\u7b7e \\udcff",
        "utf-8": "caf\u00e9 \u6807\u7b7e \\udcff",
    }[encoding]
    assert out.buffer.getvalue().decode(encoding) == f"{printed}\n"
    assert err.buffer.getvalue().decode(encoding) == f"error: {printed}\n"
