"""Every source through the preprocessing job, on generated input and on real data if present."""

import csv
import gzip
import io
import itertools
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import zstandard

from beam_jobs import preprocess
from beam_jobs.contract import manifest as manifests
from beam_jobs.contract.config import config_from_dict, load_config
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.records import RecordSpec
from beam_jobs.preprocessing import job
from beam_jobs.sources import registry
from beam_jobs.sources.documents import Document
from tests.command_lines import ROOT
from tests.corpus import files_of
from tests.scripts import load_script
from tests.transform_source import TOPICS, write_transform

SHARED = ROOT.parent / "shared/data"

ROWS = [
    {"key": f"d{i}", "text": f"document {i} \u00e9tude\nsecond line", "label": TOPICS[i % 3]}
    for i in range(120)
]


def write_jsonl(folder: Path) -> dict:
    with gzip.open(folder / "a.jsonl.gz", "wt", encoding="utf-8") as stream:
        stream.writelines(
            json.dumps({"key": row["key"], "text": row["text"], "labels": [row["label"]]}) + "\n"
            for row in ROWS[:70]
        )
    lines = "".join(
        json.dumps({"key": row["key"], "text": row["text"], "labels": [row["label"]]}) + "\n"
        for row in ROWS[70:]
    )
    (folder / "b.jsonl.zst").write_bytes(zstandard.compress(lines.encode()))
    return {"source": "jsonl", "inputs": ["*.jsonl.gz", "b.*"], "id_field": "key"}


def write_csv(folder: Path) -> dict:
    with open(folder / "rows.tsv", "w", encoding="latin-1", newline="") as stream:
        csv.writer(stream, delimiter="\t").writerows(row.values() for row in ROWS)
    data = {
        "source": "csv",
        "inputs": ["rows.tsv"],
        "columns": ["key", "text", "label"],
        "delimiter": "\t",
        "quote_character": '"',
        "encoding": "latin-1",
    }
    return data | {"id_field": "key", "labels_field": "label"}


def write_parquet(folder: Path) -> dict:
    columns = {"key": [row["key"] for row in ROWS], "text": [row["text"] for row in ROWS]}
    columns |= {topic: [float(row["label"] == topic) for row in ROWS] for topic in TOPICS}
    pq.write_table(pa.table(columns), folder / "rows.parquet", row_group_size=50)
    return {
        "source": "parquet",
        "inputs": ["rows.parquet"],
        "id_field": "key",
        "label_columns": TOPICS,
    }


def write_lists_in_strings(folder: Path) -> dict:
    with open(folder / "rows.csv", "w", newline="", encoding="utf-8") as stream:
        rows = ([row["text"], str([row["label"]])] for row in ROWS)
        csv.writer(stream).writerows([("text", "labels"), *rows])
    return {"source": "csv", "inputs": ["rows.csv"], "label_format": "written_list"}


def write_ids(folder: Path) -> dict:
    (folder / "names.txt").write_text("".join(f"{topic}\n" for topic in TOPICS))
    rows = [{"text": row["text"], "labels": [TOPICS.index(row["label"])]} for row in ROWS]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"source": "jsonl", "inputs": ["rows.jsonl"]}
    return data | {"label_format": "ids", "label_names": "names.txt"}


