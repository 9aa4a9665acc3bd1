"""The fit of a linear model: features and C are chosen, labels are fitted, margins calibrated."""

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import scipy.sparse

from beam_jobs.contract import manifest as manifests
from beam_jobs.contract.atomic import write_atomically
from beam_jobs.contract.manifest import dump_json
from beam_jobs.contract.progress import ProgressLine
from beam_jobs.contract.sections.linear_model import LinearConfig
from beam_jobs.contract.sections.train import OBJECTIVE_TITLES, Objective
from trainer.data.dataset import Dataset
from trainer.linear import margins
from trainer.linear.blocks import LabelFits
from trainer.linear.costs import Costs
from trainer.linear.documents import read_documents
from trainer.linear.features import Features, make_tables
from trainer.linear.solver import Problem
from trainer.models.inputs import ModelInputs, VocabularyStatistics
from trainer.models.linear import (
    FeatureTables,
    LinearClassifier,
    SparseWeights,
)

# What `auto` chooses from: first C, with words alone, which are cheap, from the middle in the
# direction that is better; then the features, both together only where each is better than words
# alone.
AUTO_C = (0.1, 0.25, 1.0, 4.0)
AUTO_FEATURES = ("words", "words_bigrams", "words_chars", "words_bigrams_chars")
# Without a validation split.
UNCHOSEN_FEATURES, UNCHOSEN_C = "words_bigrams", 1.0
# Features x labels of the dearest candidate, about ten seconds on a core: where there are more, the
# choice is made on some of the labels.
_CELLS_TO_CHOOSE = 300_000_000
_MIN_LABELS_TO_CHOOSE = 16
_CHOICE = "choice.json"


class Choice(NamedTuple):
    """One setting of what `auto` decides."""

    features: str
    C: float

    def __str__(self) -> str:
        return f"{self.features}, C {self.C:g}"


@dataclasses.dataclass(frozen=True)
class Team:
    """The workers that fit together.

    Attributes:
      index: of this worker.
      number: of all workers.
      agree: waits for all workers, and returns the number that the chief has given.
      cores: processes that this worker may use.
      say: prints a line, on the chief.
      check: called often; what it raises ends the fit.
    """

    index: int = 0
    number: int = 1
    agree: Callable[[int], int] = lambda number: number
    cores: int = 1
    say: Callable[[str], None] = lambda line: None
    check: Callable[[], None] = lambda: None


@dataclasses.dataclass(frozen=True)
class FittedLinear:
    """What a fit has found.

    Attributes:
      choice: features and C.
      tables: what terms are looked up in.
      weights: of log-odds.
      num_fitted: weights other than 0 before the small ones were left out.
      num_unfinished: labels whose fit stopped at the solver's limit of iterations.
      num_documents: train documents that were read.
    """

    choice: Choice
    tables: FeatureTables
    weights: SparseWeights
    num_fitted: int
    num_unfinished: int
    num_documents: int

    def model(self, vocabulary: VocabularyStatistics) -> LinearClassifier:
        """The model with these weights; its logits are log-odds."""
        num_labels = len(self.weights.bias)
        inputs = ModelInputs(vocabulary, num_labels, self.weights.bias, seed=0)
        return LinearClassifier(inputs, self.tables, self.weights)


def fit_linear(
    config: LinearConfig,
    dataset: Dataset,
    vocabulary: VocabularyStatistics,
    vectorizer: keras.layers.TextVectorization,
    *,
    directory: Path,
    team: Team,
    objective: Objective = "micro_f1",
    exact: bool = False,
    skip_corrupt: bool = False,
) -> FittedLinear:
    """Fits the train split's labels; labels that are done in `directory` are not fitted again.

    Args:
      config: the section `model`.
      dataset: the dataset.
      vocabulary: its vocabulary.
      vectorizer: analyzed strings -> token ids.
      directory: where finished labels are kept; all workers see it.
      team: the workers.
      objective: `train.objective`, by which `auto` chooses.
      exact: see `Problem`.
      skip_corrupt: see `read_documents`.

    Raises:
      UserError: the train split does not fit in memory, or a shard is corrupt.
    """
    fit = _Fit(
        config,
        dataset,
        vocabulary,
        vectorizer,
        directory=directory,
        team=team,
        objective=objective,
        exact=exact,
        skip_corrupt=skip_corrupt,
    )
    return fit.run()


