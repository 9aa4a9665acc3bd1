import numpy as np
import pytest
import scipy.sparse
from sklearn.preprocessing import normalize
from sklearn.svm import LinearSVC

from trainer.linear.conjugate_gradients import Solver

DOCUMENTS, TERMS = 80, 150


def _problem(labels=6):
    generator = np.random.default_rng(0)
    features = scipy.sparse.random(DOCUMENTS, TERMS, density=0.3, random_state=0, format="csr")
    features = normalize(features)
    scores = features @ generator.normal(size=(TERMS, labels))
    return features, scores > np.quantile(scores, np.linspace(0.5, 0.97, labels), axis=0).diagonal()


def _objective(features, is_positive, costs, weights, bias):
    margins = np.where(is_positive, 1, -1) * (features @ weights + bias)
    losses = costs * np.square(np.maximum(1 - margins, 0))
    return (np.square(weights).sum(axis=0) + np.square(bias) + losses.sum(axis=0)) / 2


@pytest.mark.parametrize("C", [0.1, 1.0, 8.0])
def test_the_weights_are_those_of_linear_svc(C):
    features, is_positive = _problem()
    document_weights = np.linspace(0.5, 2, DOCUMENTS)
    costs = np.repeat(2 * C * document_weights[:, np.newaxis], 6, axis=1).astype(np.float32)
    solution = Solver(features).solve(is_positive, costs, tolerance=1e-5)
    assert solution.is_finished.all()
    for label in range(6):
        estimator = LinearSVC(C=C, tol=1e-7, max_iter=100_000, random_state=0)
        estimator.fit(features, is_positive[:, label], sample_weight=document_weights)
        np.testing.assert_allclose(solution.weights[:, label], estimator.coef_[0], atol=0.02)
        assert solution.bias[label] == pytest.approx(estimator.intercept_[0], abs=0.02)


def test_the_objective_is_as_near_to_its_minimum_as_asked_for():
    features, is_positive = _problem()
    costs = np.full(is_positive.shape, 2, np.float32)
    solver = Solver(features)
    exact, rough = (solver.solve(is_positive, costs, tolerance=t) for t in (1e-5, 1e-2))
    best, reached = (
        _objective(features, is_positive, costs, of.weights, of.bias) for of in (exact, rough)
    )
    assert (reached >= best * (1 - 1e-4)).all() and (reached <= best * 1.03).all()


def test_what_a_check_raises_ends_the_search():
    features, is_positive = _problem()
    calls = []

    def check():
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Solver(features).solve(is_positive, np.ones(is_positive.shape, np.float32), check=check)


def test_fewer_documents_than_directions_and_documents_without_terms_are_fitted():
    features = scipy.sparse.csr_matrix([[1.0, 0], [0, 1], [0, 0]])
    is_positive = np.array([[True, False], [False, True], [False, False]])
    solution = Solver(features).solve(is_positive, np.full((3, 2), 2, np.float32))
    assert solution.is_finished.all()
    np.testing.assert_array_equal(solution.weights.argmax(axis=0), [0, 1])
