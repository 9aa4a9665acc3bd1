import numpy as np
import pytest
import scipy.sparse
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from trainer.linear import solver
from trainer.linear.blocks import LabelFits
from trainer.linear.solver import ALWAYS, NEVER, Block, Fitter, Problem, fit_label


def _problem(*, loss="squared_hinge", C=0.5, min_weight=0.0, weights=None, labels=5, exact=True):
    generator = np.random.default_rng(0)
    features = scipy.sparse.random(60, 12, density=0.4, random_state=0, format="csr")
    truth = features.toarray() @ generator.normal(size=(12, labels)) > 0.3
    truth[:, 0], truth[:, 1] = False, True
    truth = scipy.sparse.csc_matrix(truth)
    return Problem(features, truth, weights, loss, C, min_weight, exact=exact)


def _documents(problem, label):
    return problem.labels[:, [label]].nonzero()[0]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("loss", "estimator"),
    [
        ("squared_hinge", LinearSVC(C=0.5, dual=True, random_state=0)),
        ("logistic", LogisticRegression(C=0.5, solver="liblinear", dual=True, random_state=0)),
    ],
)
def test_the_weights_are_those_of_scikit_learns_estimators(loss, estimator, weighted):
    weights = np.linspace(0.5, 2, 60) if weighted else None
    problem = _problem(loss=loss, weights=weights)
    for label in (2, 3, 4):
        target = problem.labels[:, [label]].toarray()[:, 0]
        estimator.fit(problem.features, target, sample_weight=weights)
        coefficients, bias, is_finished = fit_label(problem, _documents(problem, label))
        np.testing.assert_array_equal(coefficients, estimator.coef_[0])
        assert bias == estimator.intercept_[0] and is_finished


def test_positives_may_weigh_the_fourth_root_of_their_rarity():
    problem = _problem()._replace(pos_weight="fourth_root")
    for label in (2, 3, 4):
        target = problem.labels[:, [label]].toarray()[:, 0]
        weight = max(1, (~target).sum() / target.sum()) ** 0.25
        estimator = LinearSVC(C=0.5, dual=True, random_state=0, class_weight={True: weight})
        estimator.fit(problem.features, target)
        coefficients, bias, _ = fit_label(problem, _documents(problem, label))
        np.testing.assert_allclose(coefficients, estimator.coef_[0], rtol=1e-9)
        assert bias == pytest.approx(estimator.intercept_[0])


def test_labels_that_no_document_or_every_document_has_get_a_bias_alone():
    block = Fitter(_problem()).fit(0, 2)
    assert block.bias.tolist() == [NEVER, ALWAYS]
    assert len(block.values) == 0 and block.row_splits.tolist() == [0, 0, 0]


def test_small_weights_are_left_out_and_counted():
    whole, pruned = Fitter(_problem()).fit(2, 5), Fitter(_problem(min_weight=0.3)).fit(2, 5)
    kept = np.abs(whole.values) > 0.3
    assert 0 < kept.sum() < len(kept)
    np.testing.assert_array_equal(pruned.values, whole.values[kept])
    np.testing.assert_array_equal(pruned.terms, whole.terms[kept])
    assert pruned.num_fitted == whole.num_fitted == len(whole.values)


def _all(fits):
    blocks = list(fits.blocks())
    return [np.concatenate([getattr(b, name) for b in blocks]) for name in ("values", "bias")]


@pytest.fixture
def in_groups(monkeypatch):
    """Documents of any length are fitted in groups of labels."""
    monkeypatch.setattr(solver, "_MIN_TERMS_OF_GROUPS", 0)


@pytest.mark.usefixtures("in_groups")
@pytest.mark.parametrize("exact", [True, False])
def test_blocks_of_any_number_of_workers_and_processes_hold_the_same_weights(tmp_path, exact):
    problem = _problem(labels=29, exact=exact)
    assert problem.group == (1 if exact else 8)
    expected = Fitter(problem).fit(0, 29)
    for name, workers in (("one", 1), ("three", 3)):
        for index in range(workers):
            fits = LabelFits(problem, tmp_path / name, share=(index, workers))
            fits.fit(check=lambda: None, progress=lambda done, total: None)
        values, bias = _all(fits)
        np.testing.assert_array_equal(values, expected.values)
        np.testing.assert_array_equal(bias, expected.bias)


def test_a_stopped_fit_keeps_its_blocks_and_goes_on_with_the_others(tmp_path):
    problem, calls = _problem(labels=9), []

    def stop_at_the_sixth_label():
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt

    fits = LabelFits(problem, tmp_path, share=(0, 1))
    with pytest.raises(KeyboardInterrupt):
        fits.fit(check=stop_at_the_sixth_label, progress=lambda done, total: None)
    kept = {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    assert kept
    fits.fit(check=lambda: None, progress=lambda done, total: None)
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in kept} == kept
    np.testing.assert_array_equal(_all(fits)[0], Fitter(problem).fit(0, 9).values)


def test_a_block_that_was_saved_is_read_back(tmp_path):
    fits = LabelFits(_problem(labels=3), tmp_path)
    fits.fit(check=lambda: None, progress=lambda done, total: None)
    (first, *_) = fits.blocks()
    assert isinstance(first, Block) and isinstance(first.num_fitted, int)


@pytest.mark.usefixtures("in_groups")
def test_a_group_has_the_weights_that_its_labels_have_one_by_one():
    problem = _problem(labels=11, min_weight=0.01, weights=np.linspace(0.5, 2, 60))
    problem = problem._replace(pos_weight="fourth_root")
    one_by_one = Fitter(problem).fit(0, 11)
    group = Fitter(problem._replace(exact=False)).fit(0, 11)
    assert group.bias[:2].tolist() == [NEVER, ALWAYS] and group.num_unfinished == 0
    np.testing.assert_allclose(group.bias, one_by_one.bias, atol=0.03)
    dense = [
        scipy.sparse.csr_matrix((b.values, b.terms, b.row_splits), shape=(11, 12)).toarray()
        for b in (group, one_by_one)
    ]
    np.testing.assert_allclose(*dense, atol=0.06)


@pytest.mark.usefixtures("in_groups")
def test_only_the_squared_hinge_of_a_moderate_c_is_fitted_in_groups():
    problem = _problem(exact=False)
    assert problem.group > 1
    assert problem._replace(loss="logistic").group == problem._replace(C=100.0).group == 1
