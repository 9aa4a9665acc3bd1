#!/usr/bin/env python3
"""Fetches a public data set and lays it out as its config reads it, in data/NAME/.

  python scripts/get_data.py                        # what there is
  python scripts/get_data.py xed                    # download, check, convert
  python scripts/get_data.py xed --from ~/corpora   # take the files that are there already

Every download is checked by SHA-256: against the checksum below where one is known, otherwise
against data/NAME/checksums.json, in which the first download records what it received. With
--from DIR nothing is downloaded: files of the names that the config reads are linked, and files
as their authors publish them are converted, from DIR/NAME, or from DIR itself.

exit status: 0 done, 2 a download or a file is not what was expected.
"""

import argparse
import contextlib
import csv
import dataclasses
import gzip
import hashlib
import itertools
import json
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

CHECKSUMS = "checksums.json"
BLOCK_BYTES = 1 << 20  # 1 MiB
TIMEOUT_SECONDS = 60
ARXIV_PAPERS = 200_000
ARXIV_FILES = 8
BILLS_FILES = 4
COOKING_VALIDATION, COOKING_TEST = 1_000, 3_000  # lines; the latter as in fastText's tutorial


class DataError(Exception):
    """What was received is not what was expected; the message says how to go on."""


@dataclasses.dataclass(frozen=True)
class Download:
    """A file as its authors publish it.

    Attributes:
      url: where it is.
      sha256: its checksum, in hex; None: not known before the first download.
      name: its name here; empty: the last part of the URL.
    """

    url: str
    sha256: str | None = None
    name: str = ""

    @property
    def file_name(self) -> str:
        return self.name or self.url.rpartition("/")[2]


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A data set and how to come by it.

    Attributes:
      what: one line: what it is.
      home: the authors' page.
      licence: the terms of use.
      downloads: the published files.
      ready: glob pattern of the files that the config reads.
      convert: (published files, folder) -> None: writes those files; None: they are the
        published ones.
      other_names: other names that a folder with it may have, for --from.
    """

    what: str
    home: str
    licence: str
    downloads: tuple[Download, ...]
    ready: str
    convert: Callable[[Sequence[Path], Path], None] | None = None
    other_names: tuple[str, ...] = ()


# --- conversions ---------------------------------------------------------------------------


def convert_arxiv(files: Sequence[Path], folder: Path) -> None:
    """The per-category tables of the archive -> JSONL: a sample by a hash of the papers' ids."""
    papers: dict[str, dict[str, object]] = {}
    (archive,) = files
    with zipfile.ZipFile(archive) as members:
        names = sorted(n for n in members.namelist() if "/per_category/" in n)
        for name in (n for n in names if n.endswith(".tsv.xz")):
            with members.open(name) as packed, lzma.open(packed, "rt", encoding="utf-8") as rows:
                for row in csv.DictReader(rows, delimiter="\t"):
                    paper = _arxiv_paper(row)
                    papers.setdefault(str(paper["id"]), paper)
    if not papers:
        raise DataError(f"{archive}: received no per_category/*.tsv.xz, expected the arXiv archive")
    sample = sorted(papers, key=lambda paper: hashlib.blake2b(paper.encode()).digest())
    sample = sample[:ARXIV_PAPERS]
    for index in range(ARXIV_FILES):
        path = folder / f"arxiv-{index:02}-of-{ARXIV_FILES:02}.jsonl.gz"
        write_jsonl(path, (papers[paper] for paper in sample[index::ARXIV_FILES]))


def _arxiv_paper(row: dict[str, str]) -> dict[str, object]:
    return {
        "id": row["arxiv_id"].strip(),
        "created": row["created"],
        "primary": row["primary_cat"],
        "categories": [name.strip() for name in row["categories"].split(",")],
        "title": row["title"].strip(),
        "abstract": row["abstract"].strip(),
    }


