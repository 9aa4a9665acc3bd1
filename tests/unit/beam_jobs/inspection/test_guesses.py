"""Which column is what: the guesses on tables of many shapes."""

import random

import pytest

from beam_jobs.contract.errors import UserError
from beam_jobs.inspection.columns import columns_of
from beam_jobs.inspection.guesses import Guesses, file_splits, guess

WORDS = "brake clutch engine soup bread kitten purr invoice refund train river stone cloud".split()
TAGS = ["cars", "cats", "food", "money", "travel"]


def sentence(source: random.Random, low: int, high: int) -> str:
    return " ".join(source.choice(WORDS) for _ in range(source.randint(low, high)))


def table(number: int = 200, **columns) -> list[dict]:
    """Rows of `number` values of each column: a function of a random source and the row."""
    source = random.Random(0)
    return [{name: make(source, row) for name, make in columns.items()} for row in range(number)]


def text(source: random.Random, row: int) -> str:
    return f"{sentence(source, 8, 30)} {row}"


def tags(source: random.Random, row: int) -> list[str]:
    return sorted(source.sample(TAGS, source.randint(1, 3)))


def joined(delimiter: str):
    return lambda source, row: delimiter.join(tags(source, row))


def guessed(rows: list[dict], *, all_strings: bool = False, **named) -> Guesses:
    return guess(columns_of(rows), all_strings=all_strings, **named)


def labels(rows: list[dict], **options) -> dict | None:
    found = guessed(rows, **options).labels
    return None if found is None else found.settings


# --- text ------------------------------------------------------------------------------


def test_a_short_title_and_a_long_body_are_both_text_in_the_order_of_the_file():
    rows = table(title=lambda s, row: sentence(s, 2, 5) + f" {row}", body=text, labels=tags)
    assert guessed(rows).text.columns == ("title", "body")
    odd = [{"betreff": row["title"] + " alpha", "nachricht": row["body"]} for row in rows]
    odd = [row | {"schlagworte": each["labels"]} for row, each in zip(odd, rows, strict=True)]
    found = guessed(odd)
    assert found.text.columns == ("betreff", "nachricht")
    assert found.labels.columns == ("schlagworte",)


def test_what_has_words_but_is_no_text_is_left_out():
    rows = table(
        author=lambda s, row: s.choice(["Ann Lee", "Bo van Dijk", "Cy Young Jr"]),
        url=lambda s, row: f"https://example.org/{row} a b c",
        reference=lambda s, row: f"Ticket {row} of 2024",
        place=lambda s, row: s.choice(["City of New York", "Bay of Bengal in the east"]),
        text=text,
        labels=tags,
    )
    found = guessed(rows)
    assert found.text.columns == ("text",) and found.labels.columns == ("labels",)


def test_text_of_few_words_is_found_by_its_name():
    rows = table(message=lambda s, row: f"{s.choice(WORDS)} {row}", labels=tags)
    assert guessed(rows).text.columns == ("message",)


def test_text_that_many_rows_lack_is_left_out_where_the_row_would_be_a_reject():
    rows = table(
        title=lambda s, row: sentence(s, 4, 8) + f" {row}",
        abstract=lambda s, row: text(s, row) if row % 3 else None,
        labels=tags,
    )
    found = guessed(rows)
    assert found.text.columns == ("title",) and found.left_out.columns == ("abstract",)
    assert guessed(rows, all_strings=True).text.columns == ("title", "abstract")
    alone = guessed([{"abstract": row["abstract"], "labels": row["labels"]} for row in rows])
    assert alone.text.columns == ("abstract",)


def test_text_without_spaces_counts_its_characters():
    chinese = "我喜欢读书他们去吃饭你好世界天气很好"
    rows = table(content=lambda s, row: "".join(s.choice(chinese) for _ in range(30)), labels=tags)
    found = guessed(rows)
    assert found.text.columns == ("content",) and "30 characters" in found.text.why


def test_no_text_is_an_error_that_shows_the_columns_and_the_flag():
    with pytest.raises(
        UserError, match=r"no column looks like text: 'a' \(integer\).*--text-field"
    ):
        guessed([{"a": 1, "labels": ["x"]}, {"a": 2, "labels": ["y"]}])


