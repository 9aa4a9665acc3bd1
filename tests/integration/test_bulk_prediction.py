"""Bulk prediction through its command line: the answers of the model itself, and nothing lost."""

import csv
import gzip
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from beam_jobs import predict
from beam_jobs.contract import saved_model
from beam_jobs.contract.errors import UserError
from beam_jobs.prediction import output_files, published, score_part
from tests.command_lines import fail_cleanly, succeed


@pytest.fixture(scope="module")
def place(trained, tmp_path_factory):
    """The model and the raw documents, in every format; the dataset is out of reach."""
    root = tmp_path_factory.mktemp("bulk")
    shutil.copytree(trained.root / "out/small/model", root / "model")
    shutil.copy(trained.root / "documents.jsonl", root)
    rows = documents(root)
    texts = [row["text"].replace("\n", " ") for row in rows]
    with gzip.open(root / "documents.jsonl.gz", "wt", encoding="utf-8") as stream:
        stream.writelines(
            json.dumps({"key": row["key"], "text": text}) + "\n"
            for row, text in zip(rows, texts, strict=True)
        )
    (root / "documents.txt").write_text("".join(f"{text}\n" for text in texts))
    with open(root / "documents.csv", "w", newline="") as stream:
        writer = csv.DictWriter(stream, ["key", "text"])
        writer.writeheader()
        writer.writerows(
            {"key": row["key"], "text": text} for row, text in zip(rows, texts, strict=True)
        )
    pq.write_table(
        pa.table({"key": [row["key"] for row in rows], "text": texts}), root / "documents.parquet"
    )
    return root


def documents(root):
    return [json.loads(line) for line in open(root / "documents.jsonl", encoding="utf-8")]


def run(monkeypatch, root, output, *arguments):
    monkeypatch.chdir(root)
    predict.main(["--model", "model", "--output", str(output), *map(str, arguments)])
    summary = (output / published.SUMMARY).read_bytes()
    named = [info["file"] for info in json.loads(summary)["files"]]
    (folder,) = {file.partition("/")[0] for file in named}
    assert {f"{folder}/{path.name}" for path in (output / folder).iterdir()} == set(named)
    files = {path.name: path.read_bytes() for path in sorted((output / folder).iterdir())}
    return files | {published.SUMMARY: summary}


def predictions(files):
    return [
        json.loads(line)
        for name, content in files.items()
        if name.startswith("predictions-")
        for line in content.splitlines()
    ]


@pytest.fixture(scope="module")
def decided(place):
    """What the model itself says of every document."""
    model = saved_model.load(str(place / "model"))
    rows = documents(place)
    answer = model.module.signatures["decide"](text=tf.constant([row["text"] for row in rows]))
    columns = answer["labels"].numpy(), answer["scores"].numpy(), answer["counts"].numpy()
    return {
        row["key"]: ([label.decode() for label in labels[:count]], scores[:count])
        for row, labels, scores, count in zip(rows, *columns, strict=True)
    }


@pytest.mark.parametrize(
    "file", ["documents.jsonl", "documents.jsonl.gz", "documents.csv", "documents.parquet"]
)
def test_files_of_every_kind_get_the_labels_and_scores_of_the_model(
    place, decided, tmp_path, monkeypatch, file
):
    rows = predictions(
        run(monkeypatch, place, tmp_path / "out", "--input", file, "--id-field", "key")
    )
    assert [row["id"] for row in rows] == list(decided)  # in the order of the input
    assert {tuple(row) for row in rows} == {("id", "labels", "scores")}
    for row in rows:
        labels, scores = decided[row["id"]]
        assert row["labels"] == labels
        np.testing.assert_allclose(row["scores"], scores, atol=2e-6)
    assert sum(map(len, (row["labels"] for row in rows))) > len(rows)


def test_a_text_file_holds_a_document_a_line(place, decided, tmp_path, monkeypatch):
    rows = predictions(run(monkeypatch, place, tmp_path / "out", "--input", "documents.txt"))
    assert [row["id"] for row in rows] == [f"documents.txt:{i}" for i in range(1, len(decided) + 1)]
    assert [row["labels"] for row in rows] == [labels for labels, _ in decided.values()]


def test_files_of_fasttext_are_scored_without_their_labels(place, decided, tmp_path, monkeypatch):
    lines = (place / "documents.txt").read_text().splitlines()
    labelled = [f"__label__x {line} __label__y" for line in lines]
    (place / "labelled.txt").write_text("".join(f"{line}\n" for line in labelled))
    arguments = "--input", "labelled.txt", "--source", "fasttext"
    rows = predictions(run(monkeypatch, place, tmp_path / "out", *arguments))
    assert [row["labels"] for row in rows] == [labels for labels, _ in decided.values()]
    with pytest.raises(UserError, match="its lines begin with labels.* --source fasttext"):
        run(monkeypatch, place, tmp_path / "other", "--input", "labelled.txt")


