"""Predict and classify of TensorFlow Serving's REST API: JSON in, a signature's answer as JSON out.

https://www.tensorflow.org/tfx/serving/api_rest describes both. Functions raise ValueError, or
tf.errors.InvalidArgumentError from the model, for requests that cannot be answered.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from beam_jobs.contract.saved_model import SavedModel

MAX_DOCUMENTS = 1024  # in one request


def predict(model: SavedModel, body: Mapping[str, Any]) -> dict[str, Any]:
    """Answers the JSON of a predict request, whose documents are in `instances` or `inputs`."""
    signature = _signature_name(model, body)
    names = ["inputs"] if signature == "classify_examples" else list(model.text_fields)
    if ("instances" in body) == ("inputs" in body):
        raise ValueError("expected one of 'instances' (rows) and 'inputs' (columns)")
    if "inputs" in body:
        columns = _checked_columns(body["inputs"], names)
    else:
        columns = _columns_of_rows(body["instances"], names)
    outputs = run(
        model, signature, {name: [_bytes(v) for v in values] for name, values in columns.items()}
    )
    has_one_output = len(outputs) == 1
    if "inputs" in body:
        return {"outputs": next(iter(outputs.values())) if has_one_output else outputs}
    rows = zip(*outputs.values(), strict=True)
    if has_one_output:
        return {"predictions": [row[0] for row in rows]}
    return {"predictions": [dict(zip(outputs, row, strict=True)) for row in rows]}


def classify(model: SavedModel, body: Mapping[str, Any]) -> dict[str, Any]:
    """Answers the JSON of a classify request: (label, score) pairs for each of its examples."""
    signature = _signature_name(model, body)
    if signature != "classify_examples":
        raise ValueError(
            f"signature_name: received {signature!r}, expected 'classify_examples': the method of "
            "other signatures is not tensorflow/serving/classify"
        )
    context, examples = body.get("context", {}), body.get("examples")
    if not isinstance(examples, list) or not examples:
        raise ValueError("expected 'examples', a list with an object of features for each document")
    if not all(isinstance(features, dict) for features in (context, *examples)):
        raise ValueError("expected JSON objects of features in 'examples' and as 'context'")
    serialized = [_example(context | features) for features in examples]
    outputs = run(model, signature, {"inputs": serialized})
    rows = zip(outputs["classes"], outputs["scores"], strict=True)
    return {"results": [list(zip(*row, strict=True)) for row in rows]}


def _signature_name(model: SavedModel, body: Mapping[str, Any]) -> str:
    name = body.get("signature_name", "")
    if name == "":
        name = "serving_default"
    if not isinstance(name, str) or name not in model.module.signatures:
        known = ", ".join(sorted(model.module.signatures))
        raise ValueError(f"signature_name: received {name!r}, expected one of {known}")
    return name


def _columns_of_rows(rows: Any, names: Sequence[str]) -> dict[str, list[Any]]:
    """The values of each input; rows are objects, or values alone where there is one input."""
    if not isinstance(rows, list) or not rows:
        raise ValueError("instances: expected a list with a row for each document")
    if len(names) == 1 and not _is_object(rows[0]):
        return {names[0]: rows}
    for i, row in enumerate(rows):
        if not isinstance(row, dict) or row.keys() != set(names):
            raise ValueError(f"instances: row {i}: expected an object with {', '.join(names)}")
    return {name: [row[name] for row in rows] for name in names}


def _checked_columns(columns: Any, names: Sequence[str]) -> dict[str, list[Any]]:
    if len(names) == 1 and not _is_object(columns):
        columns = {names[0]: columns}
    if not isinstance(columns, dict) or not columns.keys() >= set(names):
        raise ValueError(f"inputs: expected an object with {', '.join(names)}")
    if not all(isinstance(columns[name], list) for name in names):
        raise ValueError("inputs: expected a list with a string for each document")
    if len({len(columns[name]) for name in names}) > 1:
        raise ValueError("inputs: received lists of different lengths")
    return {name: columns[name] for name in names}


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() != {"b64"}


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str):
        return base64.b64decode(value["b64"], validate=True)
    raise ValueError(f"received {json.dumps(value)[:80]}, expected a string or {{'b64': string}}")


def _example(features: Mapping[str, Any]) -> bytes:
    """A serialized tf.train.Example of features that are values or lists of values."""
    example = tf.train.Example()
    for name, value in features.items():
        values = value if isinstance(value, list) else [value]
        feature = example.features.feature[name]
        if values and all(isinstance(each, int) for each in values):  # a bool is an int
            feature.int64_list.value.extend(map(int, values))
        elif values and all(isinstance(each, float) for each in values):
            feature.float_list.value.extend(values)
        else:
            feature.bytes_list.value.extend(map(_bytes, values))
    return example.SerializeToString()


def run(
    model: SavedModel, signature: str, columns: Mapping[str, Sequence[bytes]]
) -> dict[str, list[Any]]:
    """What the signature answers: output name -> a value, or a list of values, per document."""
    num_documents = len(next(iter(columns.values())))
    if num_documents > MAX_DOCUMENTS:
        raise ValueError(f"received {num_documents:,} documents, expected at most {MAX_DOCUMENTS}")
    texts = {
        name: tf.constant(values, tf.string, shape=[len(values)])
        for name, values in columns.items()
    }
    outputs = model.module.signatures[signature](**texts)
    return {name: _plain(values.numpy()) for name, values in outputs.items()}


def _plain(values: np.ndarray) -> list[Any]:
    if values.dtype == object:
        return np.vectorize(bytes.decode, otypes=[object])(values).tolist()
    return values.tolist()
