"""Fetching public data: checksums, conversions, local copies. Origins are file:// URLs here."""

import dataclasses
import gzip
import hashlib
import io
import json
import lzma
import stat
import tarfile
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.scripts import load_script

get_data = load_script("get_data")

ARXIV_COLUMNS = "\tabstract\tarxiv_id\tcategories\tcreated\tprimary_cat\ttitle\n"
OLD_BILL = """<billStatus><bill><billNumber>7</billNumber><billType>HR</billType>
<congress>108</congress><introducedDate>2003-01-07</introducedDate><title>Short</title>
<titles><item><titleType>Official Title as Introduced</titleType>
<title>To do a thing.</title></item></titles>
<subjects><billSubjects><legislativeSubjects><item><name>Taxation</name></item>
<item><name>Law</name></item></legislativeSubjects></billSubjects></subjects>
<summaries><billSummaries><item><text>First.</text></item><item><text>Does a thing.</text></item>
</billSummaries></summaries></bill></billStatus>"""
NEW_BILL = """<billStatus><bill><number>8</number><type>S</type><congress>108</congress>
<title>To do another.</title><subjects><legislativeSubjects><item><name>Law</name></item>
</legislativeSubjects></subjects>
<summaries><summary><text>Does another.</text></summary></summaries>
</bill></billStatus>"""
NO_SUMMARY = """<billStatus><bill><number>9</number><type>S</type><congress>108</congress>
<subjects><legislativeSubjects><item><name>Law</name></item></legislativeSubjects></subjects>
</bill></billStatus>"""


@pytest.fixture
def origin(tmp_path) -> Path:
    folder = tmp_path / "origin"
    folder.mkdir()
    return folder


def publish(monkeypatch, name: str, *files: Path, sha256: str | None = None) -> None:
    downloads = tuple(get_data.Download(file.as_uri(), sha256) for file in files)
    changed = dataclasses.replace(get_data.DATA_SETS[name], downloads=downloads)
    monkeypatch.setitem(get_data.DATA_SETS, name, changed)


def run(tmp_path, *arguments: str) -> int:
    return get_data.main([*arguments, "--into", str(tmp_path / "data")])


def test_arxiv_tables_become_one_sample_without_papers_that_two_tables_hold(
    monkeypatch, tmp_path, origin
):
    archive = origin / "archive.zip"
    tables = {
        "cs.LG": '0\t"An ""abstract"""\t1801.00001\tcs.LG,stat.ML\t2018-01-01\tcs.LG\tA title\n',
        "stat.ML": "0\tx\t1801.00001\tcs.LG,stat.ML\t2018-01-01\tcs.LG\tA title\n"
        "1\tSecond\thep-th/9901001\tstat.ML\t1999-01-01\tstat.ML\tAnother\n",
    }
    with zipfile.ZipFile(archive, "w") as members:
        for category, rows in tables.items():
            packed = lzma.compress((ARXIV_COLUMNS + rows).encode())
            members.writestr(f"a/processed_data/per_category/{category}.tsv.xz", packed)
        members.writestr("a/README.md", "not a table")
    publish(monkeypatch, "arxiv", archive)
    assert run(tmp_path, "arxiv") == 0
    files = sorted((tmp_path / "data/arxiv").glob("*.jsonl.gz"))
    assert len(files) == 8
    papers = [
        json.loads(line) for f in files for line in gzip.decompress(f.read_bytes()).splitlines()
    ]
    assert {paper["id"] for paper in papers} == {"1801.00001", "hep-th/9901001"}
    (paper,) = (paper for paper in papers if paper["id"] == "1801.00001")
    assert paper["categories"] == ["cs.LG", "stat.ML"]
    assert (paper["title"], paper["abstract"]) == ("A title", 'An "abstract"')


def test_bills_of_both_versions_of_the_schema_become_parquet(monkeypatch, tmp_path, origin):
    archive = origin / "BILLSTATUS-108-hr.zip"
    with zipfile.ZipFile(archive, "w") as members:
        for index, bill in enumerate((OLD_BILL, NEW_BILL, NO_SUMMARY)):
            members.writestr(f"{index}.xml", bill)
    publish(monkeypatch, "bills", archive)
    assert run(tmp_path, "bills") == 0
    files = sorted((tmp_path / "data/bills").glob("bills-*.parquet"))
    rows = {row["bill_id"]: row for file in files for row in pq.read_table(file).to_pylist()}
    assert rows.keys() == {"hr7-108", "s8-108"}
    assert rows["hr7-108"]["title"] == "To do a thing."
    assert rows["hr7-108"]["summary"] == "Does a thing."
    assert rows["hr7-108"]["subjects"] == ["Law", "Taxation"]
    assert rows["s8-108"]["title"] == "To do another."
    assert {row["split"] for row in rows.values()} <= {"train", "validation", "test"}


