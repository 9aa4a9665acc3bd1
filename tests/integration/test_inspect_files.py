"""Inspecting files: the config that is written runs as it is, whatever the format of the files."""

import csv
import gzip
import io
import json
import random
import shutil
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_jobs.contract import manifest as manifests
from beam_jobs.contract.config import load_config
from beam_jobs.sources import registry
from beam_jobs.sources.documents import Document
from tests.command_lines import fail_cleanly, succeed

WORDS = "brake clutch engine soup bread kitten purr invoice refund train river stone cloud".split()
LABELS = ("cars", "cats", "food")


def rows() -> list[dict]:
    """Documents of one to two labels: id, title, body, tags."""
    source = random.Random(0)
    return [
        {
            "id": f"d{i}",
            "title": " ".join(source.sample(WORDS, 3)) + f" {i}",
            "body": " ".join(source.choice(WORDS) for _ in range(12)) + f" é {i}",
            "tags": sorted(source.sample(LABELS, source.randint(1, 2))),
        }
        for i in range(60)
    ]


def jsonl(each_row=rows) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in each_row()).encode()


def table(delimiter: str = ",", *, header: bool = True, join: str = ";") -> str:
    """As CSV."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    if header:
        writer.writerow(["id", "title", "body", "tags"])
    for row in rows():
        writer.writerow([row["id"], row["title"], row["body"], join.join(row["tags"])])
    return text.getvalue()


def zipped(contents: dict[str, str]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return stream.getvalue()


def parquet(values: list[dict]) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(values), stream)
    return stream.getvalue()


def arrow() -> bytes:
    values = pa.Table.from_pylist(rows())
    stream = io.BytesIO()
    with pa.ipc.new_stream(stream, values.schema) as writer:
        writer.write_table(values)
    return stream.getvalue()


def tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for row in rows():
            content = row["body"].encode()
            info = tarfile.TarInfo(f"set/{row['tags'][0]}/{row['id']}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def posts() -> bytes:
    lines = [
        f'<row Id="{i}" PostTypeId="1" Title="{row["title"]}" '
        f'Body="&lt;p&gt;{row["body"]}&lt;/p&gt;" Tags="|{"|".join(row["tags"])}|" />\n'
        for i, row in enumerate(rows())
    ]
    return ('<?xml version="1.0"?>\n<posts>\n' + "".join(lines) + "</posts>\n").encode()


def with_tags(make) -> list[dict]:
    """The rows with their labels in another form."""
    return [row | {"tags": make(row["tags"])} for row in rows()]


def with_columns() -> str:
    """As CSV with a column of 0 and 1 for each label."""
    lines = [
        ",".join([row["body"], *(str(int(label in row["tags"])) for label in LABELS)])
        for row in rows()
    ]
    return "\n".join([",".join(["body", *LABELS]), *lines]) + "\n"


FORMATS = {
    "lines.jsonl": jsonl,
    "array.json": lambda: json.dumps(rows(), indent=1).encode(),
    "comma.csv": lambda: table().encode(),
    "no_header.tsv": lambda: table("\t", header=False).encode(),
    "nested.parquet": lambda: parquet(
        [{"doc": {"body": row["body"]}, "meta": {"tags": row["tags"]}} for row in rows()]
    ),
    "table.arrow": arrow,
    "groups.tar.gz": tar,
    "groups.zip": lambda: zipped({f"{r['tags'][0]}/{r['id']}": r["body"] for r in rows()}),
    "lines.txt": lambda: "".join(
        " ".join([*(f"__label__{label}" for label in row["tags"]), row["body"]]) + "\n"
        for row in rows()
    ).encode(),
    "site.Posts.xml": posts,
    "columns.csv": lambda: with_columns().encode(),
    "written.jsonl": lambda: jsonl(lambda: with_tags(str)),
    "scores.jsonl": lambda: jsonl(lambda: with_tags(lambda tags: dict.fromkeys(tags, 0.9))),
}
IDS = {
    "ids.jsonl": lambda: jsonl(lambda: with_tags(lambda tags: [*map(LABELS.index, tags)])),
    "multi_hot.parquet": lambda: parquet(
        with_tags(lambda tags: [int(label in tags) for label in LABELS])
    ),
}
VARIANTS = {
    "zipped_by_content.jsonl": lambda: gzip.compress(jsonl()),
    "wide.jsonl": lambda: jsonl().decode().encode("utf-16"),
    "semicolon.csv": lambda: table(";", join=",").encode(),
    "latin.csv": lambda: table().encode("latin-1"),
    "one.csv.zip": lambda: zipped({"one.csv": table()}),
    "tabs.tsv": lambda: table("\t").encode(),
    "table.txt": lambda: table("|").encode(),
}


def labels_read(folder: Path, config: str) -> set[str]:
    """The labels of the documents that a job with the config reads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        reader = registry.make_reader(load_config(config).data)
        rows = [row for file in reader.files() for row in reader.read(file)]
    assert len(rows) > 50 and all(isinstance(row, Document) for row in rows)
    return {label for row in rows for label in row.labels}


