"""Files with anything in them, by a seed."""

import bz2
import codecs
import decimal
import gzip
import io
import json
import math
import random
import zipfile
from collections.abc import Sequence
from xml.sax.saxutils import quoteattr

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from beam_jobs.contract.sections import data

ROWS = 12  # at most, of a file
WORDS = [
    *("a", "two words", "", " ", "\t", "caf\u00e9", "\u6587\u672c", "x" * 300, "\x00", "\x1b[0m"),
    *('"', 'stray "quote', "'", ",", ";", "a,b", "line\nbreak", "\r", "\r\n", "\\", "\u2028"),
    *("\ufeff", "\ufffe", "\u200b", "\U0001f600", "[", "[1, 2]", '["a", "b"]', "['a']", "{", "}"),
    *("__label__x word", "1", "0.5", "-1", "1e400", "nan", "null", "true", "2024-01-31", "9" * 30),
]
SCALARS = [None, True, False, 0, 1, -1, 10**30, 1_700_000_000, 0.5, 1e308, math.nan, math.inf]
NAMES = ["text", "labels", "id", "w", "s", "t", "m", "doc", "doc.body", "other"]


class Maker(random.Random):
    """Makes values that files may hold."""

    def word(self) -> str:
        return self.choice(WORDS)

    def value(self, depth: int = 0):
        """Any value of JSON."""
        kind = self.randrange(6 if depth < 3 else 4)
        if kind == 4:
            return [self.value(depth + 1) for _ in range(self.randrange(3))]
        if kind == 5:
            return {self.word(): self.value(depth + 1) for _ in range(self.randrange(3))}
        return self.word() if kind < 2 else self.choice([*SCALARS, "\ud800"])

    def row(self) -> dict:
        """Most are as they should be."""
        names = [name for name in NAMES if self.random() < 0.5]
        row = {name: self.value() for name in names}
        if self.random() < 0.8:
            labels = [self.word() for _ in range(self.randrange(3))]
            row |= {"text": self.word(), "labels": labels, "id": self.randrange(9)}
        if self.random() < 0.5:
            row |= {"doc": {"body": self.word(), "tags": [self.word()]}, "w": 1.0, "m": "a"}
        return row


# Settings of `data`, of which each example has one; those of rows.
FIELDS = [
    {},
    {"labels_field": None},
    {"id_field": "id", "metadata_fields": ["m"], "weight_field": "w"},
    {"text_fields": ["doc.body"], "labels_field": "doc.tags", "missing_labels": "none"},
    {"text_fields": ["text", "m"], "join_text_fields": False, "labels_field": "labels.name"},
    {"label_delimiter": ";", "split_field": "s", "time_field": "t", "time_format": "seconds"},
    {"label_columns": ["w", "m"], "time_field": "t"},
    {"label_format": "ids", "labels_field": "labels", "max_row_bytes": 200},
    {"label_format": "ids", "label_names": ["a", "b"], "missing_labels": "reject"},
    {"label_format": "multi_hot", "label_names": ["a", "b"]},
    {"label_format": "written_list"},
    {"label_format": "scores", "label_threshold": 0.3},
]
SETTINGS = {
    "jsonl": FIELDS,
    "array": FIELDS,
    "csv": FIELDS
    + [{"delimiter": "\t"}, {"delimiter": ";", "escape_character": "\\", "double_quote": False}]
    + [
        {"columns": NAMES, "encoding": "latin-1"},
        {"encoding": "utf-16"},
        {"quote_character": None},
    ],
    "parquet": FIELDS,
    "arrow": FIELDS,
    "lines": [{}, {"max_row_bytes": 20}],
    "fasttext": [{}, {"label_prefix": "#"}, {"max_row_bytes": 20}],
    "stack_exchange": [{}, {"text_fields": ["title"], "metadata_fields": ["Score"]}],
    "directories": [{}, {"encoding": "utf-8"}, {"encoding": "utf-16"}, {"remove": ["headers"]}],
}
CLASSES = {
    "jsonl": data.JsonlData,
    "array": data.JsonlData,
    "csv": data.CsvData,
    "parquet": data.ParquetData,
    "arrow": data.ArrowData,
    "lines": data.LinesData,
    "fasttext": data.FasttextData,
    "stack_exchange": data.StackExchangeData,
    "directories": data.DirectoriesData,
}


# --- files -----------------------------------------------------------------------------


def as_json(value) -> str:
    return json.dumps(value, ensure_ascii="\ud800" in repr(value) or "\\ud800" in repr(value))


def as_csv(rows: list[dict]) -> str:
    """Some fields are quoted as they should be, others not."""
    lines = [",".join(NAMES)]
    for row in rows:
        fields = [str(row.get(name, "")).replace("\ud800", "?") for name in NAMES]
        lines.append(
            ",".join(
                '"' + field.replace('"', '""') + '"' if len(field) % 3 else field
                for field in fields
            )
        )
    return "\n".join(lines)


def as_posts(rows: list[dict]) -> str:
    posts = [
        f'  <row Id="{i}" PostTypeId="{1 + i % 2 * (i % 3)}" '
        f"Title={quoteattr(str(row.get('text')))} "
        f'Body={quoteattr(str(row.get("m")))} Tags="&lt;{i % 3}&gt;" Score="&#x{i:x};" />'
        for i, row in enumerate(rows)
    ]
    text = "\n".join(['<?xml version="1.0" encoding="utf-8"?>', "<posts>", *posts, "</posts>"])
    return text.replace("\ud800", "&#xd800;")


