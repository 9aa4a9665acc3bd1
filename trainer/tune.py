"""The command line `multihot-tune`: searches for good values of keys."""

import argparse
import sys

from beam_jobs.contract.command_line import add_config_arguments, config_from, run_main
from beam_jobs.contract.errors import UserError


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="multihot-tune",
        description=(
            "Trains with one set of values after the other, within tune.time, and writes the best "
            "config. The values are compared on the validation split. The same command goes on "
            "with a search that was stopped, and several at the same time share one."
        ),
    )
    add_config_arguments(parser)
    return parser


def main(argv: list[str]) -> None:
    """Searches as the section `tune` of the config says."""
    config = config_from(make_parser().parse_args(argv))
    try:
        from trainer.tuning.search import tune
    except ModuleNotFoundError as error:
        if error.name not in ("optuna", "sqlalchemy"):
            raise
        raise UserError(
            f"multihot-tune: {error}; expected the packages of the extra `tune`: pip install "
            "'multihot[tune]'"
        ) from None
    from trainer.training.signals import StoppedBySignal

    try:
        tune(config)
    except StoppedBySignal as stopped:
        sys.exit(stopped.exit_status)


def run() -> None:
    """The console script of setup.py."""
    run_main(main)


if __name__ == "__main__":
    run()
