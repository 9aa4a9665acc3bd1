"""The peers: each fits a train split and scores texts.

Their packages are imported where they are used, in a process of their own.
"""

import os
import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from peers.exchange import MAX_SCORED_LABELS, Split, texts_of

# stage("train"): what runs within it is counted as that stage's time.
Stage = Callable[[str], AbstractContextManager[None]]
_MAX_WEIGHTS = 500_000_000  # labels x features of a dense linear model: 2 GB in float32


class System(ABC):
    """A system to be measured.

    Args:
      directory: an empty directory for its files.
      seed: of what is random in it.
      options: what tells it from others of its class.
    """

    def __init__(self, directory: Path, *, seed: int, **options: Any):
        self.directory, self.seed, self.options = directory, seed, options
        self.model_dir = directory / "model"  # whose files count as the model's size
        self.model_dir.mkdir()

    @abstractmethod
    def fit(self, train: Split, validation: Split, stage: Stage) -> None:
        """Trains the model. It may choose settings on validation documents."""

    @abstractmethod
    def scores(self, rows: Sequence[str]) -> np.ndarray | scipy.sparse.csr_matrix:
        """Rows of `Split` -> scores in [0, 1], [documents, labels]."""

    def save(self) -> None:  # noqa: B027
        """Writes what serving needs to `model_dir`, where `fit` has not."""