def test_lines_of_fasttext_become_json_with_the_tutorials_splits(monkeypatch, tmp_path, origin):
    monkeypatch.setattr(get_data, "COOKING_VALIDATION", 1)
    monkeypatch.setattr(get_data, "COOKING_TEST", 1)
    archive = origin / "cooking.stackexchange.tar.gz"
    files = {
        "cooking.stackexchange.txt": "__label__a __label__b How much?\n__label__c Why?\nNo tag\n",
        "cooking.stackexchange.id": "7\n8\n9\n",
    }
    with tarfile.open(archive, "w:gz") as members:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            members.addfile(info, io.BytesIO(text.encode()))
    publish(monkeypatch, "cooking", archive)
    assert run(tmp_path, "cooking") == 0
    (file,) = (tmp_path / "data/cooking").glob("*.jsonl.gz")
    rows = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    assert rows[0] == {"id": "7", "text": "How much?", "labels": ["a", "b"], "split": "train"}
    assert [row["split"] for row in rows] == ["train", "validation", "test"]
    assert rows[2]["labels"] == []


def test_archives_of_sites_are_unpacked_by_the_program_that_is_there(monkeypatch, tmp_path, origin):
    program = tmp_path / "bin/7z"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\ncat "$3"\n')  # 7z x -so ARCHIVE Posts.xml
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    archive = origin / "datascience.meta.stackexchange.com.7z"
    archive.write_text("<posts/>")
    publish(monkeypatch, "stackexchange", archive)
    assert run(tmp_path, "stackexchange") == 0
    assert (tmp_path / "data/stackexchange/datascience_meta_Posts.xml").read_text() == "<posts/>"


def test_without_a_program_that_unpacks_7z_the_error_says_what_to_install(
    monkeypatch, tmp_path, origin, capsys
):
    monkeypatch.setattr(get_data.shutil, "which", lambda program: None)
    archive = origin / "beer.stackexchange.com.7z"
    archive.touch()
    publish(monkeypatch, "stackexchange", archive)
    assert run(tmp_path, "stackexchange") == 2
    assert "install 7-Zip" in capsys.readouterr().err


def test_the_first_download_records_its_checksum_and_later_ones_must_match(
    monkeypatch, tmp_path, origin, capsys
):
    file = origin / "en-annotated.tsv"
    file.write_text("text\t1\n")
    publish(monkeypatch, "xed", file)
    assert run(tmp_path, "xed") == 0
    folder = tmp_path / "data/xed"
    recorded = json.loads((folder / get_data.CHECKSUMS).read_text())
    assert recorded == {file.name: hashlib.sha256(file.read_bytes()).hexdigest()}
    assert run(tmp_path, "xed") == 0  # what is there is not downloaded again

    (folder / file.name).unlink()
    file.write_text("changed\t1\n")
    assert run(tmp_path, "xed") == 2
    assert "expected " + recorded[file.name] in capsys.readouterr().err
    assert not (folder / file.name).exists()


def test_a_known_checksum_is_demanded_of_the_first_download(monkeypatch, tmp_path, origin, capsys):
    file = origin / "20news-bydate.tar.gz"
    file.write_bytes(b"not the archive")
    publish(monkeypatch, "newsgroups", file, sha256="0" * 64)
    assert run(tmp_path, "newsgroups") == 2
    assert f"expected {'0' * 64} (known)" in capsys.readouterr().err


def test_an_origin_that_does_not_answer_is_one_error_that_names_it(
    monkeypatch, tmp_path, origin, capsys
):
    publish(monkeypatch, "xed", origin / "gone.tsv")
    assert run(tmp_path, "xed") == 2
    assert "gone.tsv" in (message := capsys.readouterr().err) and "--from" in message


@pytest.mark.parametrize("place", ["", "20news", "newsgroups"])
def test_a_local_copy_is_linked(tmp_path, origin, place):
    folder = origin / place
    folder.mkdir(exist_ok=True)
    (folder / "20news-bydate.tar.gz").write_bytes(b"archive")
    assert run(tmp_path, "newsgroups", "--from", str(origin)) == 0
    link = tmp_path / "data/newsgroups/20news-bydate.tar.gz"
    assert link.is_symlink() and link.read_bytes() == b"archive"


def test_published_files_of_a_local_copy_are_converted(monkeypatch, tmp_path, origin):
    archive = origin / "BILLSTATUS-108-hr.zip"
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr("a.xml", NEW_BILL)
    publish(monkeypatch, "bills", archive)
    assert run(tmp_path, "bills", "--from", str(origin)) == 0
    assert len(list((tmp_path / "data/bills").glob("bills-*.parquet"))) == 4


def test_a_directory_without_the_files_is_an_error_that_names_them(tmp_path, origin, capsys):
    assert run(tmp_path, "xed", "--from", str(origin)) == 2
    assert "*-annotated.tsv" in capsys.readouterr().err


def test_without_a_name_the_data_sets_are_listed_with_their_terms(tmp_path, capsys):
    assert run(tmp_path) == 0
    printed = capsys.readouterr().out
    assert all(f"{name}: " in printed for name in get_data.DATA_SETS)
    assert printed.count("terms: ") == len(get_data.DATA_SETS)
