"""What `multihot-predict` reads and prints where the terminal is not UTF-8."""

import io
import json
import sys

import pytest

from beam_jobs.contract.command_line import run_main
from trainer.serving import predict


def printed(monkeypatch, encoding: str, stdin: bytes, *, as_json: bool) -> str:
    """What a model prints that knows one label, with streams in an encoding."""
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding=encoding))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(predict.saved_model, "load", lambda path: None)
    monkeypatch.setattr(
        predict,
        "predictions",
        lambda model, texts: (
            {"text": text, "labels": ["\u6807"], "scores": [0.5], "assigned": ["\u6807"]}
            for text in texts
        ),
    )
    run_main(lambda argv: predict.predict("model", [], as_json=as_json), [])
    out.flush()
    return out.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_texts_are_utf_8_and_json_holds_them_whatever_the_terminal(monkeypatch, encoding):
    output = printed(monkeypatch, encoding, "caf\u00e9\nb\n".encode() + b"\xff\n", as_json=True)
    rows = [json.loads(line) for line in output.splitlines()]
    assert [row["text"] for row in rows] == ["caf\u00e9", "b", "\ufffd"]
    assert all(row["assigned"] == ["\u6807"] for row in rows)


def test_a_label_that_the_terminal_lacks_is_printed_as_its_escape(monkeypatch):
    output = printed(monkeypatch, "ascii", b"words\n", as_json=False)
    assert output.splitlines()[:2] == ["words", r"  0.500 * \u6807"]
