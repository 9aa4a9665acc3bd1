"""A server for development: TensorFlow Serving's REST paths for one exported model, with batching, and a page to try texts on.

https://www.tensorflow.org/tfx/serving/api_rest describes the requests and answers. TensorFlow Serving itself is for production.
"""

import asyncio
import base64
import contextlib
import dataclasses
import json
import math
import signal
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import get_model_metadata_pb2

from beam_jobs.contract import saved_model
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.saved_model import SavedModel

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, JSONResponse, Response
    from starlette.routing import Route
except ImportError as error:
    raise UserError(
        f"serve: {error}; expected the packages of the extra `serve`: pip install 'multihot[serve]'"
    ) from None

MAX_REQUEST_BYTES = 32 << 20  # 32 MiB
MAX_DOCUMENTS = 1024  # of one request
BATCH_DOCUMENTS = 256  # of several requests together
_SHUTDOWN_SECONDS = 30
_PAGE = Path(__file__).with_name("serve_page.html")
# Without a network the page needs nothing; with one it may ask nobody but its own server.
_PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; form-action 'none'; base-uri 'none'"


def serve(model_dir: str, *, host: str, port: int, name: str | None) -> None:
    """Serves a model until Ctrl-C or SIGTERM; requests that are being answered then are answered first.

    Args:
      model_dir: an exported model.
      host: where to listen.
      port: 0: any that is free.
      name: the model's name in paths; None: the experiment's.

    Raises:
      UserError: there is no model, or the port cannot be listened on.
    """
    model = saved_model.load(model_dir)
    name = name or model.origin()["name"]
    _warm_up(model)
    try:
        listener = socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        raise UserError(
            f"--host, --port: cannot listen on {host}:{port}: {error}; expected an address of this machine and a free port"
        ) from None
    with listener:
        port = listener.getsockname()[1]
        config = uvicorn.Config(
            make_app(model, name),
            log_level="warning",
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
            lifespan="on",
        )
        print(
            f"serving {model.path} at http://{host}:{port}/v1/models/{name}; try texts at http://{host}:{port}/; Ctrl-C ends it",
            flush=True,
        )
        # uvicorn ends in order on these signals, and then raises them again for those who were there before it.
        before = {
            number: signal.signal(number, lambda *_: None)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            uvicorn.Server(config).run(sockets=[listener])
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    print("stopped")


def _warm_up(model: SavedModel) -> None:
    """The first call of a signature takes seconds, with few documents and with many; no client should wait for it."""
    for signature in ("serving_default", "decide", "scores"):
        for count in (1, BATCH_DOCUMENTS):
            model.module.signatures[signature](
                **{field: tf.constant(["warm up"] * count) for field in model.text_fields}
            )


def make_app(model: SavedModel, name: str) -> Starlette:
    """The ASGI application that serves `model` under `name`."""
    batcher = Batcher(model)
    version = model.version if model.version.isdigit() else "1"
    metadata = _metadata(model, name, version)
    page = _PAGE.read_text(encoding="utf-8").replace(
        "__MODEL__", _for_script({"name": name, "version": version, "fields": model.text_fields})
    )

    def check(request: Request) -> None:
        received = request.path_params
        if received["name"] in (f"{name}:predict", f"{name}:classify"):
            raise HTTPException(
                405, "received GET, expected POST with a JSON body", headers={"Allow": "POST"}
            )
        if received["name"] != name or received.get("version", version) != version:
            what = f"model {received['name']!r}" + (
                f" version {received['version']}" if "version" in received else ""
            )
            raise HTTPException(
                404, f"{what} is not served here; expected {name!r}, version {version}"
            )

    async def predict(request: Request) -> Response:
        check(request)
        return JSONResponse(await _predict(model, batcher, await _json_body(request)))

    async def classify(request: Request) -> Response:
        check(request)
        return JSONResponse(await _classify(model, batcher, await _json_body(request)))

    async def status(request: Request) -> Response:
        check(request)
        state = {
            "version": version,
            "state": "AVAILABLE",
            "status": {"error_code": "OK", "error_message": ""},
        }
        return JSONResponse({"model_version_status": [state]})

    async def describe(request: Request) -> Response:
        check(request)
        return JSONResponse(metadata)

    async def home(_: Request) -> Response:
        return HTMLResponse(
            page,
            headers={"Content-Security-Policy": _PAGE_POLICY, "X-Content-Type-Options": "nosniff"},
        )

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with batcher:
            yield

    routes = [Route("/", home)]
    for path in ("/v1/models/{name}", "/v1/models/{name}/versions/{version}"):
        routes += [
            Route(path + ":predict", predict, methods=["POST"]),
            Route(path + ":classify", classify, methods=["POST"]),
            Route(path + "/metadata", describe),
            Route(path, status),
        ]
    return Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={HTTPException: _error, Exception: _failure},
    )


