"""Every format of labels, from every source of rows, and what is told where it is another."""

import csv
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_jobs.contract.config import config_from_dict
from beam_jobs.contract.errors import UserError
from beam_jobs.sources import registry
from beam_jobs.sources.documents import Document, Reject

NAMES = ["cars", "cats", "food"]
HUGGING_FACE = {"_type": "ClassLabel", "names": NAMES}


def write(folder, source: str, values: list, **schema) -> str:
    """A file of documents whose field `labels` holds the values; of CSV, as pandas writes them."""
    path = folder / f"in.{source}"
    if source == "jsonl":
        rows = [json.dumps({"text": "a", "labels": value}) for value in values]
        path.write_text("".join(f"{row}\n" for row in rows))
    elif source == "csv":
        stream = io.StringIO()
        cells = [["a", "" if value is None else value] for value in values]
        csv.writer(stream).writerows([["text", "labels"], *cells])
        path.write_bytes(stream.getvalue().encode("utf-8", "surrogatepass"))
    else:
        table = pa.table({"text": ["a"] * len(values), "labels": values})
        pq.write_table(table.replace_schema_metadata(schema.get("metadata")), path)
    return str(path)


def read(path: str, source: str, **data) -> list[Document | Reject]:
    raw = {"source": source, "inputs": [path], **data}
    reader = registry.make_reader(config_from_dict({"name": "x", "data": raw}, what="x").data)
    return [row for file in reader.files() for row in reader.read(file)]


def labels(folder, source: str, values: list, **data) -> list[tuple[str, ...] | str]:
    """The labels of each document, or why there is none."""
    rows = read(write(folder, source, values), source, **data)
    return [row.labels if isinstance(row, Document) else row.reason for row in rows]


SOURCES = ["jsonl", "csv", "parquet"]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("write_list", [json.dumps, repr, lambda names: repr(tuple(names))])
def test_lists_that_were_written_into_a_string_are_read(tmp_path, source, write_list):
    values = [write_list(names) for names in (["cars"], ["cats", " it's, food"], [])]
    values += [None, "['a' 'b']"]
    expected = [("cars",), ("cats", "it's, food"), (), (), ("a", "b")]
    assert labels(tmp_path, source, values, label_format="written_list") == expected


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("wrong", ["cars", "[1]", "[['a']]", "{'a': 1}", "['']", "'a'", "[cars]"])
def test_what_is_no_written_list_of_names_is_a_reject(tmp_path, source, wrong):
    found = labels(tmp_path, source, ["['a']", wrong], label_format="written_list")
    assert found[0] == ("a",)
    assert found[1] in ("labels are not a written list", "label is not a string")


@pytest.mark.parametrize(
    ("source", "data"),
    [("csv", {}), ("csv", {"label_delimiter": ","}), ("jsonl", {"label_delimiter": ";"})]
    + [("parquet", {"label_delimiter": "|"})],
)
def test_a_column_of_written_lists_that_is_read_as_names_ends_with_the_right_setting(
    tmp_path, source, data
):
    values = ["['cars']", None, "['cats', 'food']", "[]"]
    message = r"received \"\['cars'\]\", expected .* set data.label_format: written_list"
    with pytest.raises(UserError, match=message):
        labels(tmp_path, source, values, **data)
    found = labels(tmp_path, source, [*values, "plain"], **data)
    assert found == [
        "labels are a written list",
        (),
        *["labels are a written list"] * 2,
        ("plain",),
    ]
    stated = labels(tmp_path, source, values, **data, label_format="names")
    assert stated[0] == ("['cars']",)


IDS = {
    "jsonl": [[0], [1, 2], [], 2, None, "[0, 2]"],
    "parquet": [[0], [1, 2], [], [2], None, [0, 2]],
    "csv": ["[0]", "[1, 2]", "[]", "2.0", None, "[0 2]"],
}


@pytest.mark.parametrize("source", SOURCES)
def test_ids_have_names_from_a_list_or_a_file_or_are_names_themselves(tmp_path, source):
    expected = [("cars",), ("cats", "food"), (), ("food",), (), ("cars", "food")]
    (tmp_path / "names.txt").write_text("cars\ncats\nfood\n")
    for names in (NAMES, str(tmp_path / "names.txt")):
        found = labels(tmp_path, source, IDS[source], label_format="ids", label_names=names)
        assert found == expected
    found = labels(tmp_path, source, IDS[source], label_format="ids")
    assert found == [("0",), ("1", "2"), (), ("2",), (), ("0", "2")]


