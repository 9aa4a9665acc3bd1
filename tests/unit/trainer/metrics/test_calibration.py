import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from beam_jobs.contract.errors import UserError
from trainer.metrics import calibration, score_histograms
from trainer.metrics.calibration import KNOTS, Calibration, fit


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def histogram_of(y, log_odds):
    return score_histograms.log_odds_histogram(
        y, log_odds.astype(np.float32), np.ones(len(y), np.float32), num_bins=512
    ).numpy()


def distorted(documents=20_000, *, scales=(0.5, 2.0), biases=(1.0, -0.5), seed=0):
    """(y, log-odds to calibrate, log-odds that are right): the right ones are scale * z + bias."""
    random = np.random.default_rng(seed)
    z = random.normal(-1, 2, (documents, len(scales)))
    right = z * np.array(scales) + np.array(biases)
    return random.random(z.shape) < sigmoid(right), z, right


def test_temperature_finds_the_one_scale_of_all_labels():
    y, z, _ = distorted(scales=(0.4, 0.4, 0.4), biases=(0, 0, 0))
    fitted = fit("temperature", histogram_of(y, z), min_positives=10)
    np.testing.assert_allclose(fitted.scale, 0.4, rtol=0.05)
    assert (fitted.bias == 0).all() and len(set(fitted.scale.tolist())) == 1
    reference = LogisticRegression(C=np.inf, fit_intercept=False).fit(z.reshape(-1, 1), y.ravel())
    assert fitted.scale[0] == pytest.approx(reference.coef_[0, 0], rel=2e-3)


def test_platt_equals_logistic_regression_of_each_label():
    y, z, _ = distorted()
    fitted = fit("platt", histogram_of(y, z), min_positives=10)
    for label in range(2):
        reference = LogisticRegression(C=np.inf).fit(z[:, [label]], y[:, label])
        assert fitted.scale[label] == pytest.approx(reference.coef_[0, 0], rel=0.01)
        assert fitted.bias[label] == pytest.approx(reference.intercept_[0], abs=0.02)


def test_isotonic_equals_scikit_learn_at_the_knots():
    random = np.random.default_rng(4)
    z = (
        np.round(random.normal(-1, 3, 5000) * 2) / 2
    )  # at the knots, which are half of log-odds apart
    y = random.random(5000) < sigmoid(np.where(z > 0, 2 * z, z / 2))
    table = fit("isotonic", histogram_of(y[:, None], z[:, None] + 1e-3), min_positives=10).table[0]
    reference = IsotonicRegression().fit(z, y)
    occurring = np.unique(z)
    at = np.round((occurring + 16) * 2).astype(int)
    # Levels are smoothed by half a document, which is little where a level holds many.
    np.testing.assert_allclose(sigmoid(table[at]), reference.predict(occurring), atol=0.02)


@pytest.mark.parametrize("method", ["temperature", "platt", "isotonic"])
def test_calibration_lowers_the_calibration_error_on_other_documents(method):
    y, z, _ = distorted(scales=(0.4, 0.4), biases=(0.0, 0.0))
    fitted = fit(method, histogram_of(y[:10_000], z[:10_000]), min_positives=10)
    before = score_histograms.expected_calibration_error(
        histogram_of(y[10_000:], z[10_000:]).sum(axis=1)
    )["ece"]
    after = score_histograms.expected_calibration_error(
        histogram_of(y[10_000:], fitted.log_odds(z[10_000:]).numpy()).sum(axis=1)
    )["ece"]
    assert before > 0.08 and after < 0.02


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["temperature", "platt", "isotonic"]))
def test_calibrated_log_odds_never_fall_where_log_odds_rise(seed, method):
    random = np.random.default_rng(seed)
    y, z = random.random((60, 3)) < [0.5, 0.1, 0.9], random.normal(0, 4, (60, 3))
    fitted = fit(method, histogram_of(y, z), min_positives=1)
    grid = np.repeat(np.linspace(-20, 20, 400, dtype=np.float32)[:, None], 3, axis=1)
    calibrated = fitted.log_odds(grid).numpy()
    assert np.isfinite(calibrated).all()
    assert (np.diff(calibrated, axis=0) >= -1e-5).all()


