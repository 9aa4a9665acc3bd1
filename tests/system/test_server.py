"""The server for development as a process: what it tells, and how it ends."""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys

from tests.command_lines import ROOT, fail_cleanly


@contextlib.contextmanager
def server(trained, *arguments):
    """(the process, its port)."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    command = [
        sys.executable,
        "-m",
        "trainer.task",
        "serve",
        "--model",
        "out/small/model",
        "--port",
        "0",
        *arguments,
    ]
    with subprocess.Popen(
        command,
        cwd=trained.root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("serving out/small/model/1 at http://127.0.0.1:"), (
                line + process.stderr.read()
            )
            yield process, int(re.search(r"127\.0\.0\.1:(\d+)/v1/models/small;", line)[1])
        finally:
            process.kill()


def test_requests_under_way_are_answered_before_the_server_ends(trained):
    with server(trained) as (process, port):
        occupied = fail_cleanly(
            "trainer.task",
            "serve",
            "--model",
            "out/small/model",
            "--port",
            str(port),
            cwd=trained.root,
        )
        assert f"cannot listen on 127.0.0.1:{port}" in occupied
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        body = json.dumps({"instances": ["goal " * 20_000] * 4}).encode()
        connection.putrequest("POST", "/v1/models/small:predict")
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body[:1000])
        process.send_signal(signal.SIGTERM)
        connection.send(body[1000:])
        response = connection.getresponse()
        assert response.status == 200 and len(json.loads(response.read())["predictions"]) == 4
        assert process.wait(timeout=60) == 0
        assert process.stdout.read() == "stopped\n" and process.stderr.read() == ""
