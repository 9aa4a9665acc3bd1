"""The code that the documentation shows, run as a reader would run it, in this process."""

import csv
import json
import mailbox
import runpy
import shutil
import sys
from email.message import EmailMessage
from pathlib import Path

import pytest

from beam_jobs import preprocess
from beam_jobs.contract import manifest as manifests
from trainer import task

ROOT = Path(__file__).parents[2]
SNIPPETS = ROOT / "docs/snippets"
TOPICS = {"food": "bread and soup", "music": "a song and a guitar", "sport": "the goal of a team"}
SMALL = """
vocabulary: {min_document_count: 1}
train: {epochs: 1, batch_size: 16}
"""


@pytest.fixture(autouse=True)
def workplace(monkeypatch, tmp_path):
    """A reader's folder with the snippets in it; afterwards what is imported is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for path in SNIPPETS.glob("*.py"):
        sys.modules.pop(path.stem, None)  # another test may have a module of this name
        shutil.copy(path, tmp_path)
    yield
    for path in SNIPPETS.glob("*.py"):
        sys.modules.pop(path.stem, None)


def snippet(name: str) -> str:
    return (SNIPPETS / name).read_text(encoding="utf-8")


def write_config(*parts: str) -> list[str]:
    Path("config.yaml").write_text("\n".join(parts), encoding="utf-8")
    return ["--config", "config.yaml"]


def write_tsv(count: int = 90) -> None:
    names = list(TOPICS)
    lines = [f"{names[i % 3]}\t{TOPICS[names[i % 3]]} number {i}" for i in range(count)]
    Path("reviews.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_a_reader_of_mailboxes_makes_a_dataset_with_its_reject():
    Path("mail").mkdir()
    box = mailbox.mbox("mail/inbox.mbox")
    for i, (topic, text) in enumerate(list(TOPICS.items()) * 20):
        message = EmailMessage()
        message["Subject"], message["X-Labels"] = topic, f"{topic}, mail"
        message["Message-ID"] = f"<{i}@example.org>"
        message.set_content(f"{text} number {i}")
        if i == 7:
            message.add_attachment("a second part")
        box.add(message)
    box.flush()
    config = snippet("my_source.yaml") + "  max_reject_fraction: 0.1\n"
    preprocess.main(write_config(config, SMALL))
    manifest = manifests.load("out/mail/dataset")
    assert (manifest.counts.read, manifest.counts.rejected) == (60, {"not plain text": 1})
    assert manifest.num_labels == len(TOPICS) + 1


def test_a_beam_transform_is_a_source_and_a_model_and_a_callback_of_ones_own_are_trained(capsys):
    write_tsv()
    arguments = write_config(
        snippet("my_transform.yaml"),
        "vocabulary: {min_document_count: 1}",
        snippet("my_model.yaml"),
        snippet("my_callback.yaml") + "  epochs: 2\n  batch_size: 16\n",
    )
    preprocess.main(arguments)
    manifest = manifests.load("out/reviews/dataset")
    assert manifest.counts.written == 90 and manifest.num_labels == 3

    task.main(["train", *arguments])
    assert "training custom on" in capsys.readouterr().out
    lines = [json.loads(line) for line in Path("epochs.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert lines[1]["loss"] < lines[0]["loss"]
    assert len(list(csv.DictReader(Path("epochs.csv").open()))) == 2


@pytest.mark.slow
def test_the_tutorials_file_and_its_config_lead_to_a_model_that_answers(monkeypatch, capsys):
    runpy.run_path(str(SNIPPETS / "make_tickets.py"))
    config = ["--config", str(ROOT / "configs/own_csv.yaml")]
    preprocess.main(config)
    for command in (["train"], ["evaluate"], ["export"]):
        task.main([*command, *config])
    capsys.readouterr()

    monkeypatch.setattr(sys, "argv", ["read_dataset.py", "out/own_csv/dataset"])
    runpy.run_path(str(SNIPPETS / "read_dataset.py"))
    assert capsys.readouterr().out.count("[") == 4

    monkeypatch.setattr(sys, "argv", ["own_keras.py", "out/own_csv/dataset"])
    runpy.run_path(str(SNIPPETS / "own_keras.py"))
    assert "val_loss" in capsys.readouterr().out

    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    runpy.run_path(str(SNIPPETS / "python_tour.py"))
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == "billing" and any(line.startswith("[['billing'") for line in printed)
    assert (Path("tour/model/1") / "saved_model.pb").exists()

    monkeypatch.setattr(sys, "argv", ["call_model.py", "out/own_csv/model/1"])
    runpy.run_path(str(SNIPPETS / "call_model.py"))
    assert capsys.readouterr().out.splitlines()[0].endswith(" billing")