def write_arrow(folder: Path) -> dict:
    (folder / "saved").mkdir()
    columns = {"key": [row["key"] for row in ROWS], "text": [row["text"] for row in ROWS]}
    table = pa.table(columns | {"labels": [[row["label"]] for row in ROWS]})
    with pa.ipc.new_stream(folder / "saved/data-00000-of-00001.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=50)
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": "train"}
    (folder / "saved/state.json").write_text(json.dumps(state))
    return {"source": "arrow", "inputs": ["saved"], "id_field": "key"}


def write_directories(folder: Path) -> dict:
    with tarfile.open(folder / "all.tar.gz", "w:gz") as archive:
        for row in ROWS:
            info = tarfile.TarInfo(f"{row['label']}/{row['key']}")
            info.size = len(row["text"].encode())
            archive.addfile(info, io.BytesIO(row["text"].encode()))
    return {"source": "directories", "inputs": ["all.tar.gz"]}


def write_custom(folder: Path) -> dict:
    (folder / "my_source.py").write_text(
        "from beam_jobs.sources.documents import Document\n"
        "from beam_jobs.sources.input_files import InputFile\n"
        "class Mine:\n"
        "    def __init__(self, topics): self.topics = topics\n"
        "    def files(self): return [InputFile('mine', '', 1)]\n"
        "    def read(self, file):\n"
        "        for i in range(120):\n"
        "            text = f'document {i} \\u00e9tude\\nsecond line'\n"
        "            labels = (self.topics[i % 3],)\n"
        "            yield Document(f'd{i}', (text,), labels, 1.0, 'mine', i + 1)\n"
    )
    return {"source": "custom", "reader": "my_source:Mine", "options": {"topics": list(TOPICS)}}


def dataset(config: dict, *arguments: str) -> dict[bytes, tuple]:
    """Runs the job in the working directory; by text: split, labels."""
    Path("config.yaml").write_text(json.dumps(config))
    preprocess.main(["--config", "config.yaml", *arguments])
    directory = Path(f"out/{config['name']}/dataset")
    manifest = manifests.load(directory)
    names = [label["name"] for label in manifests.load_labels(manifest, directory)]
    documents = {}
    for split, info in manifest.splits.items():
        for shard in info.shards:
            parsed = RecordSpec().parse_batch(
                tf.constant(
                    list(tf.data.TFRecordDataset(str(directory / shard.file)).as_numpy_iterator()),
                    tf.string,
                )
            )
            for text, ids in zip(
                parsed["text"].numpy().tolist(), parsed["labels"].to_list(), strict=True
            ):
                documents[text] = (split, tuple(names[i] for i in ids))
    return documents


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(
        "PYTHONPATH", str(ROOT)
    )  # what makes a worker process find our code where it is not installed
    return tmp_path


@pytest.mark.parametrize(
    "write",
    [write_jsonl, write_csv, write_parquet, write_directories, write_custom, write_transform]
    + [write_arrow, write_lists_in_strings, write_ids],
)
def test_the_same_documents_from_any_source_give_the_same_dataset(home, write):
    in_memory = ["--", "--direct_running_mode=in_memory"]
    documents = dataset(
        {"name": "same", "data": write(home), "vocabulary": {"min_document_count": 1}}, *in_memory
    )
    assert {text: labels for text, (_, labels) in documents.items()} == {
        f"document {i} \u00e9tude second line".encode(): (TOPICS[i % 3],) for i in range(120)
    }


def test_a_transform_that_yields_no_documents_stops_the_job_with_what_it_yields(home):
    write_transform(home)
    data = {"source": "custom", "reader": "my_transform:numbers", "options": {"count": 5}}
    message = (
        "5 of 5 documents are rejected, .*\n  5 x no document, "
        "such as my_transform:numbers, row 0: received int, expected multihot"
    )
    with pytest.raises(UserError, match=message):
        dataset({"name": "own", "data": data}, "--", "--direct_running_mode=in_memory")
    assert list((home / "out/own").iterdir()) == []


def test_documents_with_equal_ids_are_both_kept_unless_their_texts_are_equal(home):
    rows = [
        {"key": "same", "text": text, "labels": [label]}
        for text, label in (("one", "x"), ("two", "x"), ("One!", "y"), ("three", "x"))
    ]
    (home / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 10))
    splits = {"train": 1, "validation": 0, "test": 0}
    data = {"source": "jsonl", "inputs": ["in.jsonl"], "id_field": "key"}
    documents = dataset(
        {"name": "ids", "data": data, "splits": splits, "vocabulary": {"min_document_count": 1}}
    )
    assert {text: labels for text, (_, labels) in documents.items()} == {
        b"one": ("x", "y"),
        b"two": ("x",),
        b"three": ("x",),
    }


def test_a_missing_column_is_told_with_the_columns_found_before_any_work(home, capsys):
    write_parquet(home)
    config = {
        "name": "wrong",
        "data": {"source": "parquet", "inputs": ["rows.parquet"], "text_fields": ["body"]},
    }
    (home / "config.yaml").write_text(json.dumps(config))
    message = (
        "data.text_fields: rows.parquet has no column 'body'; the columns found are "
        "'key', 'text', 'sport', 'music', 'food, drink'"
    )
    with pytest.raises(UserError, match=message):
        preprocess.main(["--config", "config.yaml"])
    assert capsys.readouterr().out == "" and not (home / "out").exists()


def test_labels_in_another_format_end_with_the_setting_before_any_work(home, capsys):
    data = write_lists_in_strings(home) | {"label_format": None}
    (home / "config.yaml").write_text(json.dumps({"name": "wrong", "data": data}))
    message = "rows.csv: none of its first rows .* set data.label_format: written_list"
    with pytest.raises(UserError, match=message):
        preprocess.main(["--config", "config.yaml"])
    assert capsys.readouterr().out == "" and not (home / "out").exists()


