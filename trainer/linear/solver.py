"""One-vs-rest linear classifiers by scikit-learn's liblinear, a block of labels at a time.

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
from trainer.losses.rarity import fourth_root_weights

# Margins of labels that no train document has, or all have: a classifier's own are seldom beyond 3.
NEVER, ALWAYS = -5.0, 5.0
# liblinear's numbers of its dual solvers. The dual finds the same weights of the logistic loss
# about eight times as fast as the primal.
_SOLVERS = {"squared_hinge": 1, "logistic": 7}
# As in LinearSVC and LogisticRegression with random_state=0, so that the weights equal theirs.
EXACT = 1e-4
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
      tolerance: of liblinear's criterion to stop.
    """

    features: scipy.sparse.csr_matrix
    labels: scipy.sparse.csc_matrix
    weights: np.ndarray | None
    loss: str
    C: float
    min_weight: float
    pos_weight: str = "none"
    tolerance: float = EXACT


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


def fit_block(
    problem: Problem, first: int, last: int, *, check: Callable[[], None] = lambda: None
) -> Block:
    """Fits the labels of ids from `first` to before `last`, each by itself.

    A label's weights do not depend on the block that it is in.

    Args:
      problem: what is fitted.
      first: the first label.
      last: the one after the last.
      check: called before each label; what it raises ends the fit.
    """
    terms, values, lengths = [np.zeros(0, np.int32)], [np.zeros(0, np.float32)], [0]
    bias, num_fitted, num_unfinished = np.zeros(last - first, np.float32), 0, 0
    for label in range(first, last):
        check()
        documents = problem.labels.indices[slice(*problem.labels.indptr[label : label + 2])]
        if len(documents) in (0, problem.features.shape[0]):
            bias[label - first] = ALWAYS if len(documents) else NEVER
            lengths.append(0)
            continue
        weights, bias[label - first], is_finished = fit_label(problem, documents)
        num_unfinished += not is_finished
        num_fitted += np.count_nonzero(weights)
        kept = np.flatnonzero(np.abs(weights) > problem.min_weight)
        terms.append(kept.astype(np.int32))
        values.append(weights[kept].astype(np.float32))
        lengths.append(len(kept))
    return Block(
        np.cumsum(lengths, dtype=np.int64),
        np.concatenate(terms),
        np.concatenate(values),
        bias,
        num_fitted,
        num_unfinished,
    )


def fit_label(problem: Problem, documents: np.ndarray) -> tuple[np.ndarray, float, bool]:
    """Fits one label: min over w, b of |(w, b)|^2 / 2 + C sum weight loss(y (w x + b)).

    Args:
      problem: what is fitted; its labels are not read.
      documents: those that have the label, some but not all.

    Returns:
      float64 [terms], the bias, and whether the solver has converged.
    """
    num_documents = problem.features.shape[0]
    target = np.zeros(num_documents)
    target[documents] = 1
    pos_weight = 1.0
    if problem.pos_weight == "fourth_root":
        pos_weight = fourth_root_weights(len(documents), num_documents)
    set_verbosity_wrap(0)
    weights = np.ones(num_documents) if problem.weights is None else problem.weights
    raw, iterations = train_wrap(
        problem.features,
        target,
        True,  # sparse
        _SOLVERS[problem.loss],
        problem.tolerance,
        1.0,  # the value of the feature whose weight is the bias
        problem.C,
        np.array([1.0, pos_weight]),
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