def labels_of(folder: Path, config: str) -> set[str]:
    """The labels of the dataset that a config makes."""
    succeed("beam_jobs.preprocess", "--config", config, cwd=folder)
    directory = folder / load_config(folder / config).output.dataset_dir
    manifest = manifests.load(directory)
    assert manifest.counts.written > 50 and not sum(manifest.counts.rejected.values())
    return {row["name"] for row in manifests.load_labels(manifest, directory)}


@pytest.mark.parametrize("name", FORMATS)
def test_the_config_that_is_written_reads_every_row(name, tmp_path):
    (tmp_path / name).write_bytes(FORMATS[name]())
    shown = succeed("beam_jobs.inspect", name, "--write", "start.yaml", cwd=tmp_path)
    assert "wrote start.yaml; next: multihot-preprocess --config start.yaml" in shown
    assert "60 documents with 3 labels" in shown
    assert labels_read(tmp_path, "start.yaml") == set(LABELS)


@pytest.mark.parametrize("name", IDS)
def test_ids_and_positions_have_numbers_as_names_until_the_config_has_them(name, tmp_path):
    (tmp_path / name).write_bytes(IDS[name]())
    succeed("beam_jobs.inspect", name, "--write", "start.yaml", cwd=tmp_path)
    found = labels_read(tmp_path, "start.yaml")
    assert {label.removeprefix("label_") for label in found} == {"0", "1", "2"}


@pytest.mark.parametrize("name", VARIANTS)
def test_compression_encoding_and_delimiter_are_found_by_content(name, tmp_path):
    (tmp_path / name).write_bytes(VARIANTS[name]())
    shown = succeed("beam_jobs.inspect", name, cwd=tmp_path)
    assert "60 documents with 3 labels, " in shown and " each, 0 without\n" in shown


def test_a_directory_of_files_by_split(tmp_path):
    for name in ("train", "dev", "test"):
        (tmp_path / "rows").mkdir(exist_ok=True)
        content = jsonl(lambda name=name: [row | {"body": row["body"] + name} for row in rows()])
        (tmp_path / f"rows/{name}.jsonl").write_bytes(content)
    (tmp_path / "rows/README.md").write_text("about")
    succeed("beam_jobs.inspect", "rows", "--write", "rows.yaml", cwd=tmp_path)
    config = load_config(tmp_path / "rows.yaml")
    assert config.data.inputs == ("rows/*.jsonl",)
    assert config.splits.method == "files" and config.splits.validation == ("rows/dev.jsonl",)
    assert labels_of(tmp_path, "rows.yaml") == set(LABELS)
    sizes = manifests.load(tmp_path / "out/rows/dataset").splits
    assert {split: sizes[split].examples for split in sizes} == dict.fromkeys(
        ("train", "validation", "test"), 60
    )


