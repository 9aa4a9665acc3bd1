"""The trainer's command line: train | evaluate | export | predict | explain | serve | report.

A command imports what it needs when it runs: `--help`, a wrong argument and a wrong config are
answered without TensorFlow, and so is `report`.
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable

from beam_jobs.contract.command_line import (
    EXIT_LOST_WORKER,
    add_config_arguments,
    config_from,
    run_main,
)
from beam_jobs.contract.config import Config
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.quiet import import_tensorflow_quietly
from trainer.distribution.meeting import LostWorkerError
from trainer.libraries import import_keras_alone


@dataclasses.dataclass(frozen=True)
class Command:
    """A command of the trainer.

    Attributes:
      help: what it does, for `--help`.
      add_arguments: adds its arguments to its parser.
      run: (parsed arguments, config or None) -> None.
      takes_config: whether it needs the experiment's config; the others find what they need in the
        directories they are given.
      load: loads the libraries that it needs, before it runs.
    """

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Config | None], None]
    takes_config: bool = False
    load: Callable[[], None] = import_tensorflow_quietly


def main(argv: list[str]) -> None:
    """Runs the command that the arguments name."""
    arguments = make_parser().parse_args(argv)
    command = COMMANDS[arguments.command]
    # Before TensorFlow, which takes seconds to import, so that a mistake in the config is reported
    # at once.
    config = _config(arguments) if command.takes_config else None
    command.load()
    try:
        command.run(arguments, config)
    except LostWorkerError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(EXIT_LOST_WORKER)


def _config(arguments: argparse.Namespace) -> Config:
    if arguments.fold is not None:
        arguments.overrides = [*arguments.overrides, f"train.fold={arguments.fold}"]
    return config_from(arguments)


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="multihot",
        description="Trains, evaluates, exports and tries multi-label text classifiers.",
    )
    parsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        description = command.help[0].upper() + command.help[1:] + "."
        command_parser = parsers.add_parser(name, help=command.help, description=description)
        if command.takes_config:
            _add_experiment_arguments(command_parser)
        command.add_arguments(command_parser)
    return parser


def _add_experiment_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument(
        "--fold",
        metavar="K",
        type=int,
        help="the run that validates on fold K of train.folds, from 0: sets train.fold",
    )


def _add_model_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        metavar="DIR",
        required=True,
        help="what `export` has written: a version, or the directory of versions",
    )


# --- train -----------------------------------------------------------------------------


def _add_train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="delete an earlier run in train.run_dir and start again",
    )
    parser.add_argument(
        "--from",
        dest="source",
        metavar="RUN",
        help="start a new run with the weights of another one, on another dataset, or of an "
        "exported model: those of tokens and labels that both have",
    )


def _train(arguments: argparse.Namespace, config: Config) -> None:
    from trainer.training.signals import StoppedBySignal
    from trainer.training.train import train

    try:
        train(config, fresh=arguments.fresh, source=arguments.source)
    except StoppedBySignal as stopped:
        sys.exit(stopped.exit_status)


# --- evaluate --------------------------------------------------------------------------


def _add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--baseline",
        choices=["linear"],
        help="also fit TF-IDF with one-vs-rest LinearSVC on the same splits (scikit-learn)",
    )


def _evaluate(arguments: argparse.Namespace, config: Config) -> None:
    from trainer.evaluation.evaluate import evaluate

    evaluate(config, baseline=arguments.baseline)


# --- export ----------------------------------------------------------------------------


def _add_export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--average",
        metavar="MODEL",
        nargs="+",
        help="export the mean of the scores of these exported models as one model",
    )
    parser.add_argument(
        "--weights",
        metavar="NUMBER",
        nargs="+",
        type=float,
        help="the weight of each of them in the mean; default: equal weights",
    )


def _export(arguments: argparse.Namespace, config: Config) -> None:
    from trainer.serving.ensemble import export_average
    from trainer.serving.export import export

    if arguments.average:
        export_average(config, arguments.average, arguments.weights)
    elif arguments.weights:
        raise UserError(
            "--weights: received without --average, which names the models that they weigh"
        )
    else:
        export(config)


# --- predict, explain, serve -----------------------------------------------------------


def _add_predict_arguments(parser: argparse.ArgumentParser) -> None:
    _add_model_argument(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object per text")
    parser.add_argument(
        "text",
        nargs="*",
        metavar="TEXT",
        help="a document; without any, each line of stdin is one",
    )


def _predict(arguments: argparse.Namespace, config: None) -> None:
    from trainer.serving.predict import predict

    predict(arguments.model, arguments.text, as_json=arguments.json)


def _add_explain_arguments(parser: argparse.ArgumentParser) -> None:
    _add_model_argument(parser)
    parser.add_argument(
        "--html",
        metavar="FILE",
        help="also write a page with the text, its words coloured by what they did",
    )
    parser.add_argument(
        "text",
        metavar="TEXT",
        help="a document; where documents have several text fields, a JSON object of them",
    )


def _explain(arguments: argparse.Namespace, config: None) -> None:
    from trainer.serving.explain import explain

    explain(arguments.model, arguments.text, html_file=arguments.html)


def _add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    _add_model_argument(parser)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="the address to listen on (default: %(default)s, which other machines cannot reach)",
    )
    parser.add_argument(
        "--port", type=int, default=8501, help="0: any free port (default: %(default)s)"
    )
    parser.add_argument("--name", help="the model's name in paths (default: the experiment's)")


def _serve(arguments: argparse.Namespace, config: None) -> None:
    from trainer.serving.rest_server import serve

    serve(arguments.model, host=arguments.host, port=arguments.port, name=arguments.name)


# --- report ----------------------------------------------------------------------------


def _add_report_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--run",
        metavar="DIR",
        help="train.run_dir of a run that was evaluated, such as out/docstrings/run",
    )
    source.add_argument(
        "--model", metavar="DIR", help="what `export` has written, which leads to its run"
    )
    parser.add_argument(
        "--compare",
        metavar="RUN",
        nargs="+",
        default=[],
        help="other run directories, to be shown side by side",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="where to write; default: report/ in the run directory",
    )


def _report(arguments: argparse.Namespace, config: None) -> None:
    from trainer.report.html_report import report

    report(
        run_dir=arguments.run,
        model_dir=arguments.model,
        compare=arguments.compare,
        output=arguments.output,
    )


# --- all of them -----------------------------------------------------------------------

COMMANDS = {
    "train": Command(
        "train a model on a dataset, or resume a run that was stopped",
        _add_train_arguments,
        _train,
        takes_config=True,
        load=import_keras_alone,
    ),
    "evaluate": Command(
        "tune thresholds on the validation split and print metrics beside baselines",
        _add_evaluate_arguments,
        _evaluate,
        takes_config=True,
        load=import_keras_alone,
    ),
    "export": Command(
        "write a SavedModel that takes raw strings and answers with label names",
        _add_export_arguments,
        _export,
        takes_config=True,
        load=import_keras_alone,
    ),
    "predict": Command(
        "print the labels that an exported SavedModel gives to texts",
        _add_predict_arguments,
        _predict,
    ),
    "explain": Command(
        "print which words drove each label that an exported SavedModel gives to a text",
        _add_explain_arguments,
        _explain,
    ),
    "serve": Command(
        "answer TensorFlow Serving's REST paths for one model, for development, with a page to "
        "try texts on",
        _add_serve_arguments,
        _serve,
    ),
    "report": Command(
        "write a page, and plots, of the evaluation of a run",
        _add_report_arguments,
        _report,
        load=lambda: None,
    ),
}


def run() -> None:
    """Runs the command line, and ends the process with its status."""
    run_main(main)


if __name__ == "__main__":
    run()
