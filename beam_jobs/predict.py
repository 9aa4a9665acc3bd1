"""The bulk prediction job's command line: files of documents -> files of labels with scores."""

import argparse

from beam_jobs.contract.command_line import (
    add_config_arguments,
    config_from,
    run_main,
    split_at_dashes,
)
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.quiet import no_beam_warnings

DESCRIPTION = """\
Scores the documents of JSONL, CSV, Parquet, Arrow or text files with an exported model and writes
a file of predictions for each part of the input, in its order: id, labels and scores. The output
appears whole or not at all; the same input gives the same bytes."""

EPILOG = """\
Everything after `--` goes to Apache Beam, such as
  python -m beam_jobs.predict --model out/docstrings/model --input new.jsonl.gz \\
    --output out/predicted -- --direct_num_workers=4"""

_SIGNATURES = {"assigned": "decide", "best": "serving_default"}


def main(argv: list[str]) -> None:
    own, beam_arguments = split_at_dashes(argv)
    arguments = make_parser().parse_args(own)
    if not arguments.config and arguments.overrides:
        raise UserError("--set: received without --config, whose keys it overrides")
    of_files = arguments.source, arguments.text_field, arguments.id_field
    if arguments.config and (any(of_files) or arguments.quote_character is not None):
        raise UserError(
            "--source, --text-field, --id-field, --quote-character: received with --config, whose "
            "section `data` says all of it; expected one or the other"
        )
    config = config_from(arguments) if arguments.config else None

    # Beam takes seconds to import, and --help and wrong arguments do not need it.
    with no_beam_warnings():
        from beam_jobs.prediction import inputs, job

    def data_for(text_fields):
        if config is not None:
            return inputs.data_of_config(
                config, arguments.input, max_reject_fraction=arguments.max_reject_fraction
            )
        return inputs.data_of_flags(
            arguments.input,
            source=arguments.source,
            text_fields=arguments.text_field or text_fields,
            id_field=arguments.id_field,
            join=len(text_fields) == 1,
            max_reject_fraction=arguments.max_reject_fraction,
            quote_character=arguments.quote_character,
        )

    job.score_files(
        data_for,
        model=arguments.model,
        output=arguments.output,
        output_format=arguments.format,
        signature=_SIGNATURES[arguments.labels],
        overwrite=arguments.overwrite,
        beam_arguments=beam_arguments,
    )


def _fraction(value: str) -> float:
    number = float(value)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"received {value}, expected a number from 0 to 1")
    return number


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="multihot-bulk-predict",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model",
        metavar="DIR",
        required=True,
        help="what `multihot-export` has written; every worker must reach it",
    )
    _add_input_arguments(parser)
    parser.add_argument(
        "--output", metavar="DIR", required=True, help="a new directory for the predictions"
    )
    parser.add_argument(
        "--format",
        choices=("jsonl", "parquet"),
        default="jsonl",
        help="of the predictions (default: %(default)s)",
    )
    parser.add_argument(
        "--labels",
        choices=tuple(_SIGNATURES),
        default="assigned",
        help="those that reach their thresholds, or the best few (default: %(default)s)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace predictions that are there"
    )
    add_config_arguments(parser, required=False)
    return parser


def _add_input_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags that say which documents are scored and how they are read."""
    parser.add_argument(
        "--input",
        metavar="PATTERN",
        nargs="+",
        default=[],
        help="files or glob patterns; default: those of the config",
    )
    parser.add_argument(
        "--source",
        choices=("jsonl", "csv", "tsv", "parquet", "arrow", "fasttext", "text"),
        help="what the files are; default: by their extension",
    )
    parser.add_argument(
        "--text-field",
        metavar="NAME",
        action="append",
        help="a field with text, may be repeated; default: those of the model",
    )
    parser.add_argument(
        "--id-field",
        metavar="NAME",
        help="the field with the document's id; default: the file's name and the row",
    )
    parser.add_argument(
        "--quote-character",
        metavar="CHARACTER",
        help="around fields of CSV or TSV that hold delimiters or line breaks; '' for none "
        '(default: " for CSV, none for TSV)',
    )
    parser.add_argument(
        "--max-reject-fraction",
        metavar="FRACTION",
        type=_fraction,
        help="publish nothing if more than this fraction of the documents cannot be scored "
        "(default: 0.01, or data.max_reject_fraction of the config)",
    )


def run() -> None:
    run_main(main)


if __name__ == "__main__":
    run()
