"""The trainer's command line: train | evaluate | export | predict."""

import argparse
import functools

from beam_jobs.contract.command_line import add_config_arguments, config_from, run_main
from beam_jobs.contract.quiet import load_tensorflow

COMMANDS = {
    "train": "train a model on a dataset, or resume a run that was stopped",
    "evaluate": "tune thresholds on the validation split and print metrics beside baselines",
    "export": "write a SavedModel that takes raw strings and answers with label names",
    "predict": "print the labels that an exported SavedModel gives to texts",
}


def main(argv: list[str]) -> None:
    arguments = _parser().parse_args(argv)
    config = config_from(arguments) if arguments.command != "predict" else None  # a wrong config is told in a second
    load_tensorflow()
    match arguments.command:
        case "train":
            from trainer.train import train

            train(config, fresh=arguments.fresh)
        case "evaluate":
            from trainer.evaluate import evaluate

            evaluate(config)
        case "export":
            from trainer.export import export

            export(config)
        case "predict":
            from trainer.predict import predict

            predict(arguments.model, arguments.text, as_json=arguments.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="multihot", description="Trains, evaluates, exports and tries multi-label text classifiers.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, help_text in COMMANDS.items():
        command = commands.add_parser(name, help=help_text, description=help_text.capitalize() + ".")
        if name != "predict":
            add_config_arguments(command)
        if name == "train":
            command.add_argument("--fresh", action="store_true", help="delete an earlier run in train.run_dir and start again")
        if name == "predict":
            command.add_argument("--model", metavar="DIR", required=True, help="what `export` has written: a version, or the directory of versions")
            command.add_argument("--json", action="store_true", help="print one JSON object a text")
            command.add_argument("text", nargs="*", metavar="TEXT", help="a document; without any, each line of stdin is one")
    return parser


def run(*command: str) -> None:
    run_main(lambda argv: main([*command, *argv]))


run_train, run_evaluate, run_export, run_predict = (functools.partial(run, name) for name in COMMANDS)

if __name__ == "__main__":
    run()
