"""Requests that TensorFlow Serving sends to a model it loads: no client waits for a first call.

https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import tensorflow as tf
from tensorflow_serving.apis import classification_pb2, predict_pb2, prediction_log_pb2

from beam_jobs.contract.saved_model import EXTRA

# The name that TensorFlow Serving looks for in a SavedModel's assets.extra.
WARMUP_REQUESTS = "tf_serving_warmup_requests"


def write_requests(saved_model: Path, *, name: str, columns: Mapping[str, Sequence[str]]) -> None:
    """Writes requests to each signature that clients call, as a TFRecord file of PredictionLogs.

    Predict requests have one document and 32, the Classify request has all.

    Args:
      saved_model: where the SavedModel is written.
      name: the model's name.
      columns: sample texts by text field.
    """
    logs = [
        _predict(name, signature, {field: values[:count] for field, values in columns.items()})
        for count in (1, 32)
        for signature in ("serving_default", "scores", "decide")
    ]
    logs.append(_classify(name, columns))
    with tf.io.TFRecordWriter(str(saved_model / EXTRA / WARMUP_REQUESTS)) as writer:
        for log in logs:
            writer.write(log.SerializeToString(deterministic=True))


def _predict(
    name: str, signature: str, columns: Mapping[str, Sequence[str]]
) -> prediction_log_pb2.PredictionLog:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    for field, values in columns.items():
        request.inputs[field].CopyFrom(tf.make_tensor_proto(values))
    log = prediction_log_pb2.PredictLog(request=request)
    return prediction_log_pb2.PredictionLog(predict_log=log)


def _classify(name: str, columns: Mapping[str, Sequence[str]]) -> prediction_log_pb2.PredictionLog:
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name = name
    request.model_spec.signature_name = "classify_examples"
    for row in zip(*columns.values(), strict=True):
        features = request.input.example_list.examples.add().features.feature
        for field, text in zip(columns, row, strict=True):
            features[field].bytes_list.value.append(text.encode())
    log = prediction_log_pb2.ClassifyLog(request=request)
    return prediction_log_pb2.PredictionLog(classify_log=log)
