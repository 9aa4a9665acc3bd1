"""What a Flink cluster is asked before a job and told when it is stopped, with answers as those of
Flink 1.20.
"""

import contextlib
import http.server
import json
import threading

import pytest

from beam_jobs.contract.errors import UserError
from beam_jobs.runtime import engines, file_systems, flink

MIB = 1 << 20


@contextlib.contextmanager
def cluster(settings: dict[str, str], *, mib: int = 512, slots: int = 2, jobs: dict | None = None):
    """(its HOST:PORT, the jobs that it was told to cancel); `jobs`: names and states by id."""
    jobs, cancelled = jobs or {}, []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            manager = {"slotsNumber": slots, "memoryConfiguration": {"networkMemory": mib * MIB}}
            listed = [{"jid": jid, "name": name, "state": s} for jid, (name, s) in jobs.items()]
            self.answer(
                {
                    "/jobmanager/config": [{"key": k, "value": v} for k, v in settings.items()],
                    "/taskmanagers": {"taskmanagers": [manager] * 2},
                    "/jobs/overview": {"jobs": listed},
                }[self.path]
            )

        def do_PATCH(self):
            jid = self.path.removeprefix("/jobs/").removesuffix("?mode=cancel")
            cancelled.append(jid)
            jobs[jid] = (jobs[jid][0], "CANCELED")
            self.answer({})

        def answer(self, content):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", cancelled
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("key", ["restart-strategy.type", "restart-strategy"])
def test_a_cluster_that_lacks_nothing_is_told_nothing(key):
    with cluster({key: "fixed-delay"}) as (address, _):
        assert flink.cluster_lacks(flink.address(address), 4) == []


@pytest.mark.parametrize("settings", [{}, {"restart-strategy.type": "none"}])
def test_a_cluster_without_a_restart_strategy_is_told_which_to_set(settings):
    with cluster(settings) as (address, _):
        (line,) = flink.cluster_lacks(flink.address(address), 4)
    assert "no restart strategy" in line and "restart-strategy.type: fixed-delay" in line


def test_a_cluster_with_too_little_network_memory_or_too_few_slots_is_told_how_much_is_needed():
    with cluster({"restart-strategy": "fixed-delay"}, mib=128) as (address, _):
        slots, memory = flink.cluster_lacks(flink.address(address), 5)
    assert "4 slots, fewer than --parallelism=5" in slots
    assert "128 MiB" in memory and "taskmanager.memory.network.min: 512mb" in memory


def test_an_address_where_no_flink_answers_is_an_error_before_any_work():
    for address in ("127.0.0.1:9", "nowhere.invalid:1"):
        with pytest.raises(UserError, match=r"--flink_master: .*expected the address of a cluster"):
            flink.cluster_lacks(flink.address(address), 1)


def test_only_the_jobs_that_this_run_has_submitted_are_cancelled():
    name = "multihot-1"
    given = ["--runner=FlinkRunner", "--environment_type=EXTERNAL", "--environment_config=h:1"]
    jobs = {"before": (name, "RUNNING"), "other": ("x", "RUNNING"), "ended": (name, "FAILED")}
    with cluster({}, jobs=jobs) as (address, cancelled):
        options = file_systems.parse(
            engines.arguments([*given, f"--flink_master={address}", f"--job_name={name}"])
        )
        with engines.cancelling(options) as cancel:
            jobs["ours"] = (name, "RUNNING")
            cancel()
    assert cancelled == ["ours"]


def test_a_cluster_that_has_gone_is_told_to_the_user_who_ends_a_job(capsys):
    with cluster({}) as (address, _):
        options = file_systems.parse(
            ["--runner=FlinkRunner", f"--flink_master={address}", "--job_name=n"]
        )
        cancelling = engines.cancelling(options)
        cancel = cancelling.__enter__()
    cancel()
    assert "warning: the job n may still run" in capsys.readouterr().err