class _Fit:
    def __init__(
        self,
        config,
        dataset,
        vocabulary,
        vectorizer,
        *,
        directory,
        team,
        objective,
        exact,
        skip_corrupt,
    ):
        self._config, self._dataset, self._vocabulary = config, dataset, vocabulary
        self._directory, self._team, self._objective = directory, team, objective
        self._exact = exact
        self._features = self._features_to_choose_from()
        self._train = read_documents(dataset, "train", vectorizer, skip_corrupt=skip_corrupt)
        self._validation = read_documents(dataset, "validation", vectorizer)
        self._matrices: dict[str, tuple] = {}
        self._scores: dict[tuple[Choice, int], float] = {}  # by choice and number of labels

    def run(self) -> FittedLinear:
        choice = self._choose()
        self._matrices = {name: of for name, of in self._matrices.items() if name == choice[0]}
        labels = np.arange(self._dataset.num_labels)
        fits = self._fit(choice, labels, self._directory_of(choice))
        weights, bias, num_fitted, num_unfinished = _together(fits, self._matrix(choice[0])[1])
        scale, shift = self._scale(choice, weights, bias)
        by_term = weights.T.tocsr()
        by_term.sort_indices()
        return FittedLinear(
            choice,
            self._matrix(choice.features)[0],
            SparseWeights(
                by_term.indptr.astype(np.int64),
                by_term.indices.astype(np.int32),
                (by_term.data * scale).astype(np.float32),
                (bias * scale + shift).astype(np.float32),
            ),
            num_fitted,
            num_unfinished,
            len(self._train),
        )

    # --- the choice --------------------------------------------------------------------

    def _features_to_choose_from(self) -> list[str]:
        """The kinds of features, without those that memory or time has no place for."""
        costs = Costs(_num_tokens(self._dataset), self._dataset.num_labels, self._team.cores)
        if self._config.features != "auto":
            costs.check_memory(self._config.features)
            return [self._config.features]
        first, *others = AUTO_FEATURES
        if not self._dataset.num_examples("validation"):
            others = [UNCHOSEN_FEATURES]
        costs.check_memory(first)
        obstacles = {name: costs.obstacle(name) for name in others}
        for obstacle in filter(None, obstacles.values()):
            self._team.say(f"not tried: {obstacle}")
        return [first, *(name for name in others if not obstacles[name])]

    def _choose(self) -> Choice:
        config, path = self._config, self._directory / _CHOICE
        features = self._features
        if not self._dataset.num_examples("validation"):
            return Choice(features[-1], UNCHOSEN_C if config.C is None else config.C)
        grid = AUTO_C if config.C is None else (config.C,)
        if len(features) == len(grid) == 1:
            return Choice(features[0], grid[0])
        if path.exists():
            return Choice(**json.loads(path.read_text(encoding="utf-8")))
        # Words alone are cheap: where all labels can be fitted, C is chosen on all of them.
        best = Choice(features[0], grid[0])
        if len(grid) > 1:
            best = self._choose_C([Choice(features[0], C) for C in grid])
        if len(features) > 1:
            labels = self._labels_to_choose_on(features)
            tried = [Choice(name, best.C) for name in features if name != AUTO_FEATURES[-1]]
            best = self._best(tried, labels)
            others = set(tried) - {tried[0]}
            if AUTO_FEATURES[-1] in features and all(
                self._scores[other, len(labels)] > self._scores[tried[0], len(labels)]
                for other in others
            ):
                best = self._best([best, Choice(AUTO_FEATURES[-1], best.C)], labels)
        if self._team.index == 0:
            self._directory.mkdir(parents=True, exist_ok=True)
            write_atomically(path, dump_json(best._asdict()))
        return best

    def _choose_C(self, candidates: Sequence[Choice]) -> Choice:
        """The best of candidates with ascending C, without those beyond one that is no better."""
        labels = self._labels_to_choose_on([candidates[0].features])
        middle = len(candidates) // 2
        best = self._best(candidates[middle - 1 : middle + 1], labels)
        beyond = candidates[middle + 1 :]
        if best is candidates[middle - 1]:
            beyond = candidates[: middle - 1][::-1]
        for candidate in beyond:
            if self._best([best, candidate], labels) is best:
                break
            best = candidate
        return best

    def _labels_to_choose_on(self, features: Sequence[str]) -> np.ndarray:
        """Ids of all labels, or of as many of all frequencies as can be fitted in short time."""
        nnz = max(self._matrix(name)[1].nnz for name in features)
        num_labels = self._dataset.num_labels
        number = max(_CELLS_TO_CHOOSE // max(nnz, 1), _MIN_LABELS_TO_CHOOSE)
        if 2 * number >= num_labels:  # then the fit of the best one is there already
            return np.arange(num_labels)
        order = np.argsort(-self._dataset.label_counts("train"), kind="stable")
        self._team.say(f"choosing on {number:,} of {num_labels:,} labels, frequent and rare ones")
        return np.sort(order[np.linspace(0, num_labels - 1, number).astype(int)])

    def _best(self, candidates: Sequence[Choice], labels: np.ndarray) -> Choice:
        """The candidate with the best objective on validation, of equal ones the first."""
        if len(candidates) == 1:
            return candidates[0]
        for candidate in candidates:
            if (candidate, len(labels)) not in self._scores:
                self._scores[candidate, len(labels)] = self._try(candidate, labels)
        scores = [self._scores[candidate, len(labels)] for candidate in candidates]
        return candidates[self._team.agree(scores.index(max(scores)))]

    def _try(self, choice: Choice, labels: np.ndarray) -> float:
        started = time.monotonic()
        fits = self._fit(choice, labels, self._directory_of(choice, labels))
        weights, bias, *_ = _together(fits, self._matrix(choice.features)[1])
        features = self._matrix(choice.features)[2]
        score = margins.best_f1(
            features, self._validation, weights, bias, labels, objective=self._objective
        )
        seconds, title = time.monotonic() - started, OBJECTIVE_TITLES[self._objective]
        self._team.say(f"  {choice}: {title} {score:.4f} on validation, {seconds:.1f} s")
        return score

    # --- fits --------------------------------------------------------------------------

    def _directory_of(self, choice: Choice, labels: Sequence[int] | None = None) -> Path:
        name = f"{choice.features}-{choice.C:g}"
        if labels is not None and len(labels) < self._dataset.num_labels:
            name += f"-{len(labels)}-labels"
        return self._directory / name

    def _matrix(
        self, features: str
    ) -> tuple[FeatureTables, scipy.sparse.csr_matrix, scipy.sparse.csr_matrix]:
        """The tables, and the features of the train and the validation split."""
        if features not in self._matrices:
            tables = make_tables(features, self._train, self._vocabulary)
            made = Features(tables, self._vocabulary)
            self._matrices[features] = (
                tables,
                made.matrix(self._train),
                made.matrix(self._validation),
            )
        return self._matrices[features]

    def _fit(self, choice: Choice, labels: np.ndarray, directory: Path) -> LabelFits:
        team = self._team
        has_weights = not (self._train.weights == 1).all()
        problem = Problem(
            self._matrix(choice.features)[1],
            self._train.labels[:, labels].astype(bool).tocsc(),
            self._train.weights.astype(np.float64) if has_weights else None,
            self._config.loss,
            choice.C,
            self._config.min_weight,
            self._config.pos_weight,
            self._exact,
        )
        fits = LabelFits(problem, directory, cores=team.cores, share=(team.index, team.number))
        started, num_fitted = time.monotonic(), fits.num_fitted
        if 0 < num_fitted < len(labels):
            team.say(f"{choice}: {num_fitted:,} of {len(labels):,} labels are fitted already")
        with ProgressLine(f"fitting {choice}") as line:

            def progress(done: int, total: int) -> None:
                rate = done / max(time.monotonic() - started, 1e-9)
                line.update(done, total, f"{done:,} of {total:,} labels, {rate:,.1f} labels/s")

            fits.fit(check=team.check, progress=progress)
        team.agree(0)  # all blocks are there
        return fits

    def _histogram(self, choice: Choice, weights, bias, labels: np.ndarray) -> np.ndarray:
        features = self._matrix(choice.features)[2]
        return margins.margin_histogram(features, self._validation, weights, bias, labels)

    def _scale(self, choice: Choice, weights, bias) -> tuple[float, float]:
        if not len(self._validation):
            return margins.DEFAULT_SCALE, margins.DEFAULT_SHIFT
        labels = np.flatnonzero(self._dataset.is_trained)
        return margins.fit_scale(self._histogram(choice, weights[labels], bias[labels], labels))


def _num_tokens(dataset: Dataset) -> int:
    """Tokens of the train split."""
    counts = manifests.load_term_counts(dataset.manifest, dataset.directory)
    # Datasets of an early version do not say it: each token once in each of its documents.
    return int((dataset.document_counts if counts is None else counts).sum())


def _together(
    fits: LabelFits, features: scipy.sparse.csr_matrix
) -> tuple[scipy.sparse.csr_matrix, np.ndarray, int, int]:
    """The weights of all blocks, float32 CSR [labels, terms], their biases and the two numbers."""
    blocks = list(fits.blocks())
    lengths = np.concatenate([np.diff(block.row_splits) for block in blocks])
    weights = scipy.sparse.csr_matrix(
        (
            np.concatenate([block.values for block in blocks]),
            np.concatenate([block.terms for block in blocks]),
            np.concatenate([[0], np.cumsum(lengths)]),
        ),
        shape=(len(lengths), features.shape[1]),
    )
    return (
        weights,
        np.concatenate([block.bias for block in blocks]),
        sum(block.num_fitted for block in blocks),
        sum(block.num_unfinished for block in blocks),
    )
