"""A development server: predict and classify of TensorFlow Serving's REST API, and a page.

Requests, answers and status codes are those of https://www.tensorflow.org/tfx/serving/api_rest,
so that a client written against this server works with TensorFlow Serving, which is for production.
"""

import contextlib
import json
import re
import signal
import socket
from collections.abc import AsyncIterator
from typing import Any

import tensorflow as tf

from beam_jobs.contract import saved_model
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.saved_model import SavedModel
from trainer.serving import rest_api
from trainer.serving.templates import render

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import HTMLResponse, JSONResponse, Response
    from starlette.routing import Route
except ImportError as error:
    raise UserError(
        f"serve: {error}; expected the packages of the extra `serve`: pip install 'multihot[serve]'"
    ) from None

MAX_REQUEST_BYTES = 32 << 20  # 32 MiB
# At a time; threads answer 40 of them. More would wait in memory, each with its body.
MAX_REQUESTS = 128
_SHUTDOWN_SECONDS = 30
# As TensorFlow Serving has it: a model's name, perhaps a version, and for requests the verb.
_PATH = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+))?(?::(predict|classify))?")
# The page loads nothing, and may ask nobody but its own server.
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'; form-action 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
}


def serve(model_dir: str, *, host: str, port: int, name: str | None) -> None:
    """Serves a model until Ctrl-C or SIGTERM, and then finishes the requests it has received.

    Args:
      model_dir: an exported model.
      host: the address to listen on.
      port: 0: any that is free.
      name: the model's name in paths; None: the experiment's.

    Raises:
      UserError: there is no model, or the port is not free.
    """
    model = saved_model.load(model_dir)
    name = name or model.origin()["name"]
    for signature in ("serving_default", "decide"):  # a first call takes seconds
        rest_api.run(model, signature, {field: [b"warm up"] for field in model.text_fields})
    try:
        listener = socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        raise UserError(
            f"--host, --port: cannot listen on {host}:{port}: {error}; expected an address of this "
            "machine and a free port"
        ) from None
    config = uvicorn.Config(
        make_app(model, name),
        log_level="warning",
        lifespan="off",
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    server = uvicorn.Server(config)

    def stop(*_: Any) -> None:
        server.should_exit = True

    # uvicorn handles these signals while it runs, and raises them again when it has shut down.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    with listener:
        url = f"http://{host}:{listener.getsockname()[1]}"
        print(f"serving {model.path} at {url}/v1/models/{name}", flush=True)
        print(f"try texts at {url}/; Ctrl-C stops the server", flush=True)
        server.run(sockets=[listener])
    print("stopped")


def make_app(model: SavedModel, name: str) -> Starlette:
    """The ASGI application that serves `model` under `name`."""
    served_version = model.version if model.version.isdigit() else "1"
    facts = {"name": name, "version": served_version, "fields": model.text_fields}
    page = render("serve.html", model=facts)
    state = {"version": served_version, "state": "AVAILABLE"}
    state["status"] = {"error_code": "OK", "error_message": ""}

    places_left = _Places(MAX_REQUESTS)

    async def home(_: Request) -> Response:
        return HTMLResponse(page, headers=_PAGE_HEADERS)

    async def answer(request: Request) -> Response:
        match = _PATH.fullmatch(request.scope["path"])
        if match is None or (request.method == "POST") != (match[3] is not None):
            path = request.scope["path"]
            raise HTTPException(400, f"Malformed request: {request.method} {path}")
        received_name, version, verb = match.groups()
        if received_name != name or version not in (None, served_version):
            raise HTTPException(
                404,
                f"Servable not found for request: {received_name}, version {version or 'latest'}; "
                f"expected {name}, version {served_version}",
            )
        if verb is None:
            return JSONResponse({"model_version_status": [state]})
        function = {"predict": rest_api.predict, "classify": rest_api.classify}[verb]
        async with places_left.one(request):
            try:
                result = await run_in_threadpool(function, model, await _json_object(request))
            except (ValueError, tf.errors.InvalidArgumentError) as error:
                raise HTTPException(400, str(error).splitlines()[0]) from None
            return Response(json.dumps(result), media_type="application/json")

    return Starlette(
        routes=[Route("/", home), Route("/v1/{path:path}", answer, methods=["GET", "POST"])],
        exception_handlers={
            HTTPException: _error,
            ClientDisconnect: lambda request, error: Response(status_code=400),
            Exception: _failure,
        },
    )


class _Places:
    """Requests that may be under way at a time; further ones are answered with 503."""

    def __init__(self, number: int):
        self._number = self._left = number

    @contextlib.asynccontextmanager
    async def one(self, request: Request) -> AsyncIterator[None]:
        """A place for a request during the block; raises HTTPException if there is none."""
        if not self._left:
            async for _ in request.stream():  # a client that still sends would not see the answer
                pass
            raise HTTPException(
                503,
                f"{self._number} requests are under way, the most at a time; try again",
                {"Retry-After": "1"},
            )
        self._left -= 1
        try:
            yield
        finally:
            self._left += 1


async def _error(_: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _failure(_: Request, error: Exception) -> Response:
    message = f"{type(error).__name__} in the server; its terminal has the details"
    return JSONResponse({"error": message}, status_code=500)


async def _json_object(request: Request) -> dict[str, Any]:
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_REQUEST_BYTES:
            raise HTTPException(413, f"received more than {MAX_REQUEST_BYTES:,} bytes")
    try:
        # Bytes that are not UTF-8 reach the model, whose analyzer replaces them.
        body = json.loads(content.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"JSON Parse error: {error}") from None
    if not isinstance(body, dict):
        raise HTTPException(400, f"received a JSON {type(body).__name__}, expected an object")
    return body
