"""One-vs-rest linear classifiers, a block of labels at a time.

The squared hinge is fitted by `trainer.linear.conjugate_gradients`, a group of labels together;
the logistic loss, short documents, a large C and fits to scikit-learn's precision label by label,
by its liblinear.

Nothing here imports TensorFlow: the processes that fit labels start in a second.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

# LinearSVC checks and encodes its arguments anew for each label, which takes as long as the fit
# itself where documents are short (cooking: 9.7 ms a label, 4.8 ms without).
from sklearn.svm._liblinear import set_verbosity_wrap, train_wrap

from beam_jobs.contract.atomic import write_atomically
from trainer.linear.conjugate_gradients import Solver
from trainer.losses.rarity import fourth_root_weights

# Margins of labels that no train document has, or all have: a classifier's own are seldom beyond 3.
NEVER, ALWAYS = -5.0, 5.0
# liblinear's numbers of its dual solvers. The dual finds the same weights of the logistic loss
# about eight times as fast as the primal.
_SOLVERS = {"squared_hinge": 1, "logistic": 7}
# As in LinearSVC and LogisticRegression with random_state=0, so that the weights equal theirs.
EXACT = 1e-4
# For all other fits; see docs/experiments/auto.md.
_TOLERANCE = 1e-2
# Where documents are shorter, C is larger, or C times the documents, on which the number of steps
# depends, liblinear takes less time.
_MIN_TERMS_OF_GROUPS, _MAX_C_OF_GROUPS, _MAX_LOSS_OF_GROUPS = 80, 2.0, 25_000.0
# Labels of a group, which are fitted together: as many as make the most of a pass over the
# features, without more memory for their weights than 64 MiB where terms are many.
_MAX_GROUP, _MIN_GROUP, _GROUPS, _WEIGHTS_OF_GROUP = 32, 8, 4, 16 << 20
_ITERATIONS = {"squared_hinge": 1000, "logistic": 100}
_SEED = np.random.RandomState(0).randint(np.iinfo("i").max)


class Problem(NamedTuple):
    """What is fitted.

    Attributes:
      features: float64 CSR [documents, terms].
      labels: bool CSC [documents, labels].
      weights: float64 [documents], of the documents in the loss; None: all 1.
      loss: `squared_hinge` or `logistic`.
      C: weight of the loss against the L2 penalty.
      min_weight: weights nearer to 0 are left out.
      pos_weight: of a label's positives, `none` or `fourth_root`.
      exact: to the precision of scikit-learn's estimators.
    """

    features: scipy.sparse.csr_matrix
    labels: scipy.sparse.csc_matrix
    weights: np.ndarray | None
    loss: str
    C: float
    min_weight: float
    pos_weight: str = "none"
    exact: bool = False

    @property
    def group(self) -> int:
        """How many labels are fitted together: those from each multiple of it on.

        It depends on nothing but the problem, so that workers of any number come to the same bits.
        """
        num_documents = self.features.shape[0]
        if (
            self.exact
            or self.loss != "squared_hinge"
            or self.C > _MAX_C_OF_GROUPS
            or self.C * num_documents > _MAX_LOSS_OF_GROUPS
            or self.features.nnz < _MIN_TERMS_OF_GROUPS * max(num_documents, 1)
        ):
            return 1
        num_terms, num_labels = self.features.shape[1], self.labels.shape[1]
        largest = min(_MAX_GROUP, max(_MIN_GROUP, _WEIGHTS_OF_GROUP // num_terms))
        return min(largest, max(_MIN_GROUP, -(-num_labels // _GROUPS)))


class Block(NamedTuple):
    """The weights of consecutive labels, CSR by label.

    Attributes:
      row_splits: int64 [labels + 1].
      terms: int32 [weights].
      values: float32 [weights].
      bias: float32 [labels].
      num_fitted: weights other than 0 before the small ones were left out.
      num_unfinished: labels whose fit stopped at the solver's limit of iterations.
    """

    row_splits: np.ndarray
    terms: np.ndarray
    values: np.ndarray
    bias: np.ndarray
    num_fitted: int
    num_unfinished: int


class Fitter:
    """Fits blocks of one problem's labels."""

    def __init__(self, problem: Problem):
        self._problem = problem
        self._solver = Solver(problem.features) if problem.group > 1 else None

    def fit(self, first: int, last: int, *, check: Callable[[], None] = lambda: None) -> Block:
        """Fits the labels of ids from `first`, a multiple of the group, to before `last`.

        A label's weights do not depend on the block that it is in.

        Args:
          first: the first label.
          last: the one after the last, a multiple of the group or the number of labels.
          check: called often; what it raises ends the fit.
        """
        step = self._problem.group
        parts = [
            _as_block(self._fit_group(range(start, min(start + step, last)), check), self._problem)
            for start in range(first, last, step)
        ]
        lengths = np.concatenate([np.diff(part.row_splits) for part in parts])
        return Block(
            np.concatenate([[0], np.cumsum(lengths)]),
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("terms", "values", "bias")
            ),
            sum(part.num_fitted for part in parts),
            sum(part.num_unfinished for part in parts),
        )

    def _fit_group(self, labels: range, check: Callable[[], None]) -> "_Group":
        """The labels of a group, those among them that some documents have and some have not."""
        problem, num_documents = self._problem, self._problem.features.shape[0]
        documents = [documents_of(problem, label) for label in labels]
        bias = np.array([ALWAYS if len(of) else NEVER for of in documents], np.float32)
        fitted = [i for i, of in enumerate(documents) if 0 < len(of) < num_documents]
        check()
        if not fitted:
            return _Group(fitted, np.zeros((0, 0)), bias, 0)
        if self._solver is None:
            weights, bias[0], is_finished = fit_label(problem, documents[0])
            return _Group(fitted, weights[np.newaxis], bias, int(not is_finished))
        is_positive = np.zeros((num_documents, len(fitted)), bool)
        costs = np.full(is_positive.shape, 2 * problem.C, np.float32)
        for column, i in enumerate(fitted):
            is_positive[documents[i], column] = True
            costs[documents[i], column] *= _pos_weight(problem, len(documents[i]))
        if problem.weights is not None:
            costs *= problem.weights[:, np.newaxis].astype(np.float32)
        solution = self._solver.solve(is_positive, costs, check=check)
        bias[fitted] = solution.bias
        unfinished = np.count_nonzero(~solution.is_finished)
        return _Group(fitted, np.ascontiguousarray(solution.weights.T), bias, unfinished)


