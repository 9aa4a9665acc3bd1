"""What files are: their format, by their first bytes and rows, in the config's words."""

import dataclasses
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from apache_beam.io.filesystems import FileSystems

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.data import ArrowData, CsvData
from beam_jobs.inspection.columns import is_number
from beam_jobs.sources import streams
from beam_jobs.sources.arrow import ArrowReader, is_saved
from beam_jobs.sources.delimited import CsvReader
from beam_jobs.sources.directories import is_archive, likely_encoding
from beam_jobs.sources.input_files import InputFile, extension, match_files

HEAD_BYTES = 256 << 10  # 256 KiB of a file's beginning decide what it is
_PEEKED_ROWS = 200
_SEEN_FILES = 50  # of many, to recognise them
_EXTENSIONS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".tar": "directories",
}
_DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}
_OTHER_FORMATS = {
    b"%PDF": "a PDF",
    b"SQLite format 3": "an SQLite database",
    b"\x89HDF": "an HDF5 file",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"\x93NUMPY": "a NumPy array",
    b"\x80\x04\x95": "a pickle",
    b"\x80\x05\x95": "a pickle",
    b"\x7fELF": "a program",
    b"\xd0\xcf\x11\xe0": "an old Office file",
    b"ORC": "an ORC file",
    b"Obj\x01": "an Avro file",
    b"{\\rtf": "an RTF file",
}
_READABLE = (
    "CSV, TSV, JSON Lines, a JSON array, Parquet, Arrow, a directory or tar archive of text files "
    "with a directory per label, fastText's lines, or Stack Exchange's Posts.xml"
)
FASTTEXT_LABEL = re.compile(r"(?:^|\s)__label__\S+")


@dataclasses.dataclass(frozen=True)
class Format:
    """What the files are.

    Attributes:
      source: their `data.source`, or `lines`, where only text is there.
      inputs: the files or patterns, as `data.inputs` has them.
      settings: the keys of `data` without which they are not read.
      reasons: why a setting is there, by its key.
      description: their format in words.
      files: the files themselves.
    """

    source: str
    inputs: tuple[str, ...]
    settings: dict[str, Any]
    reasons: dict[str, str]
    description: str
    files: tuple[InputFile, ...]


def recognise(arguments: Sequence[str]) -> Format:
    """The format of files, patterns and directories.

    Raises:
      UserError: one is missing, empty or of no format that can be read, or they differ.
    """
    directories = [path for path in arguments if os.path.isdir(path)]
    if directories and len(arguments) > 1:
        raise UserError(
            f"received the directory {directories[0]} with {len(arguments) - 1:,} other paths, "
            "expected files, or one directory"
        )
    if directories:
        return _of_directory(directories[0])
    return _of_files(arguments)


# --- directories -----------------------------------------------------------------------


def _of_directory(directory: str) -> Format:
    if is_saved(directory):
        data = ArrowData(source="arrow", inputs=(directory,))
        description = "a dataset that Hugging Face's datasets saved"
        return Format(
            "arrow", (directory,), {}, {}, description, tuple(ArrowReader(data).matched())
        )
    names = _names_below(directory)
    if not names:
        raise UserError(
            f"{directory} holds no files; expected {_READABLE}, or the dataset that "
            "multihot-preprocess wrote"
        )
    kinds = Counter(kind for kind in map(_kind_by_name, names) if kind)
    if not kinds or sum(kinds.values()) < len(names) / 2:
        if any(os.sep in name for name in names):
            return _directories([directory], "a directory of text files, one directory per label")
        raise UserError(
            f"{directory} holds {len(names):,} files, such as {names[0]}, of no format that is "
            f"known by its name; name the files, or expected {_READABLE}"
        )
    ending = kinds.most_common(1)[0][0]
    nested = any(os.sep in name for name in names if name.lower().endswith(ending))
    if re.search(r"[*?\[]", directory):  # such characters would be part of the pattern
        chosen = (name for name in names if _kind_by_name(name) == ending)
        return _of_files([os.path.join(directory, name) for name in chosen])
    pattern = os.path.join(directory, f"**{ending}" if nested else f"*{ending}")
    return _of_files([pattern])