def test_label_with_too_few_positives_or_falling_scores_takes_the_fit_of_all_labels():
    y, z, _ = distorted(documents=2000, scales=(1.0, 1.0, -0.2), biases=(0, 0, 0))
    y[:, 1] = False
    y[:9, 1] = True
    histogram = histogram_of(y, z)
    for method in ("platt", "isotonic"):
        fitted, pooled = (
            fit(method, histogram, min_positives=10),
            fit(method, histogram, min_positives=10**9),
        )
        same = np.float32([[-3.0] * 3, [0.5] * 3, [4.0] * 3])
        ours, common = fitted.log_odds(same).numpy(), pooled.log_odds(same).numpy()
        np.testing.assert_array_equal(common[:, 0], common[:, 1])
        np.testing.assert_array_equal(ours[:, 1], common[:, 1])
        assert (ours[:, 0] != common[:, 0]).all()
    assert (
        fit("platt", histogram, min_positives=10).scale[2]
        == fit("platt", histogram, min_positives=10**9).scale[2]
        > 0
    )


def test_scores_that_tell_everything_give_finite_numbers():
    z = np.array([[-5.0], [-4.0], [4.0], [5.0]] * 20)
    for method in ("temperature", "platt", "isotonic"):
        fitted = fit(method, histogram_of(z > 0, z), min_positives=1)
        assert np.isfinite(fitted.log_odds(np.float32([[-30.0], [0.0], [30.0]])).numpy()).all()
        assert (fitted.scale > 0).all()


@pytest.mark.parametrize("method", calibration.METHODS)
def test_nothing_to_fit_on_changes_nothing(method):
    fitted = fit(method, np.zeros((2, 3, 512), np.int64), min_positives=1)
    z = tf.constant([[-50.0, 0.0, 3.25]])
    assert fitted.log_odds(z).numpy().tolist() == z.numpy().tolist()


def test_labels_are_fitted_alike_in_parts_of_any_size(monkeypatch):
    y, z, _ = distorted(documents=500, scales=(0.5, 1, 2), biases=(1, 0, -1))
    whole = fit("platt", histogram_of(y, z), min_positives=1)
    monkeypatch.setattr(calibration, "_LABELS_AT_A_TIME", 2)
    part = fit("platt", histogram_of(y, z), min_positives=1)
    np.testing.assert_allclose(part.scale, whole.scale, rtol=1e-5)
    np.testing.assert_allclose(part.bias, whole.bias, atol=1e-5)


@pytest.mark.parametrize("method", calibration.METHODS)
def test_saved_and_loaded_it_gives_the_same_scores_in_a_graph(method, tmp_path):
    y, z, _ = distorted(documents=500)
    fitted = fit(method, histogram_of(y, z), min_positives=1)
    fitted.save(tmp_path / "calibration.npz")
    loaded = Calibration.load(tmp_path / "calibration.npz", num_labels=2)
    assert loaded.method == method
    batch = z.astype(np.float32)
    np.testing.assert_array_equal(
        tf.function(loaded.log_odds)(batch), tf.function(fitted.log_odds)(batch)
    )


def test_a_file_that_is_none_or_of_other_labels_is_a_user_error(tmp_path):
    path = tmp_path / "calibration.npz"
    with pytest.raises(UserError, match="run it first"):
        Calibration.load(path, num_labels=2)
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match="run it first"):
        Calibration.load(path, num_labels=2)
    Calibration("isotonic", np.ones(3), np.zeros(3), np.zeros((3, KNOTS))).save(path)
    with pytest.raises(UserError, match=r"labels, expected \(2,\)"):
        Calibration.load(path, num_labels=2)