class _Group(NamedTuple):
    """What was fitted together.

    Attributes:
      fitted: the indices in the group of labels that have weights.
      weights: float [fitted, terms].
      bias: float32 [labels].
      num_unfinished: see `Block`.
    """

    fitted: list[int]
    weights: np.ndarray
    bias: np.ndarray
    num_unfinished: int


def _as_block(group: _Group, problem: Problem) -> Block:
    lengths = np.zeros(len(group.bias) + 1, np.int64)
    terms, values = [np.zeros(0, np.int32)], [np.zeros(0, np.float32)]
    for index, weights in zip(group.fitted, group.weights, strict=True):
        kept = np.flatnonzero(np.abs(weights) > problem.min_weight)
        terms.append(kept.astype(np.int32))
        values.append(weights[kept].astype(np.float32))
        lengths[index + 1] = len(kept)
    return Block(
        np.cumsum(lengths),
        np.concatenate(terms),
        np.concatenate(values),
        group.bias,
        int(np.count_nonzero(group.weights)),
        group.num_unfinished,
    )


def documents_of(problem: Problem, label: int) -> np.ndarray:
    """The documents that have a label, int [documents]."""
    return problem.labels.indices[slice(*problem.labels.indptr[label : label + 2])]


def _pos_weight(problem: Problem, num_positives: int) -> float:
    if problem.pos_weight == "fourth_root":
        return fourth_root_weights(num_positives, problem.features.shape[0])
    return 1.0


def fit_label(problem: Problem, documents: np.ndarray) -> tuple[np.ndarray, float, bool]:
    """Fits one label by liblinear.

    It is min over w, b of |(w, b)|^2 / 2 + C sum weight loss(y (w x + b)).

    Args:
      problem: what is fitted; its labels are not read.
      documents: those that have the label, some but not all.

    Returns:
      float64 [terms], the bias, and whether the solver has converged.
    """
    num_documents = problem.features.shape[0]
    target = np.zeros(num_documents)
    target[documents] = 1
    set_verbosity_wrap(0)
    weights = np.ones(num_documents) if problem.weights is None else problem.weights
    raw, iterations = train_wrap(
        problem.features,
        target,
        True,  # sparse
        _SOLVERS[problem.loss],
        EXACT if problem.exact else _TOLERANCE,
        1.0,  # the value of the feature whose weight is the bias
        problem.C,
        np.array([1.0, _pos_weight(problem, len(documents))]),
        _ITERATIONS[problem.loss],
        _SEED,
        0.1,  # for regression
        weights,
    )
    return raw[0, :-1], float(raw[0, -1]), max(iterations) < _ITERATIONS[problem.loss]


# --- files -----------------------------------------------------------------------------


def save_block(path: Path, block: Block) -> None:
    """Writes a block as a NumPy archive, whole or not at all."""
    stream = io.BytesIO()
    np.savez(stream, **block._asdict())
    write_atomically(path, stream.getvalue())


def load_block(path: Path) -> Block:
    """Reads what `save_block` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        block = Block(**{name: arrays[name] for name in Block._fields})
    return block._replace(
        num_fitted=int(block.num_fitted), num_unfinished=int(block.num_unfinished)
    )


_MATRICES = ("features", "labels")


def save_problem(directory: Path, problem: Problem) -> None:
    """Writes the arrays of a problem, for `load_problem`."""
    for name in _MATRICES:
        matrix = getattr(problem, name)
        for part in ("data", "indices", "indptr"):
            np.save(directory / f"{name}-{part}.npy", getattr(matrix, part), allow_pickle=False)
        np.save(directory / f"{name}-shape.npy", np.array(matrix.shape), allow_pickle=False)
    if problem.weights is not None:
        np.save(directory / "weights.npy", problem.weights, allow_pickle=False)


def load_problem(directory: Path, **options: Any) -> Problem:
    """The problem that `save_problem` wrote; processes share its arrays by memory mapping.

    Args:
      directory: where it was written.
      options: the fields that are no arrays.
    """

    def load(name: str) -> np.ndarray:
        return np.load(directory / f"{name}.npy", mmap_mode="r", allow_pickle=False)

    def matrix(kind: type, name: str):
        parts = tuple(load(f"{name}-{part}") for part in ("data", "indices", "indptr"))
        return kind(parts, shape=tuple(load(f"{name}-shape").tolist()), copy=False)

    weights = load("weights") if (directory / "weights.npy").exists() else None
    return Problem(
        matrix(scipy.sparse.csr_matrix, "features"),
        matrix(scipy.sparse.csc_matrix, "labels"),
        weights,
        **options,
    )
