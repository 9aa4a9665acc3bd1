"""The server for development: REST paths, answers under load, and answers to bad requests."""

import asyncio
import base64
import contextlib
import re
import sys

import httpx
import numpy as np
import pytest
import tensorflow as tf

from beam_jobs.contract import saved_model
from tests.command_lines import fail_cleanly
from trainer.serving import rest_server

TEXTS = ["Rocket in orbit around the moon", "soup and bread", "", "guitar & <b>GOAL</b>", "日本語"]


@pytest.fixture(scope="module")
def model(trained):
    return saved_model.load(str(trained.root / "out/small/model"))


@pytest.fixture(scope="module")
def app(model):
    return rest_server.make_app(model, "small")


@contextlib.asynccontextmanager
async def client_of(app):
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test", timeout=120) as client,
    ):
        yield client


def request(app, method, path, **kwargs):
    """(status, JSON answer) of one request."""

    async def send():
        async with client_of(app) as client:
            response = await client.request(method, path, **kwargs)
            return response.status_code, response.json()

    return asyncio.run(send())


def post(app, body, path="/v1/models/small:predict"):
    return request(
        app, "POST", path, **({"content": body} if isinstance(body, bytes) else {"json": body})
    )


def direct(model, signature, texts=TEXTS):
    return {
        key: value.numpy()
        for key, value in model.module.signatures[signature](text=tf.constant(texts)).items()
    }


def names(rows):
    return [[label.decode() for label in row] for row in rows]


# --- what is answered ----------------------------------------------------------------------


@pytest.mark.parametrize("signature", ["serving_default", "decide"])
def test_rows_and_columns_hold_what_the_signature_answers(app, model, signature):
    expected = direct(model, signature)
    status, columns = post(app, {"signature_name": signature, "inputs": {"text": TEXTS}})
    assert status == 200 and columns["outputs"].keys() == expected.keys()
    assert columns["outputs"]["labels"] == names(expected["labels"])
    np.testing.assert_allclose(columns["outputs"]["scores"], expected["scores"], atol=1e-6)
    status, rows = post(
        app, {"signature_name": signature, "instances": [{"text": text} for text in TEXTS]}
    )
    assert status == 200
    assert rows["predictions"] == [
        {key: values[i] for key, values in columns["outputs"].items()} for i in range(len(TEXTS))
    ]


def test_one_input_may_stand_without_its_name_and_one_output_does(app, model):
    status, rows = post(app, {"signature_name": "scores", "instances": TEXTS})
    assert status == 200
    np.testing.assert_allclose(rows["predictions"], direct(model, "scores")["scores"], atol=1e-6)
    assert post(app, {"signature_name": "scores", "inputs": TEXTS}) == (
        200,
        {"outputs": rows["predictions"]},
    )
    assert post(app, {"signature_name": "analyze", "inputs": TEXTS[:1]}) == (
        200,
        {"outputs": ["rocket in orbit around the moon"]},
    )


def test_serving_default_is_the_signature_of_requests_that_name_none(app):
    assert post(app, {"instances": TEXTS}) == post(
        app, {"signature_name": "serving_default", "instances": TEXTS}
    )


def test_bytes_in_base64_are_what_the_text_itself_is(app):
    encoded = [{"b64": base64.b64encode(text.encode()).decode()} for text in TEXTS]
    assert post(app, {"instances": encoded}) == post(app, {"instances": TEXTS})
    assert post(app, {"instances": [{"text": row} for row in encoded]}) == post(
        app, {"instances": TEXTS}
    )


def test_classification_pairs_labels_with_scores(app, model):
    expected = direct(model, "serving_default")
    body = {"signature_name": "classify_examples", "examples": [{"text": text} for text in TEXTS]}
    status, answer = post(app, body, "/v1/models/small:classify")
    assert status == 200
    assert [[label for label, _ in row] for row in answer["results"]] == names(expected["labels"])
    np.testing.assert_allclose(
        [[score for _, score in row] for row in answer["results"]], expected["scores"], atol=1e-6
    )
    shared = post(
        app, {"context": {"text": TEXTS[0]}, "examples": [{}, {}]}, "/v1/models/small:classify"
    )[1]["results"]
    assert shared == [answer["results"][0]] * 2


