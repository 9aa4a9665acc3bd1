#!/usr/bin/env python3
"""More requests than a model can answer, for minutes: memory stays flat, and answers stay right.

First `serve`: clients that wait for each answer, several times as many as it takes at once, send
short and long texts, batches, other signatures and requests that cannot be answered. Each answer
must be the one that the same request got alone, or 503. In the middle of it the server is told to
end, and must end well. Then the model in TensorFlow's runtime, without a server: threads call its
signatures, with the same comparison.

  python scripts/load_test.py out/docstrings/model --seconds 600
"""

import argparse
import collections
import http.client
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from beam_jobs.contract.command_line import run_main  # noqa: E402
from beam_jobs.contract.quiet import import_tensorflow_quietly  # noqa: E402

_SAMPLE_SECONDS = 2.0
# Memory may grow while buffers of all sizes are first made, in this part of the time.
_WARM = 0.3
_GROWTH = 1.1  # from then on, at most


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="what `multihot-export` has written")
    parser.add_argument("--seconds", type=float, default=600, help="of each (default %(default)s)")
    parser.add_argument("--clients", type=int, default=400, help="default %(default)s")
    parser.add_argument("--only", choices=("serve", "runtime"))
    parser.add_argument("--in-runtime", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.in_runtime:
        _call_signatures(arguments.model, arguments.seconds)
        return
    faults = []
    if arguments.only != "runtime":
        faults += _load_server(arguments)
    if arguments.only != "serve":
        faults += _load_runtime(arguments)
    print("\n".join(f"FAULT: {fault}" for fault in faults) or "\nno fault")
    sys.exit(1 if faults else 0)


# --- serve -------------------------------------------------------------------------------


class _Load:
    """Clients of a server, and what became of their requests."""

    def __init__(self, port: int, requests: list[tuple[str, str, bytes]]):
        self.counts: collections.Counter[str] = collections.Counter()
        self.seconds: list[float] = []
        self.wrong: list[str] = []
        self.ended = threading.Event()
        self._port, self._requests, self._lock = port, requests, threading.Lock()
        self._expected = [self.send(request) for request in requests]

    def send(self, request: tuple[str, str, bytes]) -> tuple[int, Any]:
        """(status, the answer's JSON or text)."""
        method, path, body = request
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=300)
        try:
            connection.request(method, path, body or None)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        is_json = "json" in response.headers.get("content-type", "")
        return response.status, json.loads(content) if is_json else content

    def run(self, seed: int) -> None:
        """Sends one request after another until the end."""
        rng = random.Random(seed)
        while not self.ended.is_set():
            number = rng.randrange(len(self._requests))
            began = time.monotonic()
            try:
                status, answer = self.send(self._requests[number])
            except OSError as error:
                if not self.ended.is_set():
                    self._note(f"{type(error).__name__}", 0.0, f"no answer: {error!r}")
                return
            wrong = None
            if status != 503 and not _alike((status, answer), self._expected[number]):
                wrong = f"request {number}: received {status} {str(answer)[:200]}"
            self._note(str(status), time.monotonic() - began, wrong)

    def _note(self, what: str, seconds: float, wrong: str | None) -> None:
        with self._lock:
            self.counts[what] += 1
            if what == "200":
                self.seconds.append(seconds)
            if wrong:
                self.wrong.append(wrong)


