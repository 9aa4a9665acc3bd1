"""The development server answers predict and classify as TensorFlow Serving's REST API does.

https://www.tensorflow.org/tfx/serving/api_rest, and for what that page leaves open the behaviour of
json_tensor.cc and http_rest_api_handler.cc in tensorflow/serving.
"""

import asyncio
import base64
import re

import httpx
import numpy as np
import pytest
import tensorflow as tf

from trainer.serving import rest_api, rest_server

TEXTS = ["Goal and song", "soup", "", "a <b>GOAL</b> &amp; more", "日本語"]


@pytest.fixture(scope="module")
def app(one_text_model):
    return rest_server.make_app(one_text_model, "small")


def send_all(app, requests):
    """Responses to requests, (method, path, keyword arguments), sent at the same time."""

    async def send():
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            sent = (client.request(method, path, **kwargs) for method, path, kwargs in requests)
            return await asyncio.gather(*sent)

    return asyncio.run(send())


def post(app, body, path="/v1/models/small:predict"):
    """(status, JSON answer)."""
    kwargs = {"content": body} if isinstance(body, bytes) else {"json": body}
    (response,) = send_all(app, [("POST", path, kwargs)])
    return response.status_code, response.json()


def classify(app, body):
    return post(app, body, "/v1/models/small:classify")


def direct(model, signature, texts=TEXTS):
    outputs = model.module.signatures[signature](text=tf.constant(texts))
    return {key: value.numpy() for key, value in outputs.items()}


def names(rows):
    return [[label.decode() for label in row] for row in rows]


def encoded(content):
    return {"b64": base64.b64encode(content).decode()}


def example(text):
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode()]))
    features = tf.train.Features(feature={"text": feature})
    return tf.train.Example(features=features).SerializeToString()


# --- predict -------------------------------------------------------------------------------


@pytest.mark.parametrize("signature", ["serving_default", "decide"])
def test_rows_and_columns_hold_what_the_signature_answers(app, one_text_model, signature):
    expected = direct(one_text_model, signature)
    status, columns = post(app, {"signature_name": signature, "inputs": {"text": TEXTS}})
    assert status == 200 and columns["outputs"].keys() == expected.keys()
    assert columns["outputs"]["labels"] == names(expected["labels"])
    np.testing.assert_array_equal(columns["outputs"]["scores"], expected["scores"])
    rows = [{"text": text} for text in TEXTS]
    status, answer = post(app, {"signature_name": signature, "instances": rows})
    assert status == 200
    assert answer["predictions"] == [
        {key: values[i] for key, values in columns["outputs"].items()} for i in range(len(TEXTS))
    ]


def test_the_name_of_the_only_input_and_of_the_only_output_may_be_left_out(app, one_text_model):
    status, rows = post(app, {"signature_name": "scores", "instances": TEXTS})
    assert status == 200
    np.testing.assert_array_equal(rows["predictions"], direct(one_text_model, "scores")["scores"])
    columns = post(app, {"signature_name": "scores", "inputs": TEXTS})
    assert columns == (200, {"outputs": rows["predictions"]})
    analyzed = post(app, {"signature_name": "analyze", "inputs": TEXTS[:1]})
    assert analyzed == (200, {"outputs": ["goal and song"]})


def test_requests_without_a_signature_name_are_for_serving_default(app):
    named = post(app, {"signature_name": "serving_default", "instances": TEXTS})
    assert named[0] == 200
    assert named == post(app, {"instances": TEXTS})
    assert named == post(app, {"instances": TEXTS}, "/v1/models/small/versions/1:predict")


def test_several_text_fields_are_several_inputs(two_text_model):
    app = rest_server.make_app(two_text_model, "two")

    def predict(**body):
        path = "/v1/models/two/versions/3:predict"
        return post(app, {"signature_name": "scores", **body}, path)

    rows = [{"body": "soup", "title": "x"}, {"title": "xy", "body": ""}]
    status, answer = predict(instances=rows)
    np.testing.assert_allclose(answer["predictions"], [[0.01, 0.12], [0.02, 0]], atol=1e-6)
    columns = predict(inputs={"title": ["x", "xy"], "body": ["soup", ""]})
    assert columns == (200, {"outputs": answer["predictions"]})
    for body, message in (
        ({"instances": ["soup"]}, "row 0: expected an object with title, body"),
        ({"instances": [{"title": "x"}]}, "row 0: expected an object with title, body"),
        ({"inputs": {"title": ["x"], "body": []}}, "lists of different lengths"),
        ({"inputs": {"title": ["x"]}}, "expected an object with title, body"),
        ({"inputs": ["x"]}, "expected an object with title, body"),
    ):
        status, answer = predict(**body)
        assert status == 400 and message in answer["error"]


