"""`multihot.MultihotClassifier`: texts and labels in memory, in the form of scikit-learn."""

import io
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from beam_jobs.contract.errors import UserError, shown
from beam_jobs.contract.validation import canonical_label
from multihot import tables
from multihot.model import Model
from multihot.preprocessing import preprocess
from multihot.run import train
from multihot.settings import Settings

_TEXT, _LABELS = "text", "labels"  # columns of the table that is preprocessed


class MultihotClassifier(ClassifierMixin, BaseEstimator):
    """All stages as one estimator, for GridSearchCV, cross_val_score and pipelines.

    X is a list, array or Series of texts, or a DataFrame whose columns of strings become one text.
    y is an indicator matrix of 0 and 1, dense, sparse or a DataFrame, [documents, classes]; or one
    label a document, of which `predict` then gives the best.

    `fit` works in a directory of its own that it removes; the fitted model is in memory, and is
    pickled with the estimator.

    Args:
      settings: keys of the config, by section or dotted, see `multihot.train`. Each can also be a
        parameter, with two underscores for the dot: `set_params(model__embedding_dim=64)`, or
        `{"model__embedding_dim": [64, 256]}` in a grid.
      validation_fraction: of the documents, held out of training; they decide thresholds and the
        best epoch.
      verbose: print what is done.

    Attributes:
      classes_: 0 to classes - 1, or the names of the columns of a DataFrame; the distinct labels
        where each document has one.
      model_: the `multihot.Model`.
      n_documents_: documents that were trained or validated on, duplicates merged.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        validation_fraction: float = 0.15,
        verbose: bool = False,
    ):
        self.settings = settings
        self.validation_fraction = validation_fraction
        self.verbose = verbose

    # --- parameters ----------------------------------------------------------------------

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters; with `deep`, each of the settings too, as `section__key`."""
        params = super().get_params(deep=False)
        return params | (self._flat_settings() if deep else {})

    def set_params(self, **params: Any) -> "MultihotClassifier":
        """Sets parameters, or keys of the config as `section__key`."""
        keys = {name: value for name, value in params.items() if "__" in name}
        super().set_params(**{name: params[name] for name in params.keys() - keys.keys()})
        if keys:
            settings = self._flat_settings() | keys
            self.settings = {name.replace("__", "."): value for name, value in settings.items()}
        return self

    def _flat_settings(self) -> dict[str, Any]:
        flat = {}
        for name, value in (self.settings or {}).items():
            values = value.items() if isinstance(value, dict) else [(None, value)]
            for key, inner in values:
                flat[(name if key is None else f"{name}.{key}").replace(".", "__")] = inner
        return flat

    # --- fit -----------------------------------------------------------------------------

    def fit(self, X: Any, y: Any) -> "MultihotClassifier":
        """Preprocesses, trains, tunes thresholds and exports.

        Raises:
          UserError: X or y is of no form that is known, or a setting is wrong.
        """
        texts, indicator = _texts(X), self._indicator(y)
        if len(texts) != indicator.shape[0]:
            raise UserError(
                f"received {len(texts):,} texts and {indicator.shape[0]:,} rows of y, expected as "
                "many"
            )
        names = _label_names(self.classes_)
        labels = [[names[i] for i in row.indices] for row in indicator]
        table = pa.table({_TEXT: texts, _LABELS: pa.array(labels, pa.list_(pa.string()))})
        held_out = self.validation_fraction
        splits = {"method": "hash", "train": 1 - held_out, "validation": held_out, "test": 0}
        with tempfile.TemporaryDirectory(prefix="multihot-") as folder:
            dataset = preprocess(
                table,
                text=_TEXT,
                labels=_LABELS,
                output_dir=folder,
                verbose=self.verbose,
                # Not even a text without a token stops a grid search.
                settings={"splits": splits, "data.max_reject_fraction": 1.0}
                | dict(self.settings or {}),
            )
            run = train(dataset, verbose=self.verbose)
            if dataset.splits["validation"]:
                run.tune(verbose=self.verbose)
            self.model_ = run.export(verbose=self.verbose)
            self._archive = _pack(self.model_.path)
        self.n_documents_ = sum(dataset.splits.values())
        self._column_of = {name: column for column, name in enumerate(names)}
        return self

    def _indicator(self, y: Any) -> sparse.csr_array:
        """y as 0 and 1, [documents, classes]; sets what is known of the classes."""
        self._has_one_label = False
        if hasattr(y, "columns"):
            self.classes_ = np.array(list(y.columns))
        values = y if sparse.issparse(y) else _array_of_target(y)
        if values.ndim == 1:
            self._has_one_label = True
            self.classes_, ids = np.unique(values, return_inverse=True)
            rows = np.arange(len(ids))
            return sparse.csr_array(
                (np.ones(len(ids)), (rows, ids)), shape=(len(ids), len(self.classes_))
            )
        matrix = sparse.csr_array(values)
        matrix.eliminate_zeros()
        if not np.isin(matrix.data, [1]).all():
            raise UserError(
                f"y: received the value {matrix.data[matrix.data != 1][0]}, expected 0 and 1 for "
                "each class, or one label a document"
            )
        if not hasattr(y, "columns"):
            self.classes_ = np.arange(matrix.shape[1])
        return matrix

    # --- predict -------------------------------------------------------------------------

    def predict(self, X: Any) -> np.ndarray:
        """int [documents, classes] of 0 and 1; or the best label of each document."""
        check_is_fitted(self, "model_")
        if self._has_one_label:
            return self.classes_[np.argmax(self.predict_proba(X), axis=1)]
        predicted = np.zeros((len(texts := _texts(X)), len(self.classes_)), np.int64)
        for row, names in zip(predicted, self.model_.predict(texts), strict=True):
            row[[self._column_of[name] for name in names]] = 1
        return predicted

    def predict_proba(self, X: Any) -> np.ndarray:
        """float64 [documents, classes]: probabilities; rows of single labels sum to 1.

        A class without a document in training has 0.
        """
        check_is_fitted(self, "model_")
        scores = self.model_.scores(_texts(X))
        columns = [self._column_of[name] for name in self.model_.label_names]
        probabilities = np.zeros((len(scores), len(self.classes_)))
        probabilities[:, columns] = scores
        if self._has_one_label:
            probabilities /= probabilities.sum(axis=1, keepdims=True)
        return probabilities

    # --- what scikit-learn and pickle ask ------------------------------------------------

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.classifier_tags.multi_label = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        state.pop("model_", None)  # its files are in the archive
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if hasattr(self, "_archive"):
            with tempfile.TemporaryDirectory(prefix="multihot-") as folder:
                with zipfile.ZipFile(io.BytesIO(self._archive)) as archive:
                    archive.extractall(folder)
                self.model_ = Model(folder)