def test_ids_may_be_delimited(tmp_path):
    data = {"label_format": "ids", "label_delimiter": " ", "label_names": NAMES}
    assert labels(tmp_path, "csv", ["0 2", "1", " "], **data) == [("cars", "food"), ("cats",), ()]
    assert labels(tmp_path, "csv", ["1 x", "0"], **data) == ["label is not an id", ("cars",)]


@pytest.mark.parametrize(
    ("value", "reason"),
    [(-1, "label is not an id"), (1.5, "label is not an id"), (True, "label is not an id")]
    + [(3, "label id out of range"), ([0, 3], "label id out of range")]
    + [(["cars"], "label is not an id"), ({"a": 1}, "labels are not a list")]
    + [([None], "label is not an id"), (1e400, "label is not an id")]
    + [("cars", "labels are not a list"), (10**400, "label is not an id")],
)
def test_a_wrong_id_is_a_reject(tmp_path, value, reason):
    data = {"label_format": "ids", "label_names": NAMES}
    assert labels(tmp_path, "jsonl", [[0], value], **data) == [("cars",), reason]


def test_large_ids_keep_all_their_digits(tmp_path):
    assert labels(tmp_path, "jsonl", [2**60 + 1], label_format="ids") == [(str(2**60 + 1),)]


@pytest.mark.parametrize(
    "feature",
    [
        HUGGING_FACE,
        {"feature": HUGGING_FACE, "_type": "Sequence"},
        {"feature": HUGGING_FACE, "_type": "List"},
        {"feature": HUGGING_FACE, "length": -1, "id": None, "_type": "Sequence"},
        [HUGGING_FACE],
    ],
)
def test_ids_of_parquet_have_the_names_that_hugging_face_wrote_into_its_schema(tmp_path, feature):
    metadata = {"huggingface": json.dumps({"info": {"features": {"labels": feature}}})}
    path = write(tmp_path, "parquet", [[0, 2], [1]], metadata=metadata)
    rows = read(path, "parquet", label_format="ids")
    assert [row.labels for row in rows] == [("cars", "food"), ("cats",)]
    rows = read(path, "parquet", label_format="ids", label_names=["x", "y", "z"])
    assert [row.labels for row in rows] == [("x", "z"), ("y",)]


def test_files_of_which_some_have_names_for_their_ids_are_refused(tmp_path):
    metadata = {"huggingface": json.dumps({"info": {"features": {"labels": HUGGING_FACE}}})}
    (tmp_path / "with").mkdir()
    write(tmp_path / "with", "parquet", [[0]], metadata=metadata)
    write(tmp_path, "parquet", [[0]])
    inputs = [f"{tmp_path}/with/in.parquet", f"{tmp_path}/in.parquet"]
    raw = {"source": "parquet", "inputs": inputs, "label_format": "ids"}
    data = config_from_dict({"name": "x", "data": raw}, what="x").data
    with pytest.raises(
        UserError, match="no names for the ids of 'labels', .* set data.label_names"
    ):
        registry.make_reader(data).files()


@pytest.mark.parametrize("source", SOURCES)
def test_multi_hot_vectors_have_a_name_for_each_position(tmp_path, source):
    values = {
        "jsonl": [[1, 0, 0], [0, True, 0.5], [0, None, 0.4]],
        "parquet": [[1.0, 0, 0], [0, 1.0, 0.5], [0, None, 0.4]],
        "csv": ["[1, 0, 0]", "[0. 1. 0.5]", "[0, None, 0.4]"],
    }[source]
    data = {"label_format": "multi_hot", "label_names": NAMES}
    assert labels(tmp_path, source, values, **data) == [("cars",), ("cats", "food"), ()]
    found = labels(tmp_path, source, values, **data, label_threshold=0.4)
    assert found == [("cars",), ("cats", "food"), ("food",)]


def test_vectors_of_another_length_or_without_numbers_are_rejects(tmp_path):
    data = {"label_format": "multi_hot", "label_names": NAMES}
    values = [[1, 0, 0], [1, 0], [1, 0, 0, 0], [1, 0, "x"], {"a": 1}, []]
    assert labels(tmp_path, "jsonl", values, **data) == [
        ("cars",),
        "wrong number of positions",
        "wrong number of positions",
        "label is not a number",
        "labels are not a list",
        "wrong number of positions",
    ]


