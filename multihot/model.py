"""`multihot.load` and `multihot.Model`: an exported model that answers in Python's own types."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from beam_jobs.contract import places, saved_model
from beam_jobs.contract.config import CONFIG_FILE, Config, load_saved_config
from beam_jobs.contract.errors import UserError, shown
from multihot import tables
from multihot.calls import python_call

if TYPE_CHECKING:
    from trainer.serving.explain import Explanations

BATCH_DOCUMENTS = 256


def load(path: str | os.PathLike[str]) -> "Model":
    """Loads an exported model.

    Args:
      path: a version, or the directory of versions, whose newest is taken.

    Raises:
      UserError: there is no whole SavedModel of multihot.
    """
    return Model(path)


class Model:
    """An exported model.

    Where a method takes `documents`, these are a list, array or Series of texts; or a DataFrame or
    another table with the text columns that the model was trained on, or a list of mappings with
    these keys. They may be any number: they are scored in batches.

    Args:
      path: as of `multihot.load`.

    Attributes:
      path: the directory of the version.
      text_fields: names of the texts of a document.
      label_names: by label id.
    """

    def __init__(self, path: str | os.PathLike[str]):
        with python_call(verbose=True):
            self._model = saved_model.load(os.fspath(path))
        self.path = Path(places.local_directory(self._model.path))
        self.label_names = self._model.label_names()
        self._config = self._saved_config()
        self.text_fields = self._model.text_fields
        if self._joins:
            self.text_fields = self._config.data.text_fields

    @property
    def _joins(self) -> bool:
        """Whether the text is made of fields of other names."""
        return bool(self._config and getattr(self._config.data, "join_text_fields", False))

    def _saved_config(self) -> Config | None:
        """The experiment's config; None: another version of multihot has written it."""
        path = self.path / saved_model.EXTRA / CONFIG_FILE
        try:
            return load_saved_config(path, remedy="export again")
        except UserError:
            return None

    # --- answers -----------------------------------------------------------------------

    def predict(self, documents: Any) -> list[list[str]]:
        """The labels of each document: those that reach their thresholds, best first."""
        answers = []
        for columns in self._batches(documents):
            decided = self._model.module.signatures["decide"](**columns)
            names, counts = decided["labels"].numpy(), decided["counts"].numpy()
            answers += [
                [name.decode() for name in row[:count]]
                for row, count in zip(names, counts, strict=True)
            ]
        return answers

    def best(self, documents: Any, k: int = 5) -> list[list[tuple[str, float]]]:
        """The k labels with the best scores of each document, with these scores, best first."""
        answers = []
        for columns in self._batches(documents):
            scores = self._scores(columns)
            order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            answers += [
                [(self.label_names[i], float(row[i])) for i in ids]
                for row, ids in zip(scores, order, strict=True)
            ]
        return answers

    def scores(self, documents: Any) -> np.ndarray:
        """float32 [documents, labels]: probabilities, in the order of `label_names`."""
        parts = [self._scores(columns) for columns in self._batches(documents)]
        empty = np.zeros((0, len(self.label_names)), np.float32)
        return np.concatenate([empty, *parts])

    def explain(self, document: str | Mapping[str, str]) -> "Explanations":
        """Which words drove each label of one document; a notebook shows them coloured.

        Args:
          document: a text, or a mapping with the model's text fields.
        """
        with python_call(verbose=True):
            from trainer.serving.explain import explanations

            texts = self._document(document)
            is_one = len(texts) == 1
            text = next(iter(texts.values())) if is_one else json.dumps(texts)
            return explanations(self._model, text)

    def _scores(self, columns: Mapping[str, Any]) -> np.ndarray:
        return self._model.module.signatures["scores"](**columns)["scores"].numpy()

    # --- documents ---------------------------------------------------------------------

    def _batches(self, documents: Any) -> Iterator[dict[str, Any]]:
        """The raw texts of BATCH_DOCUMENTS documents at a time, as the signatures take them."""
        from trainer.serving.predict import raw_columns

        rows = self._rows(documents)
        for start in range(0, len(rows), BATCH_DOCUMENTS):
            batch = rows[start : start + BATCH_DOCUMENTS]
            yield raw_columns(self._model, [self._document(row) for row in batch])

    def _rows(self, documents: Any) -> Sequence[Any]:
        if isinstance(documents, str | bytes | Mapping):
            raise UserError(
                f"received {shown(documents)}, expected a list of documents; put one in a list"
            )
        if tables.is_table(documents):
            table = tables.to_arrow(documents)
            tables.check_columns(table, self.text_fields, "the table")
            return table.select(list(self.text_fields)).to_pylist()
        return list(documents)

    def _document(self, row: Any) -> dict[str, str]:
        """The texts of a row by the names that the signatures have."""
        fields = self.text_fields
        texts = [row] if isinstance(row, str) else None
        if isinstance(row, Mapping):
            texts = [row.get(field) for field in fields]
        if texts is None or not all(isinstance(text, str) for text in texts):
            wanted = " and ".join(fields)
            raise UserError(
                f"received the document {shown(row)}, expected a string, or a mapping with a "
                f"string for {wanted}"
            )
        if isinstance(row, Mapping) and self._joins:
            texts = list(self._config.data.texts(texts))
        if len(texts) != len(self._model.text_fields):
            raise UserError(
                f"received the document {shown(row)}; the model takes documents of several texts: "
                f"expected a mapping with a string for {' and '.join(fields)}"
            )
        return dict(zip(self._model.text_fields, texts, strict=True))

    def __repr__(self) -> str:
        return (
            f"<multihot.Model {self.path}: {len(self.label_names):,} labels of "
            f"{' and '.join(self.text_fields)}>"
        )
