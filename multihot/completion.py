"""`multihot completion`: the script that has a shell complete commands, flags and files."""

import argparse

import shtab

from multihot.command import COMMANDS

SHELLS = ("bash", "zsh", "tcsh")
_EPILOG = """\
  bash: multihot completion bash > ~/.local/share/bash-completion/completions/multihot
  zsh:  multihot completion zsh > DIR/_multihot, for a DIR of $fpath"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="multihot completion",
        description="Prints the script that has a shell complete the arguments of `multihot`.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell")
    return parser


def main(argv: list[str]) -> None:
    """Prints the script."""
    shell = make_parser().parse_args(argv).shell
    print(shtab.complete(whole_parser(), shell=shell))


def whole_parser() -> argparse.ArgumentParser:
    """One parser of all commands, whose arguments that are files are known as such."""
    whole = argparse.ArgumentParser(prog="multihot")
    commands = whole.add_subparsers(dest="command")
    for name, command in COMMANDS.items():
        parser = command.load().make_parser()
        for inner in command.arguments:
            parser = _command_of(parser, inner)
        for action in parser._actions:
            if action.metavar in ("FILE", "PATH", "PATTERN", "CONFIG", "MODEL"):
                action.complete = shtab.FILE
            if action.metavar in ("DIR", "RUN"):
                action.complete = shtab.DIRECTORY
        commands.add_parser(name, parents=[parser], add_help=False, help=command.help)
    return whole


def _command_of(parser: argparse.ArgumentParser, name: str) -> argparse.ArgumentParser:
    """The parser of one of the commands of a parser."""
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return commands.choices[name]