def test_bytes_may_be_sent_in_base64(app):
    rows = [encoded(text.encode()) for text in TEXTS]
    assert post(app, {"instances": rows}) == post(app, {"instances": TEXTS})
    named = [{"text": row} for row in rows]
    assert post(app, {"instances": named}) == post(app, {"instances": TEXTS})


def test_serialized_examples_are_an_input_of_predict_too(app):
    body = {"signature_name": "classify_examples", "instances": [encoded(example("a goal"))]}
    status, answer = post(app, body)
    assert status == 200 and answer["predictions"][0]["classes"][0] == "sport"
    body["instances"] = [encoded(b"no example")]
    assert post(app, body)[0] == 400


def test_bytes_that_are_not_utf_8_are_replaced_by_the_analyzer(app):
    for body in (
        b'{"signature_name": "analyze", "inputs": ["\xff goal"]}',
        {"signature_name": "analyze", "inputs": [encoded(b"\xff goal")]},
    ):
        status, answer = post(app, body)
        assert status == 200 and "goal" in answer["outputs"][0]


def test_a_text_of_ten_megabytes_is_answered(app):
    status, answer = post(app, {"instances": ["goal " * 2_000_000]})
    assert status == 200 and answer["predictions"][0]["labels"][0] == "sport"


def test_concurrent_requests_each_get_their_own_answer(app, one_text_model):
    texts = [["goal", "song", "soup", "none", "goal song"][i % 5] + f" n{i}" for i in range(100)]

    sent = [texts[i : i + 1 + i % 4] for i in range(len(texts))]
    path = "/v1/models/small:predict"
    bodies = [{"signature_name": "scores", "inputs": inputs} for inputs in sent]
    responses = send_all(app, [("POST", path, {"json": body}) for body in bodies])
    for inputs, response in zip(sent, responses, strict=True):
        expected = direct(one_text_model, "scores", inputs)["scores"]
        np.testing.assert_array_equal(response.json()["outputs"], expected)


# --- classify ------------------------------------------------------------------------------


def test_classification_pairs_labels_with_scores(app, one_text_model):
    expected = direct(one_text_model, "serving_default")
    body = {"signature_name": "classify_examples", "examples": [{"text": text} for text in TEXTS]}
    status, answer = classify(app, body)
    assert status == 200
    assert [[label for label, _ in row] for row in answer["results"]] == names(expected["labels"])
    scores = [[score for _, score in row] for row in answer["results"]]
    np.testing.assert_array_equal(scores, expected["scores"])


def test_features_are_values_or_lists_and_may_be_shared_by_all_examples(app):
    def results(**body):
        status, answer = classify(app, {"signature_name": "classify_examples", **body})
        assert status == 200, answer
        return answer["results"]

    (expected,) = results(examples=[{"text": "goal"}])
    assert results(examples=[{"text": ["goal"]}]) == [expected]
    assert results(examples=[{"text": [encoded(b"goal")]}]) == [expected]
    assert results(examples=[{}, {}], context={"text": "goal"}) == [expected] * 2
    # Features that the model does not know, of every type.
    others = {"a": 1, "b": [1.5, 2.5], "c": True, "d": ["x", "y"], "e": []}
    assert results(examples=[{"text": "goal"} | others]) == [expected]


@pytest.mark.parametrize(
    "body",
    [
        {"examples": ["a"]},
        {"examples": {}},
        {"examples": []},
        {},
        {"examples": [{}]},
        {"examples": [{"text": "a"}], "context": 1},
        {"examples": [{"text": 1}]},
        {"examples": [{"text": None}]},
        {"examples": [{"text": ["a", "b"]}]},
        {"examples": [{"text": ["a", 1]}]},
        {"examples": [{"text": "a", "n": 1 << 70}]},
        {"examples": [{"text": "a"}], "signature_name": "decide"},
        {"examples": [{"text": "a"}], "signature_name": ""},
    ],
)
def test_bad_classifications_are_answered_with_400(app, body):
    status, answer = classify(app, {"signature_name": "classify_examples"} | body)
    assert (status, list(answer)) == (400, ["error"])