def _load_server(arguments: argparse.Namespace) -> list[str]:
    command = [sys.executable, "-m", "trainer.task", "serve", "--model", arguments.model]
    server = subprocess.Popen(
        [*command, "--port", "0"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        line = server.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:(\d+)(/v1/models/\S+)", line)
        if address is None:
            return [f"the server has not started: {line}"]
        load = _Load(int(address[1]), _requests(address[2]))
        clients = [
            threading.Thread(target=load.run, args=(seed,), daemon=True)
            for seed in range(arguments.clients)
        ]
        for client in clients:
            client.start()
        sizes = _watch_memory(server, arguments.seconds)
        load.ended.set()
        server.send_signal(signal.SIGTERM)
        began = time.monotonic()
        status = server.wait(timeout=120)
        seconds, rest = time.monotonic() - began, server.stdout.read()
    finally:
        server.kill()
    answered = sorted(load.seconds)
    print(
        f"serve: {sum(load.counts.values()):,} requests of {arguments.clients} clients in "
        f"{arguments.seconds:.0f} s: "
        + ", ".join(f"{count:,} x {what}" for what, count in load.counts.most_common())
        + f"; answered in {statistics.median(answered):.2f} s at the median and "
        f"{answered[int(0.99 * (len(answered) - 1))]:.2f} s at 99%; ended with status {status} "
        f"{seconds:.1f} s after SIGTERM"
    )
    faults = [*load.wrong[:5], *_growth("serve", sizes)]
    if status != 0 or not rest.endswith("stopped\n"):
        faults.append(f"serve ended with status {status}: {rest[-200:]}")
    return faults


def _requests(path: str) -> list[tuple[str, str, bytes]]:
    """Requests that are answered, and some that cannot be."""
    rng = random.Random(0)
    words = [f"word{i}" for i in range(3000)] + ["<b>goal</b>", "日本語", "don't"]

    def text(number: int) -> str:
        return " ".join(rng.choices(words, k=number))

    bodies: list[tuple[str, Any]] = [
        *((":predict", {"instances": [text(rng.randint(1, 200))]}) for _ in range(8)),
        *(
            (":predict", {"instances": [text(50)], "signature_name": s})
            for s in ("decide", "scores")
        ),
        (":predict", {"instances": [text(60) for _ in range(64)]}),
        (":predict", {"inputs": [text(30) for _ in range(16)], "signature_name": "decide"}),
        (":predict", {"instances": [text(20_000)]}),
        (":predict", {"instances": [3]}),
        (":predict", {"instances": []}),
        (":predict", ["no object"]),
        (":predict", {"instances": ["a"], "signature_name": "none"}),
        (":classify", {"examples": [{"text": text(9)}], "signature_name": "classify_examples"}),
    ]
    made = [("POST", path + verb, json.dumps(body).encode()) for verb, body in bodies]
    return [
        *made,
        ("POST", f"{path}:predict", b"{"),
        ("GET", path, b""),
        ("GET", "/", b""),
        ("GET", "/v1/models/none", b""),
    ]


def _alike(received: Any, expected: Any) -> bool:
    """Whether both are the same, but for the last bits of numbers."""
    if isinstance(expected, float) and isinstance(received, float):
        return abs(received - expected) <= 1e-5
    if isinstance(expected, dict) and isinstance(received, dict):
        return received.keys() == expected.keys() and all(
            _alike(received[key], expected[key]) for key in expected
        )
    if isinstance(expected, list | tuple) and isinstance(received, list | tuple):
        return len(received) == len(expected) and all(map(_alike, received, expected))
    return received == expected


# --- TensorFlow's runtime ----------------------------------------------------------------


def _load_runtime(arguments: argparse.Namespace) -> list[str]:
    command = [sys.executable, __file__, arguments.model, "--in-runtime"]
    process = subprocess.Popen(
        [*command, "--seconds", str(arguments.seconds)], stdout=subprocess.PIPE, text=True
    )
    process.stdout.readline()  # it is loaded
    sizes = _watch_memory(process, arguments.seconds)
    rest = process.stdout.read().strip()
    print(rest)
    faults = _growth("the runtime", sizes)
    if process.wait() != 0:
        faults.append(f"the runtime ended with status {process.returncode}: {rest}")
    return faults


def _call_signatures(model_dir: str, seconds: float) -> None:
    """Calls the signatures from several threads; the process fails at an answer that is another."""
    import_tensorflow_quietly()
    import numpy as np
    import tensorflow as tf

    from beam_jobs.contract import saved_model

    model = saved_model.load(model_dir)
    rng = random.Random(0)
    batches = [
        [" ".join(f"word{rng.randrange(3000)}" for _ in range(words)) for _ in range(documents)]
        for words, documents in ((5, 1), (200, 1), (60, 64), (30, 256), (20_000, 1), (0, 3))
    ]

    def answer(number: int) -> list[np.ndarray]:
        name = ("serving_default", "scores", "decide")[number % 3]
        texts = {field: tf.constant(batches[number // 3]) for field in model.text_fields}
        outputs = model.module.signatures[name](**texts)
        return [outputs[key].numpy() for key in sorted(outputs)]

    numbers = range(3 * len(batches))
    expected, calls, wrong = [answer(number) for number in numbers], [0], []
    print("loaded", flush=True)
    ends = time.monotonic() + seconds

    def call(seed: int) -> None:
        own = random.Random(seed)
        while time.monotonic() < ends and not wrong:
            number = own.choice(numbers)
            for received, whole in zip(answer(number), expected[number], strict=True):
                same = (
                    np.allclose(received, whole, atol=1e-5)
                    if received.dtype.kind == "f"
                    else np.array_equal(received, whole)
                )
                if not same:
                    wrong.append(number)
            calls[0] += 1

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"runtime: {calls[0]:,} calls of 16 threads in {seconds:.0f} s, {len(wrong)} wrong")
    sys.exit(1 if wrong else 0)


# --- memory ------------------------------------------------------------------------------


def _watch_memory(process: subprocess.Popen, seconds: float) -> list[int]:
    """MiB that the process has in memory, again and again."""
    ends, sizes = time.monotonic() + seconds, []
    while time.monotonic() < ends and process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        if resident := re.search(r"VmRSS:\s+(\d+) kB", status):
            sizes.append(int(resident[1]) >> 10)
        time.sleep(_SAMPLE_SECONDS)
    return sizes


def _growth(what: str, sizes: list[int]) -> list[str]:
    """Prints how memory went; a fault where it has grown."""
    at = [sizes[int(part * (len(sizes) - 1))] for part in (0, 0.1, _WARM, 0.5, 0.75, 1)]
    print(f"{what}: MiB at 0, 10, 30, 50, 75 and 100% of the time: {', '.join(map(str, at))}")
    first, last = max(sizes[: int(_WARM * len(sizes)) + 1]), max(sizes[-max(1, len(sizes) // 10) :])
    if last > _GROWTH * first:
        return [f"{what}: memory grew from {first} MiB to {last} MiB"]
    return []


if __name__ == "__main__":
    run_main(main)