@pytest.mark.parametrize("source", SOURCES)
def test_labels_with_scores_are_cut_at_the_threshold(tmp_path, source):
    scores = [{"cars": 1.0, "cats": 0.0}, {"cats": 1.0, "food": 0.7}, {"cars": None}, {}]
    values = [repr(value) for value in scores] if source == "csv" else scores
    for threshold, second in ((0.5, ("cats", "food")), (0.9, ("cats",))):
        data = {"label_format": "scores", "label_threshold": threshold}
        assert labels(tmp_path, source, values, **data) == [("cars",), second, (), ()]


def test_scores_of_parquet_may_be_a_map(tmp_path):
    scores = pa.array([[("cars", 1.0), ("cats", 0.1)], []], pa.map_(pa.string(), pa.float64()))
    pq.write_table(pa.table({"text": ["a", "b"], "labels": scores}), tmp_path / "in.parquet")
    rows = read(f"{tmp_path}/in.parquet", "parquet", label_format="scores")
    assert [row.labels for row in rows] == [("cars",), ()]


@pytest.mark.parametrize(
    ("value", "reason"),
    [({"a": "x"}, "label is not a number"), ({"a": [1]}, "label is not a number")]
    + [(["a"], "labels are not scores"), ("a", "labels are not scores")]
    + [({"": 1}, "label is not a string"), ({"a\nb": 1}, "label is not printable")]
    + [({"a": 1e400}, "label is not a number"), ("{'a': 1, 'a': 0}", "labels are not scores")],
)
def test_wrong_scores_are_rejects(tmp_path, value, reason):
    found = labels(tmp_path, "jsonl", [{"b": 1}, value], label_format="scores")
    assert found == [("b",), reason]


@pytest.mark.parametrize(
    ("rows", "setting"),
    [
        ([{"labels": [1, 2]}], "data.label_format: ids"),
        ([{"labels": 3}], "data.label_format: ids"),
        ([{"labels": [0, 1, 1]}], "data.label_format: multi_hot, with data.label_names; .* ids"),
        ([{"labels": {"a": 0.5}}], "data.label_format: scores, with data.label_threshold"),
        ([{"labels": [{"id": 1, "name": "a"}]}], "data.labels_field: labels.name"),
        (
            [{"labels": [{"label": "a", "score": 0.5}]}],
            "data.labels_field: labels.label, with data.label_score_field: labels.score",
        ),
        ([{"labels": {"topics": ["a"]}}], "data.labels_field: labels.topics"),
        ([{"labels": "a;b"}], "data.label_delimiter"),
        ([{"labels": "['a', 'b']"}], "data.label_format: written_list"),
        ([{"labels": "[0, 2]"}], "data.label_format: ids"),
        ([{"labels": "{'a': 1.0}"}], "data.label_format: scores"),
    ],
)
@pytest.mark.parametrize("source", ["jsonl", "parquet"])
def test_labels_in_another_format_end_with_the_setting_that_may_be_right(
    tmp_path, source, rows, setting
):
    path = write(tmp_path, source, [None, *(row["labels"] for row in rows)])
    with pytest.raises(UserError, match=f"expected a list of strings.*; .*set {setting}"):
        read(path, source)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("setting", "null"), [("reject_absent", ()), ("none", ()), ("reject", "no labels")]
)
def test_null_labels_are_none_or_a_reject_as_the_config_says(tmp_path, source, setting, null):
    full = "['a']" if source == "csv" else ["a"]
    data = {"missing_labels": setting} | (
        {"label_format": "written_list"} if source == "csv" else {}
    )
    assert labels(tmp_path, source, [full, None], **data) == [("a",), null]


@pytest.mark.parametrize(
    ("setting", "absent"), [("reject_absent", "no labels"), ("none", ()), ("reject", "no labels")]
)
def test_absent_labels_are_none_or_a_reject_as_the_config_says(tmp_path, setting, absent):
    (tmp_path / "in.jsonl").write_text('{"text": "a", "labels": ["x"]}\n{"text": "b"}\n')
    first, second = read(f"{tmp_path}/in.jsonl", "jsonl", missing_labels=setting)
    assert getattr(second, "labels", None) == absent or second.reason == absent
    assert first.labels == ("x",)