async def _error(_: Request, error: HTTPException) -> Response:
    return JSONResponse(
        {"error": error.detail}, status_code=error.status_code, headers=error.headers
    )


async def _failure(_: Request, error: Exception) -> Response:
    return JSONResponse(
        {"error": f"{type(error).__name__} in the server; its terminal tells more"}, status_code=500
    )


# --- batching ------------------------------------------------------------------------------


@dataclasses.dataclass
class _Call:
    """Documents that wait to be answered."""

    signature: str
    columns: Mapping[str, Sequence[bytes]]
    num_documents: int
    answer: asyncio.Future


class Batcher:
    """Answers the documents of requests that wait together by one call of the model; an async context manager.

    While the model works on one batch, requests gather for the next: so batches grow with the load, and without load nobody waits.
    """

    def __init__(self, model: SavedModel):
        self._model = model

    async def __aenter__(self) -> "Batcher":
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._waiting: asyncio.Queue[_Call | None] = asyncio.Queue()
        self._worker = asyncio.create_task(self._work())
        return self

    async def __aexit__(self, *exc_info) -> None:
        await self._waiting.put(None)
        await self._worker
        self._executor.shutdown()

    async def __call__(
        self, signature: str, columns: Mapping[str, Sequence[bytes]]
    ) -> dict[str, np.ndarray]:
        """What the signature answers to the documents: arrays whose first dimension is theirs.

        Raises:
          tf.errors.InvalidArgumentError: the model refuses them.
        """
        call = _Call(
            signature,
            columns,
            len(next(iter(columns.values()))),
            asyncio.get_running_loop().create_future(),
        )
        await self._waiting.put(call)
        return await call.answer

    async def _work(self) -> None:
        while (call := await self._waiting.get()) is not None:
            calls = [call]
            while (
                not self._waiting.empty()
                and sum(call.num_documents for call in calls) < BATCH_DOCUMENTS
            ):
                if (call := self._waiting.get_nowait()) is None:
                    self._waiting.put_nowait(None)  # the end, for the loop above
                    break
                calls.append(call)
            for signature in dict.fromkeys(call.signature for call in calls):
                await self._answer([call for call in calls if call.signature == signature])

    async def _answer(self, calls: Sequence[_Call]) -> None:
        columns = {
            name: [text for call in calls for text in call.columns[name]]
            for name in calls[0].columns
        }
        try:
            answer = await asyncio.get_running_loop().run_in_executor(
                self._executor, self._run, calls[0].signature, columns
            )
        except Exception as error:
            if len(calls) > 1:  # which of them it was is seen when each stands alone
                for call in calls:
                    await self._answer([call])
            elif not calls[0].answer.done():
                calls[0].answer.set_exception(error)
            return
        start = 0
        for call in calls:
            rows = {
                key: values[start : start + call.num_documents] for key, values in answer.items()
            }
            start += call.num_documents
            if not call.answer.done():  # else its client has gone
                call.answer.set_result(_without_others_padding(rows))

    def _run(self, signature: str, columns: Mapping[str, Sequence[bytes]]) -> dict[str, np.ndarray]:
        texts = {
            name: tf.constant(values, tf.string, shape=[len(values)])
            for name, values in columns.items()
        }
        return {
            key: value.numpy()
            for key, value in self._model.module.signatures[signature](**texts).items()
        }


