"""Subword pieces from raw rows to a served model, through the command lines."""

import collections
import json
import random

import pytest
import tensorflow as tf
import yaml

from beam_jobs import preprocess
from beam_jobs.contract import manifest as manifests
from beam_jobs.contract.analyzer import Analyzer
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.word_lists import AnalyzerSpec
from beam_jobs.preprocessing import job
from beam_jobs.preprocessing.subwords import learn
from tests.command_lines import succeed
from tests.corpus import contents, files_of, without_folder
from tests.served import answers_of
from trainer.runs.evaluation_record import ONE_THRESHOLD, read_evaluation

STEMS = ("rocket", "soup", "piano", "tree", "river", "lamp")  # of which the first three are topics
LETTERS = "abcdefghijklmnopqrstuvwxyzé"
CONFIG = {
    "name": "pieces",
    "data": {"source": "jsonl", "inputs": ["documents.jsonl"], "id_field": "key"},
    "text": {"subwords": "train", "max_tokens_per_document": 30},
    "vocabulary": {"size": 108},
    "splits": {"train": 0.6, "validation": 0.2, "test": 0.2},
    "output": {"dataset_dir": "out/dataset", "shards": 2},
    "model": {
        "name": "transformer",
        "embedding_dim": 32,
        "layers": 1,
        "heads": 2,
        "feed_forward_dim": 64,
        "dropout": 0.0,
    },
    "optimizer": {"learning_rate": 3e-3},
    "train": {"run_dir": "out/run", "batch_size": 32, "epochs": 12},
    "export": {"model_dir": "out/model"},
}


