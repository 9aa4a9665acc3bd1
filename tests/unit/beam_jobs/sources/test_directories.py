"""Directories: labels from names, archives, encodings, and posts without what tells too much."""

import io
import os
import tarfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import _twenty_newsgroups as reference

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.data import DirectoriesData
from beam_jobs.sources import posts
from beam_jobs.sources.directories import DirectoriesReader
from beam_jobs.sources.documents import UNREADABLE, Document, Reject
from beam_jobs.sources.fields import TOO_LONG

FILES = {
    "train/sport/1": b"a goal",
    "train/sport/2.txt": b"a team",
    "train/music/1": b"a song",
    "test/music/3": b"caf\xc3\xa9",
    "train/.git/config": b"x",
}


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A working directory with a folder `posts` of FILES."""
    for name, content in FILES.items():
        (tmp_path / "posts" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "posts" / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(*inputs: str, **data) -> list[Document | Reject]:
    reader = DirectoriesReader(DirectoriesData(source="directories", inputs=inputs, **data))
    return [row for file in reader.files() for row in reader.read(file)]


def archive(path: Path, files: dict[str, bytes], mode: str = "w:gz") -> None:
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


EXPECTED = {
    "test/music/3": ("music", "caf\u00e9"),
    "train/music/1": ("music", "a song"),
    "train/sport/1": ("sport", "a goal"),
}
EXPECTED["train/sport/2.txt"] = ("sport", "a team")


@pytest.mark.parametrize("pattern", ["posts", "./posts/", "posts/*/*/*", "posts/**"])
def test_each_file_below_a_directory_is_a_document_with_its_directory_as_label(home, pattern):
    rows = read(pattern)
    assert {row.id: (*row.labels, row.texts[0]) for row in rows} == {
        f"posts/{name}": value for name, value in EXPECTED.items()
    }
    assert [row.id for row in rows] == sorted(row.id for row in rows)


def test_hidden_files_are_passed_over_below_an_input_and_not_above_it(home):
    (home / ".cache").mkdir()
    (home / "posts").rename(home / ".cache/posts")
    for pattern in (".cache/posts", ".cache/posts/*/*/*", f"{home}/.cache/posts"):
        assert len(read(pattern)) == len(EXPECTED)
    assert [row.labels for row in read(".cache/posts/train/.git/config")] == [(".git",)]


MODES = {"tar": "w", "tar.gz": "w:gz", "tgz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}


@pytest.mark.parametrize(("extension", "mode"), MODES.items())
def test_an_archive_holds_what_its_directory_holds(home, extension, mode):
    archive(home / f"all.{extension}", FILES | {"./top": b"no class"}, mode)
    rows = read(f"all.{extension}")
    assert {
        row.id: (*row.labels, row.texts[0]) for row in rows if isinstance(row, Document)
    } == EXPECTED
    assert [(row.source, row.row, row.reason) for row in rows if isinstance(row, Reject)] == [
        (f"all.{extension}/top", 1, "no labels")
    ]
    assert all(
        (row.source, row.row) == (f"all.{extension}/{row.id}", 1)
        for row in rows
        if isinstance(row, Document)
    )


def test_an_archive_may_be_compressed_by_zstandard(home):
    archive(home / "all.tar", FILES, "w")
    (home / "all.tar.zst").write_bytes(zstandard.compress((home / "all.tar").read_bytes()))
    assert [(row.id, row.texts[0]) for row in read("all.tar.zst")] == [
        (row.id, row.texts[0]) for row in read("all.tar")
    ]


def test_links_and_directories_of_an_archive_are_no_documents(home):
    with tarfile.open("linked.tar", "w") as tar:
        for name, kind in (
            ("a", tarfile.DIRTYPE),
            ("a/link", tarfile.SYMTYPE),
            ("a/device", tarfile.CHRTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    assert read("linked.tar") == []


@pytest.mark.parametrize("extension", ["tar.gz", "tgz", "tar"])
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_an_archive_that_is_cut_off_ends_in_a_reject(home, extension, share):
    archive(
        home / f"cut.{extension}",
        {f"a/{i}": os.urandom(3000).hex().encode() for i in range(200)},
        MODES[extension],
    )
    content = (home / f"cut.{extension}").read_bytes()
    (home / f"cut.{extension}").write_bytes(content[: int(len(content) * share)])
    rows = read(f"cut.{extension}")
    assert rows[-1].reason == UNREADABLE and rows[-1].row == len(rows)
    assert 200 * share - 40 < len(rows) < 200


def test_an_empty_archive_is_a_reject_and_an_empty_file_a_document_without_text(home):
    (home / "empty.tar").write_bytes(b"")
    assert [row.reason for row in read("empty.tar")] == [UNREADABLE]
    (home / "posts/train/sport/1").write_bytes(b"")
    assert read("posts/train/sport/1")[0].texts[0] == ""


def test_a_declared_encoding_is_used_and_what_it_cannot_decode_is_a_reject(home):
    (home / "posts/train/sport/1").write_bytes("na\u00efve caf\u00e9".encode("latin-1"))
    assert read("posts/train/sport/1", encoding="latin-1")[0].texts[0] == "na\u00efve caf\u00e9"
    (reject,) = read("posts/train/sport/1", encoding="utf-8")
    assert (reject.reason, reject.source) == ("wrong encoding", "posts/train/sport/1")


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-8", "\u65e5\u672c\u8a9e"),
        ("utf-8-sig", "with a mark"),
        (
            "cp1252",
            "Le gar\u00e7on fran\u00e7ais \u00e9tait tr\u00e8s fatigu\u00e9 apr\u00e8s "
            "l'\u00e9cole, mais il a mang\u00e9 une cr\u00eape. " * 3,
        ),
        (
            "cp1251",
            "\u041f\u0440\u0438\u0432\u0435\u0442, \u043a\u0430\u043a \u0434\u0435\u043b\u0430? "
            "\u042d\u0442\u043e \u0440\u0443\u0441\u0441\u043a\u0438\u0439 "
            "\u0442\u0435\u043a\u0441\u0442. " * 5,
        ),
        ("utf-16", "Every character takes two bytes here."),
        (
            "shift_jis",
            "\u3053\u308c\u306f\u65e5\u672c\u8a9e\u306e\u6587\u7ae0\u3067\u3059\u3002"
            "\u5929\u6c17\u304c\u3044\u3044\u3067\u3059\u306d\u3002" * 5,
        ),
    ],
)
def test_an_encoding_that_is_not_declared_is_detected(home, encoding, text):
    (home / "posts/train/sport/1").write_bytes(text.encode(encoding))
    assert read("posts/train/sport/1")[0].texts[0] == text


def test_bytes_of_no_encoding_are_a_reject(home):
    (home / "posts/train/sport/1").write_bytes(bytes(range(256)) * 4)
    (row,) = read("posts/train/sport/1")
    assert row.reason == "wrong encoding"


def test_a_very_long_file_is_a_reject(home):
    (home / "posts/train/sport/1").write_bytes(b"x" * 20_000_000)
    archive(home / "long.tar.gz", {"sport/1": b"x" * 20_000_000, "sport/2": b"x"})
    assert [row.reason for row in read("posts/train/sport/1")] == [TOO_LONG]
    assert [getattr(row, "reason", None) for row in read("long.tar.gz")] == [TOO_LONG, None]


def test_a_directory_whose_name_cannot_be_a_label_is_a_reject(home):
    for name in ("a\nb", "x" * 200):
        archive(home / "odd.tar", {f"{name}/1": b"x", "c, d/1": b"y"}, "w")
        first, second = read("odd.tar")
        assert second.labels == ("c, d",)
        assert (
            (first.reason == "label is not printable") if "\n" in name else first.labels == (name,)
        )


@pytest.mark.parametrize("inputs", [("nowhere",), ("posts", "nowhere/*")])
def test_an_input_that_is_not_there_is_the_users_error(home, inputs):
    with pytest.raises(UserError, match="data.inputs: no file matches 'nowhere"):
        read(*inputs)


# --- posts -----------------------------------------------------------------------------

LINE = st.sampled_from(
    [
        "",
        " ",
        "--",
        "---- ",
        "From: a",
        "> b",
        "|c",
        "a > b",
        "In article 1",
        "He writes in x",
        "Ann wrote:",
        "it says",
        "text",
        "- sig",
    ]
)
POST = st.lists(LINE, max_size=12).map("\n".join)


@given(post=POST)
def test_headers_footers_and_quotes_go_as_in_scikit_learn(post):
    assert posts.without(post, ["headers"]) == reference.strip_newsgroup_header(post)
    assert posts.without(post, ["footers"]) == reference.strip_newsgroup_footer(post)
    assert posts.without(post, ["quotes"]) == reference.strip_newsgroup_quoting(post)
    expected = reference.strip_newsgroup_quoting(
        reference.strip_newsgroup_footer(reference.strip_newsgroup_header(post))
    )
    assert posts.without(post, ["quotes", "headers", "footers"]) == expected
    assert posts.without(post, []) == post


def test_remove_takes_parts_of_a_file(home):
    (home / "posts/train/sport/1").write_bytes(
        b"From: a\nSubject: b\n\n> who\nText.\n\n--\nsignature"
    )
    assert (
        read("posts/train/sport/1", remove=("headers", "footers", "quotes"))[0].texts[0]
        == "Text.\n"
    )
    assert (
        read("posts/train/sport/1", remove=("headers",))[0].texts[0]
        == "> who\nText.\n\n--\nsignature"
    )