def convert_bills(files: Sequence[Path], folder: Path) -> None:
    """Bill status files in zip archives -> Parquet with title, summary, subjects and a split."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [bill for file in files for bill in _bills(file)]
    if not rows:
        raise DataError("received no bill with a summary and subjects, expected some")
    table = pa.Table.from_pylist(sorted(rows, key=lambda row: row["bill_id"]))
    for index in range(BILLS_FILES):
        path = folder / f"bills-{index:02}-of-{BILLS_FILES:02}.parquet"
        rows_of_file = pa.array(range(index, len(table), BILLS_FILES), pa.int64())
        pq.write_table(table.take(rows_of_file), path)


def _bills(archive: Path) -> Iterator[dict[str, object]]:
    with zipfile.ZipFile(archive) as members:
        for name in sorted(n for n in members.namelist() if n.endswith(".xml")):
            bill = ElementTree.fromstring(members.read(name)).find("bill")
            if bill is not None and (row := _bill(bill)):
                yield row


def _bill(bill: ElementTree.Element) -> dict[str, object] | None:
    """A bill's row, or None without summary or subjects; both versions of the schema are read."""
    subjects = sorted(
        {
            item.findtext("name", "").strip()
            for subjects in bill.iter("legislativeSubjects")
            for item in subjects.iter("item")
        }
        - {""}
    )
    summaries = [
        summary.findtext("text") or summary.findtext("cdata/text") or ""
        for parent in bill.iter("summaries")
        for summary in itertools.chain(parent.iter("item"), parent.iter("summary"))
    ]
    summary = next((text.strip() for text in reversed(summaries) if text.strip()), "")
    titles = {
        item.findtext("titleType", ""): item.findtext("title", "") for item in bill.iter("item")
    }
    official = next((t for kind, t in titles.items() if kind.startswith("Official Title")), "")
    if not subjects or not summary:
        return None
    kind = bill.findtext("billType") or bill.findtext("type") or ""
    number = bill.findtext("billNumber") or bill.findtext("number") or ""
    congress = int(bill.findtext("congress") or 0)
    title = official or bill.findtext("title", "")
    return {
        "bill_id": f"{kind.lower()}{number}-{congress}",
        "congress": congress,
        "title": title,
        "summary": summary,
        "subjects": subjects,
        "introduced_at": bill.findtext("introducedDate", ""),
        "split": split_of(f"{title}\n{summary}"),
    }