def test_serialized_examples_are_an_input_of_predictions(app):
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[TEXTS[0].encode()]))
    example = tf.train.Example(
        features=tf.train.Features(feature={"text": feature})
    ).SerializeToString()
    body = {
        "signature_name": "classify_examples",
        "instances": [{"b64": base64.b64encode(example).decode()}],
    }
    status, answer = post(app, body)
    assert status == 200 and answer["predictions"][0]["classes"][0] == "space"
    body["instances"] = [{"b64": base64.b64encode(b"no example").decode()}]
    status, answer = post(app, body)
    assert status == 400 and "the model refuses the documents" in answer["error"]


def test_status_and_metadata_are_those_of_tensorflow_serving(app):
    for path in ("/v1/models/small", "/v1/models/small/versions/1"):
        state = {
            "version": "1",
            "state": "AVAILABLE",
            "status": {"error_code": "OK", "error_message": ""},
        }
        assert request(app, "GET", path) == (200, {"model_version_status": [state]})
    status, answer = request(app, "GET", "/v1/models/small/metadata")
    assert status == 200 and answer["model_spec"] == {
        "name": "small",
        "signature_name": "",
        "version": "1",
    }
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    assert set(saved_model.SIGNATURES) <= set(signatures)
    assert signatures["decide"]["inputs"]["text"]["dtype"] == "DT_STRING"
    assert signatures["classify_examples"]["method_name"] == "tensorflow/serving/classify"
    assert post(app, {"instances": TEXTS}, "/v1/models/small/versions/1:predict") == post(
        app, {"instances": TEXTS}
    )


def test_no_documents_get_no_answers(app):
    assert post(app, {"instances": []}) == (200, {"predictions": []})
    assert post(app, {"examples": []}, "/v1/models/small:classify") == (200, {"results": []})


# --- under load ----------------------------------------------------------------------------


def test_hundreds_of_concurrent_requests_each_get_their_own_answer(app, model, monkeypatch):
    topics = [
        "goal match team",
        "song guitar album",
        "bread soup oven",
        "orbit rocket moon",
        "nothing known here",
    ]
    texts = [f"{topics[i % 5]} {topics[i * 7 % 5]} n{i}" for i in range(600)]
    batches = []
    run = rest_server.Batcher._run
    monkeypatch.setattr(
        rest_server.Batcher,
        "_run",
        lambda self, name, columns: (
            batches.append(len(next(iter(columns.values())))) or run(self, name, columns)
        ),
    )

    async def load():
        async with client_of(app) as client:

            async def ask(i):
                signature = ("serving_default", "decide", "scores")[i % 3]
                body = {"signature_name": signature, "inputs": texts[i : i + 1 + i % 4]}
                answer = (await client.post("/v1/models/small:predict", json=body)).json()[
                    "outputs"
                ]
                return signature, texts[i : i + 1 + i % 4], answer

            return await asyncio.gather(*map(ask, range(len(texts))))

    answers = asyncio.run(load())
    assert len(answers) == 600
    for signature, given, answer in answers:
        expected = direct(model, signature, given)
        if signature == "scores":
            np.testing.assert_allclose(answer, expected["scores"], atol=1e-6)
            continue
        np.testing.assert_allclose(answer["scores"], expected["scores"], atol=1e-6)
        assert answer["labels"] == names(expected["labels"])
    assert sum(batches) == sum(
        len(given) for _, given, _ in answers
    )  # each document is scored once
    assert len(batches) < 60 and max(batches) > 50  # and together with others


def test_a_request_that_the_model_refuses_spoils_no_other(app):
    good = base64.b64encode(
        tf.train.Example(
            features=tf.train.Features(
                feature={"text": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"goal"]))}
            )
        ).SerializeToString()
    )

    async def load():
        async with client_of(app) as client:
            bodies = [
                {"signature_name": "classify_examples", "instances": [{"b64": b.decode()}]}
                for b in (good, base64.b64encode(b"bad"), good) * 10
            ]
            return [
                response.status_code
                for response in await asyncio.gather(
                    *(client.post("/v1/models/small:predict", json=body) for body in bodies)
                )
            ]

    assert asyncio.run(load()) == [200, 400, 200] * 10