def test_parquet_holds_what_jsonl_holds_and_best_labels_are_those_of_serving_default(
    place, tmp_path, monkeypatch
):
    arguments = "--input", "documents.jsonl", "--id-field", "key", "--labels", "best"
    rows = predictions(run(monkeypatch, place, tmp_path / "jsonl", *arguments))
    run(monkeypatch, place, tmp_path / "parquet", *arguments, "--format", "parquet")
    table = pq.read_table(next((tmp_path / "parquet").glob("*/predictions-*.parquet")))
    assert table.schema.remove_metadata() == output_files.PREDICTIONS
    assert table["labels"].to_pylist() == [row["labels"] for row in rows]
    np.testing.assert_allclose(
        np.array(table["scores"].to_pylist()), np.array([row["scores"] for row in rows]), atol=6e-7
    )
    assert {len(row["labels"]) for row in rows} == {5}  # export.top_k


def test_the_source_of_the_experiment_serves_with_its_labels_left_alone(
    place, trained, decided, tmp_path, monkeypatch
):
    shutil.copy(trained.root / trained.config, place)
    rows = predictions(run(monkeypatch, place, tmp_path / "out", "--config", trained.config))
    assert {row["id"]: row["labels"] for row in rows} == {
        key: labels for key, (labels, _) in decided.items()
    }


