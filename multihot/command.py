"""The command `multihot`, which has all others as its own: `multihot train --config ...`.

Nothing of `beam_jobs` or `trainer` is imported before it is known that they are multihot's own.
"""

import dataclasses
import difflib
import importlib
import sys
from pathlib import PurePath
from types import ModuleType

from multihot import ownership

_USER_ERROR = 2  # as beam_jobs.contract.command_line has it
_HELP_WIDTH = 14


@dataclasses.dataclass(frozen=True)
class Command:
    """A command of multihot.

    Attributes:
      module: where its `main(argv)` and its `make_parser()` are.
      help: what it does, for `--help`.
      arguments: what its `main` takes before the user's arguments.
    """

    module: str
    help: str
    arguments: tuple[str, ...] = ()

    def load(self) -> ModuleType:
        return importlib.import_module(self.module)


def _of_trainer(name: str, text: str) -> Command:
    return Command("trainer.task", text, (name,))


COMMANDS = {
    "quickstart": Command("multihot.quickstart", "the whole product once, on text that is there"),
    "inspect": Command("beam_jobs.inspect", "look at files and write a config, or at a dataset"),
    "preprocess": Command("beam_jobs.preprocess", "documents -> a dataset"),
    "train": _of_trainer("train", "a dataset -> a run, or resume one"),
    "tune": Command("trainer.tune", "search for good values of keys"),
    "evaluate": _of_trainer("evaluate", "tune thresholds, print metrics beside baselines"),
    "audit": Command("trainer.audit", "labels that look wrong or missing"),
    "report": _of_trainer("report", "write a page of an evaluation"),
    "export": _of_trainer("export", "a run -> a SavedModel"),
    "predict": _of_trainer("predict", "labels of texts"),
    "explain": _of_trainer("explain", "which words drove each label"),
    "serve": _of_trainer("serve", "a development server"),
    "bulk-predict": Command("beam_jobs.predict", "labels of files of documents"),
    "worker-pool": Command("beam_jobs.worker_pool", "workers for Flink and Spark clusters"),
    "doctor": Command("multihot.doctor", "versions, devices, memory, and what is wrong"),
    "completion": Command("multihot.completion", "completion of commands for a shell"),
}


def main(argv: list[str]) -> None:
    """Runs the command that the first argument names.

    Raises:
      UserError: there is no such command, or its input is wrong.
    """
    from beam_jobs.contract.errors import UserError

    name, *arguments = argv or ["--help"]
    if name in ("-h", "--help"):
        print(usage())
    elif name == "--version":
        from multihot.doctor import version

        print(version())
    elif name in COMMANDS:
        command = COMMANDS[name]
        command.load().main([*command.arguments, *arguments])
    else:
        (*_, guess) = ("--help", *difflib.get_close_matches(name, COMMANDS, 1))
        raise UserError(f"received the command {name!r}, expected one of multihot's: try {guess}")


def usage() -> str:
    """What `multihot --help` prints."""
    lines = [f"  {name:{_HELP_WIDTH}}{command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: multihot COMMAND ...",
            "",
            "Multi-label text classification from raw documents to a served model.",
            "",
            *lines,
            "",
            "`multihot COMMAND --help` says more. Each command is also one of its own: "
            "multihot-train.",
        ]
    )


def run() -> None:
    """The console scripts: `multihot`, and `multihot-train` and the like by their names."""
    try:
        ownership.check()
    except ownership.ReplacedPackage as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(_USER_ERROR)
    from beam_jobs.contract.command_line import run_main

    _, separator, name = PurePath(sys.argv[0]).stem.partition("-")
    run_main(lambda argv: main([name, *argv] if separator else argv))


if __name__ == "__main__":
    run()
