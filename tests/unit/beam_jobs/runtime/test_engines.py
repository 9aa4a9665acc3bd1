"""What a job on an engine is given, and what is refused before it starts."""

import json
import os

import pytest
from apache_beam.options.pipeline_options import DebugOptions, JobServerOptions, PortableOptions

from beam_jobs.contract.errors import UserError
from beam_jobs.runtime import agreement, engines, file_systems, runners

REMOTE = {
    "flink": ["--runner=FlinkRunner", "--flink_master=10.0.0.1:8081"],
    "spark": ["--runner=SparkRunner", "--spark_master_url=spark://10.0.0.1:7077"],
    "job server": ["--runner=PortableRunner", "--job_endpoint=10.0.0.1:8099"],
}
LOCAL = {
    "flink": ["--runner=FlinkRunner"],
    "spark": ["--runner", "SparkRunner", "--spark_master_url=local[3]"],
    "prism": ["--runner=apache_beam.runners.portability.prism_runner.PrismRunner"],
    "cluster of this machine": ["--runner=FlinkRunner", "--flink_master=http://localhost:8081"],
}


def options(*arguments: str):
    return file_systems.parse(engines.arguments(arguments))


@pytest.mark.parametrize("engine", LOCAL)
def test_workers_of_an_engine_on_this_machine_are_processes_that_stay_between_stages(engine):
    given = options(*LOCAL[engine])
    assert given.view_as(PortableOptions).environment_type == "LOOPBACK"
    assert given.view_as(DebugOptions).lookup_experiment("use_loopback_process_worker") == "True"
    assert int(given.view_as(PortableOptions).environment_cache_millis) == engines.CACHE_MILLIS


def test_what_the_user_says_of_workers_wins():
    given = options(
        *("--runner=FlinkRunner", "--environment_cache_millis=0", "--environment_type=PROCESS"),
        '--environment_config={"command": "multihot-worker"}',
        "--job_server_jvm_properties=-Xmx9g",
    )
    assert given.view_as(PortableOptions).environment_cache_millis == "0"
    assert given.view_as(PortableOptions).environment_type == "PROCESS"
    properties = given.view_as(JobServerOptions).job_server_jvm_properties
    assert properties[-1] == "-Xmx9g"
    assert "--add-opens=java.base/java.util=ALL-UNNAMED" in properties
    threads = options("--runner=PrismRunner", "--experiments=use_loopback_process_worker=False")
    assert threads.view_as(DebugOptions).lookup_experiment("use_loopback_process_worker") == "False"


def test_beams_local_runner_gets_the_users_arguments_alone():
    assert engines.arguments(["--direct_num_workers=2"]) == ["--direct_num_workers=2"]


@pytest.mark.parametrize("engine", REMOTE)
@pytest.mark.parametrize("kind", [[], ["--environment_type=LOOPBACK"]])
def test_workers_that_a_remote_engine_cannot_reach_are_refused(engine, kind):
    with pytest.raises(UserError) as refused:
        runners.pipeline_options([*REMOTE[engine], *kind], 1)
    message = str(refused.value)
    assert REMOTE[engine][1] in message and "multihot-worker-pool" in message
    assert "--environment_type=EXTERNAL --environment_config=" in message


@pytest.mark.parametrize("engine", REMOTE)
def test_a_remote_engine_with_a_worker_pool_is_taken(engine):
    pool = ["--environment_type=EXTERNAL", "--environment_config=localhost:50000"]
    view = options(*REMOTE[engine], *pool).view_as(PortableOptions)
    assert view.environment_type == "EXTERNAL"
    assert json.loads(view.environment_config) == {
        "url": "localhost:50000",
        "params": agreement.here(),
    }


def test_what_a_worker_pool_compares_can_be_overridden():
    config = '{"url": "h:1", "params": {"python": "3.9", "own": "x"}}'
    given = options(
        "--runner=SparkRunner", "--environment_type=EXTERNAL", f"--environment_config={config}"
    )
    config = json.loads(given.view_as(PortableOptions).environment_config)
    assert config == {"url": "h:1", "params": agreement.here() | {"python": "3.9", "own": "x"}}
    assert "python 3." in agreement.difference(config["params"])
    assert agreement.difference(agreement.here()) is agreement.difference({}) is None


@pytest.mark.parametrize("kind", ["DOCKER", "EXTERNAL", "PROCESS"])
def test_workers_of_which_nothing_is_said_are_refused(kind):
    with pytest.raises(UserError, match=f"{kind}: received no --environment_config"):
        options("--runner=FlinkRunner", f"--environment_type={kind}")


@pytest.mark.parametrize(
    "argument", ["--sdk_worker_parallelism=2", "--direct_num_workers=4", "--num_workers=3"]
)
def test_prism_refuses_a_number_of_workers_that_it_would_not_start(argument):
    with pytest.raises(UserError, match=f"{argument}: Prism .*expected 1"):
        options("--runner=PrismRunner", argument)
    assert options("--runner=PrismRunner", argument.partition("=")[0] + "=1")


def test_the_environment_of_a_run_has_flinks_configuration_only_while_it_runs(monkeypatch):
    monkeypatch.delenv("FLINK_CONF_DIR", raising=False)
    before = dict(os.environ)
    with engines.environment(options("--runner=FlinkRunner", "--parallelism=6")):
        folder = os.environ["FLINK_CONF_DIR"]
        for name in ("config.yaml", "flink-conf.yaml"):
            with open(os.path.join(folder, name), encoding="utf-8") as stream:
                text = stream.read()
            assert "restart-strategy.type: fixed-delay\n" in text
            assert "taskmanager.memory.network.min: 1536mb\n" in text
    assert not os.path.exists(folder) and dict(os.environ) == before


def test_a_configuration_of_flink_of_the_users_own_is_taken_and_looked_through(
    monkeypatch, tmp_path
):
    monkeypatch.setenv("FLINK_CONF_DIR", str(tmp_path))
    given = options("--runner=FlinkRunner")
    with engines.environment(given):
        assert os.environ["FLINK_CONF_DIR"] == str(tmp_path)
    (line,) = engines.warnings(given)
    assert f"FLINK_CONF_DIR={tmp_path}" in line and "restart-strategy.type: fixed-delay" in line
    (tmp_path / "config.yaml").write_text("restart-strategy:\n  type: exponential-delay\n")
    assert engines.warnings(given) == []
    (tmp_path / "config.yaml").write_text("a: [")
    with pytest.raises(UserError, match=r"config\.yaml cannot be read: .*expected"):
        engines.warnings(given)