def test_odd_texts_are_scored_and_none_is_lost(place, tmp_path, monkeypatch):
    odd = ["", "\ud800 half a pair", "x" * 3_000_000, "\x00\x01", "日本語", "ok"]
    (place / "odd.jsonl").write_text(
        "".join(json.dumps({"id": f"{i}", "text": text}) + "\n" for i, text in enumerate(odd))
    )
    (place / "odd.jsonl").open("ab").write(b'{"id": "x", "text": "\xff"}\n{"id": "y"}\n')
    files = run(
        monkeypatch,
        place,
        tmp_path / "out",
        *("--input", "odd.jsonl", "--id-field", "id", "--max-reject-fraction", "0.25"),
    )
    assert [row["id"] for row in predictions(files)] == [f"{i}" for i in range(len(odd))]
    rejects = [json.loads(line) for line in files["rejects-00000-of-00001.jsonl"].splitlines()]
    assert [(row["row"], row["reason"]) for row in rejects] == [(7, "not UTF-8"), (8, "no text")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            [],
            "1 of 50 documents are rejected, more than --max-reject-fraction 0.01 allows, so "
            "nothing is published; .*:\n  1 x no text, such as some.jsonl, row 50: field 'text' is",
        ),
        (
            ["--max-reject-fraction", "1", "--text-field", "note"],
            "50 of 50 documents are rejected, so there is nothing to publish:\n  50 x no text, ",
        ),
    ],
)
def test_too_many_rejects_publish_nothing(place, tmp_path, monkeypatch, arguments, message):
    rows = [{"text": "some words"}] * 49 + [{"note": None}]
    (place / "some.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=message):
        run(monkeypatch, place, tmp_path / "out", "--input", "some.jsonl", *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["blank.jsonl", "blank.csv"])
def test_every_line_of_rows_is_a_prediction_or_a_counted_reject(
    place, tmp_path, monkeypatch, capsys, name
):
    row = '{"text": "some words"}' if name == "blank.jsonl" else "some words"
    header = "" if name == "blank.jsonl" else "text\n"
    (place / name).write_text(f"{header}\n{row}\n\n\n{row}\n\n")
    files = run(monkeypatch, place, tmp_path / "out", "--input", name)
    first = 1 + bool(header)
    assert [row["id"] for row in predictions(files)] == [
        f"{name}:{first + 1}",
        f"{name}:{first + 4}",
    ]
    rejects = files["rejects-00000-of-00001.jsonl"].splitlines()
    assert [(row["row"], row["reason"]) for row in map(json.loads, rejects)] == [
        (first + i, "blank line") for i in (0, 2, 3, 5)
    ]
    assert "read 6 documents: 2 scored, 4 rejected\n  rejected 4 x blank line" in (
        capsys.readouterr().out
    )


def test_blank_lines_of_a_text_file_are_documents(place, tmp_path, monkeypatch):
    (place / "blank.txt").write_text("text\n\nsome words\n   \nothers\n\n")
    files = run(monkeypatch, place, tmp_path / "out", "--input", "blank.txt")
    assert [row["id"] for row in predictions(files)] == [f"blank.txt:{i}" for i in range(1, 7)]


def test_quotes_of_tsv_are_text_and_every_row_is_scored(place, tmp_path, monkeypatch):
    rows = ["id\ttext", '1\t"one', '2\ttwo"', '3\t"three" words', "4\tfour"]
    (place / "quotes.tsv").write_text("\n".join(rows))
    given = "--input", "quotes.tsv", "--id-field", "id"
    files = run(monkeypatch, place, tmp_path / "out", *given)
    assert [row["id"] for row in predictions(files)] == ["1", "2", "3", "4"]
    (place / "asked.tsv").write_text("id\ttext\n1\t'one\ttwo'\n")
    given = "--input", "asked.tsv", "--id-field", "id", "--quote-character", "'"
    assert len(predictions(run(monkeypatch, place, tmp_path / "asked", *given))) == 1


def test_rows_that_a_stray_quote_may_have_taken_are_told(place, tmp_path, monkeypatch, capsys):
    (place / "stray.csv").write_text('id,text\n1,"one\n2,two"\n3,three\n')
    run(monkeypatch, place, tmp_path / "out", "--input", "stray.csv", "--id-field", "id")
    printed = capsys.readouterr().out
    assert "2 scored, 0 rejected\nwarning: 1 rows in quotes span lines of which each" in printed
    assert "set --quote-character ''\n" in printed


def test_what_fails_publishes_nothing(place, tmp_path, monkeypatch):
    written = []

    def breaks(self, rows):
        written.append(len(rows))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(score_part.ScorePart, "_scored", breaks)
    with pytest.raises(Exception, match="No space left"):
        run(monkeypatch, place, tmp_path / "out", "--input", "documents.jsonl")
    assert written and list(tmp_path.iterdir()) == []


def test_a_runner_that_loses_a_part_publishes_nothing(place, tmp_path, monkeypatch):
    monkeypatch.setattr(score_part.places, "write", lambda path, content: None)
    with pytest.raises(RuntimeError, match="lost or repeated data.* 0 of 1 parts are done"):
        run(monkeypatch, place, tmp_path / "out", "--input", "documents.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_predictions_are_replaced_on_request_only_and_nothing_else_ever(
    place, tmp_path, monkeypatch, capsys
):
    given = "--input", "documents.jsonl"
    first = run(monkeypatch, place, tmp_path / "out", *given)
    # Of a run that was killed after it had published.
    (tmp_path / ".out.lock").touch()
    next((tmp_path / "out").glob("*/")).joinpath("work-1").mkdir()
    capsys.readouterr()
    assert run(monkeypatch, place, tmp_path / "out", *given) == first
    assert not list(tmp_path.glob("out/*/work-*"))
    assert "out is complete: the same model and input made it" in capsys.readouterr().out
    with pytest.raises(UserError, match="--output: .*holds predictions; --overwrite replaces them"):
        run(monkeypatch, place, tmp_path / "out", *given, "--labels", "best")
    next((tmp_path / "out").glob("*/*.jsonl")).write_text("damaged")
    with pytest.raises(UserError, match="--output: .*holds predictions; --overwrite replaces them"):
        run(monkeypatch, place, tmp_path / "out", *given)
    files = run(monkeypatch, place, tmp_path / "out", *given, "--labels", "best", "--overwrite")
    assert json.loads(files["predictions.json"])["signature"] == "serving_default"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").touch()
    with pytest.raises(UserError, match="holds no predictions; expected a new or empty directory"):
        run(monkeypatch, place, tmp_path / "mine", *given, "--overwrite")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "nothing*.jsonl"], "no file matches 'nothing\\*.jsonl'"),
        (
            ["--input", "documents.dat"],
            "--input: 'documents.dat' does not say what it holds; expected one of .jsonl",
        ),
        ([], "--input: received none, expected files to score, or a --config"),
        (
            ["--input", "documents.jsonl", "--text-field", "body"],
            "has no column 'body'; the columns found are 'key', 'text'",
        ),
        (
            ["--input", "documents.jsonl", "--set", "data.id_field=key"],
            "--set: received without --config",
        ),
        (["--config", "small.yaml", "--source", "csv"], "received with --config"),
        (
            ["--input", "documents.txt", "--id-field", "key"],
            "--source text: received several text fields or an id field",
        ),
        (
            ["--input", "documents.jsonl", "--output", "ftp://server/x"],
            "--output: received 'ftp://server/x'; expected a local path, gs://BUCKET/",
        ),
    ],
)
def test_wrong_arguments_are_told(place, trained, tmp_path, monkeypatch, arguments, message):
    shutil.copy(trained.root / trained.config, place)
    with pytest.raises(UserError, match=message):
        run(monkeypatch, place, tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()


def test_a_damaged_file_stops_the_job(place, tmp_path, monkeypatch):
    content = (place / "documents.jsonl.gz").read_bytes()
    (place / "cut.jsonl.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(
        UserError,
        match="1 files cannot be read to their end, such as cut.jsonl.gz, row .*nothing is publi",
    ):
        run(monkeypatch, place, tmp_path / "out", "--input", "cut.jsonl.gz")
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_ends_with_a_message_and_status_2_or_prints_what_became_of_all(
    place, tmp_path
):
    (place / "half").mkdir()
    shutil.copytree(
        place / "model/1", place / "half/1", ignore=shutil.ignore_patterns("variables.data*")
    )
    message = fail_cleanly(
        "beam_jobs.predict",
        "--model",
        "half",
        "--input",
        "documents.jsonl",
        "--output",
        str(tmp_path / "out"),
        cwd=place,
    )
    assert "half/1 cannot be loaded, it is damaged or was not copied whole" in message
    printed = succeed(
        "beam_jobs.predict",
        "--model",
        "model/1",
        "--input",
        "documents.txt",
        "--output",
        str(tmp_path / "out"),
        cwd=place,
    )
    assert (
        f"read {len(documents(place)):,} documents: {len(documents(place)):,} scored, 0 rejected"
        in printed
    )