def _without_others_padding(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`decide` pads to the longest list of labels in its batch; a request's own may be shorter."""
    if "counts" not in rows:
        return rows
    width = max(rows["counts"], default=0)
    return {key: values if key == "counts" else values[:, :width] for key, values in rows.items()}


# --- requests and answers ------------------------------------------------------------------


async def _json_body(request: Request) -> dict[str, Any]:
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_REQUEST_BYTES:
            raise HTTPException(
                413,
                f"received a request of more than {MAX_REQUEST_BYTES:,} bytes; send fewer documents at a time",
            )
    try:
        body = json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise HTTPException(
            400, f"the request is no UTF-8: {error}; send such text as {{'b64': ...}}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"the request is no JSON: {error}") from None
    if not isinstance(body, dict):
        raise HTTPException(400, f"received a JSON {type(body).__name__}, expected an object")
    return body


async def _predict(model: SavedModel, batcher: Batcher, body: Mapping[str, Any]) -> dict[str, Any]:
    signature = body.get("signature_name") or "serving_default"
    if not isinstance(signature, str) or signature not in model.module.signatures:
        known = ", ".join(sorted(model.module.signatures))
        raise HTTPException(400, f"signature_name: received {signature!r}, expected one of {known}")
    names = ["inputs"] if signature == "classify_examples" else list(model.text_fields)
    if ("instances" in body) == ("inputs" in body):
        raise HTTPException(
            400,
            "received both or neither of 'instances' (rows) and 'inputs' (columns), expected one of them",
        )
    columns = (
        _columns_of_rows(body["instances"], names)
        if "instances" in body
        else _columns(body["inputs"], names)
    )
    answer = await _ask(batcher, signature, columns)
    plain = {key: _plain(values) for key, values in answer.items()}
    only = next(iter(plain)) if len(plain) == 1 else None
    if "inputs" in body:
        return {"outputs": plain if only is None else plain[only]}
    rows = [dict(zip(plain, row, strict=True)) for row in zip(*plain.values(), strict=True)]
    return {"predictions": rows if only is None else [row[only] for row in rows]}


async def _classify(model: SavedModel, batcher: Batcher, body: Mapping[str, Any]) -> dict[str, Any]:
    """Examples as JSON objects, features that all have alike in `context`; answers with (class, score) pairs of each."""
    signature = body.get("signature_name") or "classify_examples"
    if signature != "classify_examples":
        raise HTTPException(
            400,
            f"signature_name: received {signature!r}, expected 'classify_examples', which answers classifications",
        )
    context, examples = body.get("context", {}), body.get("examples")
    if (
        not isinstance(context, dict)
        or not isinstance(examples, list)
        or not all(isinstance(example, dict) for example in examples)
    ):
        raise HTTPException(
            400,
            "expected 'examples', a list of objects with features, and 'context', an object, or none",
        )
    columns = _columns_of_rows([context | example for example in examples], model.text_fields)
    answer = await _ask(
        batcher, "serving_default", columns
    )  # the signature itself wants serialized examples, and answers the same
    labels, scores = _plain(answer["labels"]), _plain(answer["scores"])
    return {
        "results": [
            [list(pair) for pair in zip(*row, strict=True)]
            for row in zip(labels, scores, strict=True)
        ]
    }


async def _ask(
    batcher: Batcher, signature: str, columns: Mapping[str, Sequence[bytes]]
) -> dict[str, np.ndarray]:
    num_documents = len(next(iter(columns.values())))
    if num_documents > MAX_DOCUMENTS:
        raise HTTPException(
            400,
            f"received {num_documents:,} documents in one request, expected at most {MAX_DOCUMENTS:,}",
        )
    try:
        return await batcher(signature, columns)
    except (tf.errors.InvalidArgumentError, ValueError) as error:
        raise HTTPException(
            400, f"the model refuses the documents: {str(error).splitlines()[0]}"
        ) from None


def _columns_of_rows(rows: Any, names: Sequence[str]) -> dict[str, list[bytes]]:
    if not isinstance(rows, list):
        raise HTTPException(400, f"received a {type(rows).__name__} of rows, expected a list")
    columns: dict[str, list[bytes]] = {name: [] for name in names}
    for i, row in enumerate(rows):
        if isinstance(row, dict) and "b64" not in row:
            if unknown := sorted(row.keys() - columns.keys()):
                raise HTTPException(
                    400,
                    f"row {i}: received {', '.join(map(repr, unknown))}, expected {' and '.join(map(repr, names))}",
                )
            values = row
        elif len(names) == 1:
            values = {names[0]: row}
        else:
            raise HTTPException(
                400,
                f"row {i}: received a {type(row).__name__}, expected an object with {' and '.join(map(repr, names))}",
            )
        for name in names:
            columns[name].append(_bytes(values.get(name), f"row {i}: {name}"))
    return columns


def _columns(inputs: Any, names: Sequence[str]) -> dict[str, list[bytes]]:
    if isinstance(inputs, list) and len(names) == 1:
        inputs = {names[0]: inputs}
    if (
        not isinstance(inputs, dict)
        or inputs.keys() != set(names)
        or not all(isinstance(column, list) for column in inputs.values())
    ):
        raise HTTPException(
            400, f"inputs: expected an object with lists of strings: {', '.join(map(repr, names))}"
        )
    if len({len(column) for column in inputs.values()}) > 1:
        raise HTTPException(
            400,
            "inputs: received lists of different lengths, expected a value for each document in each",
        )
    return {
        name: [_bytes(value, f"{name}, row {i}") for i, value in enumerate(inputs[name])]
        for name in names
    }


def _bytes(value: Any, where: str) -> bytes:
    if isinstance(value, str):
        return value.encode(
            "utf-8", "surrogatepass"
        )  # what is no valid Unicode is the analyzer's to replace
    if isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except ValueError as error:
            raise HTTPException(400, f"{where}: b64: {error}") from None
    raise HTTPException(
        400,
        f"{where}: received {'nothing' if value is None else type(value).__name__}, expected a string or {{'b64': ...}}",
    )


def _plain(values: np.ndarray) -> list[Any]:
    """A tensor as JSON values; JSON has no NaN."""
    if values.dtype == object:
        return [
            row.decode("utf-8", "replace")
            if isinstance(row, bytes)
            else [each.decode("utf-8", "replace") for each in row]
            for row in values
        ]
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        return [
            [score if math.isfinite(score) else None for score in row] for row in values.tolist()
        ]
    return values.tolist()


def _metadata(model: SavedModel, name: str, version: str) -> dict[str, Any]:
    """As `GetModelMetadata` of TensorFlow Serving has it."""
    with tf.io.gfile.GFile(f"{model.path}/saved_model.pb", "rb") as stream:
        graph = saved_model_pb2.SavedModel.FromString(stream.read()).meta_graphs[0]
    signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=graph.signature_def)
    definition = json_format.MessageToDict(
        signatures, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return {
        "model_spec": {"name": name, "signature_name": "", "version": version},
        "metadata": {"signature_def": definition},
    }


def _for_script(value: Any) -> str:
    """JSON that may stand in a script element."""
    return (
        json.dumps(value)
        .replace("<", "\\u003c")
        .replace("\u2028", "\\u2028")
        .replace("\u2029", "\\u2029")
    )