# --- bad requests --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"no JSON", "JSON Parse error"),
        (b"", "JSON Parse error"),
        (b"[" * 100_000, "JSON Parse error"),
        (b"[1]", "received a JSON list, expected an object"),
        ({}, "expected one of 'instances' (rows) and 'inputs' (columns)"),
        ({"instances": ["a"], "inputs": ["a"]}, "expected one of 'instances' (rows)"),
        (
            {"signature_name": "score", "instances": ["a"]},
            "signature_name: received 'score', expected one of analyze, classify_examples, decide",
        ),
        ({"signature_name": ["x"], "instances": ["a"]}, "signature_name: received"),
        ({"signature_name": None, "instances": ["a"]}, "signature_name: received"),
        ({"instances": []}, "instances: expected a list with a row for each document"),
        ({"instances": "a"}, "instances: expected a list with a row for each document"),
        ({"instances": [1]}, "received 1, expected a string"),
        ({"instances": [["a"]]}, 'received ["a"], expected a string'),
        ({"instances": [{"body": "a"}]}, "row 0: expected an object with text"),
        ({"instances": ["a", {"text": "a"}]}, "expected a string"),
        ({"instances": [{"text": "a"}, "a"]}, "row 1: expected an object with text"),
        ({"instances": [{}]}, "row 0: expected an object with text"),
        ({"instances": [{"b64": "%"}]}, "base64"),
        ({"inputs": {"body": ["a"]}}, "inputs: expected an object with text"),
        ({"inputs": {"text": "a"}}, "inputs: expected a list with a string for each document"),
        ({"inputs": None}, "inputs: expected a list with a string for each document"),
        (b'{"instances": ["\\ud800"]}', "surrogates not allowed"),
        ({"instances": ["a"] * 1025}, "received 1,025 documents, expected at most 1024"),
    ],
)
def test_bad_requests_are_answered_with_400_and_the_reason(app, body, message):
    status, answer = post(app, body)
    assert (status, list(answer)) == (400, ["error"])
    assert message in answer["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models/small", 200),
        ("GET", "/v1/models/small/versions/1", 200),
        ("POST", "/v1/models/other:predict", 404),
        ("POST", "/v1/models/small/versions/2:predict", 404),
        ("GET", "/v1/models/other", 404),
        ("GET", "/v2", 404),
        ("GET", "/v1/models/small:predict", 400),
        ("POST", "/v1/models/small", 400),
        ("POST", "/v1/models/small:regress", 400),
        ("DELETE", "/v1/models/small", 405),
    ],
)
def test_paths_are_answered_with_the_status_codes_of_tensorflow_serving(app, method, path, status):
    (response,) = send_all(app, [(method, path, {})])
    assert response.status_code == status
    assert list(response.json()) == (["model_version_status"] if status == 200 else ["error"])


def test_a_request_beyond_the_limit_is_refused(app, monkeypatch):
    monkeypatch.setattr(rest_server, "MAX_REQUEST_BYTES", 1000)
    status, answer = post(app, {"instances": ["goal " * 200]})
    assert status == 413 and "more than 1,000 bytes" in answer["error"]


def test_requests_beyond_those_at_a_time_are_answered_with_503(one_text_model, monkeypatch):
    monkeypatch.setattr(rest_server, "MAX_REQUESTS", 1)
    app = rest_server.make_app(one_text_model, "small")
    for body in ({"instances": ["goal"]}, {}, b"{", {"instances": ["goal"]}):  # each leaves again
        assert post(app, body)[0] in (200, 400)
    monkeypatch.setattr(rest_server, "MAX_REQUESTS", 0)
    app = rest_server.make_app(one_text_model, "small")
    (response,) = send_all(app, [("POST", "/v1/models/small:predict", {"content": b"x" * 999})])
    assert response.status_code == 503 and response.headers["Retry-After"] == "1"
    assert response.json()["error"] == "0 requests are under way, the most at a time; try again"
    assert send_all(app, [("GET", "/v1/models/small", {})])[0].status_code == 200


def test_a_failure_of_the_server_is_answered_as_json(app, monkeypatch):
    def fails(*_):
        raise MemoryError

    monkeypatch.setattr(rest_api, "run", fails)
    status, answer = post(app, {"instances": ["a"]})
    assert status == 500 and "MemoryError" in answer["error"]


# --- the page ------------------------------------------------------------------------------


def test_the_page_loads_nothing_and_the_models_name_cannot_break_it(one_text_model):
    app = rest_server.make_app(one_text_model, "</script><b>x")
    (response,) = send_all(app, [("GET", "/", {})])
    assert response.text.count("</script>") == 1 and "\\u003c/script\\u003e" in response.text
    assert not re.search(r"https?://|src=|href=|innerHTML", response.text)
    assert "connect-src 'self'" in response.headers["content-security-policy"]
