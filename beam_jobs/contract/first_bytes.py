"""What the first bytes of a file say it is, where text is expected."""

import codecs
import contextlib
from pathlib import Path

_NUMBER = 16  # bytes that are looked at
# The longer marks come first, as one of UTF-32 begins as one of UTF-16.
_KINDS = {
    b"\x1f\x8b\x08": ("a gzip file", "unpack it"),
    b"BZh91AY&SY": ("a bzip2 file", "unpack it"),
    b"\xfd7zXZ\0": ("an xz file", "unpack it"),
    b"\x28\xb5\x2f\xfd": ("a Zstandard file", "unpack it"),
    b"PK\3\4": ("a zip file", "unpack it"),
    b"PAR1": ("a Parquet file", "write it as text"),
    b"\xba\x16\x4f\x2f": ("a fastText model", "take its .vec file"),
    b"\x89HDF": ("an HDF5 file", "write it as text"),
    b"\x93NUMPY": ("a NumPy file", "write it as text"),
    codecs.BOM_UTF32_LE: ("a text in UTF-32", "save it in UTF-8"),
    codecs.BOM_UTF32_BE: ("a text in UTF-32", "save it in UTF-8"),
    codecs.BOM_UTF16_LE: ("a text in UTF-16", "save it in UTF-8"),
    codecs.BOM_UTF16_BE: ("a text in UTF-16", "save it in UTF-8"),
}


def hint(first: bytes) -> str:
    """What to say of a file that begins so and is no text in UTF-8; empty if nothing is known."""
    for magic, (what, how) in _KINDS.items():
        if first.startswith(magic):
            return f"; its first bytes are those of {what}, so {how}"
    return ""


def hint_of(path: str | Path) -> str:
    """The same of a file."""
    with contextlib.suppress(OSError), open(path, "rb") as stream:
        return hint(stream.read(_NUMBER))
    return ""
