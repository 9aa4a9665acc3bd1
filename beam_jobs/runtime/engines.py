"""Engines other than Beam's local runner: what a job on them needs, and what cannot work there."""

import contextlib
import json
import os
import re
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from apache_beam.options.pipeline_options import (
    DebugOptions,
    FlinkRunnerOptions,
    GoogleCloudOptions,
    JobServerOptions,
    PipelineOptions,
    PortableOptions,
    PrismRunnerOptions,
    SparkRunnerOptions,
    StandardOptions,
)
from apache_beam.runners.portability.portable_runner import JobServiceHandle

from beam_jobs.contract import child_process
from beam_jobs.contract.errors import UserError
from beam_jobs.runtime import agreement, dataflow, file_systems, flink, job_servers, shipped_code

# An engine's workers are kept between stages: by default each stage starts them anew, and with them
# TensorFlow. They stay this long after the job, too.
CACHE_MILLIS = 60_000
DATAFLOW = "DataflowRunner"
_LOCAL_SPARK = re.compile(r"local(\[.+\])?")
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
# What Flink itself opens on Java 17.
_OPENED = (
    *("java.lang", "java.lang.reflect", "java.net", "java.io", "java.nio", "sun.nio.ch"),
    *("java.text", "java.time", "java.util", "java.util.concurrent"),
    *("java.util.concurrent.atomic", "java.util.concurrent.locks"),
)
_WORKERS = (
    "expected workers where the engine's tasks run: `multihot-worker-pool --port 50000` on each of "
    "those machines and `-- --environment_type=EXTERNAL --environment_config=localhost:50000`, or "
    "`-- --environment_type=DOCKER --environment_config=IMAGE` with an image of the Dockerfile's "
    "target `worker`"
)


def runner_name(options: PipelineOptions) -> str:
    """The runner that the user has named, without its module; "" for none."""
    return (options.view_as(StandardOptions).runner or "").rpartition(".")[2]


def arguments(given: Sequence[str]) -> list[str]:
    """The user's arguments for Beam, and before them those that their engine needs.

    Of arguments that are given twice Beam takes the last, so the user's win.

    Raises:
      UserError: what they say cannot work on the engine.
    """
    options = file_systems.parse(given)
    runner = runner_name(options)
    needed: list[str] = []
    if runner in ("FlinkRunner", "SparkRunner", "PrismRunner", "PortableRunner"):
        remote = _remote_master(options)
        _check_environment(options, remote)
        if remote is None:
            needed += _local_workers(options)
        needed += [
            f"--environment_cache_millis={CACHE_MILLIS}",
            f"--job_name=multihot-{uuid.uuid4().hex[:12]}",
        ]
    if runner == "FlinkRunner":
        needed += [
            f"--job_server_jvm_properties=--add-opens=java.base/{package}=ALL-UNNAMED"
            for package in _OPENED
        ]
    if runner == "PrismRunner":
        _check_prism(options)
    if runner == DATAFLOW:
        needed += dataflow.arguments(options)
    return [*needed, *given, *_agreement(options)]


def warnings(options: PipelineOptions) -> list[str]:
    """What a cluster lacks that the job is submitted to, and how to set it: a line each.

    Raises:
      UserError: no such cluster answers.
    """
    cluster = flink_cluster(options)
    if cluster is not None:
        return flink.cluster_lacks(cluster, options.view_as(FlinkRunnerOptions).parallelism)
    if _starts_flink(options):
        return flink.own_configuration_lacks(os.environ.get("FLINK_CONF_DIR"))
    return []


def check_access(given: Sequence[str]) -> None:
    """Raises UserError unless the service that an engine is can be used, or the programs that start
    it; before anything is read.

    Args:
      given: the user's arguments.
    """
    options = file_systems.parse(given)
    if runner_name(options) == DATAFLOW:
        dataflow.check_access(options)
    prism = options.view_as(PrismRunnerOptions).prism_location
    if runner_name(options) == "PrismRunner" and prism and "://" not in prism:
        job_servers.check_prism(prism, what="--prism_location")
    engine = _job_server(options)
    if engine is not None:
        name = f"{engine.lower()}_job_server_jar"
        jar = options.get_all_options()[name]
        if jar and "://" not in jar:
            job_servers.check_jar(engine, jar, what=f"--{name}")
        job_servers.check_java(options.view_as(JobServerOptions).job_server_java_launcher)