def test_a_saved_dataset_of_hugging_face(tmp_path):
    for split in ("train", "test"):
        (tmp_path / "saved" / split).mkdir(parents=True)
        (tmp_path / "saved" / split / "data-00000-of-00001.arrow").write_bytes(arrow())
        state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": split}
        (tmp_path / "saved" / split / "state.json").write_text(json.dumps(state))
    (tmp_path / "saved/dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    succeed("beam_jobs.inspect", "saved", "--write", "saved.yaml", cwd=tmp_path)
    config = load_config(tmp_path / "saved.yaml")
    assert config.data.inputs == ("saved",) and config.splits.method == "column"


def test_a_directory_with_a_directory_per_label(tmp_path):
    for row in rows():
        (tmp_path / "groups" / row["tags"][0]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / row["tags"][0] / f"{row['id']}.txt").write_text(row["body"])
    succeed("beam_jobs.inspect", "groups", "--write", "groups.yaml", cwd=tmp_path)
    assert labels_read(tmp_path, "groups.yaml") == set(LABELS)


def test_directories_named_after_splits_are_splits_and_no_labels(tmp_path):
    for row in rows():
        split = "train" if int(row["id"][1:]) % 3 else "test"
        folder = tmp_path / "set" / split / row["tags"][0]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / row["id"]).write_text(row["body"])
        (tmp_path / "flat" / split).mkdir(parents=True, exist_ok=True)
        (tmp_path / "flat" / split / row["id"]).write_text(row["body"])
    shown = succeed("beam_jobs.inspect", "set", "--write", "set.yaml", cwd=tmp_path)
    assert "labels  directories of 60 files: " in shown and "split   test: */test/*" in shown
    assert labels_of(tmp_path, "set.yaml") == set(LABELS)
    assert manifests.load(tmp_path / "out/set/dataset").splits["test"].examples == 20
    message = fail_cleanly("beam_jobs.inspect", "flat", cwd=tmp_path)
    assert "which are splits; expected a directory per label, below those of splits" in message


def test_the_config_is_printed_where_none_is_written_and_reads_back(tmp_path):
    (tmp_path / "in.csv").write_text(table())
    shown = succeed("beam_jobs.inspect", "in.csv", cwd=tmp_path)
    _, _, yaml = shown.partition("\n# Made by")
    (tmp_path / "copied.yaml").write_text(f"# {yaml}")
    config = load_config(tmp_path / "copied.yaml")
    assert config.data.text_fields == ("title", "body") and config.data.label_delimiter == ";"
    assert "id_field: id # guessed: named like an id" in shown
    assert not list(tmp_path.glob("*.yaml.*")) and len(list(tmp_path.iterdir())) == 2


def test_an_existing_config_is_kept_unless_overwrite_is_asked_for(tmp_path):
    (tmp_path / "in.csv").write_text(table())
    (tmp_path / "c.yaml").write_text("mine")
    message = fail_cleanly("beam_jobs.inspect", "in.csv", "--write", "c.yaml", cwd=tmp_path)
    assert "c.yaml exists already; name another, or add --overwrite" in message
    assert (tmp_path / "c.yaml").read_text() == "mine"
    succeed("beam_jobs.inspect", "in.csv", "--write", "c.yaml", "--overwrite", cwd=tmp_path)
    assert load_config(tmp_path / "c.yaml").name == "c"


def test_columns_that_the_user_names_are_taken(tmp_path):
    (tmp_path / "in.csv").write_text(table())
    arguments = ("--text-field", "body", "--labels-field", "title", "--write", "c.yaml")
    succeed("beam_jobs.inspect", "in.csv", *arguments, cwd=tmp_path)
    data = load_config(tmp_path / "c.yaml").data
    assert data.text_fields == ("body",) and data.labels_field == "title"