def _texts(values: Any) -> list[str]:
    """X as a text for each document."""
    if tables.is_table(values):
        table = tables.to_arrow(values)
        names = [field.name for field in table.schema if _is_string(field.type)]
        if not names:
            raise UserError(
                f"X: received the columns {', '.join(table.column_names)}, expected one or more "
                "of strings"
            )
        rows = table.select(names).to_pydict().values()
        return ["\n\n".join(text or "" for text in texts) for texts in zip(*rows, strict=True)]
    if isinstance(values, str | bytes):
        raise UserError(f"X: received {shown(values)}, expected a list of texts")
    rows = [row for row in values]
    texts = ["\n\n".join(row) if _is_row(row) else row for row in rows]
    if wrong := [text for text in texts if not isinstance(text, str)]:
        raise UserError(f"X: received {shown(wrong[0])}, expected texts, or rows of texts")
    return texts


def _is_row(value: Any) -> bool:
    return isinstance(value, list | tuple | np.ndarray) and all(
        isinstance(text, str) for text in value
    )


def _is_string(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _array_of_target(y: Any) -> np.ndarray:
    try:
        values = np.asarray(y)
    except ValueError:  # rows of different lengths
        values = np.empty(0, object)
    is_numeric = values.dtype.kind in "biuf"
    if values.ndim not in (1, 2) or not values.size or (values.ndim == 2 and not is_numeric):
        raise UserError(
            "y: received neither a matrix of 0 and 1 nor one label a document; of lists of labels "
            "sklearn.preprocessing.MultiLabelBinarizer makes such a matrix"
        )
    return values


def _label_names(classes: np.ndarray) -> list[str]:
    """The names of the classes as labels, or their numbers where these would not be distinct."""
    names = [canonical_label(str(name)) for name in classes]
    is_plain = len(set(names)) == len(names) and all(name.isprintable() and name for name in names)
    return names if is_plain else [str(i) for i in range(len(names))]


def _pack(folder: Path) -> bytes:
    """The files of a folder as a ZIP archive."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return content.getvalue()
