"""`multihot-audit`: planted errors are found, written, and shown in the report."""

import csv
import json

import pytest

from tests.command_lines import fail_cleanly, succeed
from tests.small_experiment import CONFIG, write_documents

LINEAR = "{name: linear, features: words, C: 1.0}"
AUDIT = CONFIG.replace("{embedding_dim: 16}", LINEAR) + "splits: {train: 1, validation: 0, test: 0}"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A dataset in which one document of sport and nothing else is said to be of space too."""
    root = tmp_path_factory.mktemp("audit")
    write_documents(root / "documents.jsonl", 200)
    rows = [json.loads(line) for line in (root / "documents.jsonl").read_text().splitlines()]
    planted = next(row for row in rows if row["labels"] == ["sport"])
    planted["labels"] = ["space"]
    planted["key"] = "planted"
    (root / "documents.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "small.yaml").write_text(AUDIT)
    succeed("beam_jobs.preprocess", "--config", "small.yaml", cwd=root)
    return root


def audit(root, *arguments, run=succeed):
    return run("trainer.audit", "--config", "small.yaml", *arguments, cwd=root)


def test_a_label_that_was_exchanged_is_the_first_wrong_and_the_first_missing_one(root):
    printed = audit(root, "--set", "train.folds=2", "--top", "5")
    assert "fold 2 of 2" in printed and "labels that look wrong: 5" in printed
    with open(root / "out/small/run-audit/audit.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4", "5"] * 2
    wrong, missing = rows[0], rows[5]
    assert (wrong["kind"], wrong["id"], wrong["label"]) == ("wrong", "planted", "space")
    assert (missing["kind"], missing["id"], missing["label"]) == ("missing", "planted", "sport")
    assert wrong["labels"] == "space" and float(wrong["score"]) < float(wrong["usual_score"])
    assert not (root / "out/small/run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--top", "0"], "--top: received 0, expected 1 or more"),
        (["--set", "train.run_dir=s3://b/run"], "expected a directory on a disk: an audit keeps"),
        ([], "train.folds: received 5, and the train and validation splits have 3 shards"),
    ],
)
def test_what_cannot_be_audited_is_one_message(root, arguments, message):
    assert message in audit(root, *arguments, run=fail_cleanly)
