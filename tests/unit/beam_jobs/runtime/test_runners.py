"""Which runner and mode a run gets, and which are refused."""

import os
import signal

import pytest
from apache_beam.options.pipeline_options import (
    DirectOptions,
    PipelineOptions,
    SetupOptions,
    StandardOptions,
)
from apache_beam.runners.portability.fn_api_runner import worker_handlers

from beam_jobs.contract.errors import UserError
from beam_jobs.runtime import runners
from beam_jobs.runtime.runners import IN_MEMORY_BYTES, describe, pipeline_options

LARGE = IN_MEMORY_BYTES
LOCAL = PipelineOptions([])


def chosen(arguments: list[str], input_bytes: int) -> tuple[str, str, int]:
    options = pipeline_options(arguments, input_bytes)
    direct = options.view_as(DirectOptions)
    return (
        options.view_as(StandardOptions).runner,
        direct.direct_running_mode,
        direct.direct_num_workers,
    )


@pytest.mark.parametrize(
    ("arguments", "refused"),
    [
        (["--runner=DaskRunner"], "--runner=DaskRunner"),
        (["--runner", "apache_beam.runners.dask.dask_runner.DaskRunner"], "--runner=DaskRunner"),
        (["--runner=BundleBasedDirectRunner"], "--runner=BundleBasedDirectRunner"),
        (["--direct_running_mode=multi_threading"], "--direct_running_mode=multi_threading"),
        (
            ["--runner=DirectRunner", "--direct_running_mode", "multi_threading"],
            "--direct_running_mode=multi_threading",
        ),
    ],
)
def test_runners_and_modes_that_lose_data_are_refused(arguments, refused):
    with pytest.raises(UserError, match=f"{refused}: .*expected"):
        pipeline_options(arguments, 1)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--runner=DirectRunner"],
        ["--runner=SwitchingDirectRunner"],
        ["--runner=FnApiRunner"],
        ["--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"],
    ],
)
def test_the_local_runner_is_named_and_the_inputs_size_decides_its_mode(arguments):
    assert chosen(arguments, LARGE - 1) == ("FnApiRunner", "in_memory", 1)
    assert chosen(arguments, LARGE) == ("FnApiRunner", "multi_processing", os.cpu_count())


@pytest.mark.parametrize(
    ("arguments", "input_bytes", "expected"),
    [
        (["--direct_running_mode=multi_processing"], 1, ("multi_processing", os.cpu_count())),
        (["--direct_running_mode", "in_memory"], LARGE, ("in_memory", 1)),
        (["--direct_num_workers=7"], LARGE, ("multi_processing", 7)),
        (
            ["--direct_num_workers", "7", "--direct_running_mode=multi_processing"],
            1,
            ("multi_processing", 7),
        ),
    ],
)
def test_the_users_own_flags_win(arguments, input_bytes, expected):
    assert chosen(arguments, input_bytes)[1:] == expected


@pytest.mark.parametrize("arguments", [[], ["--runner=PortableRunner"]])
def test_the_timer_that_loses_elements_is_switched_off(monkeypatch, arguments):
    monkeypatch.setattr(worker_handlers, "DATA_BUFFER_TIME_LIMIT_MS", 1000)
    pipeline_options(arguments, 1)
    assert worker_handlers.DATA_BUFFER_TIME_LIMIT_MS == 0


def test_only_beams_own_runner_is_local():
    assert runners.is_local(
        pipeline_options(["--runner=DirectRunner"], LARGE)
    ) and runners.is_local(pipeline_options([], 1))
    assert not runners.is_local(pipeline_options(["--runner=FlinkRunner"], LARGE))


def test_other_runners_keep_their_names_and_options():
    options = pipeline_options(["--runner=FlinkRunner"], LARGE)
    assert options.view_as(StandardOptions).runner == describe(options) == "FlinkRunner"
    assert options.view_as(SetupOptions).save_main_session is False


def test_describe_tells_mode_and_workers():
    assert describe(pipeline_options([], 1)) == "FnApiRunner, in_memory, 1 worker"
    assert (
        describe(pipeline_options(["--direct_num_workers=3"], LARGE))
        == "FnApiRunner, multi_processing, 3 workers"
    )


class Running:
    """A pipeline, and its result, that does `act` while it is waited for."""

    def __init__(self, act):
        self._act = act
        self.is_cancelled = False

    def run(self):
        return self

    def wait_until_finish(self):
        self._act()

    def cancel(self):
        self.is_cancelled = True
        raise ConnectionError("the runner has gone")


def signal_within_a_step(number: int):
    """What Beam's local runner makes of a signal while a step runs in the main thread."""
    try:
        os.kill(os.getpid(), number)
    except BaseException as error:
        raise RuntimeError(f"{error!r} [while running 'Step']") from None


@pytest.mark.parametrize("act", [os.kill, lambda _, number: signal_within_a_step(number)])
@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_ends_a_run_as_what_it_is_and_its_handlers_come_back(act, number, expected):
    before = signal.getsignal(number)
    with pytest.raises(expected) as raised:
        runners.run(Running(lambda: act(os.getpid(), number)), LOCAL)
    assert signal.getsignal(number) is before
    if number == signal.SIGTERM:
        assert raised.value.code == 143


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_job_that_runs_elsewhere_is_cancelled_there(number):
    running = Running(lambda: os.kill(os.getpid(), number))
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        runners.run(running, LOCAL)
    assert running.is_cancelled


def test_a_failure_is_no_reason_to_cancel_and_passes_through():
    def fail():
        raise RuntimeError("a step has failed")

    running = Running(fail)
    with pytest.raises(RuntimeError, match="a step has failed"):
        runners.run(running, LOCAL)
    assert not running.is_cancelled
