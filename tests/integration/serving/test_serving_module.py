"""The exported graph of documents with several texts: an input a field, each analyzed alone."""

import json

import numpy as np
import pytest
import tensorflow as tf

from beam_jobs.contract.analyzer import Analyzer
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.word_lists import AnalyzerSpec
from trainer.metrics.classification import NEVER
from trainer.serving import predict
from trainer.serving.serving_module import ServingModule


def test_every_field_is_an_input_of_its_own(two_text_model):
    assert (two_text_model.text_fields, two_text_model.num_labels, two_text_model.version) == (
        ("title", "body"),
        2,
        "3",
    )
    assert two_text_model.label_names() == ["long title", "long body"]
    texts = {"body": tf.constant(["<b>Soup</b>", "a b"]), "title": tf.constant(["A TITLE!", ""])}
    analyzed = two_text_model.module.signatures["analyze"](**texts)
    assert {key: value.numpy().tolist() for key, value in analyzed.items()} == {
        "analyzed/title": [b"a title", b""],
        "analyzed/body": [b"soup", b"a b"],
    }
    np.testing.assert_allclose(
        two_text_model.module.signatures["scores"](**texts)["scores"],
        [[0.07, 0.12], [0, 0.09]],
        atol=1e-6,
    )
    decided = two_text_model.module.signatures["decide"](**texts)
    assert decided["labels"].numpy().tolist() == [[b"long title"], [b""]] and decided[
        "counts"
    ].numpy().tolist() == [1, 0]


def test_serialized_examples_hold_a_feature_a_field(two_text_model):
    def example(**texts):
        features = {
            name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[text]))
            for name, text in texts.items()
        }
        return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()

    answer = two_text_model.module.signatures["classify_examples"](
        inputs=tf.constant([example(title=b"x" * 50, body=b"soup")])
    )
    assert answer["classes"].numpy().tolist() == [[b"long title", b"long body"]]
    with pytest.raises(tf.errors.InvalidArgumentError, match="body"):
        two_text_model.module.signatures["classify_examples"](
            inputs=tf.constant([example(title=b"x")])
        )


def test_predict_takes_json_objects_of_the_fields(two_text_model):
    (row,) = predict.predictions(two_text_model, [json.dumps({"title": "x", "body": "soup"})])
    assert row["labels"] == ["long body", "long title"]
    for text in ("soup", '{"title": "x"}', '["x", "y"]', '{"title": 1, "body": "x"}'):
        with pytest.raises(
            UserError, match="expected a JSON object with strings for title and body"
        ):
            list(predict.predictions(two_text_model, [text]))


def test_decisions_of_analyzed_texts_are_those_of_raw_texts(two_text_model):
    texts = {"title": tf.constant(["a title", "x" * 60]), "body": tf.constant(["soup", ""])}
    decision = two_text_model.module.decide_analyzed(*texts.values())
    scores = two_text_model.module.signatures["scores"](**texts)["scores"]
    np.testing.assert_array_equal(decision["scores"], scores)
    counts = two_text_model.module.signatures["decide"](**texts)["counts"]
    np.testing.assert_array_equal(tf.math.count_nonzero(decision["assigned"], axis=1), counts)
    assert decision["assigned"].numpy().tolist() == [[True, False], [True, False]]


def test_a_module_that_assigns_the_best_label_alone_gives_each_document_one():
    class Score(tf.Module):
        def __call__(self, text):
            # By the text's length: the first label is best and is never assigned, or the last is.
            length = tf.cast(tf.strings.length(text), tf.float32)[:, tf.newaxis]
            return tf.concat([0.9 - 0 * length, 0.3 + 0 * length, length / 10], axis=1)

    spec = AnalyzerSpec(normalize="lower", strip_urls=False, expand_contractions=False)
    module = ServingModule(
        text_fields=("text",),
        analyzer=Analyzer(spec),
        score=Score(),
        label_names=["withheld", "second", "third"],
        threshold_bins=[NEVER, 0, 0],
        top_k=2,
        best_only=True,
    )
    texts = tf.constant(["a", "abcde"])
    decided = module.decide(texts)
    assert decided["labels"].numpy().tolist() == [[b"second"], [b"third"]]
    assert decided["counts"].numpy().tolist() == [1, 1]
    assigned = module.decide_analyzed(texts)["assigned"].numpy()
    assert assigned.tolist() == [[False, True, False], [False, False, True]]