TYPES = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.dictionary(pa.int8(), pa.string()),
    pa.list_(pa.string()),
    pa.large_list(pa.int64()),
    pa.list_(pa.struct([("name", pa.string())])),
    pa.struct([("body", pa.string()), ("tags", pa.list_(pa.string()))]),
    pa.map_(pa.string(), pa.float64()),
    pa.int64(),
    pa.uint64(),
    pa.float16(),
    pa.float64(),
    pa.bool_(),
    pa.decimal128(30, 3),
    pa.date32(),
    pa.time64("ns"),
    pa.timestamp("s"),
    pa.timestamp("ns", "Europe/Berlin"),
    pa.timestamp("us", "Nowhere/Atlantis"),
    pa.duration("ns"),
    pa.null(),
]


def value_of(kind: pa.DataType, maker: Maker):
    """A value of a type, or null."""
    if pa.types.is_null(kind) or maker.random() < 0.1:
        return None
    if pa.types.is_dictionary(kind):
        return value_of(kind.value_type, maker)
    if pa.types.is_map(kind):
        return [(maker.word(), maker.random()) for _ in range(maker.randrange(3))]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return [value_of(kind.value_type, maker) for _ in range(maker.randrange(3))]
    if pa.types.is_struct(kind):
        return {kind.field(i).name: value_of(kind.field(i).type, maker) for i in range(len(kind))}
    if pa.types.is_binary(kind):
        return maker.choice([b"a", b"\xff", "caf\u00e9".encode(), b""])
    if pa.types.is_boolean(kind):
        return maker.random() < 0.5
    if pa.types.is_floating(kind):
        return maker.choice([0.0, 0.5, 1.0, math.nan, math.inf])
    if pa.types.is_decimal(kind):
        return maker.choice([decimal.Decimal("0.5"), decimal.Decimal(10**20), decimal.Decimal(0)])
    if pa.types.is_date32(kind):
        return maker.choice([0, 1 << 30, -(1 << 30), 20_000])
    if pa.types.is_time64(kind):
        return maker.randrange(86_400_000_000_000)
    if pa.types.is_uint64(kind):
        return maker.choice([0, 1, (1 << 64) - 1])
    if pa.types.is_integer(kind) or pa.types.is_temporal(kind):
        return maker.choice([0, 1, 1_700_000_000, -(1 << 52), 1 << 52])
    return maker.word()


def table_of(maker: Maker, count: int, *, kinds: Sequence[str] = ()) -> pa.Table:
    """Columns that are as they should be, or of any type; those in `kinds` are as they should."""
    right = {"text": pa.string(), "labels": pa.list_(pa.string())}
    types = {name: maker.choice(TYPES) for name in NAMES}
    if maker.random() < 0.8:
        types |= right
    types |= {name: right[name] for name in kinds}
    if maker.random() < 0.5:
        types |= {"doc": TYPES[8], "w": pa.float64(), "m": pa.string(), "id": pa.int64()}
    columns = {
        name: pa.array([value_of(kind, maker) for _ in range(count)], kind)
        for name, kind in types.items()
    }
    return pa.table(columns)


def as_parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=2)
    return sink.getvalue()


def as_arrow(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    make = pa.ipc.new_file if table.num_rows % 2 else pa.ipc.new_stream
    with make(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return sink.getvalue()


def zipped(content: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("one/a", content)
        archive.writestr("two/b", content)
    return sink.getvalue()


PACKING = [gzip.compress, bz2.compress, zstandard.ZstdCompressor().compress, zipped]
ENCODINGS = ["utf-16", "utf-16-le", "utf-32", "latin-1", "utf-8-sig"]
INSERTED = [
    b"\0",
    b"\xff",
    b"\n",
    b"\r",
    b'"',
    b"\n\n",
    codecs.BOM_UTF16_LE,
    b"\xed\xa0\x80",
    b"<>",
]


def content_of(source: str, maker: Maker) -> bytes:
    """A file of a source: as it should be, or in another encoding, damaged, packed or cut off."""
    count = maker.choice([0, 1, ROWS // 2, ROWS, ROWS])
    if source in ("parquet", "arrow"):
        content = (as_parquet if source == "parquet" else as_arrow)(table_of(maker, count))
        return content[: maker.randrange(len(content))] if maker.random() < 0.2 else content
    rows = [maker.row() for _ in range(count)]
    if source == "jsonl":
        text = "\n".join(map(as_json, rows))
    elif source == "array":
        text = json.dumps(rows, indent=maker.choice([None, 1]))
    elif source == "csv":
        text = as_csv(rows)
    elif source == "stack_exchange":
        text = as_posts(rows)
    else:
        text = "\n".join(maker.word() for _ in range(count))
    damage = maker.choice(["none", "none", "none", "encoding", "insert", "pack", "pack cut", "cut"])
    encoding = maker.choice(ENCODINGS) if damage == "encoding" else "utf-8"
    content = text.encode(encoding, "replace")
    if damage == "insert":
        for _ in range(maker.randint(1, 3)):
            at = maker.randint(0, len(content))
            content = content[:at] + maker.choice(INSERTED) + content[at:]
    if "pack" in damage:
        content = maker.choice(PACKING)(content)
    return content[: maker.randint(0, len(content))] if "cut" in damage else content
