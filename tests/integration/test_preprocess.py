"""The preprocessing job, against an independent computation in plain Python."""

import collections
import fnmatch
import hashlib
import json
import random
import re
import shutil
from pathlib import Path

import pytest
import tensorflow as tf

from beam_jobs import preprocess
from beam_jobs.contract import manifest as manifests
from beam_jobs.contract.analyzer import Analyzer
from beam_jobs.contract.config import load_config
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.records import RecordSpec
from beam_jobs.contract.word_lists import resolve
from tests.command_lines import fail_cleanly, succeed
from tests.corpus import (
    CONFIG,
    DATASET,
    contents,
    corpus_lines,
    files_of,
    make_home,
    without_folder,
)


def run(home: Path, *arguments: str) -> str:
    """What a run in `home` prints."""
    return succeed("beam_jobs.preprocess", "--config", "config.yaml", *arguments, cwd=home)


def fail(home: Path, *arguments: str) -> str:
    """The message with which a run in `home` ends."""
    return fail_cleanly("beam_jobs.preprocess", "--config", "config.yaml", *arguments, cwd=home)


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    """A home in which the job has run, in memory. Read it only."""
    home = make_home(tmp_path_factory.mktemp("base") / "home", {"all.jsonl": corpus_lines()})
    assert "FnApiRunner, in_memory, 1 worker" in run(home)
    return home


@pytest.fixture
def copied(base, tmp_path, monkeypatch) -> Path:
    """A copy of `base` to change, as the working directory."""
    home = Path(shutil.copytree(base, tmp_path / "home"))
    monkeypatch.chdir(home)
    return home


def reference(home: Path) -> dict:
    """The dataset of a home with one plain corpus file, computed without Beam, Arrow or NumPy."""
    config = load_config(home / "config.yaml")
    rejected, documents = collections.Counter(), []
    for line in (home / "corpus/all.jsonl").read_text().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            rejected["not JSON"] += 1
            continue
        if not isinstance(row, dict):
            rejected["not an object"] += 1
        elif not isinstance(row["text"], str):
            rejected["text is not a string"] += 1
        elif any("\n" in label for label in row["labels"]):
            rejected["label is not printable"] += 1
        else:
            documents.append(row)
    read = len(documents) + sum(rejected.values())
    analyzed = (
        Analyzer(resolve(config.text))(
            tf.constant([row["text"].encode("utf-8", "surrogatepass") for row in documents])
        )
        .numpy()
        .tolist()
    )
    equal = collections.defaultdict(list)
    for text, row in zip(analyzed, documents, strict=True):
        if text:
            equal[text].append(row)
        else:
            rejected["empty text"] += 1
    merged = []
    for text, rows in equal.items():
        key = hashlib.blake2b(text, digest_size=16).digest()
        uniform = int.from_bytes(key[8:], "big") / 2**64
        split = "train" if uniform < 0.7 else "validation" if uniform < 0.9 else "test"
        names = {name for row in rows for name in row["labels"]}
        merged.append(
            (
                key,
                split,
                min(row["id"] for row in rows),
                text,
                names,
                max(row["weight"] for row in rows),
            )
        )
    frequency = collections.Counter(name for document in merged for name in document[4])
    ranked = sorted(
        (name for name, count in frequency.items() if count >= 50),
        key=lambda name: (-frequency[name], name),
    )
    labels = sorted(ranked[:11])
    assert len(ranked) > 11 and len(frequency) > len(ranked)  # both limits matter here
    kept = sorted(document for document in merged if document[4] & set(labels))
    tokens = collections.Counter(
        token
        for document in kept
        if document[1] == "train"
        for token in set(document[3].decode().split(" "))
    )
    vocabulary = sorted(
        ((token, count) for token, count in tokens.items() if count >= 3),
        key=lambda pair: (-pair[1], pair[0]),
    )
    assert len(vocabulary) > 150
    return {
        "counts": {
            "read": read,
            "rejected": dict(sorted(rejected.items(), key=lambda item: (-item[1], item[0]))),
            "duplicates": sum(map(len, equal.values())) - len(merged),
            "duplicates_with_other_labels": sum(
                len(rows) - 1
                for rows in equal.values()
                if len({frozenset(row["labels"]) for row in rows}) > 1
            ),
            "near_duplicates": 0,
            "dropped_without_labels": len(merged) - len(kept),
            "written": len(kept),
            "written_without_labels": 0,
        },
        "labels": [
            {
                "name": name,
                "positives": {
                    split: sum(name in d[4] for d in kept if d[1] == split)
                    for split in manifests.SPLITS
                },
            }
            for name in labels
        ],
        "vocabulary": vocabulary[:150],
        "splits": {
            split: [
                [
                    (
                        name.encode(),
                        text,
                        sorted(labels.index(label) for label in names & set(labels)),
                        weight,
                    )
                    for key, of, name, text, names, weight in kept
                    if of == split and int.from_bytes(key[:4], "big") * 3 >> 32 == shard
                ]
                for shard in range(3)
            ]
            for split in manifests.SPLITS
        },
    }


