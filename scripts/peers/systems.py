"""The peers: each fits a train split and scores texts.

Their packages are imported where they are used, in a process of their own.
"""

import os
import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from peers.exchange import Split

# stage("train"): what runs within it is counted as that stage's time.
Stage = Callable[[str], AbstractContextManager[None]]
_MAX_WEIGHTS = 500_000_000  # labels x features of a dense linear model: 2 GB in float32


class System:
    """A system to be measured.

    Args:
      directory: an empty directory for its files.
      seed: of what is random in it.
      options: what tells it from others of its class.
    """

    def __init__(self, directory: Path, *, seed: int, **options: Any):
        self.directory, self.seed, self.options = directory, seed, options
        self.model_dir = directory / "model"  # whose files count as the model's size

    def fit(self, train: Split, validation: Split, stage: Stage) -> None:
        """Trains the model. It may choose settings on validation documents."""
        raise NotImplementedError

    def scores(self, rows: Sequence[str]) -> np.ndarray | scipy.sparse.csr_matrix:
        """Rows of `Split` -> scores in [0, 1], [documents, labels]."""
        raise NotImplementedError

    def save(self) -> None:
        """Writes what serving needs to `model_dir`."""
        raise NotImplementedError


class Linear(System):
    """scikit-learn's one-vs-rest linear models over TF-IDF (sublinear, L2-normalized).

    Options: loss, "squared_hinge" (LinearSVC) or "logistic"; ngrams, the longest; c, the inverse
    of the regularization.
    """

    def fit(self, train, validation, stage):
        import sklearn.feature_extraction.text as text

        with stage("features"):
            self._features = text.TfidfVectorizer(
                tokenizer=str.split,
                token_pattern=None,
                lowercase=False,
                sublinear_tf=True,
                ngram_range=(1, self.options["ngrams"]),
                min_df=self.options["ngrams"],  # a bigram of one document helps no other
                max_features=_MAX_WEIGHTS // train.labels.shape[1],
            )
            features = self._features.fit_transform(train.texts)
        with stage("train"):
            num_labels, columns = train.labels.shape[1], train.labels.tocsc()
            self._weights = np.zeros((num_labels, features.shape[1]), np.float32)
            self._bias = np.full(num_labels, -10, np.float32)  # of a label on no train document

            def fit_label(label):
                positive = columns[:, [label]].toarray()[:, 0] > 0
                if positive.all():
                    self._bias[label] = 10
                elif positive.any():
                    model = self._model().fit(features, positive)
                    self._weights[label], self._bias[label] = model.coef_[0], model.intercept_[0]

            with ThreadPoolExecutor(os.cpu_count()) as pool:  # liblinear releases the GIL
                list(pool.map(fit_label, range(num_labels)))
            self._weights = np.ascontiguousarray(self._weights.T)

    def _model(self):
        from sklearn.linear_model import LogisticRegression
        from sklearn.svm import LinearSVC

        if self.options["loss"] == "logistic":
            # The dual finds the same weights as the primal, eight times as fast on SemEval 2018.
            return LogisticRegression(
                C=self.options["c"], solver="liblinear", dual=True, random_state=self.seed
            )
        return LinearSVC(C=self.options["c"], random_state=self.seed)

    def scores(self, rows):
        features = self._features.transform([row.replace("\t", " ") for row in rows])
        # Margins of a hinge are not log-odds, but the sigmoid changes no order, and
        # thresholds are tuned.
        return 1 / (1 + np.exp(-(features @ self._weights + self._bias), dtype=np.float32))

    def save(self):
        self.model_dir.mkdir()
        with open(self.model_dir / "model.pickle", "wb") as stream:
            pickle.dump((self._features, self._weights, self._bias), stream, protocol=5)


class _SparsePeer(System):
    """A peer that takes and gives sparse matrices."""

    def _sparse(self, ids: Sequence[int], scores: Sequence[float], lengths: Sequence[int]):
        starts = np.concatenate([[0], np.cumsum(lengths)])
        return scipy.sparse.csr_matrix(
            (np.asarray(scores, np.float32), np.asarray(ids, np.int64), starts),
            shape=(len(lengths), self._num_labels),
        )


