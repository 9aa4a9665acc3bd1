"""The exported graph of documents with several texts: an input a field, each analyzed alone."""

import asyncio
import json

import httpx
import numpy as np
import pytest
import tensorflow as tf

from beam_jobs.contract import saved_model
from beam_jobs.contract.analyzer import Analyzer
from beam_jobs.contract.dataset_config import TextConfig
from beam_jobs.contract.errors import UserError
from trainer.serving import predict, rest_server, warmup
from trainer.serving.serving_module import ServingModule

FIELDS = ("title", "body")  # not in the order of the alphabet, which TensorFlow sorts names by


class LengthScore(tf.Module):
    """Scores follow from the lengths of the analyzed title and body, which they tell apart."""

    def __call__(self, title, body):
        lengths = tf.stack([tf.strings.length(title), 3 * tf.strings.length(body)], axis=1)
        return tf.cast(lengths, tf.float32) / 100


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    module = ServingModule(
        text_fields=FIELDS,
        analyzer=Analyzer(TextConfig()),
        score=LengthScore(),
        label_names=["long title", "long body"],
        threshold_bins=[50, 512],
        top_k=5,
    )
    path = tmp_path_factory.mktemp("model") / "3"
    tf.saved_model.save(module, str(path), signatures=module.signatures())
    return saved_model.load(str(path.parent))


def test_every_field_is_an_input_of_its_own(model):
    assert (model.text_fields, model.num_labels, model.version) == (FIELDS, 2, "3")
    assert model.label_names() == ["long title", "long body"]
    texts = {"body": tf.constant(["<b>Soup</b>", "a b"]), "title": tf.constant(["A TITLE!", ""])}
    analyzed = model.module.signatures["analyze"](**texts)
    assert {key: value.numpy().tolist() for key, value in analyzed.items()} == {
        "analyzed/title": [b"a title", b""],
        "analyzed/body": [b"soup", b"a b"],
    }
    np.testing.assert_allclose(
        model.module.signatures["scores"](**texts)["scores"], [[0.07, 0.12], [0, 0.09]], atol=1e-6
    )
    decided = model.module.signatures["decide"](**texts)
    assert decided["labels"].numpy().tolist() == [[b"long title"], [b""]] and decided[
        "counts"
    ].numpy().tolist() == [1, 0]


def test_serialized_examples_hold_a_feature_a_field(model):
    def example(**texts):
        features = {
            name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[text]))
            for name, text in texts.items()
        }
        return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()

    answer = model.module.signatures["classify_examples"](
        inputs=tf.constant([example(title=b"x" * 50, body=b"soup")])
    )
    assert answer["classes"].numpy().tolist() == [[b"long title", b"long body"]]
    with pytest.raises(tf.errors.InvalidArgumentError, match="body"):
        model.module.signatures["classify_examples"](inputs=tf.constant([example(title=b"x")]))


def test_predict_takes_json_objects_of_the_fields(model):
    (row,) = predict.predictions(model, [json.dumps({"title": "x", "body": "soup"})])
    assert row["labels"] == ["long body", "long title"]
    for text in ("soup", '{"title": "x"}', '["x", "y"]', '{"title": 1, "body": "x"}'):
        with pytest.raises(
            UserError, match="expected a JSON object with strings for title and body"
        ):
            list(predict.predictions(model, [text]))


def test_the_server_takes_rows_and_columns_of_the_fields(model):
    app = rest_server.make_app(model, "two")

    async def post(body):
        transport = httpx.ASGITransport(app=app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://test") as client,
        ):
            response = await client.post("/v1/models/two/versions/3:predict", json=body)
            return response.status_code, response.json()

    def answer(**body):
        return asyncio.run(post({"signature_name": "scores", **body}))

    status, rows = answer(instances=[{"body": "soup", "title": "x"}, {"title": "xy", "body": ""}])
    np.testing.assert_allclose(rows["predictions"], [[0.01, 0.12], [0.02, 0]], atol=1e-6)
    assert answer(inputs={"title": ["x", "xy"], "body": ["soup", ""]}) == (
        200,
        {"outputs": rows["predictions"]},
    )
    for body, message in (
        (
            {"instances": ["soup"]},
            "row 0: received a str, expected an object with 'title' and 'body'",
        ),
        ({"instances": [{"title": "x"}]}, "row 0: body: received nothing"),
        ({"inputs": {"title": ["x"], "body": []}}, "lists of different lengths"),
        ({"inputs": ["x"]}, "expected an object with lists of strings: 'title', 'body'"),
    ):
        status, told = answer(**body)
        assert status == 400 and message in told["error"]


def test_warm_up_requests_share_out_the_words_of_a_text_to_the_fields(tmp_path):
    vocabulary = [f"w{i}" for i in range(500)]
    (tmp_path / saved_model.EXTRA).mkdir()
    warmup.write_requests(tmp_path, name="two", text_fields=FIELDS, vocabulary=vocabulary)
    texts = warmup.read_texts(str(tmp_path))
    assert {len(text.split()) for text in texts} == {100}
    columns = warmup.fields_of(["a b c", "d"], FIELDS)
    assert columns == {"title": ["a", ""], "body": ["b c", "d"]}
    words = " ".join(warmup.made_texts(vocabulary)).split()
    assert words.count("w0") > 5 * words.count("w100") > 0
    assert sorted(words) == sorted(" ".join(texts).split())