def test_every_file_holds_what_an_independent_computation_gives(base):
    expected = reference(base)
    dataset = base / DATASET
    manifest = manifests.load(dataset)
    assert manifest.counts.model_dump() == expected["counts"]
    assert (
        expected["counts"]["duplicates"] > 200 and expected["counts"]["dropped_without_labels"] > 50
    )
    assert list(manifest.counts.rejected) == list(expected["counts"]["rejected"])
    assert manifests.load_labels(manifest, dataset) == expected["labels"]
    tokens = manifests.load_vocabulary(manifest, dataset)
    assert (
        list(zip(tokens, manifests.load_document_counts(manifest, dataset).tolist(), strict=True))
        == expected["vocabulary"]
    )
    terms = collections.Counter(
        token
        for shard in expected["splits"]["train"]
        for _, text, _, _ in shard
        for token in text.decode().split(" ")
    )
    assert manifests.load_term_counts(manifest, dataset).tolist() == [
        terms[token] for token in tokens
    ]
    for split, shards in expected["splits"].items():
        info = manifest.splits[split]
        assert [shard.examples for shard in info.shards] == [len(shard) for shard in shards]
        assert info.examples == sum(map(len, shards)) > 0
        lengths = sorted(len(text.split(b" ")) for shard in shards for _, text, _, _ in shard)
        assert (info.token_length_quantiles["0"], info.token_length_quantiles["1"]) == (
            lengths[0],
            lengths[-1],
        )
        assert info.token_length_quantiles["0.5"] == lengths[-(-len(lengths) // 2) - 1]
        for shard, rows in zip(info.shards, shards, strict=True):
            assert hashlib.sha256((dataset / shard.file).read_bytes()).hexdigest() == shard.sha256
            parsed = RecordSpec().parse_batch(
                tf.constant(
                    list(tf.data.TFRecordDataset(str(dataset / shard.file)).as_numpy_iterator())
                )
            )
            assert parsed["id"].numpy().tolist() == [row[0] for row in rows]
            assert parsed["text"].numpy().tolist() == [row[1] for row in rows]
            assert parsed["labels"].to_list() == [row[2] for row in rows]
            assert parsed["weight"].numpy().tolist() == [row[3] for row in rows]


def test_ngrams_of_the_train_split_are_counted_and_their_tokens_are_in_the_vocabulary(
    base, tmp_path, monkeypatch
):
    monkeypatch.chdir(make_home(tmp_path / "home", {"all.jsonl": corpus_lines()}))
    preprocess.main(
        [
            "--config",
            "config.yaml",
            "--set",
            "vocabulary.ngrams=2",
            "--set",
            "vocabulary.max_ngrams=300",
        ]
    )
    manifest = manifests.load(DATASET)
    of_words = manifests.load(base / DATASET)
    assert [(shard.sha256, shard.examples) for shard in manifest.splits["train"].shards] == [
        (shard.sha256, shard.examples) for shard in of_words.splits["train"].shards
    ] and manifest.vocabulary.sha256 == of_words.vocabulary.sha256
    counts = collections.Counter()
    for shard in reference(base)["splits"]["train"]:
        for _, text, _, _ in shard:
            tokens = text.decode().split(" ")
            counts.update(set(zip(tokens, tokens[1:], strict=False)))
    most = sorted(
        ((-count, pair) for pair, count in counts.items() if count >= 3),
        key=lambda item: (item[0], " ".join(item[1])),
    )[:300]
    known = set(manifests.load_vocabulary(manifest, DATASET))
    expected = [(pair, -count) for count, pair in most if known.issuperset(pair)]
    found = zip(
        manifests.load_ngrams(manifest, DATASET),
        manifests.load_ngram_document_counts(manifest, DATASET).tolist(),
        strict=True,
    )
    assert list(found) == expected and len(expected) > 200
    assert {manifests.NGRAMS, manifests.NGRAM_DOCUMENT_COUNTS} <= {
        Path(info.file).name for info in manifest.files()
    }


def test_the_directory_holds_the_manifests_files_and_nothing_else(base):
    manifest = manifests.load(base / DATASET)
    named = {info.file for info in manifest.files()} | {manifests.MANIFEST}
    assert set(contents(base / "out")) == {f"tiny/dataset/{name}" for name in named}
    saved, given = files_of(base / DATASET) / manifests.CONFIG, base / "config.yaml"
    assert load_config(saved) == load_config(given)


def test_rejects_tell_source_row_reason_and_content(base):
    lines = (base / "corpus/all.jsonl").read_text().splitlines()
    rejects = [
        json.loads(line)
        for line in (files_of(base / DATASET) / manifests.REJECTS).read_text().splitlines()
    ]
    assert (
        collections.Counter(reject["reason"] for reject in rejects)
        == manifests.load(base / DATASET).counts.rejected
    )
    assert [reject["row"] for reject in rejects] == sorted(reject["row"] for reject in rejects)
    for reject in rejects:
        line = lines[reject["row"] - 1]
        assert reject["source"] == "corpus/all.jsonl"
        assert reject["content"] == (
            json.loads(line)["text"] if reject["reason"] == "empty text" else line
        )


@pytest.mark.slow
def test_the_order_of_documents_and_files_changes_no_byte_but_where_rejects_stand(base, tmp_path):
    lines = corpus_lines()
    random.Random(0).shuffle(lines)
    home = make_home(
        tmp_path / "home",
        {
            "c.jsonl": lines[:700],
            "a.jsonl.gz": lines[700:1500],
            "b.jsonl": [],
            "d.jsonl": lines[1500:],
        },
    )
    run(home)
    first, second = contents(files_of(base / DATASET)), contents(files_of(home / DATASET))
    assert sorted(
        json.loads(line)["content"] for line in first.pop(manifests.REJECTS).splitlines()
    ) == sorted(json.loads(line)["content"] for line in second.pop(manifests.REJECTS).splitlines())
    assert first == second
    manifest, other = (
        without_folder(dataset).model_dump() for dataset in (base / DATASET, home / DATASET)
    )
    assert manifest.pop("input_hash") != other.pop("input_hash")
    manifest.pop("rejects"), other.pop("rejects")
    assert manifest == other


def test_the_same_config_and_input_are_recognised_and_nothing_is_written(copied, capsys):
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*")}
    preprocess.main(["--config", "config.yaml"])
    assert f"{DATASET} is complete: the same config and input made it" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in copied.rglob("*")} == before
    # But what a run has left that was killed after it had published is removed.
    (folder,) = (path for path in (copied / DATASET).iterdir() if path.is_dir())
    (folder / "work-1").mkdir()
    preprocess.main(["--config", "config.yaml"])
    assert set(copied.rglob("*")) == before.keys()


def test_force_makes_the_same_bytes_again_beside_those_that_may_be_read(copied):
    first = files_of(copied / DATASET)
    before = contents(first)
    for number in (1, 2):
        preprocess.main(["--config", "config.yaml", "--force"])
        assert files_of(copied / DATASET).name == f"{first.name}-{number}"
        assert contents(files_of(copied / DATASET)) == before
        assert first.exists() == (number == 1)
        assert len(list((copied / DATASET).iterdir())) == 3  # with the manifest and the one before


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_damaged_dataset_is_mended_as_its_error_says(copied, is_gone, capsys):
    before = contents(files_of(copied / DATASET))
    shard = next(files_of(copied / DATASET).glob("*.tfrecord-*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.unlink() if is_gone else shard.write_bytes(content)
    message = fail_cleanly("beam_jobs.inspect", DATASET, "--records=0", cwd=copied)
    assert "the dataset is damaged; run the preprocessing again with --force" in message
    if is_gone:
        with pytest.raises(UserError, match="is missing.* is damaged; .* with --force"):
            preprocess.main(["--config", "config.yaml"])
    preprocess.main(["--config", "config.yaml", "--force"])
    assert contents(files_of(copied / DATASET)) == before
    succeed("beam_jobs.inspect", DATASET, "--records=0", cwd=copied)


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_dataset_of_another_config_or_input_is_refused_without_overwrite(copied, force):
    before = contents(copied / "out")
    with pytest.raises(UserError, match="labels.min_count: dataset 50, config 1\n.*--overwrite"):
        preprocess.main(["--config", "config.yaml", "--set", "labels.min_count=1", *force])
    with open(copied / "corpus/all.jsonl", "a") as stream:
        stream.write("\n")
    with pytest.raises(UserError, match="made from other input files; --overwrite"):
        preprocess.main(["--config", "config.yaml", *force])
    assert contents(copied / "out") == before


def test_overwrite_makes_another_generation_and_leaves_the_one_before_to_its_readers(copied):
    before, was = manifests.load(copied / DATASET), contents(copied)
    del was[f"{DATASET}/{manifests.MANIFEST}"]
    preprocess.main(
        [
            "--config",
            "config.yaml",
            "--overwrite",
            "--set",
            "labels.top_k=null",
            "--set",
            "output.shards=1",
        ]
    )
    manifest = manifests.load(copied / DATASET)
    assert manifest.num_labels > 11 and len(manifest.splits["train"].shards) == 1
    assert set(contents(copied / DATASET)) == {
        *(info.file for info in manifest.files()),
        *(info.file for info in before.files()),
        manifests.MANIFEST,
    }
    assert all(contents(copied)[name] == content for name, content in was.items())


@pytest.mark.parametrize("arguments", [[], ["--overwrite"], ["--force"]])
@pytest.mark.parametrize("is_file", [False, True])
def test_what_is_no_dataset_is_never_replaced(tmp_path, monkeypatch, arguments, is_file):
    monkeypatch.chdir(make_home(tmp_path / "home", {"all.jsonl": corpus_lines()[:50]}))
    place = tmp_path / "home" / DATASET
    mine = place if is_file else place / "mine"
    mine.parent.mkdir(parents=True)
    mine.write_text("precious")
    with pytest.raises(
        UserError,
        match="output.dataset_dir: .*exists and is not a dataset; expected a new or empty "
        "directory",
    ):
        preprocess.main(["--config", "config.yaml", *arguments])
    assert contents(tmp_path / "home/out") == {
        mine.relative_to(tmp_path / "home/out").as_posix(): b"precious"
    }


GOOD = [
    json.dumps({"id": f"{i}", "text": f"some words number {i}", "labels": ["x"], "weight": 1})
    for i in range(60)
]
FAILURES = {
    "too many rejects": (
        GOOD + ["{", "[]", "{"],
        [],
        "3 of 63 documents are rejected, .*max_reject_fraction = 0.01 allows:\n  2 x not JSON",
    ),
    "an empty file": ([], [], "the input holds no documents"),
    "no labels": (
        [line.replace('["x"]', "[]") for line in GOOD],
        ["--set", "labels.min_count=1"],
        "none of 60 documents has a label that is kept",
    ),
    "rare labels": (
        GOOD,
        ["--set", "labels.min_count=61"],
        "none of 60 documents has a label that is kept; check labels.min_count",
    ),
    "only rejects": (
        ['{"text": '],
        ["--set", "data.max_reject_fraction=1"],
        "none of 0 documents has a label",
    ),
    "an empty train split": (
        GOOD,
        ["--set", "splits={train: 0.0001, validation: 0.9, test: 0.0999}"],
        "the train split is empty",
    ),
    "no token in enough documents": (
        [line.replace("some words number ", "\u6211\u559c\u6b22\u8bfb\u4e66") for line in GOOD],
        [],
        "the vocabulary is empty: none of the tokens is in 3 of the [0-9]+ train documents; .*Set "
        "vocabulary.min_document_count lower or, .* text.tokenizer: character",
    ),
    "a symbol of which nothing is left": (
        GOOD,
        ["--set", "text.keep_symbols=['\u200d']"],
        "text.keep_symbols: received '.u200d', which text.normalize makes ''",
    ),
    "a wrong pattern": (
        GOOD,
        ["--set", "text.token_pattern='('"],
        "text.token_pattern: received '\\('",
    ),
    "a place that cannot be": (
        GOOD,
        ["--set", "output.dataset_dir=config.yaml/x/dataset"],
        "output.dataset_dir: cannot write in .*config.yaml/x",
    ),
    "a place of an unknown kind": (
        GOOD,
        ["--set", "output.dataset_dir=ftp://server/dataset"],
        "output.dataset_dir: received 'ftp://server/dataset' .str.; expected a local path, gs://",
    ),
    "an option that Beam does not take": (
        GOOD,
        ["--", "--direct_num_workers=many"],
        "options of Beam, after `--`: argument --direct_num_workers: invalid int value: 'many'",
    ),
    "a runner that loses data": (GOOD, ["--", "--runner=DaskRunner"], "--runner=DaskRunner"),
}


@pytest.mark.parametrize("what", FAILURES)
def test_what_the_user_can_mend_is_told_and_leaves_nothing_behind(tmp_path, monkeypatch, what):
    lines, arguments, message = FAILURES[what]
    home = make_home(
        tmp_path / "home", {"all.jsonl": lines}, CONFIG.replace("min_count: 50", "min_count: 2")
    )
    monkeypatch.chdir(home)
    with pytest.raises(UserError, match=message):
        preprocess.main(["--config", "config.yaml", *arguments])
    assert set(contents(home)) == {"config.yaml", "corpus/all.jsonl"}
    assert not any(fnmatch.fnmatch(path.name, ".*") for path in home.rglob("*"))


def test_text_without_spaces_and_texts_with_different_labels_are_told(
    tmp_path, monkeypatch, capsys
):
    texts = [
        f"\u6211\u559c\u6b22\u8bfb\u4e66\u548c\u5403\u996d \u7b2c{i // 2} ok" for i in range(60)
    ]
    lines = [
        json.dumps({"id": f"{i}", "text": text, "labels": ["xyz"[i % 2]], "weight": 1})
        for i, text in enumerate(texts)
    ]
    config = CONFIG.replace("min_count: 50", "min_count: 2")
    home = make_home(tmp_path / "home", {"all.jsonl": lines}, config)
    monkeypatch.chdir(home)
    preprocess.main(["--config", "config.yaml"])
    told = capsys.readouterr()
    assert "  duplicates of texts whose documents have different labels: 30\n" in told.out
    assert re.search(r"Chinese or Japanese, which (\d+) of \1 train documents have, have", told.out)
    assert "Set text.tokenizer: character, with vocabulary.ngrams: 2" in told.out
    assert manifests.load(home / DATASET).counts.duplicates_with_other_labels == 30
    mended = ["--set", "text.tokenizer=character", "--set", "vocabulary.ngrams=2", "--overwrite"]
    preprocess.main(["--config", "config.yaml", *mended])
    assert "warning" not in capsys.readouterr().out
    assert "\u8bfb\n" in (files_of(home / DATASET) / "vocabulary.txt").read_text(encoding="utf-8")


def test_a_few_titles_in_chinese_are_no_text_without_spaces(tmp_path, monkeypatch, capsys):
    texts = [f"words of number {i}" for i in range(80)] + [
        "words of \u6211\u559c\u6b22\u8bfb\u4e66"
    ]
    lines = [
        json.dumps({"id": f"{i}", "text": text, "labels": ["x"], "weight": 1})
        for i, text in enumerate(texts)
    ]
    home = make_home(
        tmp_path / "home", {"all.jsonl": lines}, CONFIG.replace("min_count: 50", "min_count: 2")
    )
    monkeypatch.chdir(home)
    splits = ["--set", "splits={method: hash, train: 1.0, validation: 0.0, test: 0.0}"]
    preprocess.main(["--config", "config.yaml", *splits])
    assert "warning" not in capsys.readouterr().out


def test_an_input_file_that_is_cut_off_stops_the_job(tmp_path, monkeypatch):
    home = make_home(tmp_path / "home", {"all.jsonl.gz": corpus_lines()})
    content = (home / "corpus/all.jsonl.gz").read_bytes()
    (home / "corpus/all.jsonl.gz").write_bytes(content[: len(content) // 2])
    monkeypatch.chdir(home)
    with pytest.raises(
        UserError,
        match="1 input files cannot be read to their end, such as corpus/all.jsonl.gz, "
        "row [0-9]+: EOFError",
    ):
        preprocess.main(["--config", "config.yaml"])
    assert not (home / DATASET).exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "nowhere.yaml"], "error: cannot read the config nowhere.yaml"),
        (
            ["--set", "labels.min_cuont=2"],
            "error: config.yaml: labels.min_cuont: unknown key; did you mean 'min_count'?",
        ),
        (
            ["--set", "data.inputs=['nothing/*.jsonl']"],
            "error: data.inputs: no file matches 'nothing/*.jsonl'",
        ),
    ],
)
def test_a_users_mistake_is_one_message_and_exit_status_2(tmp_path, arguments, message):
    home = make_home(tmp_path / "home", {"all.jsonl": GOOD})
    error = fail(home, *arguments)
    assert error.startswith(message) and error.count("\n") == 1
    assert set(contents(home)) == {"config.yaml", "corpus/all.jsonl"}


def test_a_run_tells_what_each_step_costs(tmp_path):
    home = make_home(
        tmp_path / "home", {"all.jsonl": GOOD}, CONFIG.replace("min_count: 50", "min_count: 2")
    )
    (line,) = [
        line
        for line in run(home).splitlines()
        if line.startswith("time in each step, all workers together: ")
    ]
    costs = dict(part.rsplit(" ", 2)[:2] for part in line.partition(": ")[2].split(", "))
    assert set(costs) == {"read", "analyze", "spill", "merge", "encode", "count", "write", "check"}
    seconds = list(map(float, costs.values()))
    assert seconds == sorted(seconds, reverse=True) and costs["analyze"] == max(costs.values())


def test_too_many_rejects_end_the_command_with_exit_status_2(tmp_path):
    home = make_home(tmp_path / "home", {"all.jsonl": [*GOOD, "{"]})
    error = fail(home)
    assert error.startswith("error: 1 of 61 documents are rejected") and error.count("\n") == 2
    assert "1 x not JSON, such as corpus/all.jsonl, row 61: " in error
    assert list((home / "out/tiny").iterdir()) == []


def test_a_dataset_of_before_is_read_and_its_files_go_with_the_next_one(copied, capsys):
    place = copied / DATASET
    folder = files_of(place)
    for path in folder.iterdir():
        path.rename(place / path.name)
    folder.rmdir()
    manifest = (place / manifests.MANIFEST).read_text().replace(f"{folder.name}/", "")
    (place / manifests.MANIFEST).write_text(manifest)
    preprocess.main(["--config", "config.yaml"])
    assert "is complete" in capsys.readouterr().out
    assert manifests.load_labels(manifests.load(place), place)
    preprocess.main(["--config", "config.yaml", "--force"])
    assert {path.name for path in place.iterdir()} == {manifests.MANIFEST, folder.name}
