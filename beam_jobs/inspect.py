"""The command that shows what a dataset directory holds and verifies it."""

import argparse
from pathlib import Path

from beam_jobs.contract.command_line import run_main
from beam_jobs.inspection import dataset

DESCRIPTION = """\
Shows what a dataset holds: counts, splits, labels, statistics and some records; and verifies the
SHA-256 of every file and the checksums of every record. Exit status 2, with the file named, if
anything is damaged."""


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="multihot-inspect",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "dataset_dir", metavar="DIR", help="the dataset directory, such as out/docstrings/dataset"
    )
    parser.add_argument(
        "--records",
        type=int,
        default=2,
        metavar="N",
        help="records shown of each split (default 2)",
    )
    parser.add_argument(
        "--labels",
        type=int,
        default=20,
        metavar="N",
        help="labels shown, the most frequent in training first (default 20)",
    )
    parser.add_argument(
        "--no-verify",
        action="store_true",
        help="leave out the checksums, for which every file is read",
    )
    arguments = parser.parse_args(argv)
    for line in dataset.show(
        Path(arguments.dataset_dir),
        labels=arguments.labels,
        records=arguments.records,
        with_checksums=not arguments.no_verify,
    ):
        print(line)


def run() -> None:
    run_main(main)


if __name__ == "__main__":
    run()
