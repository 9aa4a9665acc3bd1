"""Outputs of jobs: `PLACE/<generation>/files`, and a mark at the place, written last, that names
the files of one generation. Whoever reads looks for the mark.

The generation's name follows from what decides the bytes, and files never change once they are
named: two runs of one config write the same bytes to the same names, and of different runs the last
mark counts. So no rename of directories is needed, and object stores are like disks.

The generation that a mark named before stays where it is, because somebody may be reading it; the
next run that writes at the place removes it.
"""

import contextlib
import dataclasses
import hashlib
import os
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator

from beam_jobs.contract import places
from beam_jobs.contract.atomic import exclusive, file_of_temporary, remove_free_lock
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import FileInfo

_NAME = re.compile(r"[0-9a-f]{16}(-[1-9][0-9]*)?")
_WORK = "work-"
# Where runs cannot lock each other out, what is younger may be another run's.
ABANDONED_SECONDS = 24 * 3600


@dataclasses.dataclass
class Generation:
    """A generation that is being written.

    Attributes:
      place: the output directory.
      name: of the folder of its files.
      work_dir: for files that only the run needs.
    """

    place: str
    name: str
    work_dir: str
    _committed: bool = dataclasses.field(default=False, init=False)

    @property
    def directory(self) -> str:
        """Where its files are."""
        return places.join(self.place, self.name)

    def named(self, info: FileInfo) -> FileInfo:
        """A description of one of its files, with the file's path from the place."""
        return info.model_copy(update={"file": f"{self.name}/{info.file}"})

    def commit(
        self, mark: str, content: str, files: Iterable[FileInfo], *, replaced: Iterable[str] = ()
    ) -> None:
        """Writes the mark, and removes what it does not name from the generation.

        Args:
          mark: its file name.
          content: its content.
          files: what it names, by their paths from the place.
          replaced: files at the place itself that it names no more.

        Raises:
          RuntimeError: a file is not there, or not in its size; nothing is published.
        """
        found = places.list_files(self.directory)
        expected = {info.file.removeprefix(f"{self.name}/"): info.bytes for info in files}
        for name, size in expected.items():
            if name not in found or found[name].size != size:
                received = f"has {found[name].size:,} bytes" if name in found else "is not there"
                raise RuntimeError(
                    f"{places.join(self.directory, name)} {received}, expected {size:,} bytes: "
                    "nothing is published"
                )
        places.sync(self.directory)
        places.write(places.join(self.place, mark), content, durable=True)
        self._committed = True
        places.delete(places.join(self.directory, name) for name in found.keys() - expected.keys())
        places.delete(places.join(self.place, name) for name in replaced)


def name_of(*parts: str) -> str:
    """The name of the generation that these texts decide."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def generation_of(file: str) -> str | None:
    """The generation in a file's path from its place; None: it lies at the place itself."""
    folder, separator, _ = file.partition("/")
    return folder if separator else None


def is_empty(place: str) -> bool:
    """Whether nothing is at a place but what runs have left that did not come to their end."""
    if places.is_remote(place):
        names = {name.partition("/")[0] for name in places.list_files(place)}
    elif os.path.isdir(place):
        names = set(os.listdir(place))
    else:
        return not os.path.exists(place)
    return all(_NAME.fullmatch(name) or file_of_temporary(name) for name in names)


@contextlib.contextmanager
def writing(
    place: str, name: str, *, live: Callable[[], str | None], what: str
) -> Iterator[Generation]:
    """A new generation to write, which `commit` publishes; without it nothing stays.

    What killed runs left is removed: at once on a disk, where a lock tells that they have ended; on
    a store a day after they last wrote, or when their own generation is published.

    Args:
      place: the output directory.
      name: of the generation; with a number after it where the place has that one already, whose
        files stay as they are.
      live: returns the generation that the mark at the place names, if any.
      what: the config key or flag that names the place, for errors.

    Raises:
      UserError: the place cannot be written, or a live run is writing it.
    """
    place = place if places.is_remote(place) else os.path.abspath(place)
    with _locked(place, what):
        current = live()
        generation = Generation(place, _after(name, current), "")
        generation.work_dir = places.join(generation.directory, f"{_WORK}{uuid.uuid4().hex}")
        _remove_others(place, {current, generation.name})
        if not places.is_remote(place):
            places.delete_directory(generation.directory)
        try:
            yield generation
        finally:
            _clean_up(generation)


def remove_what_a_killed_run_left(place: str, named: Iterable[str]) -> None:
    """Removes what a run has left that was killed after it had published: its lock, and what is in
    its generation besides. Where that may not be removed it stays, as the output is complete.

    Args:
      place: the output directory.
      named: the files that the mark names, by their paths from the place.
    """
    if not places.is_remote(place):
        remove_free_lock(place)
    named = set(named)
    generation = next(filter(None, map(generation_of, named)), None)
    if generation is None:
        return
    directory = places.join(place, generation)
    with contextlib.suppress(UserError, OSError):
        # A run that ends by itself removes its folder of work last.
        if folders := _work_folders(directory):
            found = {f"{generation}/{name}" for name in places.list_files(directory)}
            places.delete(places.join(place, name) for name in found - named)
            for name in folders:
                places.delete_directory(places.join(directory, name))


@contextlib.contextmanager
def _locked(place: str, what: str) -> Iterator[None]:
    if places.is_remote(place):
        yield
    else:
        with exclusive(place, what):
            yield


def _after(name: str, current: str | None) -> str:
    base, _, number = (current or "").partition("-")
    return f"{name}-{int(number or 0) + 1}" if base == name else name


def _remove_others(place: str, kept: set[str | None]) -> None:
    """Removes generations, and marks that were not renamed yet, that nobody writes any more."""
    newest: dict[str, float] = {}
    if places.is_remote(place):
        for path, file in places.list_files(place).items():
            name = path.partition("/")[0]
            newest[name] = max(newest.get(name, 0.0), file.updated)
    elif os.path.isdir(place):  # the lock tells that nobody writes them, however new they are
        newest = dict.fromkeys(os.listdir(place), 0.0)
    for name, updated in newest.items():
        if name in kept or updated >= time.time() - ABANDONED_SECONDS:
            continue
        if _NAME.fullmatch(name):
            places.delete_directory(places.join(place, name))
        elif file_of_temporary(name):
            places.delete([places.join(place, name)])


def _work_folders(directory: str) -> set[str]:
    """The folders of work of all runs of a generation, in its directory."""
    if places.is_remote(directory):
        names = (name.partition("/")[0] for name in places.list_files(directory))
    else:
        names = os.listdir(directory)
    return {name for name in names if name.startswith(_WORK)}


def _clean_up(generation: Generation) -> None:
    """Removes the run's own files; all of them if nothing is published."""
    if places.is_remote(generation.place):
        others = _work_folders(generation.directory) - {os.path.basename(generation.work_dir)}
        if not generation._committed and not others:  # else another run of this generation is live
            places.delete_directory(generation.directory)
        places.delete_directory(generation.work_dir)
        return
    if not generation._committed:
        places.delete_directory(generation.directory)
        with contextlib.suppress(OSError):
            os.rmdir(generation.place)  # if nothing else is there
    else:
        for name in _work_folders(generation.directory):
            places.delete_directory(places.join(generation.directory, name))
