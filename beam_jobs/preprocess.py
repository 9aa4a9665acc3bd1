"""The preprocessing job's command line: raw documents -> a dataset directory."""

import argparse

from beam_jobs.contract.command_line import (
    add_config_arguments,
    config_from,
    run_main,
    split_at_dashes,
)
from beam_jobs.contract.quiet import no_beam_warnings

DESCRIPTION = """\
Reads raw documents, cleans and tokenises their text, drops duplicates, splits them and writes a
dataset: sharded TFRecords with sparse labels, labels.json, vocabulary.txt, rejects and a manifest.
The dataset appears whole or not at all."""

EPILOG = """\
Everything after `--` goes to Apache Beam, such as
  python -m beam_jobs.preprocess --config configs/docstrings.yaml -- --direct_num_workers=4"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="multihot-preprocess",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config_arguments(parser)
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace a dataset that was made with another config or input",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="make the dataset again even if the same config and input made the one there",
    )
    return parser


def main(argv: list[str]) -> None:
    own, beam_arguments = split_at_dashes(argv)
    arguments = make_parser().parse_args(own)
    config = config_from(arguments)

    # Beam takes seconds to load, and --help and a wrong config need none of it.
    with no_beam_warnings():
        from beam_jobs.preprocessing.job import preprocess

    preprocess(
        config, beam_arguments=beam_arguments, overwrite=arguments.overwrite, force=arguments.force
    )


def run() -> None:
    run_main(main)


if __name__ == "__main__":
    run()