def test_columns_that_are_named_are_taken():
    rows = table(title=text, body=text, kind=lambda s, row: s.choice("ab"), labels=tags)
    found = guessed(rows, text=["body"], labels="kind")
    assert found.text.columns == ("body",) and found.labels.columns == ("kind",)
    assert "as --text-field says" in found.text.why
    with pytest.raises(UserError, match="--labels-field: there is no column 'x'; the columns are"):
        guessed(rows, labels="x")


# --- labels ----------------------------------------------------------------------------


def test_lists_win_over_a_single_category_and_over_lists_of_tokens():
    rows = table(
        tokens=lambda s, row: text(s, row).split(),
        primary=lambda s, row: s.choice(TAGS),
        text=text,
        topics=tags,
    )
    found = guessed(rows)
    assert found.labels.settings == {"labels_field": "topics"}
    assert ("primary",) in [other.columns for other in found.other_labels]


@pytest.mark.parametrize("delimiter", [";", "|", ",", ", ", "/", "\n", " "])
def test_joined_labels_with_the_delimiter(delimiter):
    found = labels(table(text=text, tags=joined(delimiter)), all_strings=True)
    expected = delimiter.strip(" ") or " "
    assert found == {"labels_field": "tags", "label_delimiter": expected}


def test_names_with_commas_that_semicolons_join():
    names = ["Chemistry, organic", "Law, civil", "Art", "Music, modern"]
    rows = table(text=text, subjects=lambda s, row: "; ".join(s.sample(names, s.randint(1, 3))))
    assert labels(rows, all_strings=True)["label_delimiter"] == ";"


def test_a_name_of_several_words_is_one_label():
    names = ["Law, civil", "World News", "Sport/Football", "Art"]
    found = labels(table(text=text, category=lambda s, row: s.choice(names)), all_strings=True)
    assert found == {"labels_field": "category"}


def test_prose_with_commas_is_no_list_of_labels():
    rows = table(body=lambda s, row: f"{sentence(s, 3, 6)}, {text(s, row)}, {row}", topic=tags)
    found = guessed([row | {"topic": row["topic"][0]} for row in rows])
    assert found.text.columns == ("body",) and found.labels.columns == ("topic",)


def test_one_of_few_values_is_a_label_also_in_json():
    rows = table(text=text, kind=lambda s, row: s.choice(TAGS))
    assert labels(rows, all_strings=True) == {"labels_field": "kind"}
    assert labels(rows) == {"labels_field": "kind", "label_delimiter": "\n"}


def test_numbers_are_labels_where_the_name_says_so():
    number = {"text": text, "price": lambda s, row: s.randint(1, 9)}
    assert labels(table(**number)) is None
    rows = table(**number, label=lambda s, row: s.randint(0, 4))
    assert labels(rows) == {"labels_field": "label", "label_format": "ids"}
    rows = [{name: str(value) for name, value in row.items()} for row in rows]
    assert labels(rows, all_strings=True) == {"labels_field": "label", "label_format": "ids"}


def test_lists_of_ids_and_of_zeros_and_ones():
    ids = table(text=text, labels=lambda s, row: s.sample(range(9), s.randint(1, 3)))
    assert labels(ids) == {"labels_field": "labels", "label_format": "ids"}
    hot = table(text=text, labels=lambda s, row: [s.randint(0, 1) for _ in range(3)])
    assert labels(hot) == {
        "labels_field": "labels",
        "label_format": "multi_hot",
        "label_names": ["label_0", "label_1", "label_2"],
    }


def test_lists_written_out_as_json_and_python():
    for write in (str, lambda names: str(names).replace("'", '"')):
        rows = table(text=text, genres=lambda s, row, write=write: write(tags(s, row)))
        assert labels(rows, all_strings=True) == {
            "labels_field": "genres",
            "label_format": "written_list",
        }


def test_names_with_scores():
    rows = table(
        text=text, labels=lambda s, row: {name: round(s.random(), 2) for name in tags(s, row)}
    )
    assert labels(rows) == {"labels_field": "labels", "label_format": "scores"}


def test_columns_of_zero_and_one_and_of_scores():
    def zero_or_one(source, row):
        return source.choice("01")

    rows = table(id=lambda s, row: str(row), text=text, toxic=zero_or_one, insult=zero_or_one)
    found = guessed(rows, all_strings=True)
    assert found.labels.settings == {"labels_field": None, "label_columns": ["toxic", "insult"]}
    assert found.id.columns == ("id",) and found.text.columns == ("text",)
    scores = table(text=text, **dict.fromkeys("abc", lambda s, row: s.random()))
    assert labels(scores)["label_columns"] == ["a", "b", "c"]