class Pecos(_SparsePeer):
    """PECOS XR-Linear over TF-IDF of 1-2-grams, both with PECOS's own defaults."""

    def fit(self, train, validation, stage):
        from pecos.utils.featurization.text.preprocess import Preprocessor
        from pecos.xmc import Indexer, LabelEmbeddingFactory
        from pecos.xmc.xlinear.model import XLinearModel

        self._num_labels = train.labels.shape[1]
        words = {"ngram_range": [1, 2], "max_df_ratio": 0.98, "analyzer": "word"}
        tfidf = {"type": "tfidf", "kwargs": {"base_vect_configs": [words]}}
        with stage("features"):
            self._features = Preprocessor.train(train.texts, tfidf, dtype=np.float32)
            features = self._features.predict(train.texts)
        with stage("train"):
            embeddings = LabelEmbeddingFactory.create(train.labels, features, method="pifa")
            tree = Indexer.gen(embeddings, indexer_type="hierarchicalkmeans", seed=self.seed)
            XLinearModel.train(features, train.labels, C=tree).save(str(self.model_dir / "ranker"))
            self._features.save(str(self.model_dir / "features"))
            self._model = XLinearModel.load(
                str(self.model_dir / "ranker"), is_predict_only=True
            )  # as it is served

    def scores(self, rows):
        features = self._features.predict([row.replace("\t", " ") for row in rows])
        return self._model.predict(features, only_topk=min(500, self._num_labels))

    def save(self):
        pass


class NapkinXC(_SparsePeer):
    """napkinXC's probabilistic label tree with its defaults, over the TF-IDF of `Linear`."""

    def fit(self, train, validation, stage):
        from napkinxc.models import PLT
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._num_labels = train.labels.shape[1]
        with stage("features"):
            self._features = TfidfVectorizer(
                tokenizer=str.split,
                token_pattern=None,
                lowercase=False,
                sublinear_tf=True,
                ngram_range=(1, self.options["ngrams"]),
                min_df=self.options["ngrams"],
                dtype=np.float32,
            )
            features = self._features.fit_transform(train.texts)
        with stage("train"):
            self._model = PLT(
                str(self.model_dir / "tree"), seed=self.seed, threads=os.cpu_count(), verbose=False
            )
            self._model.fit(features, [ids.tolist() for ids in train.label_ids])

    def scores(self, rows):
        features = self._features.transform([row.replace("\t", " ") for row in rows])
        # A document without a known feature has an empty row, which napkinXC refuses.
        known = np.flatnonzero(np.diff(features.indptr))
        found: list[Any] = [[]] * len(rows)
        if len(known):
            top = min(500, self._num_labels)
            best = self._model.predict_proba(features[known], top_k=top)
            for row, labels in zip(known, best, strict=True):
                found[row] = labels
        pairs = [pair for labels in found for pair in labels]
        ids, scores = zip(*pairs, strict=True) if pairs else ((), ())
        return self._sparse(ids, scores, [len(labels) for labels in found])

    def save(self):
        with open(self.model_dir / "features.pickle", "wb") as stream:
            pickle.dump(self._features, stream, protocol=5)


class FastText(_SparsePeer):
    """fastText with one-vs-all loss.

    Options: autotune_seconds, the time in which its own search may tune all settings on validation;
    None: `settings` are used.
    """

    settings = {"lr": 0.5, "epoch": 25, "wordNgrams": 2, "dim": 100, "minCount": 1}

    def fit(self, train, validation, stage):
        import fasttext

        self._num_labels = train.labels.shape[1]
        with stage("features"):
            files = {"train": train, "validation": validation}
            for name, split in files.items():
                with open(self.directory / name, "w", encoding="utf-8") as stream:
                    for text, ids in zip(split.texts, split.label_ids, strict=True):
                        stream.write(" ".join([*(f"__label__{i}" for i in ids), text]) + "\n")
        options: dict[str, Any] = self.settings
        if seconds := self.options["autotune_seconds"]:
            options = {
                "autotuneValidationFile": str(self.directory / "validation"),
                "autotuneDuration": seconds,
                "autotuneMetric": "f1",
                "autotunePredictions": max(1, round(train.labels.nnz / train.labels.shape[0])),
            }
        with stage("train"):
            self._model = fasttext.train_supervised(
                str(self.directory / "train"), loss="ova", verbose=0, seed=self.seed, **options
            )

    def scores(self, rows):
        # k=-1: all labels; its scores may exceed 1 by a rounding.
        names, scores = self._model.predict([row.replace("\t", " ") for row in rows], k=-1)
        ids = [int(name.removeprefix("__label__")) for row in names for name in row]
        values = np.minimum(np.concatenate(scores), 1) if ids else []
        return self._sparse(ids, values, [len(row) for row in names])

    def save(self):
        self.model_dir.mkdir()
        self._model.save_model(str(self.model_dir / "model.bin"))


