"""The development server through the command line: what keeps it from starting."""

import socket
import sys

from tests.command_lines import fail_cleanly


def test_an_occupied_port_is_refused(trained):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        message = fail_cleanly(
            *("trainer.task", "serve", "--model", "out/small/model", "--port", port),
            cwd=trained.root,
        )
    assert f"cannot listen on 127.0.0.1:{port}" in message


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)  # an import of it fails
    monkeypatch.delitem(sys.modules, "trainer.serving.rest_server", raising=False)
    assert "pip install 'multihot[serve]'" in fail_cleanly(
        "trainer.task", "serve", "--model", "x", cwd=tmp_path
    )
