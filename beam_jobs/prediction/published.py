"""Predictions that are published: a summary, and the files that it names."""

import json

from beam_jobs.contract import places
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import FileInfo
from beam_jobs.runtime import generations

SUMMARY = "predictions.json"  # written last: its presence means that the predictions are complete


def check_output(output: str, *, overwrite: bool) -> None:
    """Raises UserError where there is something that may not be replaced."""
    if named_files(output) is not None:
        if not overwrite:
            raise UserError(f"--output: {output} holds predictions; --overwrite replaces them")
    elif not generations.is_empty(output):
        # Not even --overwrite replaces what no run of ours has written.
        raise UserError(
            f"--output: {output} is there and holds no predictions; expected a new or empty "
            "directory"
        )


def is_complete(output: str, name: str) -> bool:
    """Whether predictions of this name are there, and all of their files in their sizes."""
    sizes = {info.file: info.bytes for info in _published(output) or ()}
    generation = next(map(generations.generation_of, sizes), None)
    if not generation or generation.partition("-")[0] != name:
        return False
    found = places.list_files(places.join(output, generation))
    return all(
        file.partition("/")[2] in found and found[file.partition("/")[2]].size == size
        for file, size in sizes.items()
    )


def live_generation(output: str) -> str | None:
    return next(map(generations.generation_of, named_files(output) or ()), None)


def files_at_the_place(output: str) -> list[str]:
    """The files of predictions that lie beside their summary, as versions before wrote them."""
    return [file for file in named_files(output) or () if not generations.generation_of(file)]


def named_files(output: str) -> list[str] | None:
    """The paths of `_published`."""
    files = _published(output)
    return None if files is None else [info.file for info in files]


def _published(output: str) -> list[FileInfo] | None:
    """The files that the summary names; None: there is none; empty: it is damaged."""
    try:
        files = json.loads(places.read_bytes(places.join(output, SUMMARY)))["files"]
        fields = FileInfo.model_fields
        return [FileInfo.model_validate({name: info[name] for name in fields}) for info in files]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError, KeyError, RecursionError):
        return []
