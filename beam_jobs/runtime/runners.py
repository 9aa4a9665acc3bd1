"""The Beam runner of a job: by default the local one, in a mode that suits the input's size."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner import worker_handlers
from apache_beam.runners.runner import PipelineResult, PipelineState

from beam_jobs.contract.errors import KnownFailure, UserError
from beam_jobs.runtime import engines, file_systems, worker_processes

# Below this size one process is faster: each worker process takes seconds to import TensorFlow.
IN_MEMORY_BYTES = 32 << 20  # 32 MiB
# Both put elements of a step's main output into its tagged outputs, and still report success.
WRONG_RUNNERS = ("DaskRunner", "BundleBasedDirectRunner")
_POLL_SECONDS = 0.2
# How long an engine may take to stop a job, before this process ends without it.
CANCEL_SECONDS = 20.0
WAITING = "waiting for the job's end"


def pipeline_options(beam_arguments: Sequence[str], input_bytes: int) -> PipelineOptions:
    """The options of a run.

    Args:
      beam_arguments: the user's arguments after `--`.
      input_bytes: size of the input; decides the local runner's mode unless the user has.

    Raises:
      UserError: the user chose a runner or mode that is known to give wrong results, or workers
        that the engine cannot reach.
    """
    options = file_systems.parse(engines.arguments(beam_arguments))
    for line in engines.warnings(options):
        print(f"warning: {line}", file=sys.stderr, flush=True)
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


def run(pipeline: beam.Pipeline, options: PipelineOptions) -> PipelineResult:
    """Runs a pipeline to its end. Ctrl-C and SIGTERM also cancel it on its runner.

    Args:
      pipeline: the pipeline.
      options: those that it was made with.

    Raises:
      RuntimeError: a step failed; KnownFailure: a worker ended.
      KeyboardInterrupt: Ctrl-C.
      SystemExit: SIGTERM; its status is 143.
    """
    worker_processes.lost.clear()
    result = None
    with contextlib.ExitStack() as stack:
        stack.enter_context(engines.environment(options))
        stack.enter_context(worker_processes.lost_connections_told_once())
        cancel = stack.enter_context(engines.cancelling(options))
        signals = stack.enter_context(_Signals())
        try:
            with engines.failures_told(options):
                with _submitting(options, signals), engines.shipping(options):
                    result = pipeline.run()
                signals.take_over()
                _wait(result, signals)
            return result
        except Exception as error:
            if worker_processes.lost:
                raise KnownFailure(f"{worker_processes.lost[0]}; nothing is published") from error
            raise
        except (KeyboardInterrupt, SystemExit):
            if result is not None:
                _cancel(result)
            cancel()
            raise


@contextlib.contextmanager
def _submitting(options: PipelineOptions, signals: "_Signals") -> Iterator[None]:
    """During the block a signal cannot come between a job's start on its engine and the result that
    can cancel it.
    """
    owner, name = engines.start_of_jobs(options)
    start = getattr(owner, name)

    def start_undisturbed(*arguments):
        signals.take_over()
        return start(*arguments)

    setattr(owner, name, start_undisturbed)
    try:
        yield
    finally:
        setattr(owner, name, start)


def _wait(result: PipelineResult, signals: "_Signals") -> None:
    """Waits for a job's end, in a thread of its own: this one must notice signals.

    One that arrives within a destructor, such as gRPC's, could raise nothing from there.
    """
    failures: list[Exception] = []

    def wait() -> None:
        try:
            result.wait_until_finish()
        except Exception as error:
            failures.append(error)

    waiting = threading.Thread(target=wait, name=WAITING, daemon=True)
    waiting.start()
    while waiting.is_alive():
        waiting.join(_POLL_SECONDS)
        signals.check()
    signals.check()
    if failures:
        raise failures[0]


def _cancel(result: PipelineResult) -> None:
    """Stops a job on its runner, as far as that can still be reached, and waits for that."""
    with contextlib.suppress(Exception):  # the runner may have ended before
        result.cancel()
        deadline = time.monotonic() + CANCEL_SECONDS
        while not PipelineState.is_terminal(result.state) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)


class _Signals(contextlib.AbstractContextManager):
    """Ends the block with KeyboardInterrupt on SIGINT and with SystemExit on SIGTERM.

    Does so only in the main thread: Python handles signals in no other.
    """

    def __init__(self) -> None:
        self._received: list[int] = []
        self._before: dict[int, Callable | int | None] = {}
        self._raises = True

    def __enter__(self) -> "_Signals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, kind, error, traceback) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        # Raised within a step, it was reported by Beam as a failure of the step.
        if isinstance(error, Exception) and self._received:
            raise _ending(self._received[0]) from None

    def take_over(self) -> None:
        """From now on the first signal raises in `check` alone.

        Beam's job servers have put a handler of their own in place, which stops the server: then
        nobody could cancel the job.
        """
        self._raises = False
        for number in self._before:
            signal.signal(number, self._receive)

    def check(self) -> None:
        """Raises what ends the block if a signal has arrived."""
        if self._received:
            raise _ending(self._received[0])

    def _receive(self, number: int, _frame) -> None:
        self._received.append(number)
        if self._raises or len(self._received) > 1:
            raise _ending(number)


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
