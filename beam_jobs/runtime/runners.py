"""The Beam runner of a job: by default the local one, in a mode that suits the input's size."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner import worker_handlers
from apache_beam.runners.runner import PipelineResult

from beam_jobs.contract.errors import UserError
from beam_jobs.runtime import file_systems, worker_processes

# Below this size one process is faster: each worker process takes seconds to import TensorFlow.
IN_MEMORY_BYTES = 32 << 20  # 32 MiB
# Both put elements of a step's main output into its tagged outputs, and still report success.
WRONG_RUNNERS = ("DaskRunner", "BundleBasedDirectRunner")


def pipeline_options(beam_arguments: Sequence[str], input_bytes: int) -> PipelineOptions:
    """The options of a run.

    Args:
      beam_arguments: the user's arguments after `--`.
      input_bytes: size of the input; decides the local runner's mode unless the user has.

    Raises:
      UserError: the user chose a runner or mode that is known to give wrong results.
    """
    options = file_systems.parse(beam_arguments)
    standard, direct = options.view_as(StandardOptions), options.view_as(DirectOptions)
    runner = (standard.runner or "FnApiRunner").rpartition(".")[2]
    if runner in WRONG_RUNNERS:
        raise UserError(
            f"--runner={runner}: Beam 2.77 gives wrong results on it; "
            "expected FnApiRunner, FlinkRunner or another runner"
        )
    if runner in ("DirectRunner", "SwitchingDirectRunner", "FnApiRunner"):
        standard.runner = "FnApiRunner"  # the others would first try to download another runner
        given = {argument.partition("=")[0] for argument in beam_arguments}
        if "--direct_running_mode" not in given:
            direct.direct_running_mode = (
                "in_memory" if input_bytes < IN_MEMORY_BYTES else "multi_processing"
            )
        if "--direct_num_workers" not in given:
            direct.direct_num_workers = (
                1 if direct.direct_running_mode == "in_memory" else os.cpu_count() or 1
            )
        if direct.direct_running_mode == "multi_threading":
            raise UserError(
                "--direct_running_mode=multi_threading: Beam 2.77 loses elements in it; "
                "expected in_memory or multi_processing"
            )
    # The local runner, which other runners may use, has a timer thread that flushes output buffers
    # without a lock and so loses elements. 0 switches it off.
    worker_handlers.DATA_BUFFER_TIME_LIMIT_MS = 0
    return options


def make_pipeline(options: PipelineOptions) -> beam.Pipeline:
    """An empty pipeline.

    Raises:
      UserError: the runner does not take the options.
    """
    try:
        return beam.Pipeline(options=options)
    except ValueError as error:
        reasons = " ".join(str(error).split())
        raise UserError(
            f"options of Beam, after `--`: {reasons}; expected options as the documentation of "
            f"{describe(options)} has them"
        ) from None


def run(pipeline: beam.Pipeline) -> PipelineResult:
    """Runs a pipeline to its end. Ctrl-C and SIGTERM also cancel it on its runner.

    Raises:
      RuntimeError: a step or a worker failed.
      KeyboardInterrupt: Ctrl-C.
      SystemExit: SIGTERM; its status is 143.
    """
    worker_processes.lost.clear()
    with _ended_by_signals():
        try:
            result = pipeline.run()
            try:
                result.wait_until_finish()
            except (KeyboardInterrupt, SystemExit):
                with contextlib.suppress(Exception):  # the runner may have ended before
                    result.cancel()
                raise
            return result
        except Exception as error:
            if worker_processes.lost:
                raise RuntimeError(f"{worker_processes.lost[0]}; nothing is published") from error
            raise


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Ends the block with KeyboardInterrupt on SIGINT and with SystemExit on SIGTERM.

    Does so only in the main thread: Python handles signals in no other.
    """
    received: list[int] = []

    def receive(number: int, _frame) -> None:
        received.append(number)
        raise _ending(number)

    numbers = (
        (signal.SIGINT, signal.SIGTERM)
        if threading.current_thread() is threading.main_thread()
        else ()
    )
    before = {
        number: signal.signal(number, receive)
        for number in numbers
        if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield
    except Exception:
        if received:  # raised within a step, it was reported by Beam as a failure of the step
            raise _ending(received[0]) from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ending(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)


def is_local(options: PipelineOptions) -> bool:
    """Whether the runner is Beam's local one; its exceptions contain the worker's traceback."""
    return options.view_as(StandardOptions).runner == "FnApiRunner"


def describe(options: PipelineOptions) -> str:
    """The runner, in words."""
    runner = options.view_as(StandardOptions).runner
    if runner != "FnApiRunner":
        return runner
    direct = options.view_as(DirectOptions)
    workers = direct.direct_num_workers
    of_workers = "1 worker" if workers == 1 else f"{workers} workers"
    return f"{runner}, {direct.direct_running_mode}, {of_workers}"
