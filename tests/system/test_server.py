"""The development server as a process: its page in a browser, and how it stops."""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.command_lines import ROOT, skip_without

SERVE = ("serve", "--model", "out/small/model", "--port", "0")
LEFT_ALONE = b"POST /v1/models/small:predict HTTP/1.1\r\nContent-Length: 99\r\n\r\n{"
CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"


@contextlib.contextmanager
def server(trained):
    """(the process, its port), when it answers."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "trainer.task", *SERVE],
        cwd=trained.root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            line = process.stdout.readline()
            address = re.fullmatch(
                r"serving out/small/model/1 at http://127\.0\.0\.1:(\d+)/v1/models/small\n", line
            )
            assert address, line + process.stderr.read()
            assert process.stdout.readline().startswith("try texts at http://127.0.0.1:")
            port = int(address[1])
            assert status(port)["model_version_status"][0]["state"] == "AVAILABLE"
            yield process, port
        finally:
            process.kill()


def status(port):
    url = f"http://127.0.0.1:{port}/v1/models/small"
    with urllib.request.urlopen(url, timeout=60) as response:
        return json.load(response)


def test_clients_may_leave_and_requests_under_way_are_answered_before_the_server_stops(trained):
    with server(trained) as (process, port):
        for content in (LEFT_ALONE, b"?"):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.connect()
            connection.sock.sendall(content)
            connection.close()
        assert status(port)
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
        assert process.stdout.read() == "stopped\n"
        told = process.stderr.read().splitlines()
        assert [line for line in told if "Invalid HTTP request" not in line] == []


def test_the_page_labels_a_text_in_a_browser_and_ctrl_c_stops_the_server(trained, tmp_path):
    if not (Path(CHROMIUM).exists() and Path(DRIVER).exists()):
        skip_without("chromium", f"expected {CHROMIUM} and {DRIVER}")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        f"--user-data-dir={tmp_path}",
    ):
        options.add_argument(argument)
    with server(trained) as (process, port):
        browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        try:
            browser.get(f"http://127.0.0.1:{port}/")
            assert browser.find_element(By.ID, "title").text == "small, version 1"
            browser.find_element(By.NAME, "text").send_keys("rocket & moon in <b>orbit</b>")
            browser.find_element(By.ID, "send").click()
            rows = WebDriverWait(browser, 60).until(
                lambda _: browser.find_elements(By.CSS_SELECTOR, "#rows tr.assigned")
            )
            assert rows[0].find_element(By.TAG_NAME, "td").text == "space"
            assert "assigned, in" in browser.find_element(By.ID, "message").text
        finally:
            browser.quit()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0 and process.stdout.read() == "stopped\n"