class Linear(System):
    """scikit-learn's one-vs-rest linear models over TF-IDF.

    Options: loss, "squared_hinge" (LinearSVC) or "logistic"; ngrams, the longest; c, the inverse
    of the regularization.
    """

    def fit(self, train, validation, stage):
        from concurrent.futures import ThreadPoolExecutor

        from sklearn.linear_model import LogisticRegression
        from sklearn.svm import LinearSVC

        num_labels, columns = train.labels.shape[1], train.labels.tocsc()
        with stage("features"):
            self._features = _tfidf(self.options["ngrams"], max_features=_MAX_WEIGHTS // num_labels)
            features = self._features.fit_transform(train.texts)
        weights = np.zeros((num_labels, features.shape[1]), np.float32)
        self._bias = np.full(num_labels, -10, np.float32)  # of a label on no train document

        def fit_label(label):
            settings = {"C": self.options["c"], "random_state": self.seed}
            if self.options["loss"] == "logistic":
                # The dual finds the same weights, eight times as fast on SemEval 2018.
                model = LogisticRegression(solver="liblinear", dual=True, **settings)
            else:
                model = LinearSVC(**settings)
            positive = columns[:, [label]].toarray()[:, 0] > 0
            if positive.all():
                self._bias[label] = 10
            elif positive.any():
                model.fit(features, positive)
                weights[label], self._bias[label] = model.coef_[0], model.intercept_[0]

        with stage("train"):
            with ThreadPoolExecutor(os.cpu_count()) as pool:  # liblinear releases the GIL
                list(pool.map(fit_label, range(num_labels)))
            self._weights = np.ascontiguousarray(weights.T)

    def scores(self, rows):
        # A hinge's margins are not log-odds, but a sigmoid changes no order: thresholds are tuned.
        margins = self._features.transform(texts_of(rows)) @ self._weights + self._bias
        return 1 / (1 + np.exp(-margins, dtype=np.float32))

    def save(self):
        with open(self.model_dir / "model.pickle", "wb") as stream:
            pickle.dump((self._features, self._weights, self._bias), stream, protocol=5)


class Pecos(System):
    """PECOS XR-Linear over TF-IDF of 1-2-grams, both with PECOS's own defaults."""

    def fit(self, train, validation, stage):
        from pecos.utils.featurization.text.preprocess import Preprocessor
        from pecos.xmc import Indexer, LabelEmbeddingFactory
        from pecos.xmc.xlinear.model import XLinearModel

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
            # As it is served.
            self._model = XLinearModel.load(str(self.model_dir / "ranker"), is_predict_only=True)

    def scores(self, rows):
        features = self._features.predict(texts_of(rows))
        return self._model.predict(features, only_topk=MAX_SCORED_LABELS)


class NapkinXC(System):
    """napkinXC's probabilistic label tree with its defaults, over TF-IDF of scikit-learn."""

    def fit(self, train, validation, stage):
        from napkinxc.models import PLT

        self._num_labels = train.labels.shape[1]
        with stage("features"):
            self._features = _tfidf(self.options["ngrams"], dtype=np.float32)
            features = self._features.fit_transform(train.texts)
        with stage("train"):
            self._model = PLT(
                str(self.model_dir / "tree"), seed=self.seed, threads=os.cpu_count(), verbose=False
            )
            self._model.fit(features, [ids.tolist() for ids in train.label_ids])

    def scores(self, rows):
        features = self._features.transform(texts_of(rows))
        best = self._model.predict_proba(features, top_k=min(MAX_SCORED_LABELS, self._num_labels))
        return _sparse(
            (zip(*pairs, strict=True) if pairs else ((), ()) for pairs in best), self._num_labels
        )

    def save(self):
        with open(self.model_dir / "features.pickle", "wb") as stream:
            pickle.dump(self._features, stream, protocol=5)


class FastText(System):
    """fastText with one-vs-all loss.

    Options: those of its `train_supervised`; or autotune_seconds, the time in which its own search
    may choose them on validation.
    """

    def fit(self, train, validation, stage):
        import fasttext

        self._num_labels = train.labels.shape[1]
        files = {name: str(self.directory / f"{name}.txt") for name in ("train", "validation")}
        with stage("features"):
            for name, split in (("train", train), ("validation", validation)):
                with open(files[name], "w", encoding="utf-8") as stream:
                    for text, ids in zip(split.texts, split.label_ids, strict=True):
                        labels = [f"__label__{i}" for i in ids]
                        words = [word for word in text.split() if not word.startswith("__label__")]
                        stream.write(" ".join([*labels, *words]) + "\n")
        options = dict(self.options)
        if seconds := options.pop("autotune_seconds", None):
            options["autotuneValidationFile"] = files["validation"]
            options["autotuneDuration"] = seconds
            options["autotunePredictions"] = max(1, round(train.labels.sum(axis=1).mean()))
        with stage("train"):
            self._model = fasttext.train_supervised(
                files["train"], loss="ova", verbose=0, seed=self.seed, **options
            )

    def scores(self, rows):
        found = zip(*self._model.predict(texts_of(rows), k=-1), strict=True)  # -1: all labels
        # A score may exceed 1 by rounding.
        return _sparse(
            (
                ([int(name.removeprefix("__label__")) for name in names], np.minimum(scores, 1))
                for names, scores in found
            ),
            self._num_labels,
        )

    def save(self):
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
        lengths = [text.count(" ") + 1 for text in train.texts]
        vectorizer = keras.layers.TextVectorization(
            self.max_tokens,
            standardize=None,
            split="whitespace",
            output_sequence_length=min(self.max_length, int(np.quantile(lengths, 0.95))),
        )

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

        with stage("features"):
            vectorizer.adapt(tf.data.Dataset.from_tensor_slices(train.texts).batch(1024))
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
            options = {"epochs": self.max_epochs, "callbacks": [stop], "verbose": 0}
            model.fit(data[0], validation_data=data[1], **options)
        self._model = keras.Sequential([keras.Input((), dtype="string"), vectorizer, model])
        self._score = tf.function(self._model, input_signature=[tf.TensorSpec([None], tf.string)])

    def scores(self, rows):
        import tensorflow as tf

        return self._score(tf.constant(texts_of(rows))).numpy()

    def save(self):
        self._model.save(self.model_dir / "model.keras")


def _tfidf(ngrams: int, **options: Any):
    """TF-IDF of 1- to n-grams: sublinear, L2-normalized; with n > 1 a term needs two documents."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(
        tokenizer=str.split,
        token_pattern=None,
        lowercase=False,
        sublinear_tf=True,
        ngram_range=(1, ngrams),
        min_df=1 if ngrams == 1 else 2,
        **options,
    )


def _sparse(rows: Iterable[Any], num_labels: int) -> scipy.sparse.csr_matrix:
    """Label ids and scores of each document -> float32 [documents, labels]."""
    ids, scores = zip(*rows, strict=True)
    ids = [np.asarray(of, np.int64) for of in ids]
    starts = np.cumsum([0, *map(len, ids)])
    values = np.concatenate([np.asarray(of, np.float32) for of in scores])
    return scipy.sparse.csr_matrix(
        (values, np.concatenate(ids), starts), shape=(len(ids), num_labels)
    )


class Peer(NamedTuple):
    """A system that is not ours; package: what it needs of the peers' own environment."""

    title: str
    system: type[System]
    options: dict[str, Any]
    package: str | None = None


_SVC = {"loss": "squared_hinge", "c": 1.0}
_LOGISTIC = {"loss": "logistic", "c": 10.0}
_FASTTEXT = {"lr": 0.5, "epoch": 25, "wordNgrams": 2, "dim": 100}
PEERS = {
    "svc": Peer("scikit-learn LinearSVC, 1-grams", Linear, _SVC | {"ngrams": 1}),
    "svc2": Peer("scikit-learn LinearSVC, 1-2-grams", Linear, _SVC | {"ngrams": 2}),
    "logistic": Peer("scikit-learn logistic, 1-grams", Linear, _LOGISTIC | {"ngrams": 1}),
    "logistic2": Peer("scikit-learn logistic, 1-2-grams", Linear, _LOGISTIC | {"ngrams": 2}),
    "pecos": Peer("PECOS XR-Linear, its defaults, 1-2-grams", Pecos, {}, "libpecos"),
    "napkinxc": Peer("napkinXC PLT, its defaults, 1-grams", NapkinXC, {"ngrams": 1}, "napkinxc"),
    "fasttext": Peer("fastText ova, 25 epochs, bigrams", FastText, _FASTTEXT, "fasttext"),
    "fasttext_autotune": Peer("fastText ova, autotune", FastText, {}, "fasttext"),
    "keras": Peer("Keras Embedding, pooling, Dense, fit", KerasTutorial, {}),
}
