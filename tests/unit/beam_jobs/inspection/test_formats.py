"""What files are: header or not, delimiters, quotes, encodings."""

import pytest

from beam_jobs.contract.errors import UserError
from beam_jobs.inspection.formats import Format, is_header, recognise


def found(folder, name: str, content: bytes | str) -> Format:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return recognise([str(path)])


@pytest.mark.parametrize(
    ("first", "others", "expected"),
    [
        (["id", "text"], [["1", "a"]], True),
        (["betreff", "nummer"], [["Guten Tag", "3"], ["Hallo", "4"]], True),
        (["stuff", "kind"], [["some long words of a text", "a"], ["others of another", "b"]], True),
        (["I like it", "3, 4"], [["It is bad, I think", "1"], ["No", "3, 4"]], False),
        (["good film", "pos"], [["bad film", "neg"], ["fine film", "pos"]], False),
        (["a", ""], [["b", "c"]], False),
        (["a", "a"], [["b", "c"]], False),
        (["1", "x"], [["2", "y"]], False),
        (["text", "label"], [], True),
    ],
)
def test_a_header_is_told_from_a_row(first, others, expected):
    assert is_header(first, others) is expected


@pytest.mark.parametrize(
    ("name", "content", "settings"),
    [
        ("a.csv", "text,tags\nsome words here,a;b\nother words,b\n", {}),
        ("a.csv", "text;tags\nwords, with commas;a,b\nwords;b\n", {"delimiter": ";"}),
        ("a.tsv", 'text\ttags\n"a word\tx\nother\ty\n', {"delimiter": "\t"}),
        (
            "a.tsv",
            'text\ttags\n"a ""word"" of it"\tx\n"so\tand so"\ty\n"more"\tz\n',
            {"delimiter": "\t", "quote_character": '"'},
        ),
        ("a.txt", "text|tags\nsome words here|a\nother words|b\n", {"delimiter": "|"}),
        (
            "a.csv",
            "text,tags\n" + "Le caf\u00e9 est tr\u00e8s bon \u00e0 No\u00ebl,a\n" * 9,
            {},
        ),
        (
            "a.csv",
            ("text,tags\n" + "Le caf\u00e9 est tr\u00e8s bon \u00e0 No\u00ebl,a\n" * 9).encode(
                "cp1252"
            ),
            {"encoding": "cp1252"},
        ),
        ("a.csv", "\ufefftext,tags\nwords,a\n", {}),
        (
            "a.csv",
            "words and more,a\nother words,b\nstill others,a\n",
            {"columns": ("column_1", "column_2")},
        ),
    ],
)
def test_the_settings_without_which_a_table_is_not_read(tmp_path, name, content, settings):
    assert found(tmp_path, name, content).settings == settings


@pytest.mark.parametrize(
    ("name", "content", "source"),
    [
        ("a.jsonl", '{"a": 1}\n', "jsonl"),
        ("a.txt", ' \n{"a": 1}\n{\n', "jsonl"),
        ("a.json", '[\n{"a": 1}]', "jsonl"),
        ("a.xml", '<?xml version="1.0"?>\n<posts>\n</posts>', "stack_exchange"),
        ("a.txt", "some prose, and\nmore of it\n", "lines"),
        ("a.txt", "__label__x some words\n__label__y others\n", "fasttext"),
    ],
)
def test_the_source_is_found_by_content(tmp_path, name, content, source):
    assert found(tmp_path, name, content).source == source


def test_a_directory_is_a_pattern_of_its_most_frequent_ending(tmp_path):
    for name in ("a/1.csv.gz", "a/2.csv.gz", "a/notes.md", ".hidden/3.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text,tags\nsome words here,a\nothers of them,b\n")
    with pytest.raises(UserError, match=r"1\.csv\.gz cannot be read"):
        recognise([str(tmp_path)])
    for name in ("a/1.csv.gz", "a/2.csv.gz"):
        (tmp_path / name).rename(tmp_path / name.removesuffix(".gz"))
    assert recognise([str(tmp_path)]).inputs == (f"{tmp_path}/**.csv",)
    assert recognise([str(tmp_path / "a")]).inputs == (f"{tmp_path}/a/*.csv",)
    odd = (tmp_path / "a").rename(tmp_path / "a[1]")
    assert recognise([str(odd)]).inputs == (f"{odd}/1.csv", f"{odd}/2.csv")
