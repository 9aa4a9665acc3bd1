"""A stand-in for Google Cloud Storage that heeds conditions, as the emulator of the tests does not.

It has what puts, gets and deletions of small objects need, by Google's JSON interface.
"""

import contextlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


class ConditionalGcs(ThreadingHTTPServer):
    """The server.

    Attributes:
      objects: content by name, of all buckets.
      conditions: `ifGenerationMatch` of each put that has arrived; None: it had none.
      lost_answers: of so many puts that come next, the object is stored and the answer is 503.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.conditions: list[str | None] = []
        self.lost_answers = 0
        self._step = threading.Lock()

    @property
    def address(self) -> str:
        return "http://{}:{}".format(*self.server_address)

    def put(self, name: str, content: bytes, condition: str | None) -> int:
        """Stores an object if the condition allows it; the status to answer with."""
        with self._step:
            self.conditions.append(condition)
            if condition == "0" and name in self.objects:
                return 412
            self.objects[name] = content
            if self.lost_answers:
                self.lost_answers -= 1
                return 503
            return 200


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ConditionalGcs

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        boundary = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])[1].encode()
        _, described, stored, _ = body.split(b"--" + boundary)
        name = json.loads(described.partition(b"\r\n\r\n")[2])["name"]
        content = stored.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
        condition = parse_qs(urlsplit(self.path).query).get("ifGenerationMatch", [None])[0]
        status = self.server.put(name, content, condition)
        self._answer(status, json.dumps({"name": name, "generation": "1"}).encode())

    def do_GET(self):
        content = self.server.objects.get(self._name())
        self._answer(404 if content is None else 200, content or b"")

    def do_DELETE(self):
        found = self.server.objects.pop(self._name(), None)
        self._answer(404 if found is None else 204, b"")

    def _name(self) -> str:
        return unquote(urlsplit(self.path).path.rpartition("/o/")[2])

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def conditional_gcs() -> Iterator[ConditionalGcs]:
    """A server that runs during the block."""
    with ConditionalGcs() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
