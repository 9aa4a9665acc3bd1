"""The command that looks at files, and writes a config to start from; and at a dataset."""

import argparse
import os
import sys
from pathlib import Path

from beam_jobs.contract import places
from beam_jobs.contract.atomic import write_atomically
from beam_jobs.contract.command_line import run_main
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import MANIFEST
from beam_jobs.contract.quiet import no_beam_warnings
from beam_jobs.inspection import dataset

DESCRIPTION = """\
Looks at the first rows of files before they are preprocessed: what their columns hold, which are
text, labels, id, split and time, and why; and prints or writes a config to start from.

Of the directory of a dataset it shows counts, splits, labels, statistics and some records, and
verifies the SHA-256 of every file and the checksums of every record. Exit status 2, with the file
named, if anything is damaged."""

EPILOG = """\
  multihot-inspect tickets.csv --write tickets.yaml
  multihot-preprocess --config tickets.yaml
  multihot-inspect out/tickets/dataset"""

_OF_FILES = ("rows", "text_fields", "labels_field", "write", "overwrite")
_OF_DATASETS = ("records", "labels", "no_verify")
_ROWS, _RECORDS, _LABELS = 1000, 2, 20


def main(argv: list[str]) -> None:
    arguments = make_parser().parse_args(argv)
    is_dataset = len(arguments.paths) == 1 and _is_dataset(arguments.paths[0])
    _check_flags(arguments, is_dataset)
    if is_dataset:
        _show_dataset(arguments)
    else:
        _show_files(arguments)


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="multihot-inspect",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="+",
        help="files or patterns, a directory of files, or the directory of a dataset, such as "
        "out/docstrings/dataset",
    )
    files = parser.add_argument_group("files")
    files.add_argument(
        "--write", metavar="CONFIG", help="write the config here; without it, it is printed"
    )
    files.add_argument(
        "--overwrite", action="store_true", default=None, help="replace a config that is there"
    )
    files.add_argument(
        "--rows", type=int, metavar="N", help=f"rows that are read (default {_ROWS:,})"
    )
    files.add_argument(
        "--text-field",
        metavar="COLUMN",
        action="append",
        dest="text_fields",
        help="a column with text, in place of the guess; may be repeated",
    )
    files.add_argument(
        "--labels-field", metavar="COLUMN", help="the column with labels, in place of the guess"
    )
    of_dataset = parser.add_argument_group("a dataset")
    of_dataset.add_argument(
        "--records",
        type=int,
        metavar="N",
        help=f"records shown of each split (default {_RECORDS})",
    )
    of_dataset.add_argument(
        "--labels",
        type=int,
        metavar="N",
        help=f"labels shown, the most frequent in training first (default {_LABELS})",
    )
    of_dataset.add_argument(
        "--no-verify",
        action="store_true",
        default=None,
        help="leave out the checksums, for which every file is read",
    )
    return parser


def _is_dataset(directory: str) -> bool:
    """Whether a directory is what preprocessing has written, or what is left of it."""
    if places.is_remote(directory):
        names = places.list_files(directory)
        return MANIFEST in names or any(".tfrecord-" in name for name in names)
    if not Path(directory).is_dir():
        return False
    shards = (any(Path(directory).glob(pattern)) for pattern in ("*.tfrecord*", "*/*.tfrecord*"))
    return Path(directory, MANIFEST).is_file() or any(shards)


def _check_flags(arguments: argparse.Namespace, is_dataset: bool) -> None:
    others = _OF_FILES if is_dataset else _OF_DATASETS
    given = next((name for name in others if getattr(arguments, name) is not None), None)
    if given:
        flag = "--text-field" if given == "text_fields" else f"--{given.replace('_', '-')}"
        is_what, needs_what = ("a dataset", "files") if is_dataset else ("no dataset", "a dataset")
        raise UserError(f"{flag} is for {needs_what}, and {arguments.paths[0]} is {is_what}")
    if arguments.rows is not None and arguments.rows < 1:
        raise UserError(f"--rows: received {arguments.rows}, expected 1 or more")


def _show_dataset(arguments: argparse.Namespace) -> None:
    for line in dataset.show(
        arguments.paths[0],
        labels=_LABELS if arguments.labels is None else arguments.labels,
        records=_RECORDS if arguments.records is None else arguments.records,
        with_checksums=not arguments.no_verify,
    ):
        print(line)


def _show_files(arguments: argparse.Namespace) -> None:
    path = arguments.write
    if path and os.path.exists(path) and not arguments.overwrite:
        raise UserError(f"--write: {path} exists already; name another, or add --overwrite")
    if arguments.overwrite and not path:
        raise UserError("--overwrite replaces the config of --write; expected --write CONFIG too")
    with no_beam_warnings():
        from beam_jobs.inspection.files import inspect_files  # Beam takes a second to load

    found = inspect_files(
        arguments.paths,
        rows=arguments.rows or _ROWS,
        text=arguments.text_fields or (),
        labels=arguments.labels_field,
        config_path=path,
    )
    print("\n".join(found.lines))
    if found.yaml is None:
        sys.stdout.flush()
        raise UserError(found.problem)
    if path is None:
        print(f"\n{found.yaml}", end="")
        return
    try:
        write_atomically(path, found.yaml)
    except OSError as error:
        raise UserError(f"--write: cannot write {path}: {error.strerror}") from None
    print(f"wrote {path}; next: multihot-preprocess --config {path}")


def run() -> None:
    run_main(main)


if __name__ == "__main__":
    run()
