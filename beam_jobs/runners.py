"""Which Beam runner a job runs on: the local one by default, in the mode that suits the input's size."""

import os
import shlex
import sys
from collections.abc import Sequence

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner, worker_handlers
from apache_beam.runners.runner import PipelineRunner
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from beam_jobs.contract.errors import UserError

# Below this one process is faster: each worker process spends seconds on importing TensorFlow.
IN_MEMORY_BYTES = 32 << 20  # 32 MiB


def pipeline_options(beam_arguments: Sequence[str], input_bytes: int) -> PipelineOptions:
    """The options of a run.

    Args:
      beam_arguments: what the user gave after `--`.
      input_bytes: size of the input; decides the local runner's mode where the user did not.

    Raises:
      UserError: the user asks for a runner or mode that is known to give wrong results.
    """
    options = PipelineOptions(list(beam_arguments), save_main_session=False)
    standard, direct = options.view_as(StandardOptions), options.view_as(DirectOptions)
    runner = (standard.runner or "FnApiRunner").rpartition(".")[2]
    if runner == "DaskRunner":
        raise UserError("--runner=DaskRunner: Beam 2.77 gives wrong results on it; expected FnApiRunner, FlinkRunner or another runner")
    if runner in ("DirectRunner", "FnApiRunner"):
        standard.runner = "FnApiRunner"  # DirectRunner would first try to download another runner
        given = {argument.partition("=")[0] for argument in beam_arguments}
        if "--direct_running_mode" not in given:
            direct.direct_running_mode = "in_memory" if input_bytes < IN_MEMORY_BYTES else "multi_processing"
        if "--direct_num_workers" not in given:
            direct.direct_num_workers = 1 if direct.direct_running_mode == "in_memory" else os.cpu_count() or 1
        if direct.direct_running_mode == "multi_threading":
            raise UserError("--direct_running_mode=multi_threading: Beam 2.77 loses elements in it; expected in_memory or multi_processing")
        # The timer thread that flushes output buffers does so without a lock and loses elements; 0 switches it off.
        worker_handlers.DATA_BUFFER_TIME_LIMIT_MS = 0
    return options


def make_runner(options: PipelineOptions) -> PipelineRunner | str:
    """The runner that `pipeline_options` has chosen, for beam.Pipeline."""
    name, direct = options.view_as(StandardOptions).runner, options.view_as(DirectOptions)
    if name != "FnApiRunner" or direct.direct_running_mode != "multi_processing":
        return name
    direct.direct_running_mode = None  # the runner would put worker processes of its own in the place of ours
    command = f"{shlex.quote(sys.executable)} -m beam_jobs.local_worker"
    return FnApiRunner(default_environment=SubprocessSDKEnvironment.from_command_string(command))


def is_local(options: PipelineOptions) -> bool:
    """Whether the runner is Beam's local one, whose exceptions hold the traceback of the worker."""
    return options.view_as(StandardOptions).runner == "FnApiRunner"


def describe(options: PipelineOptions) -> str:
    """The runner, in words."""
    runner = options.view_as(StandardOptions).runner
    if runner != "FnApiRunner":
        return runner
    direct = options.view_as(DirectOptions)
    return f"{runner}, {direct.direct_running_mode}, {direct.direct_num_workers} worker{'s' * (direct.direct_num_workers != 1)}"
