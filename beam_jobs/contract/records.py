"""The record: one example of the dataset. One spec drives both encoding and batched parsing."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

TEXT_FIELDS = ("text",)  # of documents with one text
VECTOR = "vector"  # the feature with what an encoder has made of a document's texts


@dataclasses.dataclass(frozen=True)
class Feature:
    """One feature of a record.

    Attributes:
      name: its key in the tf.train.Example.
      dtype: "bytes", "int64" or "float": the tf.train.Feature list that holds it.
      ragged: a list of any length; otherwise exactly one value.
      default: the value of a record without the feature; None: the feature is required.
      doc: what it holds.
    """

    name: str
    dtype: Literal["bytes", "int64", "float"]
    ragged: bool
    default: Any
    doc: str


class RecordSpec:
    """The features of a dataset's records.

    Args:
      text_fields: names of the documents' texts; of several, `title` is the feature `text/title`.
      metadata_fields: names of the documents' metadata; `section` is the feature
        `metadata/section`.
      with_vectors: whether each document has a vector, see `trainer.document_vectors`.

    Attributes:
      text_fields: as given.
      metadata_fields: as given.
      text_names: features with text, in the order of the fields.
      metadata_names: features with metadata, in the order of the fields.
      input_names: features that models read: the texts, or the vector.
      features: all features.
    """

    def __init__(
        self,
        text_fields: Sequence[str] = TEXT_FIELDS,
        metadata_fields: Sequence[str] = (),
        *,
        with_vectors: bool = False,
    ):
        self.text_fields, self.metadata_fields = tuple(text_fields), tuple(metadata_fields)
        self.text_names = (
            TEXT_FIELDS
            if self.text_fields == TEXT_FIELDS
            else tuple(f"text/{field}" for field in text_fields)
        )
        self.metadata_names = tuple(f"metadata/{field}" for field in metadata_fields)
        self.input_names = (VECTOR,) if with_vectors else self.text_names
        self.features = (
            Feature("id", "bytes", ragged=False, default=None, doc="the document's id"),
            Feature(
                "labels", "int64", ragged=True, default=None, doc="sorted label ids; empty is legal"
            ),
            *(
                Feature(name, "bytes", ragged=False, default=None, doc="metadata, UTF-8")
                for name in self.metadata_names
            ),
            *(
                Feature(
                    name,
                    "bytes",
                    ragged=False,
                    default=None,
                    doc="analyzed text: tokens joined by one space",
                )
                for name in self.text_names
            ),
            Feature(
                "weight",
                "float",
                ragged=False,
                default=1.0,
                doc="the document's weight in the loss",
            ),
            *(
                [Feature(VECTOR, "bytes", ragged=False, default=b"", doc="float32, little-endian")]
                if with_vectors
                else []
            ),
        )
        self._by_name = {feature.name: feature for feature in self.features}
        self._required = {feature.name for feature in self.features if feature.default is None}

    def encode(self, values: dict[str, Any]) -> bytes:
        """Serializes one record; equal values give equal bytes in every process.

        Args:
          values: by feature name: bytes, an int, a float, or a sequence of them where the feature
            is ragged. A feature with a default may be left out and is then not written.

        Raises:
          ValueError: a feature is unknown or missing.
        """
        from tensorflow.core.example import example_pb2

        if not self._required <= values.keys() <= self._by_name.keys():
            raise ValueError(
                f"received the features {sorted(values)}, expected {sorted(self._by_name)}"
            )
        example = example_pb2.Example()
        for name, value in values.items():
            feature = self._by_name[name]
            target = getattr(example.features.feature[name], f"{feature.dtype}_list").value
            target.extend(value if feature.ragged else [value])
        # A protobuf map has no order of its own, and without this it differs between processes.
        return example.SerializeToString(deterministic=True)

    def parsing_spec(self, names: Sequence[str]) -> dict[str, Any]:
        """The tf.io parsing spec of the named features."""
        import tensorflow as tf

        dtypes = {"bytes": tf.string, "int64": tf.int64, "float": tf.float32}
        spec = {}
        for feature in (self._by_name[name] for name in names):
            dtype = dtypes[feature.dtype]
            if feature.ragged:
                spec[feature.name] = tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int64)
            else:
                spec[feature.name] = tf.io.FixedLenFeature([], dtype, default_value=feature.default)
        return spec

    def parse_batch(self, serialized: Any, names: Sequence[str] | None = None) -> dict[str, Any]:
        """Parses a batch of records in the graph.

        Args:
          serialized: string tensor [batch], records as `encode` writes them.
          names: the features wanted, None: all; the others are not decoded.

        Returns:
          By feature name: a tensor [batch], or for ragged features a tf.RaggedTensor [batch, None];
          strings for bytes, int64, float32.
        """
        import tensorflow as tf

        return tf.io.parse_example(
            serialized, self.parsing_spec(list(self._by_name) if names is None else names)
        )