def test_large_files_are_read_in_ranges_with_exact_rows_of_rejects(home, monkeypatch):
    monkeypatch.setattr(
        registry, "parts", lambda files: job_parts(files, part_bytes=1000, range_bytes=2000)
    )
    lines = [json.dumps({"text": row["text"] * 3, "labels": [row["label"]]}) for row in ROWS]
    lines[77] = "broken"
    lines[99] = json.dumps({"text": "...", "labels": ["sport"]})
    (home / "in.jsonl").write_text("\n".join(lines))
    config = {
        "name": "ranges",
        "data": {"source": "jsonl", "inputs": ["in.jsonl"], "max_reject_fraction": 0.1},
    }
    assert len(dataset(config | {"vocabulary": {"min_document_count": 1}})) == 118
    rejects = (files_of(home / "out/ranges/dataset") / manifests.REJECTS).read_text().splitlines()
    assert [(row["row"], row["reason"]) for row in map(json.loads, rejects)] == [
        (78, "not JSON"),
        (100, "empty text"),
    ]


job_parts = registry.parts
assert job.registry is registry

# --- the shared data -------------------------------------------------------------------

# By config: documents in the sample, and what the first one must hold.
SAMPLES = {
    "arxiv": (
        "1807.10744",
        ("cs.RO", "cs.CV"),
        "Attention-based Active Visual Search for Mobile Robots\n\nWe present",
    ),
    "bills": (
        "hr5490-109",
        ("Armed forces and national security", "Crime and law enforcement"),
        "To require the Secretary of Veterans Affairs",
    ),
    "cooking": ("58206", ("sauce", "cheese"), "How much does potato starch affect"),
    "newsgroups": (
        "20news-bydate-train/alt.atheism/49960",
        ("alt.atheism",),
        "Archive-name: atheism/resources",
    ),
    "stackexchange": (
        "data/stackexchange/beer_Posts.xml:1",
        ("hops",),
        "What is a citra hop, and how does it differ",
    ),
    "xed": ("data/xed/en-annotated.tsv:1", ("1",), ", ..."),
}


def get_data(name: str, into: Path) -> None:
    """Lays the shared data out as the configs read it, in `into`/data/NAME."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(into)
        assert load_script("get_data").main([name, "--from", str(SHARED)]) in (0, None)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not here")
@pytest.mark.parametrize("name", SAMPLES)
def test_the_configs_of_the_shared_data_read_what_is_there(monkeypatch, tmp_path, name):
    get_data(name, tmp_path)
    monkeypatch.chdir(tmp_path)
    config = load_config(ROOT / f"configs/{name}.yaml")
    assert config.name == name
    reader = registry.make_reader(config.data)
    first_id, first_labels, first_text = SAMPLES[name]
    for i, file in enumerate(reader.files()):
        rows = list(itertools.islice(reader.read(file), 500))
        assert len(rows) >= 200 and all(isinstance(row, Document) for row in rows)
        assert sum(bool(row.labels) for row in rows) > 0.95 * len(rows)
        assert all("".join(row.texts).strip() for row in rows) or name == "newsgroups"
        assert sum(bool("".join(row.texts).strip()) for row in rows) > 0.9 * len(rows)
        if i == 0:
            assert (rows[0].id, rows[0].labels[: len(first_labels)]) == (first_id, first_labels)
            assert rows[0].texts[0].startswith(first_text)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not here")
@pytest.mark.parametrize("name", ["stackexchange"])
def test_a_config_of_the_shared_data_makes_a_dataset(monkeypatch, tmp_path, name):
    get_data(name, tmp_path)
    monkeypatch.chdir(tmp_path)
    preprocess.main(["--config", str(ROOT / f"configs/{name}.yaml")])
    manifest = manifests.load(tmp_path / f"out/{name}/dataset")
    assert (
        manifest.counts.read == 1470 and not manifest.counts.rejected and manifest.num_labels > 50
    )


def test_every_config_in_the_folder_is_valid():
    names = {path.stem for path in (ROOT / "configs").glob("*.yaml")}
    assert set(SAMPLES) <= names
    for name in names:
        config = load_config(ROOT / f"configs/{name}.yaml")
        assert config_from_dict(config.model_dump(mode="json"), what=name) == config
