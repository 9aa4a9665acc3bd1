"""`multihot quickstart`: every stage once, on the docstrings of what is installed."""

import argparse
import time
from importlib import resources
from pathlib import Path

from beam_jobs.contract.command_line import add_set_argument
from multihot.command import main as run_command

CONFIG = "docstrings.yaml"
TEXTS = (
    "Compute the singular value decomposition of a matrix.",
    "Returns a PCollection with the elements that pass the filter.",
    "Raised when a connection is closed by the server before the response was read.",
)


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="multihot quickstart",
        description=(
            "Learns from real text that every machine has: which package, sub-module and kind of "
            "object does a Python docstring belong to? Writes docstrings.yaml and out/docstrings "
            "in the working directory. It takes about a minute."
        ),
    )
    add_set_argument(parser)
    return parser


def main(argv: list[str]) -> None:
    """Preprocesses, trains, evaluates, exports and predicts.

    Raises:
      UserError: the working directory cannot be written, or an override is wrong.
    """
    given = make_parser().parse_args(argv).overrides
    overrides = [part for override in given for part in ("--set", override)]
    write_config(Path(CONFIG))
    started = time.monotonic()
    config = ["--config", CONFIG, *overrides]
    model = ["--model", "out/docstrings/model"]
    for title, *command in (
        ("1/5 preprocess: docstrings -> TFRecords", "preprocess", *config, "--overwrite"),
        ("2/5 train", "train", *config),
        ("3/5 evaluate", "evaluate", *config),
        ("4/5 export", "export", *config),
        ("5/5 predict: labels of raw strings", "predict", *model, *TEXTS),
    ):
        print(f"\n== {title}", flush=True)
        run_command(command)
    print(
        f"\n== done in {time.monotonic() - started:.0f} s; try your own: "
        'multihot predict --model out/docstrings/model "some text"'
    )


def write_config(path: Path) -> None:
    """Writes the config that is shipped, unless one of this name is there.

    Raises:
      UserError: it cannot be written.
    """
    from beam_jobs.contract.errors import UserError

    if path.exists():
        return
    try:
        path.write_text(
            resources.files("multihot").joinpath(CONFIG).read_text(encoding="utf-8"),
            encoding="utf-8",
        )
    except OSError as error:
        raise UserError(
            f"cannot write {path.absolute()}: {error.strerror}; expected to be called in a "
            "directory that you may write to"
        ) from None