def test_rows_that_would_be_rejects_are_told_and_allowed_for(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(jsonl() + b"{\n\n{\n")
    shown = succeed("beam_jobs.inspect", "in.jsonl", "--write", "c.yaml", cwd=tmp_path)
    assert "2 x not JSON" in shown
    assert load_config(tmp_path / "c.yaml").data.max_reject_fraction == 0.05


def test_only_the_first_rows_are_read(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(jsonl() + b"{\n")
    shown = succeed("beam_jobs.inspect", "in.jsonl", "--rows", "30", cwd=tmp_path)
    assert "read the first 30 of about" in shown and "not JSON" not in shown
    assert "read all 60 rows\n" in succeed("beam_jobs.inspect", "in.jsonl", cwd=tmp_path)


WRONG = {
    "nowhere.csv": (None, "nowhere.csv: no such file or directory"),
    "empty.csv": (b"", "empty.csv is empty; expected CSV, TSV"),
    "header.csv": (b"text,labels\n", "header.csv holds no rows"),
    "blank.txt": (b" \n\n", "blank.txt holds white space alone"),
    "a.pdf": (b"%PDF-1.4 ...", "a.pdf is a PDF; expected CSV"),
    "binary.dat": (b"a\0b" * 99, "binary.dat is no text"),
    "prose.txt": (b"some words, and more\nothers\nthe end, is it\n", "multihot-bulk-predict"),
    "page.xml": (b"<?xml version='1.0'?><html/>", "not Stack Exchange's Posts.xml"),
    "object.json": (b'{\n "rows": [\n  {"a": 1}\n ]\n}\n', "a JSON object of several lines"),
    "numbers.csv": (b"a,b\n1,2\n3,4\n", "no column looks like text: 'a' (integer), 'b' (integer)"),
    "no_labels.csv": (
        b"id,text\n" + b"".join(b"%d,some words of row %d\n" % (i, i) for i in range(9)),
        "no column looks like labels; expected a list",
    ),
    "cut.parquet": (b"PAR1 and no more", "cut.parquet is not a whole Parquet file"),
    "cut.jsonl.gz": (gzip.compress(b"x" * 999)[:20], "cut.jsonl.gz cannot be read"),
    "two.zip": (None, "received files of several formats: two.zip/a.csv (csv), two.zip/b.j"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_read_is_one_message_with_what_to_do(name, tmp_path):
    content, expected = WRONG[name]
    if name == "two.zip":
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("a.csv", table())
            archive.writestr("b.jsonl", jsonl())
    elif content is not None:
        (tmp_path / name).write_bytes(content)
    message = fail_cleanly("beam_jobs.inspect", name, "--write", "c.yaml", cwd=tmp_path)
    assert expected in message and message.count("\n") == 1
    assert not (tmp_path / "c.yaml").exists()


def test_files_and_directories_that_do_not_go_together(tmp_path):
    (tmp_path / "a.csv").write_text(table())
    (tmp_path / "b.jsonl").write_bytes(jsonl())
    (tmp_path / "none").mkdir()
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd/notes.txt").write_text("words")
    for paths, expected in (
        (["a.csv", "b.jsonl"], "files of several formats: a.csv (csv), b.jsonl (jsonl)"),
        (["a.csv", "none"], "received the directory none with 1 other paths"),
        (["none"], "none holds no files"),
        (["odd"], "odd holds 1 files, such as notes.txt, of no format that is known"),
        (["a.csv", "--records", "2"], "--records is for a dataset, and a.csv is no dataset"),
        (["a.csv", "--overwrite"], "expected --write CONFIG too"),
        (["a.csv", "--rows", "0"], "--rows: received 0, expected 1 or more"),
        (["a.csv", "--write", "no/c.yaml"], "--write: cannot write no/c.yaml"),
        (["a.csv", "--labels-field", "x"], "--labels-field: there is no column 'x'"),
    ):
        assert expected in fail_cleanly("beam_jobs.inspect", *paths, cwd=tmp_path)


def test_flags_for_files_are_refused_for_a_dataset(tmp_path):
    (tmp_path / "in.csv").write_text(table())
    succeed("beam_jobs.inspect", "in.csv", "--write", "c.yaml", cwd=tmp_path)
    assert labels_of(tmp_path, "c.yaml") == set(LABELS)
    message = fail_cleanly("beam_jobs.inspect", "out/c/dataset", "--rows", "5", cwd=tmp_path)
    assert "--rows is for files, and out/c/dataset is a dataset" in message
    (tmp_path / "out/c/dataset/manifest.json").unlink()
    assert "manifest" in fail_cleanly("beam_jobs.inspect", "out/c/dataset", cwd=tmp_path)
    shutil.rmtree(tmp_path / "out")