# --- bad requests --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"no JSON", "the request is no JSON"),
        (b"[" * 100_000, "the request is no JSON"),
        (b'{"instances": ["\xff"]}', "the request is no UTF-8"),
        (b"[1]", "received a JSON list, expected an object"),
        ({}, "received both or neither of 'instances'"),
        ({"instances": ["a"], "inputs": ["a"]}, "received both or neither of 'instances'"),
        (
            {"signature_name": "score", "instances": ["a"]},
            "signature_name: received 'score', expected one of analyze, classify_examples, decide",
        ),
        ({"signature_name": ["x"], "instances": ["a"]}, "signature_name: received"),
        ({"instances": "a"}, "received a str of rows, expected a list"),
        ({"instances": [1]}, "row 0: text: received int, expected a string"),
        ({"instances": ["a", {"body": "a"}]}, "row 1: received 'body', expected 'text'"),
        ({"instances": [{}]}, "row 0: text: received nothing, expected a string"),
        ({"instances": [{"b64": "%"}]}, "row 0: text: b64:"),
        ({"inputs": {"body": ["a"]}}, "inputs: expected an object with lists of strings: 'text'"),
        ({"inputs": {"text": "a"}}, "inputs: expected an object with lists of strings"),
        (
            {"instances": ["a"] * 1025},
            "received 1,025 documents in one request, expected at most 1,024",
        ),
    ],
)
def test_bad_requests_are_answered_with_400_and_the_reason(app, body, message):
    status, answer = post(app, body)
    assert (status, list(answer)) == (400, ["error"])
    assert message in answer["error"]


def test_bad_classifications_are_answered_with_400(app):
    for body in (
        {"examples": ["a"]},
        {"examples": {}},
        {},
        {"examples": [{}], "context": 1},
        {"examples": [{"text": 1}]},
    ):
        assert post(app, body, "/v1/models/small:classify")[0] == 400
    assert (
        post(app, {"signature_name": "decide", "examples": []}, "/v1/models/small:classify")[0]
        == 400
    )


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/models/other:predict", 404),
        ("POST", "/v1/models/small/versions/2:predict", 404),
        ("GET", "/v1/models/other", 404),
        ("GET", "/v1/models/other/metadata", 404),
        ("GET", "/v2", 404),
        ("GET", "/v1/models/small:predict", 405),
        ("DELETE", "/v1/models/small", 405),
    ],
)
def test_unknown_paths_are_answered_with_404_and_wrong_methods_with_405(app, method, path, status):
    received, answer = request(app, method, path)
    assert received == status and answer["error"]


def test_a_text_of_ten_megabytes_is_answered_and_a_request_beyond_the_limit_refused(
    app, monkeypatch
):
    status, answer = post(app, {"instances": ["goal " * 2_000_000]})
    assert status == 200 and answer["predictions"][0]["labels"][0] == "sport"
    monkeypatch.setattr(rest_server, "MAX_REQUEST_BYTES", 1000)
    status, answer = post(app, {"instances": ["goal " * 200]})
    assert status == 413 and "more than 1,000 bytes" in answer["error"]


def test_text_that_is_no_unicode_is_answered(app):
    half_a_pair = post(app, b'{"instances": ["\\ud800 goal"]}')
    no_utf8 = post(app, {"instances": [{"b64": base64.b64encode(b"\xff goal").decode()}]})
    assert half_a_pair[0] == no_utf8[0] == 200
    assert no_utf8[1]["predictions"][0]["labels"][0] == "sport"


def test_a_failure_of_the_server_is_told_as_json(app, monkeypatch):
    def fails(*_):
        raise MemoryError

    monkeypatch.setattr(rest_server.Batcher, "_run", fails)

    async def send():
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://test") as client,
        ):
            return await client.post("/v1/models/small:predict", json={"instances": ["a"]})

    response = asyncio.run(send())
    assert response.status_code == 500 and "MemoryError" in response.json()["error"]


# --- the page, and what is missing --------------------------------------------------------------


def test_the_page_names_no_other_host_and_cannot_be_broken_by_the_models_name(model):
    async def get():
        async with client_of(rest_server.make_app(model, "</script><b>x")) as client:
            return await client.get("/")

    response = asyncio.run(get())
    assert response.text.count("</script>") == 1 and "\\u003c/script>" in response.text
    assert not re.search(r"https?://|src=|href=|innerHTML", response.text)
    assert "connect-src 'self'" in response.headers["content-security-policy"]


def test_a_missing_extra_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)  # an import of it fails
    assert "pip install 'multihot[serve]'" in fail_cleanly(
        "trainer.task", "serve", "--model", "x", cwd=tmp_path
    )