def check_places(options: PipelineOptions, paths: Mapping[str, Sequence[str]]) -> None:
    """Raises UserError if an engine's workers cannot reach places.

    Args:
      options: of the run.
      paths: those that workers read and write, by the key or flag that names them.
    """
    if runner_name(options) == DATAFLOW:
        for what, places_of_it in paths.items():
            for path in places_of_it:
                dataflow.check_place(path, what=what)


def failures_told(options: PipelineOptions) -> contextlib.AbstractContextManager[None]:
    """Turns what an engine's service refuses during the block into a UserError, and the failure of
    an engine's program to start into a KnownFailure.
    """
    if runner_name(options) == DATAFLOW:
        return dataflow.failures_told()
    engine = _job_server(options)
    return contextlib.nullcontext() if engine is None else job_servers.failures_told(engine)


def shipping(options: PipelineOptions) -> contextlib.AbstractContextManager[None]:
    """Sends the user's own modules with a job to workers that are not processes of this machine."""
    kind = options.view_as(PortableOptions).environment_type
    is_elsewhere = runner_name(options) == DATAFLOW or kind in ("DOCKER", "EXTERNAL", "PROCESS")
    return shipped_code.with_the_job() if is_elsewhere else contextlib.nullcontext()


def start_of_jobs(options: PipelineOptions) -> tuple[type, str]:
    """The method by which Beam has an engine start a job: its class and its name."""
    if runner_name(options) == DATAFLOW:
        from apache_beam.runners.dataflow.internal.apiclient import DataflowApplicationClient

        return DataflowApplicationClient, "submit_job_description"
    return JobServiceHandle, "run"


def flink_cluster(options: PipelineOptions) -> str | None:
    """The REST address of the Flink cluster that runs already and gets the job, if one does."""
    master = options.view_as(FlinkRunnerOptions).flink_master
    if not _starts_flink(options) or flink.is_embedded(master):
        return None
    return flink.address(master)


def _starts_flink(options: PipelineOptions) -> bool:
    """Whether the job starts Beam's job server for Flink."""
    endpoint = options.view_as(PortableOptions).job_endpoint
    return runner_name(options) == "FlinkRunner" and not endpoint


def _job_server(options: PipelineOptions) -> str | None:
    """Whose job server of Beam's, `Flink` or `Spark`, the job starts on this machine, if any."""
    engine = runner_name(options).removesuffix("Runner")
    if engine not in job_servers.ENGINES or options.view_as(PortableOptions).job_endpoint:
        return None
    is_submitted = options.get_all_options()[f"{engine.lower()}_submit_uber_jar"]
    return None if is_submitted else engine


@contextlib.contextmanager
def environment(options: PipelineOptions) -> Iterator[None]:
    """This process's environment, during the block, is what an engine that it starts needs."""
    changes: dict[str, str] = {}
    if options.view_as(PortableOptions).environment_type == "LOOPBACK":
        # Beam starts its workers with a bare `python`.
        folders = (str(Path(sys.executable).parent), os.environ.get("PATH", ""))
        changes = {
            "PATH": os.pathsep.join(folders),
            "PYTHONPATH": child_process.environment()["PYTHONPATH"],
        }
    with contextlib.ExitStack() as stack:
        # The server's own; a cluster that runs already may go by its own configuration.
        if _starts_flink(options) and "FLINK_CONF_DIR" not in os.environ:
            parallelism = options.view_as(FlinkRunnerOptions).parallelism
            changes["FLINK_CONF_DIR"] = stack.enter_context(flink.configuration(parallelism))
        stack.enter_context(_changed_environment(changes))
        yield


