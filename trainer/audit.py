"""The command line `multihot-audit`: which labels of a dataset look wrong or missing."""

import argparse
import sys
from collections.abc import Sequence

from beam_jobs.contract.command_line import add_config_arguments, config_from, run_main
from beam_jobs.contract.errors import UserError
from trainer.libraries import import_keras_alone

_SHOWN = 10  # rows of each kind
_SHOWN_CHARACTERS = 70  # of a text


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="multihot-audit",
        description=(
            "Lists labels that look wrong or missing, the likeliest first. The train and "
            "validation documents are divided into folds, and those of each fold are scored by a "
            "model that was trained on the others. Writes audit.csv in a directory beside "
            "train.run_dir; the report of the run shows its first rows."
        ),
    )
    add_config_arguments(parser)
    parser.add_argument(
        "--top",
        metavar="N",
        type=int,
        help="rows of each kind (default: a tenth of the documents, and at least 100)",
    )
    parser.add_argument(
        "--fresh", action="store_true", help="delete the runs of an earlier audit first"
    )
    return parser


def main(argv: list[str]) -> None:
    """Audits, and prints the first rows."""
    arguments = make_parser().parse_args(argv)
    if arguments.top is not None and arguments.top < 1:
        raise UserError(f"--top: received {arguments.top}, expected 1 or more")
    config = config_from(arguments)
    import_keras_alone()
    from trainer.auditing import audit
    from trainer.training.signals import StoppedBySignal

    try:
        path, rows = audit(config, top=arguments.top, fresh=arguments.fresh)
    except StoppedBySignal as stopped:
        sys.exit(stopped.exit_status)
    for kind, title in (
        ("wrong", "labels that look wrong"),
        ("missing", "labels that look missing"),
    ):
        print("\n".join(_table([row for row in rows if row["kind"] == kind], title)))
    print(f"wrote {path}")


def _table(rows: Sequence[dict[str, str]], title: str) -> list[str]:
    """The first rows, for people."""
    lines = [f"\n{title}: {len(rows):,}, of which the first are"]
    for row in rows[:_SHOWN]:
        text = " ".join(row["text"].split())
        if len(text) > _SHOWN_CHARACTERS:
            text = text[: _SHOWN_CHARACTERS - 3] + "..."
        lines.append(
            f"  {row['label']}: {row['score']}, usually {row['usual_score']}; {row['id']}: {text}"
        )
    return [*lines, ""]


def run() -> None:
    """Runs the command line, and ends the process with its status."""
    run_main(main)


if __name__ == "__main__":
    run()
