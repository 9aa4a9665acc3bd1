"""Squared hinge classifiers of several labels at once, by preconditioned conjugate gradients.

A label's classifier is min over w, b of |(w, b)|^2 / 2 + sum cost max(0, 1 - y (w x + b))^2 / 2,
which is smooth. All of (w, b), gradients and steps are sums of documents, so they are held as a
coefficient for each document: with K = X X^T + 1, a step takes one product of K, which reads the
features once for all labels. K has a few eigenvalues that are far above the others: what all
documents have in common, and their largest topics. The steps are scaled in these directions by what
they are worth there, which halves the number of steps and more.

Each step goes to the minimum along its direction of the loss of the documents that are within their
margin where it begins. Polak, Ribiere (1969): Note sur la convergence de methodes de directions
conjuguees; Nocedal, Wright (2006): Numerical Optimization, section 5.2.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.sparse
from threadpoolctl import threadpool_limits

_NUM_DIRECTIONS = 24  # in which steps are scaled
_SPARE_DIRECTIONS, _ROUNDS = 4, 3  # of the power iteration that finds them
_FIRST_STEPS = 6  # of Newton's method along the first direction, along which the loss has kinks
# Of the objective, by how much it may be above the optimum: no score differs by more than .002 from
# that of liblinear.
_TOLERANCE = 3e-4
_MAX_STEPS = 300
_TINY = np.float32(1e-30)  # keeps divisions finite where there is nothing left to gain


class Solution(NamedTuple):
    """The classifiers of some labels.

    Attributes:
      weights: float32 [terms, labels].
      bias: float32 [labels].
      is_finished: bool [labels], whether the solver has converged.
    """

    weights: np.ndarray
    bias: np.ndarray
    is_finished: np.ndarray


class Solver:
    """Finds the classifiers of any labels of the same documents.

    Args:
      features: float CSR [documents, terms].
    """

    def __init__(self, features: scipy.sparse.csr_matrix):
        self._rows = features.astype(np.float32)
        self._columns = self._rows.T.tocsr()
        with threadpool_limits(1, user_api="blas"):  # whose sums depend on the number of threads
            self._directions = self._largest_directions()

    def solve(
        self,
        is_positive: np.ndarray,
        costs: np.ndarray,
        *,
        tolerance: float = _TOLERANCE,
        check: Callable[[], None] = lambda: None,
    ) -> Solution:
        """Finds the classifiers of some labels.

        Args:
          is_positive: bool [documents, labels].
          costs: float32 [documents, labels], 0 or above.
          tolerance: by what part the objective may be above its minimum, about.
          check: called before each step; what it raises ends the search.
        """
        with threadpool_limits(1, user_api="blas"):
            coefficients, is_finished = self._solve(is_positive, costs, tolerance, check)
        bias = coefficients.sum(axis=0, dtype=np.float64)
        return Solution(self._columns @ coefficients, bias.astype(np.float32), is_finished)

    def _solve(self, is_positive, costs, tolerance, check) -> tuple[np.ndarray, np.ndarray]:
        # All arrays are [documents, labels], and times the sign of the label: a document's margin,
        # how it changes along a direction, the coefficients of the weights and of the direction.
        signs = np.where(is_positive, np.float32(1), np.float32(-1))
        coefficients, margins = np.zeros_like(signs), np.zeros_like(signs)
        # The first direction is the same for all labels: all documents' mean, against it.
        mean = np.full((len(signs), 1), -1 / len(signs), np.float32)
        direction, change = signs * mean, signs * self._products(mean)
        slack = np.ones_like(signs)
        decrease = products = None
        for step in range(_MAX_STEPS):
            check()
            num_newton = 1 if step else _FIRST_STEPS
            size = _minimum(coefficients, margins, direction, change, costs, num_newton)
            coefficients += size * direction
            margins += size * change
            np.maximum(1 - margins, 0, out=slack)
            loss = costs * slack
            gradient = coefficients - loss
            previous, products = products, signs * self._products(signs * gradient)
            scaled, scaled_products = self._scale(gradient, products, signs, costs, slack)
            last, decrease = decrease, _dot(scaled, products)
            objective = (_dot(coefficients, margins) + _dot(loss, slack)) / 2
            is_finished = decrease / 2 <= tolerance * objective
            if is_finished.all():
                break
            turn = 0.0
            if last is not None:
                turn = np.maximum((decrease - _dot(scaled, previous)) / np.maximum(last, _TINY), 0)
            direction *= turn
            direction -= scaled
            change *= turn
            change -= scaled_products
        return signs * coefficients, is_finished

    def _products(self, coefficients: np.ndarray) -> np.ndarray:
        """K times coefficients float32 [documents, labels]."""
        products = self._rows @ (self._columns @ coefficients)
        products += coefficients.sum(axis=0)
        return products

    def _scale(self, gradient, products, signs, costs, slack) -> tuple[np.ndarray, np.ndarray]:
        """A gradient and its products, scaled by the inverse curvature in the directions."""
        directions, of_directions, curvatures = self._directions
        active = np.where(slack > 0, costs, 0).mean(axis=0)  # their part of a direction's curvature
        parts = directions.T @ (signs * products)
        parts *= 1 - 1 / (1 + active * curvatures[:, np.newaxis])
        return gradient - signs * (directions @ parts), products - signs * (of_directions @ parts)

    def _largest_directions(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The directions in which documents differ most, about.

        Returns:
          (float32 [documents, directions], their coefficients, so that they are orthonormal in the
          space of terms; float32 [documents, directions], their products; float32 [directions],
          the sums of squares of these).
        """
        num_documents = self._rows.shape[0]
        number = min(_NUM_DIRECTIONS + _SPARE_DIRECTIONS, num_documents)
        generator = np.random.default_rng(0)
        vectors = generator.normal(size=(num_documents, number)).astype(np.float32)
        vectors[:, 0] = 1
        for _ in range(_ROUNDS):
            vectors = np.ascontiguousarray(np.linalg.qr(self._products(vectors)).Q)
        products = self._products(vectors)
        values, turn = np.linalg.eigh((vectors.T @ products).astype(np.float64))
        kept = values > values[-1] * 1e-6
        kept[:-_NUM_DIRECTIONS] = False
        turn = (turn[:, kept] / np.sqrt(values[kept])).astype(np.float32)
        products = products @ turn
        return vectors @ turn, products, np.square(products).sum(axis=0)


def _minimum(coefficients, margins, direction, change, costs, num_steps: int) -> np.ndarray:
    """How far to go along a direction, float32 [labels], by steps of Newton's method."""
    length, slope = _dot(direction, change), _dot(coefficients, change)
    size = np.zeros(margins.shape[1], np.float32)
    for _ in range(num_steps):
        slack = 1 - margins - size * change
        active = np.where(slack > 0, costs * change, 0)
        curvature = np.maximum(length + _dot(active, change), _TINY)
        size += (_dot(active, slack) - slope - size * length) / curvature
    return size


def _dot(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """float32 [labels], the sums of products over documents."""
    return np.einsum("ij,ij->j", one, other)
