"""Requests of made-up text: those that TensorFlow Serving warms a model up with, and those that its speed is measured with."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import classification_pb2, predict_pb2, prediction_log_pb2

from beam_jobs.contract.saved_model import EXTRA

WARMUP_REQUESTS = "tf_serving_warmup_requests"  # where TensorFlow Serving looks for them in a SavedModel's assets.extra
WORDS = 100
BATCH_DOCUMENTS = 256


def write_requests(
    saved_model: Path, *, name: str, text_fields: Sequence[str], vocabulary: Sequence[str]
) -> None:
    """Writes requests of one document and of many to each signature that clients call, as a TFRecord file of PredictionLogs."""
    texts = made_texts(vocabulary)
    with tf.io.TFRecordWriter(str(saved_model / EXTRA / WARMUP_REQUESTS)) as writer:
        for count in (1, 32):
            for signature in ("serving_default", "scores", "decide"):
                writer.write(
                    _predict(
                        name, signature, fields_of(texts[:count], text_fields)
                    ).SerializeToString(deterministic=True)
                )
        writer.write(
            _classify(name, fields_of(texts, text_fields)).SerializeToString(deterministic=True)
        )


def made_texts(vocabulary: Sequence[str]) -> list[str]:
    """256 texts of 100 words, where frequent words are as frequent as Zipf's law has them; the same in every run."""
    ranks = np.arange(1, len(vocabulary) + 1)
    words = np.random.default_rng(0).choice(
        len(vocabulary), (BATCH_DOCUMENTS, WORDS), p=(1 / ranks) / (1 / ranks).sum()
    )
    return [" ".join(vocabulary[i] for i in row) for row in words]


def read_texts(saved_model: str) -> list[str]:
    """The 256 texts of the last request that `write_requests` has written: one text a document, whatever their fields."""
    *_, last = tf.data.TFRecordDataset(
        f"{saved_model}/{EXTRA}/{WARMUP_REQUESTS}"
    ).as_numpy_iterator()
    examples = prediction_log_pb2.PredictionLog.FromString(
        last
    ).classify_log.request.input.example_list.examples
    features = [sorted(example.features.feature.items()) for example in examples]
    return [
        b" ".join(feature.bytes_list.value[0] for _, feature in row).decode() for row in features
    ]


def fields_of(texts: Sequence[str], text_fields: Sequence[str]) -> dict[str, list[str]]:
    """Shares out each text's words to the text fields."""
    words = [text.split() for text in texts]
    count = len(text_fields)
    return {
        field: [" ".join(row[len(row) * i // count : len(row) * (i + 1) // count]) for row in words]
        for i, field in enumerate(text_fields)
    }


def _predict(
    name: str, signature: str, columns: Mapping[str, Sequence[str]]
) -> prediction_log_pb2.PredictionLog:
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = name, signature
    for field, values in columns.items():
        request.inputs[field].CopyFrom(tf.make_tensor_proto(values))
    return prediction_log_pb2.PredictionLog(
        predict_log=prediction_log_pb2.PredictLog(request=request)
    )


def _classify(name: str, columns: Mapping[str, Sequence[str]]) -> prediction_log_pb2.PredictionLog:
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name, request.model_spec.signature_name = name, "classify_examples"
    for row in zip(*columns.values(), strict=True):
        features = request.input.example_list.examples.add().features.feature
        for field, value in zip(columns, row, strict=True):
            features[field].bytes_list.value.append(value.encode())
    return prediction_log_pb2.PredictionLog(
        classify_log=prediction_log_pb2.ClassifyLog(request=request)
    )