def _names_below(directory: str) -> list[str]:
    """The files of a directory and below, without hidden ones, seen from there, sorted."""
    names = []
    for place, below, files in os.walk(directory):
        below[:] = sorted(name for name in below if not name.startswith("."))
        names += [
            os.path.relpath(os.path.join(place, name), directory)
            for name in sorted(files)
            if not name.startswith(".") and not name.lower().startswith(("readme", "license"))
        ]
    return names


def _kind_by_name(name: str) -> str | None:
    """The ending that tells a file's format, such as `.jsonl.gz` or `Posts.xml`."""
    if name.endswith("Posts.xml"):
        return "Posts.xml"
    ending = extension(name)
    if ending in streams.COMPRESSIONS:
        inner = extension(os.path.splitext(name)[0])
        return inner + ending if inner in _EXTENSIONS else None
    return ending if ending in _EXTENSIONS or is_archive(name) else None


def _directories(inputs: Sequence[str], description: str) -> Format:
    return Format("directories", tuple(inputs), {}, {}, description, ())


# --- files -----------------------------------------------------------------------------


def _of_files(patterns: Sequence[str]) -> Format:
    files = _matched(patterns)
    found: dict[str, InputFile] = {}
    for file in files[:: -(-len(files) // _SEEN_FILES)]:
        if file.bytes:
            found.setdefault(_source(file), file)
    if not found:
        raise UserError(
            f"{files[0].name} is empty; expected {_READABLE}"
            if len(files) == 1
            else f"all {len(files):,} files are empty; expected {_READABLE}"
        )
    if len(found) > 1:
        those = ", ".join(f"{file.name} ({source})" for source, file in found.items())
        raise UserError(
            f"received files of several formats: {those}; expected one: name its files, those of a "
            "zip archive such as data.zip/*.csv"
        )
    ((source, first),) = found.items()
    inputs = tuple(patterns)
    if source == "lines" and all("/" in (file.member or "") for file in files):
        return _directories(inputs, "a zip archive of text files, one directory per label")
    if source == "csv":
        return _csv(inputs, files, first)
    description = {
        "jsonl": "JSON Lines",
        "json_array": "a JSON array",
        "parquet": "Parquet",
        "arrow": "Arrow",
        "directories": "a tar archive of text files, one directory per label",
        "stack_exchange": "Posts.xml of Stack Exchange",
        "fasttext": "fastText's lines, labels as __label__NAME",
        "lines": "text, a document a line",
    }[source]
    source = "jsonl" if source == "json_array" else source
    return Format(source, inputs, {}, {}, description, tuple(files))


def _matched(patterns: Sequence[str]) -> list[InputFile]:
    for pattern in patterns:
        is_pattern = FileSystems.get_scheme(pattern) or re.search(r"[*?\[]|\.zip/", pattern)
        if not is_pattern and not os.path.exists(pattern):
            raise UserError(f"{pattern}: no such file or directory")
    try:
        return streams.ranges_where_plain(match_files(patterns))
    except UserError as error:
        raise UserError(str(error).removeprefix("data.inputs: ")) from None


def _source(file: InputFile) -> str:
    """The source that reads a file that is not empty.

    Raises:
      UserError: there is none.
    """
    raw, head = _beginning(file)
    if raw.startswith(b"PAR1"):
        return "parquet"
    if raw.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return "arrow"
    if is_archive(file.path) or head[257:262] == b"ustar":
        if not is_archive(file.path):
            raise UserError(f"{file.name} is a tar archive; rename it, such as {file.name}.tar")
        return "directories"
    what = next((what for magic, what in _OTHER_FORMATS.items() if raw.startswith(magic)), None)
    if what is None and b"\0" in head:
        what = "no text"
    if what:
        raise UserError(f"{file.name} is {what}; expected {_READABLE}")
    text = head.decode("utf-8", "replace").removeprefix("\ufeff").lstrip()
    if text.startswith("<?xml") or text.startswith("<posts"):
        return _xml(file, text)
    if text.startswith("["):
        return "json_array"
    if text.startswith("{"):
        return _json(file, text)
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise UserError(f"{file.name} holds white space alone; expected {_READABLE}")
    if sum(bool(FASTTEXT_LABEL.search(line)) for line in lines) > len(lines) / 2:
        return "fasttext"
    if extension(_plain_name(file)) in (".csv", ".tsv", ".tab") or _delimiter(file) is not None:
        return "csv"
    return "lines"


def _beginning(file: InputFile) -> tuple[bytes, bytes]:
    """The first bytes of a file as they are, and decompressed and in UTF-8."""
    try:
        with FileSystems.open(file.path, compression_type="uncompressed") as stream:
            raw = stream.read(16)
        if raw.startswith((b"PAR1", b"ARROW1")):
            return raw, b""
        with streams.open_utf8(file.path, file.member) as stream:
            return raw, stream.read(HEAD_BYTES)
    except streams.DAMAGE as error:
        raise UserError(f"{file.name} cannot be read: {error}") from None


def _plain_name(file: InputFile) -> str:
    """The file's path without the ending of its compression."""
    path = file.member or file.path
    plain, ending = os.path.splitext(path)
    return plain if ending.lower() in streams.COMPRESSIONS else path


def _xml(file: InputFile, text: str) -> str:
    if "<posts" in text:
        return "stack_exchange"
    raise UserError(f"{file.name} is XML, and not Stack Exchange's Posts.xml; expected {_READABLE}")


def _json(file: InputFile, text: str) -> str:
    """`jsonl`, unless the first object takes several lines."""
    first, line_end, rest = text.partition("\n")
    if not line_end or first.rstrip().endswith("}"):
        return "jsonl"
    try:
        json.JSONDecoder().raw_decode(text)
    except ValueError:
        if rest.lstrip().startswith("{"):
            return "jsonl"  # its first row is wrong
    raise UserError(
        f"{file.name} holds a JSON object of several lines, expected an object a line or one array "
        f"of objects; `jq -c . {file.name} > rows.jsonl` puts each on a line, and "
        "`jq -c '.NAME[]'` those of a list that is within NAME"
    )


# --- CSV -------------------------------------------------------------------------------


def _csv(inputs: tuple[str, ...], files: Sequence[InputFile], first: InputFile) -> Format:
    delimiter = _delimiter(first) or ("\t" if _usual_delimiter(first) == "\t" else ",")
    settings: dict[str, Any] = {}
    reasons = {}
    if delimiter != ",":
        settings["delimiter"] = delimiter
    if (encoding := _encoding(first)) != "utf-8":
        settings["encoding"] = encoding
        reasons["encoding"] = "the bytes are not UTF-8, and this looks like it"
    if delimiter == "\t" and _has_quoted_fields(first, settings):
        settings["quote_character"] = '"'
        reasons["quote_character"] = "fields are in quotes, with quotes doubled in them"
    rows = first_records(first, settings)
    header = "with a header"
    if rows and not is_header(rows[0], rows[1:]):
        settings["columns"] = tuple(f"column_{i + 1}" for i in range(len(rows[0])))
        reasons["columns"] = "the first row looks like data, so these names are made up"
        header = "without a header"
    named = f", {encoding}" if encoding != "utf-8" else ""
    kind = "TSV" if delimiter == "\t" else "CSV"
    parted = "" if delimiter in ",\t" else f", {_DELIMITERS[delimiter]} between fields"
    description = f"{kind} {header}{parted}{named}"
    return Format("csv", inputs, settings, reasons, description, tuple(files))


def first_records(file: InputFile, settings: dict[str, Any]) -> list[list[str]]:
    """The fields of the first rows of a CSV file, as the job's reader parts them."""
    data = CsvData(source="csv", inputs=(file.path,), **settings)
    return CsvReader(data).first_records(file, _PEEKED_ROWS)


def _usual_delimiter(file: InputFile) -> str | None:
    """The one that the file's name stands for."""
    return {".csv": ",", ".tsv": "\t", ".tab": "\t"}.get(extension(_plain_name(file)))


def _delimiter(file: InputFile) -> str | None:
    """The delimiter that parts the rows into equally many fields; None where none does."""
    usual = _usual_delimiter(file)
    encoding = _encoding(file)
    best, most = None, 0.0
    for delimiter in sorted(_DELIMITERS, key=lambda each: each != usual):
        rows = first_records(file, {"delimiter": delimiter, "encoding": encoding})
        if usual is None and len(rows) < 2:
            continue
        (size, number), *_ = Counter(map(len, rows)).most_common(1) or [(0, 0)]
        equal = number / len(rows) if size > 1 else 0.0
        if equal > most:
            best, most = delimiter, equal
    return best if most >= (0.5 if usual else 0.9) else None


def _encoding(file: InputFile) -> str:
    """`utf-8`, or what a file that is not UTF-8 looks like."""
    _, head = _beginning(file)
    cut = head[: head.rfind(b"\n") + 1] or head  # characters are whole at the end of a line
    try:
        cut.decode("utf-8")
    except UnicodeDecodeError:
        escaped = cut.decode("utf-8", "surrogateescape")
        wrong = sum("\udc80" <= character <= "\udcff" for character in escaped)
        beyond_ascii = sum(byte > 0x7F for byte in cut)
        if wrong > beyond_ascii / 10:  # otherwise it is UTF-8 with a few wrong bytes
            return likely_encoding(cut) or "latin-1"
    return "utf-8"


def _has_quoted_fields(file: InputFile, settings: dict[str, Any]) -> bool:
    """Whether quotes around fields are no part of them: they are closed, and doubled within."""
    as_text = first_records(file, settings | {"quote_character": None})
    parsed = first_records(file, settings | {"quote_character": '"'})
    fields = [field for row in as_text for field in row]
    opened = sum(field.startswith('"') for field in fields)
    closed = sum(field.endswith('"') for field in fields)
    whole = [field for field in fields if len(field) > 1 and field[0] == field[-1] == '"']
    return (
        opened == closed >= max(2, len(as_text) / 20)
        and len(set(map(len, parsed))) == 1
        and all('"' not in field[1:-1].replace('""', "") for field in whole)
    )


def is_header(first: Sequence[str], others: Sequence[Sequence[str]]) -> bool:
    """Whether the first row of a table names its columns.

    Names are short, there once and no numbers; and a column whose values are numbers, or all much
    longer than its name, or of few kinds that the name is none of, has a name above them.
    """
    names = [name.strip() for name in first]
    if not all(names) or len(set(names)) < len(names):
        return False
    if any(is_number(name) or len(name) > 60 for name in names):
        return False
    if not others:
        return True
    if any(re.fullmatch(_USUAL_NAMES, name.lower()) for name in names):
        return True
    votes = 0
    for i, name in enumerate(names):
        values = [row[i] for row in others if len(row) == len(names) and row[i].strip()]
        if not values:
            continue
        votes += _vote(name, values)
    are_names = all(re.fullmatch(r"\w+(?:[ ./:-]\w+){0,3}", name) for name in names)
    return votes > 0 or (votes == 0 and are_names)


def _vote(name: str, values: Sequence[str]) -> int:
    """1: the name looks unlike the values; -1: it may be one of them; 0: it says nothing."""
    if all(map(is_number, values)):
        return 1
    if len(name) * 3 < sum(map(len, values)) / len(values):
        return 1
    return -1 if name in values else 0


_USUAL_NAMES = (
    r"id|_id|index|text|title|body|content|abstract|description|summary|comment|sentence|message|"
    r"question|review|tweet|labels?|tags?|categor(?:y|ies)|class(?:es)?|topics?|genres?|split|"
    r"date|time|created(?:_at)?|name|url"
)