@contextlib.contextmanager
def cancelling(options: PipelineOptions) -> Iterator[Callable[[], None]]:
    """What stops the job on a Flink cluster that runs already; nothing elsewhere.

    Beam's job server, when it is to cancel a job, may only stop to wait for it.
    """
    cluster = flink_cluster(options)
    if cluster is None:
        yield lambda: None
        return
    name = options.view_as(GoogleCloudOptions).job_name
    others = flink.running_jobs(cluster, name)

    def cancel() -> None:
        try:
            stopped = flink.cancel(cluster, name, others)
        except UserError as error:
            print(f"warning: the job {name} may still run: {error}", file=sys.stderr)
        else:
            if not stopped:
                print(f"warning: {cluster} has not stopped the job {name} yet", file=sys.stderr)

    yield cancel


@contextlib.contextmanager
def _changed_environment(changes: Mapping[str, str]) -> Iterator[None]:
    before = {key: os.environ.get(key) for key in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def _remote_master(options: PipelineOptions) -> str | None:
    """The option that names an engine on other machines; None if there is none."""
    runner = runner_name(options)
    endpoint = options.view_as(PortableOptions).job_endpoint
    if endpoint:
        is_here = endpoint == "embed" or _host(endpoint) in _THIS_MACHINE
        return None if is_here else f"--job_endpoint={endpoint}"
    if runner == "FlinkRunner":
        master = options.view_as(FlinkRunnerOptions).flink_master
        if not flink.is_embedded(master) and _host(master) not in _THIS_MACHINE:
            return f"--flink_master={master}"
    if runner == "SparkRunner":
        master = options.view_as(SparkRunnerOptions).spark_master_url
        if not _LOCAL_SPARK.fullmatch(master) and _host(master) not in _THIS_MACHINE:
            return f"--spark_master_url={master}"
    return None


def _host(address: str) -> str | None:
    return urlsplit(address if "://" in address else f"//{address}").hostname


def _check_environment(options: PipelineOptions, remote: str | None) -> None:
    """Raises UserError if the engine would start no workers that can run the job."""
    view = options.view_as(PortableOptions)
    kind = view.environment_type
    if kind == "LOOPBACK" and remote is not None:
        raise UserError(
            f"--environment_type=LOOPBACK with {remote}: received workers that are processes of "
            f"this machine, which the engine's other machines cannot reach; {_WORKERS}"
        )
    if kind is None and remote is not None:
        raise UserError(
            f"{remote}: received no --environment_type, and the image that Beam starts then has no "
            f"multihot in it; {_WORKERS}"
        )
    if kind in ("DOCKER", "EXTERNAL", "PROCESS") and not (
        view.environment_config or view.environment_options
    ):
        raise UserError(
            f"--environment_type={kind}: received no --environment_config, which says where the "
            f"workers are; {_WORKERS}"
        )


def _local_workers(options: PipelineOptions) -> list[str]:
    """Arguments for workers that are processes of this machine, which the job starts and stops."""
    kind = options.view_as(PortableOptions).environment_type
    if kind not in (None, "LOOPBACK"):
        return []
    needed = ["--environment_type=LOOPBACK"]
    if options.view_as(DebugOptions).lookup_experiment("use_loopback_process_worker") is None:
        needed.append("--experiments=use_loopback_process_worker=True")
    return needed


def _agreement(options: PipelineOptions) -> list[str]:
    """Has a worker pool compare its installation with this one."""
    view = options.view_as(PortableOptions)
    if view.environment_type != "EXTERNAL" or not view.environment_config:
        return []
    try:
        config = json.loads(view.environment_config)
    except ValueError:
        config = view.environment_config
    if not isinstance(config, dict):
        config = {"url": view.environment_config}
    params = agreement.here() | config.get("params", {})
    return [f"--environment_config={json.dumps(config | {'params': params})}"]


def _check_prism(options: PipelineOptions) -> None:
    """Raises UserError if more than one worker is asked for."""
    given = options.get_all_options(drop_default=True)
    for option in ("sdk_worker_parallelism", "direct_num_workers", "num_workers"):
        number = str(given.get(option, 1))
        if number != "1":
            raise UserError(
                f"--{option}={number}: Prism 2.77 starts one worker process, whatever it is told; "
                "expected 1. Beam's local runner takes several (leave out --runner, and give "
                "--direct_num_workers), and so do Flink and Spark"
            )
