"""The trainer's command line: train | evaluate | export | predict | report."""

import argparse
import functools

from beam_jobs.contract.command_line import add_config_arguments, config_from, run_main
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.quiet import import_tensorflow_quietly

COMMANDS = {
    "train": "train a model on a dataset, or resume a run that was stopped",
    "evaluate": "tune thresholds on the validation split and print metrics beside baselines",
    "export": "write a SavedModel that takes raw strings and answers with label names",
    "predict": "print the labels that an exported SavedModel gives to texts",
    "explain": "print which words drove each label that an exported SavedModel gives to a text",
    "serve": "answer TensorFlow Serving's REST paths for one model, for development, with a page to try texts on",
    "report": "write a page, and plots, of what the evaluation of a run found",
}
# What these need to know they find in the directories that they are given.
WITHOUT_CONFIG = ("predict", "explain", "serve", "report")


def main(argv: list[str]) -> None:
    arguments = _parser().parse_args(argv)
    if getattr(arguments, "fold", None) is not None:
        arguments.overrides = [*arguments.overrides, f"train.fold={arguments.fold}"]
    config = (
        config_from(arguments) if arguments.command not in WITHOUT_CONFIG else None
    )  # a wrong config is told in a second
    import_tensorflow_quietly()
    match arguments.command:
        case "train":
            from trainer.training.train import train

            train(config, fresh=arguments.fresh)
        case "evaluate":
            from trainer.evaluation.evaluate import evaluate

            evaluate(config, baseline=arguments.baseline)
        case "export":
            from trainer.serving.export import export, export_average

            if arguments.average:
                export_average(config, arguments.average, arguments.weights)
            elif arguments.weights:
                raise UserError(
                    "--weights: received without --average, which names the models that they weigh"
                )
            else:
                export(config)
        case "predict":
            from trainer.serving.predict import predict

            predict(arguments.model, arguments.text, as_json=arguments.json)
        case "explain":
            from trainer.serving.explain import explain

            explain(arguments.model, arguments.text, html_file=arguments.html)
        case "serve":
            from trainer.serving.rest_server import serve

            serve(arguments.model, host=arguments.host, port=arguments.port, name=arguments.name)
        case "report":
            from trainer.report.html_report import report

            report(
                run_dir=arguments.run,
                model_dir=arguments.model,
                compare=arguments.compare,
                output=arguments.output,
            )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="multihot",
        description="Trains, evaluates, exports and tries multi-label text classifiers.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, help_text in COMMANDS.items():
        command = commands.add_parser(
            name, help=help_text, description=help_text[0].upper() + help_text[1:] + "."
        )
        if name not in WITHOUT_CONFIG:
            add_config_arguments(command)
            command.add_argument(
                "--fold",
                metavar="K",
                type=int,
                help="the run that validates on fold K of train.folds, from 0: sets train.fold",
            )
        if name == "train":
            command.add_argument(
                "--fresh",
                action="store_true",
                help="delete an earlier run in train.run_dir and start again",
            )
        if name == "evaluate":
            command.add_argument(
                "--baseline",
                choices=["linear"],
                help="also fit TF-IDF with one-vs-rest LinearSVC on the same splits (scikit-learn)",
            )
        if name == "export":
            command.add_argument(
                "--average",
                metavar="MODEL",
                nargs="+",
                help="export the mean of the scores of these exported models as one model",
            )
            command.add_argument(
                "--weights",
                metavar="NUMBER",
                nargs="+",
                type=float,
                help="what each of them counts; default: all the same",
            )
        if name in ("predict", "explain", "serve"):
            command.add_argument(
                "--model",
                metavar="DIR",
                required=True,
                help="what `export` has written: a version, or the directory of versions",
            )
        if name == "explain":
            command.add_argument(
                "--html",
                metavar="FILE",
                help="also write a page with the text, its words coloured by what they did",
            )
            command.add_argument(
                "text",
                metavar="TEXT",
                help="a document; of several text fields, a JSON object of them",
            )
        if name == "serve":
            command.add_argument(
                "--host",
                default="127.0.0.1",
                help="where to listen (default: %(default)s, which other machines do not reach)",
            )
            command.add_argument(
                "--port", type=int, default=8501, help="0: any that is free (default: %(default)s)"
            )
            command.add_argument(
                "--name", help="the model's name in paths (default: the experiment's)"
            )
        if name == "predict":
            command.add_argument("--json", action="store_true", help="print one JSON object a text")
            command.add_argument(
                "text",
                nargs="*",
                metavar="TEXT",
                help="a document; without any, each line of stdin is one",
            )
        if name == "report":
            which = command.add_mutually_exclusive_group(required=True)
            which.add_argument(
                "--run",
                metavar="DIR",
                help="train.run_dir of a run that was evaluated, such as out/docstrings/run",
            )
            which.add_argument(
                "--model", metavar="DIR", help="what `export` has written, which leads to its run"
            )
            command.add_argument(
                "--compare",
                metavar="RUN",
                nargs="+",
                default=[],
                help="other run directories, to be put side by side",
            )
            command.add_argument(
                "--output",
                metavar="DIR",
                help="where to write; default: report/ in the run directory",
            )
    return parser


def run(*command: str) -> None:
    run_main(lambda argv: main([*command, *argv]))


run_train, run_evaluate, run_export, run_predict, run_explain, run_serve, run_report = (
    functools.partial(run, name) for name in COMMANDS
)

if __name__ == "__main__":
    run()