def test_many_columns_of_like_names_are_a_pattern():
    def zero_or_one(source, row):
        return source.choice("01")

    names = [f"topic_{i:02}" for i in range(20)]
    rows = table(text=text, **dict.fromkeys(names, zero_or_one))
    assert labels(rows, all_strings=True)["label_columns"] == ["topic_*"]
    rows = table(text=text, **dict.fromkeys(names[:11], zero_or_one))
    assert labels(rows, all_strings=True)["label_columns"] == names[:11]
    rows = table(text=text, topic_of=text, **dict.fromkeys(names, zero_or_one))
    assert labels(rows, all_strings=True)["label_columns"] == names
    rows = table(text=text, **dict.fromkeys("abcdefghijklmnop", zero_or_one))
    assert labels(rows, all_strings=True)["label_columns"] == list("abcdefghijklmnop")


def test_nested_fields_are_named_by_their_paths():
    rows = table(
        doc=lambda s, row: {"title": sentence(s, 3, 5) + f" {row}", "body": text(s, row)},
        meta=lambda s, row: {"tags": [{"id": len(t), "name": t} for t in tags(s, row)]},
    )
    found = guessed(rows)
    assert found.text.columns == ("doc.title", "doc.body")
    assert found.labels.settings == {"labels_field": "meta.tags.name"}


def test_without_labels_there_is_no_guess():
    rows = table(id=lambda s, row: f"d{row}", text=text)
    assert labels(rows) is None and labels(rows, all_strings=True) is None


def test_a_field_that_rows_lack_is_told():
    rows = table(text=text, labels=tags)
    del rows[3]["labels"]
    assert guessed(rows).labels.is_absent


# --- id, split, time, metadata ---------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("doc_id", lambda s, row: row),
        ("uuid", lambda s, row: f"{s.getrandbits(64):x}"),
        ("key", lambda s, row: f"why-is-{s.choice(WORDS)}-so-loud-{row}"),
        ("ticket", lambda s, row: f"Ticket {row} of 2024"),
        ("id", lambda s, row: f"the ticket of {row} pm"),
    ],
)
def test_ids_even_where_they_look_like_text(name, value):
    found = guessed(table(**{name: value}, text=text, labels=tags))
    assert found.id.columns == (name,) and found.text.columns == ("text",)


def test_a_column_whose_values_come_back_or_are_missing_is_no_id():
    found = guessed(table(id=lambda s, row: row // 2, text=text, labels=tags))
    assert found.id is None
    found = guessed(table(id=lambda s, row: row or None, text=text, labels=tags))
    assert found.id is None


def test_splits_by_their_values():
    rows = table(
        usage=lambda s, row: s.choice(["Training", "Val", "Testing"]), text=text, labels=tags
    )
    found = guessed(rows)
    assert found.split.columns == ("usage",)
    assert {split: sorted(names) for split, names in found.split_values.items()} == {
        "train": ["Training"],
        "validation": ["Val"],
        "test": ["Testing"],
    }
    one = guessed(table(split=lambda s, row: "train", text=text, labels=tags))
    assert one.split.columns == ("split",)
    other = guessed(table(set=lambda s, row: s.choice(["train", "bus"]), text=text, labels=tags))
    assert other.split is None


def test_times_and_metadata_are_offered():
    rows = table(
        text=text,
        labels=tags,
        posted=lambda s, row: f"2024-0{s.randint(1, 9)}-11T10:00:00Z",
        queue=lambda s, row: s.choice(["mail", "phone"]),
    )
    found = guessed(rows)
    assert found.time.columns == ("posted",) and found.metadata == ("queue",)


def test_files_whose_names_say_their_split():
    assert file_splits(["test/train.jsonl", "test/dev-00.jsonl", "test/test.jsonl"]) == {
        "train": ["test/train.jsonl"],
        "validation": ["test/dev-00.jsonl"],
        "test": ["test/test.jsonl"],
    }
    for names in (["train.csv"], ["a.csv", "b.csv"], ["train.csv", "more.csv"], ["contest.csv"]):
        assert file_splits(names) == {}
