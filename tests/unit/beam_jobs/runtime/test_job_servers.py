"""What Beam's job servers of Flink and Spark need is looked at before one is started."""

import logging
import threading
import time
import zipfile

import pytest

from beam_jobs.contract.errors import KnownFailure, UserError
from beam_jobs.runtime import engines, job_servers


def make_jar(path, *classes: str) -> str:
    with zipfile.ZipFile(path, "w") as jar:
        for name in classes:
            jar.writestr(f"org/apache/beam/runners/{name}.class", b"")
    return str(path)


def make_java(path, lines: str) -> str:
    path.write_text(f"#!/bin/sh\n{lines}\n")
    path.chmod(0o755)
    return str(path)


def test_a_jar_must_be_beams_job_server_for_the_engine(tmp_path):
    flink = make_jar(tmp_path / "flink.jar", "flink/FlinkJobServerDriver")
    job_servers.check_jar("Flink", flink, what="--jar")
    (tmp_path / "text.jar").write_text("not a jar")
    for engine, path, told in (
        ("Spark", flink, "is Beam's job server for Flink; expected the jar of .* for Spark"),
        ("Flink", make_jar(tmp_path / "x.jar", "flink/Other"), "is another program; expected"),
        ("Flink", str(tmp_path / "text.jar"), "is no jar: .*; expected the jar of"),
        ("Flink", str(tmp_path), "there is no file .*; expected the jar of"),
    ):
        with pytest.raises(UserError, match=f"^--jar: .*{told}"):
            job_servers.check_jar(engine, path, what="--jar")


def test_prism_must_be_a_program(tmp_path):
    (tmp_path / "prism").write_bytes(b"\x7fELF...")
    engines.check_access(["--runner=PrismRunner", f"--prism_location={tmp_path}/prism"])
    (tmp_path / "text").write_text("not a program")
    for name, told in (
        ("text", "is no program: it begins with b'not '"),
        ("x", "there is no file"),
    ):
        with pytest.raises(
            UserError, match=f"^--prism_location: .*{told}.*; expected Beam's Prism"
        ):
            engines.check_access(["--runner=PrismRunner", f"--prism_location={tmp_path / name}"])


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("echo 'java version \"1.8.0_392\"' >&2", "is Java 8, which is too old"),
        ("echo 'openjdk version \"9\" 2017-09-21' >&2", "is Java 9, which is too old"),
        ("echo no such thing >&2; exit 4", "ended with status 4 and said no version: 'no such"),
        (None, "cannot be started"),
    ],
)
def test_a_java_that_is_too_old_or_none_is_refused(tmp_path, lines, told):
    path = tmp_path / "java"
    launcher = str(path) if lines is None else make_java(path, lines)
    with pytest.raises(UserError, match=f"{told}.*; expected Java 11 or 17"):
        job_servers.check_java(launcher)


@pytest.mark.parametrize("version", ["11.0.2", "17", "21-ea"])
def test_a_newer_java_is_taken_whatever_it_prints_besides(tmp_path, version):
    lines = (
        f"echo 'Picked up JAVA_TOOL_OPTIONS: -Xmx1g' >&2; echo 'openjdk version \"{version}\"' >&2"
    )
    job_servers.check_java(make_java(tmp_path / "java", lines))


def test_a_job_that_starts_a_job_server_looks_at_its_jar_and_java_and_no_other_job_does(tmp_path):
    old = make_java(tmp_path / "java", "echo 'java version \"1.8.0\"'")
    java = f"--job_server_java_launcher={old}"
    jar = make_jar(tmp_path / "flink.jar", "flink/FlinkJobServerDriver")
    for given, told in (
        (["--runner=FlinkRunner", java], "is Java 8"),
        (["--runner=FlinkRunner", f"--flink_job_server_jar={jar}", java], "is Java 8"),
        (
            ["--runner=FlinkRunner", f"--flink_job_server_jar={old}"],
            "--flink_job_server_jar: .*no jar",
        ),
        (["--runner=SparkRunner", f"--spark_job_server_jar={jar}"], "--spark_job_server_jar: "),
    ):
        with pytest.raises(UserError, match=told):
            engines.check_access(given)
    for given in (
        ["--runner=FlinkRunner", "--job_endpoint=localhost:8099", java],
        ["--runner=SparkRunner", "--spark_submit_uber_jar", java],
        ["--runner=PrismRunner", java],
        [],
    ):
        engines.check_access(given)


def test_a_job_server_that_does_not_start_is_one_message_below_what_it_printed(capsys):
    logger = logging.getLogger("FlinkJarJobServer")

    def poll():
        time.sleep(0.1)
        raise ValueError("Cannot monitor channel state: Channel closed!")

    before = (logger.level, logger.propagate, list(logger.handlers))
    with pytest.raises(KnownFailure, match="Flink ended with status 1 before it took the job"):
        with job_servers.failures_told("Flink"):
            for _ in range(3):
                logger.info("Error: Unable to access jarfile")
            threading.Thread(target=poll).start()
            raise RuntimeError("Service failed to start up with error 1")
    assert capsys.readouterr().err == "job server: Error: Unable to access jarfile\n"
    with pytest.raises(RuntimeError, match="a step failed"), job_servers.failures_told("Flink"):
        logger.info("a job")
        raise RuntimeError("a step failed")
    assert capsys.readouterr().err == ""
    assert (logger.level, logger.propagate, list(logger.handlers)) == before