@pytest.mark.parametrize(
    ("data", "names", "message"),
    [
        ({"label_format": "multi_hot"}, None, "received null, expected the names of the positions"),
        (
            {"label_names": NAMES},
            None,
            "received with label_format null, expected ids or multi_hot",
        ),
        ({"label_format": "ids", "label_names": "none.txt"}, None, "cannot read 'none.txt'"),
        ({"label_format": "ids"}, "a\n\nb\n", "received '' for the id 1"),
        ({"label_format": "ids"}, "a\nb\na\n", "received 'a' twice"),
        ({"label_format": "ids"}, "a\nb\tc\n", "received 'b\\\\tc' for the id 1"),
    ],
)
def test_wrong_names_are_the_users_error_before_any_work(tmp_path, data, names, message):
    if names is not None:
        (tmp_path / "names.txt").write_text(names)
        data = data | {"label_names": str(tmp_path / "names.txt")}
    path = write(tmp_path, "jsonl", [[0]])
    with pytest.raises(UserError, match=f"data.label_names: {message}"):
        read(path, "jsonl", **data)


NESTED = [
    {"labels": [{"name": "a"}, {"name": "b"}], "meta": {"tags": ["c"]}, "deep": [{"of": ["d"]}]},
    {"labels": [], "meta": None, "deep": [{"of": []}, {"of": ["e", "f"]}]},
]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("labels.name", [("a", "b"), ()]),
        ("meta.tags", [("c",), ()]),
        ("deep.of", [("d",), ("e", "f")]),
    ],
)
@pytest.mark.parametrize("source", ["jsonl", "parquet"])
def test_labels_may_be_within_objects_and_lists_of_them(tmp_path, source, path, expected):
    rows = [{"text": "a"} | row for row in NESTED]
    (tmp_path / "in.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    found = read(f"{tmp_path}/in.{source}", source, labels_field=path)
    assert [row.labels for row in found] == expected


def test_objects_without_the_name_are_rejects(tmp_path):
    values = [[{"name": "a"}], [{"name": "b"}, {"id": 1}], [{"name": 3}]]
    path = write(tmp_path, "jsonl", values)
    first, second, third = read(path, "jsonl", labels_field="labels.name")
    assert first.labels == ("a",)
    assert {second.reason, third.reason} == {"label is not a string"}


SCORED = [
    {"labels": [{"label": "a", "score": 0.9}, {"label": "b", "score": 0.3}], "p": [0.2]},
    {"labels": [{"label": "a", "score": 0.5}], "p": [1.0]},
    {"labels": [], "p": []},
    {"labels": None, "p": None},
]


@pytest.mark.parametrize("source", ["jsonl", "parquet", "arrow"])
@pytest.mark.parametrize(("threshold", "expected"), [(0.5, "a a"), (0.3, "ab a"), (0.6, "a ")])
def test_listed_labels_are_cut_by_their_scores(tmp_path, source, threshold, expected):
    rows = [{"text": "a"} | row for row in SCORED]
    rows += [{"text": "a", "labels": [{"label": "a", "score": 1}], "p": [0.1]}]
    path = tmp_path / f"in.{source}"
    table = pa.Table.from_pylist(rows)
    if source == "jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    elif source == "parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    data = {"labels_field": "labels.label", "label_score_field": "labels.score"}
    found = read(str(path), source, **data, label_threshold=threshold)
    assert [row.labels for row in found] == [*map(tuple, expected.split(" ")), (), (), ("a",)]


def test_scores_may_be_a_list_of_their_own(tmp_path):
    rows = [{"text": "a", "labels": ["x", "y"], "p": [0.2, 1]}, {"text": "a", "labels": ["x"]}]
    (tmp_path / "in.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    first, second = read(f"{tmp_path}/in.jsonl", "jsonl", label_score_field="p")
    assert first.labels == ("y",)
    assert second.reason == "scores are not those of the labels"
    assert second.detail == "p: received None, expected a list of 1 scores, as labels has 1 labels"


def test_scores_of_csv_are_a_number_for_one_label_or_a_written_list(tmp_path):
    path = tmp_path / "in.csv"
    path.write_text("text,labels,p\na,x,0.9\nb,y,0.1\nc,,\nd,x,\n")
    *rows, last = read(str(path), "csv", label_score_field="p")
    assert [row.labels for row in rows] == [("x",), (), ()]
    assert last.reason == "scores are not those of the labels"
    path.write_text("text,labels,p\na,\"['x', 'y']\",\"[0.9, 0.1]\"\nb,\"['x', 'y']\",[0.9]\n")
    data = {"label_format": "written_list", "label_score_field": "p"}
    first, second = read(str(path), "csv", **data)
    assert (first.labels, second.reason) == (("x",), "scores are not those of the labels")


@pytest.mark.parametrize(
    ("scored", "reason"),
    [
        ([{"label": "a"}], "label is not a number"),
        ([{"label": "a", "score": "x"}], "label is not a number"),
        ([{"label": "a", "score": "0.9"}], "label is not a number"),
        ([{"label": "a", "score": [0.1, 0.2]}], "scores are not those of the labels"),
        ([{"score": 0.2}], "label is not a string"),
        ([{"label": "a", "score": 0.2}, {"score": 0.9}], "label is not a string"),
    ],
)
def test_labels_without_a_score_of_their_own_are_rejects(tmp_path, scored, reason):
    path = write(tmp_path, "jsonl", [[{"label": "b", "score": 0.5}], scored])
    data = {"labels_field": "labels.label", "label_score_field": "labels.score"}
    first, second = read(path, "jsonl", **data)
    assert (first.labels, second.reason) == (("b",), reason)


def test_a_column_of_scores_that_are_no_numbers_is_refused_before_any_work(tmp_path):
    path = write(tmp_path, "parquet", [[{"label": "b", "score": "0.5"}]])
    data = {"labels_field": "labels.label", "label_score_field": "labels.score"}
    with pytest.raises(UserError, match="none of its first rows .* expected a number for each"):
        read(path, "parquet", **data)
    path = write(tmp_path, "parquet", [[{"label": "b", "score": {"x": 1}}]])
    with pytest.raises(UserError, match="'labels.score' .* expected scores"):
        read(path, "parquet", **data)
    with pytest.raises(UserError, match="data.label_score_field: .* has no column 'labels.p'"):
        read(path, "parquet", **data | {"label_score_field": "labels.p"})


@pytest.mark.parametrize(
    "data",
    [
        {"label_format": "ids"},
        {"labels_field": None},
        {"label_delimiter": ";"},
    ],
)
def test_scores_of_what_is_no_list_of_names_are_refused(data):
    with pytest.raises(UserError, match="label_score_field: expected lists of names in labels_"):
        read("in", "jsonl", label_score_field="p", **data)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 4) | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
CELLS = st.text("[](){}'\",:01.ab\\ -", max_size=12) | VALUES.map(repr) | st.text(max_size=8)
FORMATS = st.fixed_dictionaries(
    {
        "label_format": st.sampled_from([None, "names", "written_list", "ids", "scores"]),
        "label_delimiter": st.sampled_from([None, ",", " "]),
        "missing_labels": st.sampled_from(["reject", "none"]),
    }
) | st.just({"label_format": "multi_hot", "label_names": NAMES})


@settings(max_examples=60)
@given(values=st.lists(VALUES, max_size=8), cells=st.lists(CELLS, max_size=8), data=FORMATS)
def test_any_value_in_any_format_gives_a_document_or_a_reject_for_each_row(
    tmp_path_factory, values, cells, data
):
    folder = tmp_path_factory.getbasetemp()
    for source, column in (("jsonl", values + cells), ("csv", cells), ("parquet", cells)):
        cells_utf8 = [cell for cell in column if source == "jsonl" or is_utf8(cell)]
        path = write(folder, source, cells_utf8)
        raw = {"source": source, "inputs": [path], **data}
        reader = registry.make_reader(config_from_dict({"name": "x", "data": raw}, what="x").data)
        try:
            files = reader.files()
        except UserError:
            continue
        rows = [row for file in files for row in reader.read(file)]
        assert len(rows) >= len(cells_utf8) if source == "csv" else len(rows) == len(cells_utf8)
        for row in rows:
            assert isinstance(row, Reject) or all(
                label and label.strip() == label and "\n" not in label for label in row.labels
            )


def is_utf8(text: str) -> bool:
    try:
        return bool(text.encode("utf-8")) or True
    except UnicodeEncodeError:
        return False
