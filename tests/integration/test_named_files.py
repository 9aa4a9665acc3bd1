"""A file that the config names and that has changed since: nothing that depends on it is reused."""

import json
import re

import pytest

from beam_jobs import preprocess
from beam_jobs.contract import manifest as manifests
from beam_jobs.contract.analyzer import Analyzer
from beam_jobs.contract.errors import UserError
from trainer import task

CONFIG = """\
name: tiny
data: {source: jsonl, inputs: [in.jsonl]}
vocabulary: {min_document_count: 1}
output: {shards: 1}
model: {embedding_dim: 4}
train: {batch_size: 16, epochs: 1}
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"text": f"the word{i} of two{i % 3}", "labels": ["ab"[i % 2]]} for i in range(60)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    return tmp_path


def make_dataset(*arguments: str) -> None:
    preprocess.main(["--config", "tiny.yaml", *arguments, "--", "--direct_running_mode=in_memory"])


@pytest.mark.parametrize(
    ("key", "content"),
    [
        ("text.stop_words", "the\nof\n"),
        ("text.subwords", "[UNK]\nthe\nw\n##o\n"),
        ("labels.allow", "a\nb\n"),
    ],
)
def test_a_dataset_is_not_reused_after_a_file_has_changed(place, capsys, key, content):
    (place / "named.txt").write_text(content)
    make_dataset("--set", f"{key}=named.txt")
    assert Analyzer(manifests.load("out/tiny/dataset").analyzer)  # it needs no file
    make_dataset("--set", f"{key}=named.txt")
    assert "is complete: the same config and input made it" in capsys.readouterr().out
    (place / "named.txt").write_text(content + "more\n")
    message = rf"was made with other content of named.txt \({re.escape(key)}\); --overwrite"
    with pytest.raises(UserError, match=message):
        make_dataset("--set", f"{key}=named.txt")
    make_dataset("--set", f"{key}=named.txt", "--overwrite")
    assert "is complete" not in capsys.readouterr().out


def test_a_run_is_not_resumed_or_evaluated_after_its_pos_weight_file_has_changed(place):
    make_dataset()
    weights = ["--set", "loss.pos_weight=file", "--set", "loss.pos_weight_file=weights.json"]
    arguments = ["--config", "tiny.yaml", *weights]
    (place / "weights.json").write_text('{"a": 1, "b": 2}')
    task.main(["train", *arguments])
    task.main(["train", *arguments])  # resumes
    (place / "weights.json").write_text('{"a": 1, "b": 3}')
    with pytest.raises(
        UserError,
        match=r"cannot be resumed:\n  weights.json \(loss.pos_weight_file\) has other content than",
    ):
        task.main(["train", *arguments])
    with pytest.raises(
        UserError, match=r"was trained with other content of weights.json \(loss.pos_weight_file\)"
    ):
        task.main(["evaluate", *arguments])
    task.main(["train", *arguments, "--fresh"])
    task.main(["evaluate", *arguments])


def test_a_run_of_an_older_version_is_refused_with_what_to_do(place):
    make_dataset()
    task.main(["train", "--config", "tiny.yaml"])
    saved = place / "out/tiny/run/config.yaml"
    saved.write_text(saved.read_text().replace("  at_k:", "  ranks:"))
    with pytest.raises(
        UserError, match=r"made by an older version of multihot \(evaluate.ranks.* give --fresh"
    ):
        task.main(["train", "--config", "tiny.yaml"])
    task.main(["train", "--config", "tiny.yaml", "--fresh"])
