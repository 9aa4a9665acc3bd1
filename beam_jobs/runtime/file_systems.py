"""Beam's options that say how stores are reached, in every process that opens a file."""

import contextlib
import io
from collections.abc import Sequence

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pipeline import AppliedPTransform, PipelineVisitor

from beam_jobs.contract import places
from beam_jobs.contract.errors import UserError


def parse(beam_arguments: Sequence[str]) -> PipelineOptions:
    """The options that the user's arguments after `--` are.

    Raises:
      UserError: Beam does not take one of them.
    """
    written = io.StringIO()
    try:
        with contextlib.redirect_stderr(written):  # argparse prints its usage and ends the process
            options = PipelineOptions(list(beam_arguments), save_main_session=False)
            options.get_all_options()
    except SystemExit:
        reason = written.getvalue().strip().rpartition("error: ")[2]
        raise UserError(
            f"options of Beam, after `--`: {reason}; received {' '.join(beam_arguments)!r}, "
            "expected options as Beam's documentation has them"
        ) from None
    return options


def configure(beam_arguments: Sequence[str]) -> None:
    """Makes Beam's file systems, and our places, reach stores as the user's arguments say.

    Raises:
      UserError: Beam does not take one of the arguments.
    """
    options = parse(beam_arguments)
    FileSystems.set_options(options)
    places.configure(options.get_all_options(drop_default=True))


class Carried:
    """Arguments that come with every DoFn to its worker, and are set there when it is loaded.

    Worker processes do not get them otherwise: the local runner's processes receive no options, and
    those that a runner starts by itself do not set them for file systems.
    """

    def __init__(self, beam_arguments: Sequence[str]):
        self._arguments = tuple(beam_arguments)

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        if _carried != [self._arguments]:
            configure(self._arguments)
            _carried[:] = [self._arguments]


_carried: list[tuple[str, ...]] = []  # what this process has set


def carry(pipeline: beam.Pipeline, beam_arguments: Sequence[str]) -> None:
    """Gives every DoFn of a pipeline the arguments that say how stores are reached."""
    pipeline.visit(_Carrier(Carried(beam_arguments)))


class _Carrier(PipelineVisitor):
    def __init__(self, carried: Carried):
        self._carried = carried

    def visit_transform(self, transform_node: AppliedPTransform) -> None:
        if isinstance(transform_node.transform, beam.ParDo):
            transform_node.transform.fn.file_system_options = self._carried
