"""The record: one example of the dataset. One spec drives both encoding and batched parsing."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class Feature:
    """One feature of a record.

    Attributes:
      name: its key in the tf.train.Example.
      dtype: "bytes", "int64" or "float": the tf.train.Feature list it stands in.
      ragged: a list of any length; otherwise exactly one value.
      default: the value of a record without the feature; None: the feature is required.
      doc: what it holds.
    """

    name: str
    dtype: Literal["bytes", "int64", "float"]
    ragged: bool
    default: Any
    doc: str


FEATURES = (
    Feature("id", "bytes", ragged=False, default=None, doc="the document's id"),
    Feature("labels", "int64", ragged=True, default=None, doc="sorted label ids; empty is legal"),
    Feature("text", "bytes", ragged=False, default=None, doc="analyzed text: tokens joined by one space"),
    Feature("weight", "float", ragged=False, default=1.0, doc="the document's weight in the loss"),
)
_BY_NAME = {feature.name: feature for feature in FEATURES}


def encode(values: dict[str, Any]) -> bytes:
    """Serializes one record; equal values give equal bytes in every process.

    Args:
      values: by feature name: bytes, an int, a float, or a sequence of them where the feature
        is ragged. A feature with a default may be left out and is then not written.

    Raises:
      ValueError: a feature is unknown or missing.
    """
    from tensorflow.core.example import example_pb2

    unknown = values.keys() - _BY_NAME.keys()
    missing = {f.name for f in FEATURES if f.default is None} - values.keys()
    if unknown or missing:
        raise ValueError(f"received the features {sorted(values)}, expected {sorted(_BY_NAME)}")
    example = example_pb2.Example()
    for name, value in values.items():
        feature = _BY_NAME[name]
        target = getattr(example.features.feature[name], f"{feature.dtype}_list").value
        target.extend(value if feature.ragged else [value])
    # A protobuf map has no order of its own, and without this it differs between processes.
    return example.SerializeToString(deterministic=True)


def parsing_spec(names: Sequence[str]) -> dict[str, Any]:
    """The tf.io parsing spec of the named features."""
    import tensorflow as tf

    dtypes = {"bytes": tf.string, "int64": tf.int64, "float": tf.float32}
    spec = {}
    for feature in (_BY_NAME[name] for name in names):
        dtype = dtypes[feature.dtype]
        if feature.ragged:
            spec[feature.name] = tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int64)
        else:
            spec[feature.name] = tf.io.FixedLenFeature([], dtype, default_value=feature.default)
    return spec


def parse_batch(serialized: Any, names: Sequence[str] = tuple(_BY_NAME)) -> dict[str, Any]:
    """Parses a batch of records in the graph.

    Args:
      serialized: string tensor [batch], records as `encode` writes them.
      names: the features wanted; the others are not decoded.

    Returns:
      By feature name: a tensor [batch], or for ragged features a tf.RaggedTensor [batch, None];
      strings for bytes, int64, float32.
    """
    import tensorflow as tf

    return tf.io.parse_example(serialized, parsing_spec(names))