def split_of(text: str) -> str:
    """80% train, 10% validation, 10% test by a hash of the text: equal texts stay together."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    part = int.from_bytes(digest, "big") / 2**64
    return "train" if part < 0.8 else "validation" if part < 0.9 else "test"


def convert_cooking(files: Sequence[Path], folder: Path) -> None:
    """fastText's lines `__label__a __label__b text` -> JSONL with its tutorial's test split."""
    (archive,) = files
    with tarfile.open(archive) as members:
        names = {Path(name).name: name for name in members.getnames()}
        if "cooking.stackexchange.txt" not in names:
            raise DataError(
                f"{archive}: received {sorted(names)}, expected cooking.stackexchange.txt"
            )
        lines, ids = (
            members.extractfile(names[name]).read().decode().splitlines() if name in names else []
            for name in ("cooking.stackexchange.txt", "cooking.stackexchange.id")
        )
    test = len(lines) - COOKING_TEST
    validation = test - COOKING_VALIDATION
    rows = []
    for index, line in enumerate(lines):
        words = line.split(" ")
        labels = [word.removeprefix("__label__") for word in words if word.startswith("__label__")]
        rows.append(
            {
                "id": ids[index].strip() if len(ids) == len(lines) else str(index + 1),
                "text": " ".join(words[len(labels) :]).strip(),
                "labels": labels,
                "split": "test"
                if index >= test
                else "validation"
                if index >= validation
                else "train",
            }
        )
    write_jsonl(folder / "cooking-00-of-01.jsonl.gz", rows)


def convert_stackexchange(files: Sequence[Path], folder: Path) -> None:
    """7z archives of sites -> their Posts.xml, one a site."""
    programs = filter(None, map(shutil.which, ("7zz", "7z", "7za", "bsdtar")))
    program = next(programs, None)
    if program is None:
        raise DataError("found no program that unpacks 7z; install 7-Zip (p7zip) or bsdtar")
    for file in files:
        site = file.name.removesuffix(".7z").replace(".stackexchange.com", "").replace(".", "_")
        if program.endswith("bsdtar"):
            command = [program, "-xOf", str(file), "Posts.xml"]
        else:
            command = [program, "x", "-so", str(file), "Posts.xml"]
        with replacing(folder / f"{site}_Posts.xml") as stream:
            if subprocess.run(command, stdout=stream, check=False).returncode:
                raise DataError(f"{file}: {program} cannot unpack Posts.xml from it")


def write_jsonl(path: Path, rows: Iterable[dict[str, object]]) -> None:
    # Without a name and a time, so that the bytes are the same on every run.
    with (
        replacing(path) as stream,
        gzip.GzipFile(filename="", mode="wb", fileobj=stream, mtime=0) as packed,
    ):
        for row in rows:
            packed.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


# --- the data sets -------------------------------------------------------------------------

_ARXIV = "https://github.com/staeiou/arxiv_archive"
_XED = "https://raw.githubusercontent.com/Helsinki-NLP/XED/3cfd061825fddcbefadeb0bb18a5ba2f690701b2"
_BILLS = "https://www.govinfo.gov/bulkdata/BILLSTATUS"
_BILL_TYPES = ("hr", "s", "hjres", "sjres", "hconres", "sconres", "hres", "sres")
_SITES = ("matheducators", "beer", "coffee", "datascience.meta")

DATA_SETS = {
    "arxiv": DataSet(
        what="arXiv titles and abstracts with their categories, a sample of 200,000 papers",
        home=_ARXIV + " (R. S. Geiger, ArXiv Archive, 2020; doi.org/10.5281/zenodo.1463242)",
        licence="arXiv metadata, CC0",
        downloads=(
            Download(
                f"{_ARXIV}/archive/5d16a3004c4aea4c045ec3c44c1ff875a3172c1b.zip",
                name="arxiv_archive.zip",
            ),
        ),
        ready="arxiv-*.jsonl.gz",
        convert=convert_arxiv,
    ),
    "bills": DataSet(
        what="bills of the US Congress: title, summary, legislative subjects",
        home="https://www.govinfo.gov/bulkdata/BILLSTATUS (108th Congress and later)",
        licence="US government work, public domain",
        downloads=tuple(
            Download(f"{_BILLS}/{congress}/{kind}/BILLSTATUS-{congress}-{kind}.zip")
            for congress in (108, 109, 110)
            for kind in _BILL_TYPES
        ),
        ready="bills-*.parquet",
        convert=convert_bills,
    ),
    "cooking": DataSet(
        what="titles of questions on cooking with their tags, the set of fastText's tutorial",
        home="https://fasttext.cc/docs/en/supervised-tutorial.html",
        licence="Stack Exchange, CC BY-SA 3.0",
        downloads=(
            Download("https://dl.fbaipublicfiles.com/fasttext/data/cooking.stackexchange.tar.gz"),
        ),
        ready="cooking-*.jsonl.gz",
        convert=convert_cooking,
    ),
    "newsgroups": DataSet(
        what="20 Newsgroups, the split by date: posts, one directory a group",
        home="http://qwone.com/~jason/20Newsgroups/",
        licence="none stated; widely used for research",
        # The copy and the checksum of scikit-learn's fetch_20newsgroups.
        downloads=(
            Download(
                "https://ndownloader.figshare.com/files/5975967",
                sha256="8f1b2514ca22a5ade8fbb9cfa5727df95fa587f4c87b786e15c759fa66d95610",
                name="20news-bydate.tar.gz",
            ),
        ),
        ready="20news-bydate.tar.gz",
        other_names=("20news", "20_newsgroups"),
    ),
    "stackexchange": DataSet(
        what="questions of four small Stack Exchange sites with their tags",
        home="https://archive.org/details/stackexchange",
        licence="CC BY-SA 4.0 and earlier versions, Stack Exchange Inc.",
        downloads=tuple(
            Download(f"https://archive.org/download/stackexchange/{site}.stackexchange.com.7z")
            for site in _SITES
        ),
        ready="*_Posts.xml",
        convert=convert_stackexchange,
    ),
    "xed": DataSet(
        what="film subtitles in English and Finnish with emotions",
        home="https://github.com/Helsinki-NLP/XED (Öhman et al. 2020)",
        licence="CC BY 4.0",
        downloads=(
            Download(
                f"{_XED}/AnnotatedData/en-annotated.tsv",
                sha256="26ac0254fbdb8b09cf2b00d44041d9084ece31bd200ae7c0e0662fbd8b037d98",
            ),
            Download(
                f"{_XED}/AnnotatedData/fi-annotated.tsv",
                sha256="0b5ba26b2636c3a773b77a12b1b6a86a0b6ad49c6a50572ac43868d443992392",
            ),
        ),
        ready="*-annotated.tsv",
    ),
}


# --- fetching ------------------------------------------------------------------------------


def main(argv: Sequence[str]) -> int:
    arguments = parse(argv)
    if arguments.name is None:
        for name, data_set in DATA_SETS.items():
            print(f"{name}: {data_set.what}\n  {data_set.home}\n  terms: {data_set.licence}")
        return 0
    folder = Path(arguments.into) / arguments.name
    data_set = DATA_SETS[arguments.name]
    try:
        if arguments.local is None:
            files = get(data_set, folder)
        else:
            local = Path(arguments.local).expanduser()
            names = (arguments.name, *data_set.other_names)
            files = get(data_set, folder, places=[*(local / name for name in names), local])
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{folder}: {len(files)} files, {sum(f.stat().st_size for f in files) / 1e6:,.1f} MB")
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", choices=sorted(DATA_SETS), help="the data set")
    parser.add_argument("--from", dest="local", metavar="DIR", help="take the files of a directory")
    parser.add_argument("--into", metavar="DIR", default="data", help="default: %(default)s")
    return parser.parse_args(argv)


def get(data_set: DataSet, folder: Path, *, places: Sequence[Path] = ()) -> list[Path]:
    """Makes `folder` hold what the config reads, unless it does; returns those files.

    Args:
      data_set: the data set.
      folder: where to put it.
      places: local directories to take it from; none: it is downloaded.

    Raises:
      DataError: a download fails, has another checksum, or cannot be converted.
    """
    if found := sorted(folder.glob(data_set.ready)):
        return found
    folder.mkdir(parents=True, exist_ok=True)
    if places:
        _take(data_set, folder, places)
    else:
        keep = folder if data_set.convert is None else folder / "download"
        keep.mkdir(exist_ok=True)
        files = [fetch(each, keep, lock=folder / CHECKSUMS) for each in data_set.downloads]
        if data_set.convert is not None:
            data_set.convert(files, folder)
    if not (made := sorted(folder.glob(data_set.ready))):
        raise DataError(f"{folder}: nothing named {data_set.ready} came of it")
    return made


def _take(data_set: DataSet, folder: Path, places: Sequence[Path]) -> None:
    """Links the files that the config reads, or converts the published ones, of the first place."""
    for place in places:
        if ready := sorted(place.glob(data_set.ready)):
            for file in ready:
                (folder / file.name).symlink_to(file.resolve())
            return
        published = [place / each.file_name for each in data_set.downloads]
        if data_set.convert is not None and all(file.is_file() for file in published):
            data_set.convert(published, folder)
            return
    names = ", ".join(each.file_name for each in data_set.downloads[:3])
    raise DataError(
        f"--from: found neither {data_set.ready} nor {names} in "
        + " or ".join(str(place) for place in places)
    )


def fetch(download: Download, folder: Path, *, lock: Path) -> Path:
    """Downloads a file, unless it is there, and checks it."""
    path = folder / download.file_name
    if not path.exists():
        print(f"downloading {download.url}", file=sys.stderr, flush=True)
        try:
            with (
                urllib.request.urlopen(download.url, timeout=TIMEOUT_SECONDS) as answer,
                replacing(path) as stream,
            ):
                shutil.copyfileobj(answer, stream, BLOCK_BYTES)
        except (urllib.error.URLError, OSError) as error:
            raise DataError(
                f"{download.url}: {error}; get the file elsewhere and pass its folder with --from"
            ) from None
    check(path, download, lock=lock)
    return path


def check(path: Path, download: Download, *, lock: Path) -> None:
    """Compares a file's SHA-256 with the known one, or with the recorded one, or records it.

    Raises:
      DataError: they differ; the file is removed, so that the next try downloads it again.
    """
    received = sha256_of(path)
    recorded = json.loads(lock.read_text()) if lock.exists() else {}
    expected = download.sha256 or recorded.get(download.file_name)
    if expected is None:
        recorded[download.file_name] = received
        with replacing(lock) as stream:
            stream.write((json.dumps(recorded, indent=2, sort_keys=True) + "\n").encode())
        print(f"recorded sha256 {received} of {path.name} in {lock}", file=sys.stderr)
    elif received != expected:
        path.unlink()
        origin = "known" if download.sha256 else f"recorded in {lock}"
        raise DataError(
            f"{download.url}: received SHA-256 {received}, expected {expected} ({origin}); "
            "the file is removed: try again, or see whether its authors have changed it"
        )


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator:
    """A binary stream to a temporary file that takes the path's place when all is written."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