class KerasTutorial(System):
    """The tutorials' model: Embedding, pooling, Dense, binary cross-entropy, Adam, `Model.fit`.

    It stops when the loss on validation has not fallen for two epochs and keeps the best weights.
    """

    max_tokens, dim, batch_size, max_epochs, max_length = 50_000, 128, 128, 20, 512

    def fit(self, train, validation, stage):
        import keras
        import tensorflow as tf

        from trainer.data.labels import multi_hot

        keras.utils.set_random_seed(self.seed)
        num_labels = train.labels.shape[1]
        with stage("features"):
            lengths = [text.count(" ") + 1 for text in train.texts]
            vectorizer = keras.layers.TextVectorization(
                self.max_tokens,
                standardize=None,
                split="whitespace",
                output_sequence_length=min(self.max_length, int(np.quantile(lengths, 0.95))),
            )
            vectorizer.adapt(tf.data.Dataset.from_tensor_slices(train.texts).batch(1024))

            def batches(split, *, shuffle):
                texts = tf.data.Dataset.from_tensor_slices(split.texts).batch(1024)
                ids = np.concatenate(list(texts.map(vectorizer).as_numpy_iterator()))
                labels = tf.RaggedTensor.from_row_splits(split.labels.indices, split.labels.indptr)
                data = tf.data.Dataset.from_tensor_slices((ids, labels))
                if shuffle:
                    data = data.shuffle(len(ids), seed=self.seed)
                return data.ragged_batch(self.batch_size).map(
                    lambda ids, labels: (ids, multi_hot(labels, num_labels))
                )

            data = batches(train, shuffle=True), batches(validation, shuffle=False)
        with stage("train"):
            layers = [
                keras.layers.Embedding(vectorizer.vocabulary_size(), self.dim, mask_zero=True),
                keras.layers.GlobalAveragePooling1D(),
                keras.layers.Dense(num_labels, activation="sigmoid"),
            ]
            model = keras.Sequential(layers)
            model.compile("adam", "binary_crossentropy")
            stop = keras.callbacks.EarlyStopping(patience=2, restore_best_weights=True)
            model.fit(
                data[0],
                validation_data=data[1],
                epochs=self.max_epochs,
                callbacks=[stop],
                verbose=0,
            )
        self._model = keras.Sequential([keras.Input((), dtype="string"), vectorizer, model])
        self._score = tf.function(self._model, input_signature=[tf.TensorSpec([None], tf.string)])

    def scores(self, rows):
        import tensorflow as tf

        return self._score(tf.constant([row.replace("\t", " ") for row in rows])).numpy()

    def save(self):
        self.model_dir.mkdir()
        self._model.save(self.model_dir / "model.keras")


# By name: class, options, the package of the peers' own environment that it needs, and what it is.
PEERS: dict[str, tuple[type[System], dict[str, Any], str | None, str]] = {
    "svc": (
        Linear,
        {"loss": "squared_hinge", "ngrams": 1, "c": 1.0},
        None,
        "scikit-learn LinearSVC, 1-grams",
    ),
    "svc2": (
        Linear,
        {"loss": "squared_hinge", "ngrams": 2, "c": 1.0},
        None,
        "scikit-learn LinearSVC, 1-2-grams",
    ),
    "logistic": (
        Linear,
        {"loss": "logistic", "ngrams": 1, "c": 10.0},
        None,
        "scikit-learn LogisticRegression, 1-grams",
    ),
    "logistic2": (
        Linear,
        {"loss": "logistic", "ngrams": 2, "c": 10.0},
        None,
        "scikit-learn LogisticRegression, 1-2-grams",
    ),
    "pecos": (Pecos, {}, "libpecos", "PECOS XR-Linear, its defaults, 1-2-grams"),
    "napkinxc": (NapkinXC, {"ngrams": 1}, "napkinxc", "napkinXC PLT, its defaults, 1-grams"),
    "fasttext": (
        FastText,
        {"autotune_seconds": None},
        "fasttext",
        "fastText ova, lr 0.5, 25 epochs, bigrams",
    ),
    "fasttext_autotune": (FastText, {}, "fasttext", "fastText ova, autotune"),
    "keras": (KerasTutorial, {}, None, "Keras Embedding, pooling, Dense, Model.fit"),
}