def write_documents(path) -> list[dict]:
    """Rows whose labels are the stems of their words.

    Nearly every word, a stem with an invented ending, is in one document alone.
    """
    generator = random.Random(11)
    rows = []
    for i in range(900):
        stems = generator.sample(STEMS, 3)
        words = [
            stem + "".join(generator.choices(LETTERS, k=generator.randint(2, 4))) for stem in stems
        ]
        words += ["".join(generator.choices(LETTERS, k=generator.randint(2, 7))) for _ in range(4)]
        generator.shuffle(words)
        labels = [stem for stem in stems if stem in STEMS[:3]]
        rows.append(
            {"key": f"d{i}", "text": f"<p>{' '.join(words).title()}!</p>", "labels": labels}
        )
    rows += [
        {
            "key": "long",
            "text": "Rocketship " * 25,
            "labels": ["rocket"],
        },  # more pieces than are kept
        {"key": "twice", "text": rows[0]["text"].upper(), "labels": ["soup"]},
        {
            "key": "alike",
            "text": "soup東 soup東",
            "labels": ["soup"],
        },  # equal in pieces, since no piece has these characters ...
        {
            "key": "alike2",
            "text": "soup京 soup京",
            "labels": ["soup"],
        },  # ... and still two documents
        {"key": "none", "text": "--", "labels": []},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def records_of(dataset, split: str | None = None) -> dict[str, str]:
    """The text of each record by its id."""
    manifest = manifests.load(dataset)
    files = [
        str(dataset / shard.file)
        for name, info in manifest.splits.items()
        for shard in info.shards
        if split in (None, name)
    ]
    parsed = manifest.record_spec.parse_batch(
        tf.constant(list(tf.data.TFRecordDataset(files).as_numpy_iterator()))
    )
    return {
        key.decode(): text.decode()
        for key, text in zip(parsed["id"].numpy(), parsed["text"].numpy(), strict=True)
    }


def analyze(text: AnalyzerSpec, rows: list[dict]) -> dict[str, str]:
    analyzed = Analyzer(text)(tf.constant([row["text"] for row in rows])).numpy()
    return {row["key"]: text.decode() for row, text in zip(rows, analyzed, strict=True)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A working directory in which the job has learned pieces; and its rows."""
    root = tmp_path_factory.mktemp("pieces")
    rows = write_documents(root / "documents.jsonl")
    (root / "pieces.yaml").write_text(
        yaml.safe_dump(CONFIG | {"data": CONFIG["data"] | {"max_reject_fraction": 0.1}})
    )
    printed = succeed("beam_jobs.preprocess", "--config", "pieces.yaml", cwd=root)
    assert {"words", "learn", "subwords"} <= set(
        next(line for line in printed.splitlines() if line.startswith("time in each step")).split()
    )
    return root, rows


@pytest.fixture
def in_root(made, monkeypatch):
    monkeypatch.chdir(made[0])


def make(*settings: str, name: str) -> None:
    preprocess.main(
        [
            "--config",
            "pieces.yaml",
            "--set",
            f"output.dataset_dir=out/{name}",
            *(x for setting in settings for x in ("--set", setting)),
        ]
    )


def test_records_hold_what_the_manifests_analyzer_makes_of_the_raw_text(made):
    root, rows = made
    manifest = manifests.load(root / "out/dataset")
    records = records_of(root / "out/dataset")
    assert records == {
        key: text for key, text in analyze(manifest.analyzer, rows).items() if key in records
    }
    assert set(records) == {row["key"] for row in rows} - {"none", "twice"}
    assert records["long"].count(" ") == 29
    tokens = collections.Counter(token for text in records.values() for token in text.split(" "))
    assert set(tokens) <= set(manifest.analyzer.subwords) and tokens["rocket"] > 200
    assert records["alike"] == records["alike2"] == "[UNK] [UNK]"


def test_pieces_are_learned_from_the_words_of_the_train_split_alone(made, in_root):
    root, rows = made
    manifest = manifests.load(root / "out/dataset")
    words = analyze(manifest.analyzer.without_subwords, rows)
    train = [words[key].split(" ") for key in records_of(root / "out/dataset", "train")]
    documents, occurrences = (
        collections.Counter(word for text in train for word in set(text)),
        collections.Counter(sum(train, [])),
    )
    by_frequency = sorted(documents, key=lambda word: (-documents[word], word))
    assert manifest.analyzer.subwords == learn(
        [(word, occurrences[word]) for word in by_frequency], max_subwords=108, min_occurrences=2
    )
    assert manifest.analyzer.subwords[0] == "[UNK]" and {*STEMS} <= set(manifest.analyzer.subwords)


def test_the_vocabulary_and_the_lengths_are_those_of_pieces(made):
    root, _ = made
    manifest = manifests.load(root / "out/dataset")
    train = [text.split(" ") for text in records_of(root / "out/dataset", "train").values()]
    documents, occurrences = (
        collections.Counter(piece for text in train for piece in set(text)),
        collections.Counter(sum(train, [])),
    )
    vocabulary = manifests.load_vocabulary(manifest, root / "out/dataset")
    assert vocabulary == sorted(documents, key=lambda piece: (-documents[piece], piece))
    assert manifests.load_document_counts(manifest, root / "out/dataset").tolist() == [
        documents[piece] for piece in vocabulary
    ]
    assert manifests.load_term_counts(manifest, root / "out/dataset").tolist() == [
        occurrences[piece] for piece in vocabulary
    ]
    assert manifest.splits["train"].token_length_quantiles["1"] == max(map(len, train))


def test_splits_and_counts_are_those_of_words(made, in_root):
    root, _ = made
    make("text.subwords=null", name="words")
    of_words, of_pieces = manifests.load("out/words"), manifests.load("out/dataset")
    assert of_words.counts == of_pieces.counts and of_pieces.counts.duplicates == 1
    for split in manifests.SPLITS:
        assert list(records_of(root / "out/words", split)) == list(
            records_of(root / "out/dataset", split)
        )
    assert (files_of(root / "out/words") / "labels.json").read_bytes() == (
        files_of(root / "out/dataset") / "labels.json"
    ).read_bytes()


def test_the_same_config_is_recognised_and_learned_pieces_are_no_change(made, in_root, capsys):
    preprocess.main(["--config", "pieces.yaml"])
    assert "out/dataset is complete: the same config and input made it" in capsys.readouterr().out
    with pytest.raises(UserError, match="text.subwords: dataset 'train', config None"):
        preprocess.main(["--config", "pieces.yaml", "--set", "text.subwords=null"])


def test_learned_pieces_given_as_a_file_or_a_list_give_the_same_records(made, in_root, capsys):
    root, _ = made
    manifest = without_folder("out/dataset")
    (root / "vocab.txt").write_text("".join(f"{piece}\n" for piece in manifest.analyzer.subwords))
    make("text.subwords=vocab.txt", name="file")
    make(f"text.subwords={json.dumps(manifest.analyzer.subwords)}", name="list")
    for name in ("file", "list"):
        other = without_folder(f"out/{name}")
        assert (other.splits, other.analyzer, other.vocabulary) == (
            manifest.splits,
            manifest.analyzer,
            manifest.vocabulary,
        )
    make("text.subwords=vocab.txt", name="file")
    assert "out/file is complete" in capsys.readouterr().out
    with open(root / "vocab.txt", "a") as stream:
        stream.write("##zz\n")
    with pytest.raises(
        UserError, match=r"was made with other content of vocab.txt \(text.subwords\); --overwrite"
    ):
        make("text.subwords=vocab.txt", name="file")
    (root / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(
        UserError, match=r"text.subwords: received 2 subwords in vocab.txt without \[UNK\]"
    ):
        make("text.subwords=vocab.txt", name="bad")
    assert not (root / "out/bad").exists()


def test_an_empty_train_split_is_told_as_ever(made, in_root):
    with pytest.raises(UserError, match="the train split is empty"):
        make("splits={train: 0.00001, validation: 0.9, test: 0.09999}", name="bad")


@pytest.mark.parametrize("method", ["stratified", "hash"])
def test_other_splits_near_duplicates_and_ngrams_go_with_pieces(made, in_root, method):
    root, rows = made
    make(
        f"splits={{method: {method}}}",
        "duplicates.near=drop",
        "vocabulary.ngrams=2",
        "labels.keep_unlabeled=false",
        name=method,
    )
    manifest = manifests.load(f"out/{method}")
    records = records_of(root / "out" / method)
    expected = analyze(manifest.analyzer, rows)
    assert (
        records == {key: expected[key] for key in records}
        and len(records) == manifest.counts.written > 700
    )
    known = set(manifests.load_vocabulary(manifest, f"out/{method}"))
    ngrams = manifests.load_ngrams(manifest, f"out/{method}")
    assert len(ngrams) > 100 and all(known.issuperset(ngram) for ngram in ngrams)


def test_the_number_of_buckets_changes_no_byte(made, in_root, monkeypatch):
    monkeypatch.setattr(job, "BUCKET_BYTES", 2000)
    make(name="buckets")
    assert contents(files_of("out/buckets")) == contents(files_of(made[0] / "out/dataset"))


def test_texts_that_stay_apart_are_each_in_pieces(tmp_path, monkeypatch):
    rows = write_documents(tmp_path / "documents.jsonl")
    apart = [
        {"title": "" if i % 9 == 0 else row["text"][:20], "body": row["text"][20:]} | row
        for i, row in enumerate(rows)
    ]
    (tmp_path / "documents.jsonl").write_text("".join(json.dumps(row) + "\n" for row in apart))
    data = CONFIG["data"] | {
        "text_fields": ["title", "body"],
        "join_text_fields": False,
        "max_reject_fraction": 0.1,
    }
    (tmp_path / "pieces.yaml").write_text(yaml.safe_dump(CONFIG | {"data": data}))
    monkeypatch.chdir(tmp_path)
    make(name="dataset")
    manifest = manifests.load("out/dataset")
    files = [
        f"out/dataset/{shard.file}" for info in manifest.splits.values() for shard in info.shards
    ]
    parsed = manifest.record_spec.parse_batch(
        tf.constant(list(tf.data.TFRecordDataset(files).as_numpy_iterator()))
    )
    ids = [key.decode() for key in parsed["id"].numpy()]
    for field in ("title", "body"):
        expected = analyze(
            manifest.analyzer, [{"key": row["key"], "text": row[field]} for row in apart]
        )
        assert [text.decode() for text in parsed[f"text/{field}"].numpy()] == [
            expected[key] for key in ids
        ]
    assert b"" in parsed["text/title"].numpy() and len(ids) > 890


def test_the_served_model_labels_words_that_it_has_never_seen(made):
    root, rows = made
    for command in ("train", "evaluate", "export"):
        succeed("trainer.task", command, "--config", "pieces.yaml", cwd=root)
    evaluation = read_evaluation(root / "out/run/evaluation-test.json")
    assert evaluation.method(ONE_THRESHOLD).metrics.micro_f1 > 0.95
    texts = [row["text"] for row in rows]
    served = answers_of(tf.saved_model.load(str(root / "out/model/1")), texts)
    decided = [
        sorted(labels[:count])
        for labels, count in zip(
            served["decide"]["labels"], served["decide"]["counts"], strict=True
        )
    ]
    records = records_of(root / "out/dataset")
    assert {
        row["key"]: text
        for row, text in zip(rows, served["analyzed"], strict=True)
        if row["key"] in records
    } == records
    test = records_of(root / "out/dataset", "test")
    right = [
        labels == sorted(row["labels"])
        for row, labels in zip(rows, decided, strict=True)
        if row["key"] in test
    ]
    assert sum(right) > 0.9 * len(right)
    assert "Words that its subwords cannot spell" in (root / "out/model/1/README.md").read_text()
    printed = succeed(
        "trainer.task",
        "predict",
        "--model",
        "out/model",
        "--json",
        "Rocketzq and pianoxé",
        cwd=root,
    )
    assert sorted(json.loads(printed)["assigned"]) == ["piano", "rocket"]
    assert "rocket" in succeed(
        "trainer.task", "explain", "--model", "out/model", "Rocketzq and pianoxé", cwd=root
    )
