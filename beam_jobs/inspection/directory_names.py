"""What the directories of text files say: the labels, and the splits where some are named so."""

import itertools
import re
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence

from apache_beam.io.filesystems import FileSystems

from beam_jobs.inspection.guesses import splits_named
from beam_jobs.sources import streams, zip_archives
from beam_jobs.sources.directories import is_archive
from beam_jobs.sources.input_files import InputFile

MAX_NAMES = 100_000
_MAX_ARCHIVE_BYTES = 64 << 20  # 64 MiB of an archive, unpacked, are read for its names
_HEADERS = re.compile(r"(?:[A-Z][\w-]*: .*\n(?:[ \t].*\n)*){2}")


def names_of(files: Sequence[InputFile]) -> list[str]:
    """The first files that are documents, also those in archives."""
    return list(itertools.islice((name for file in files for name in _names(file)), MAX_NAMES))


def labels_of(names: Sequence[str]) -> Counter[str]:
    """How many files each label has: the name of their directory."""
    return Counter(name.split("/")[-2] for name in names if "/" in name)


def splits_of(names: Sequence[str]) -> dict[str, list[str]]:
    """Patterns of the files of each split, where directories above the labels are named so."""
    parents = {tuple(name.split("/")[:-2]) for name in names}
    for depth in range(max(map(len, parents), default=0)):
        parts = {parent[depth] for parent in parents if len(parent) > depth}
        if found := splits_named({part: part for part in sorted(parts)}):
            return {split: [f"*/{part}/*" for part in named] for split, named in found.items()}
    return {}


def have_headers(texts: Sequence[str]) -> bool:
    """Whether most texts begin as mails and posts do."""
    return sum(bool(_HEADERS.match(text)) for text in texts) > len(texts) * 0.8


def _names(file: InputFile) -> Iterator[str]:
    if not is_archive(file.path):
        yield from _members(file)
        return
    with streams.open_stream(file.path) as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                for info in archive:
                    if info.isreg() and not info.name.rpartition("/")[2].startswith("."):
                        yield f"{file.name}/{info.name}"
                    if archive.offset > _MAX_ARCHIVE_BYTES:
                        return
        except (*streams.DAMAGE, tarfile.TarError):
            return  # which the sample has told


def _members(file: InputFile) -> Iterator[str]:
    """The files of a zip archive, or the file itself."""
    if file.member is None and streams.is_zip(file.path):
        with (
            FileSystems.open(file.path, compression_type="uncompressed") as raw,
            zipfile.ZipFile(raw) as archive,
        ):
            for info in zip_archives.members(archive):
                yield f"{file.name}/{info.filename}"
    else:
        yield file.name
