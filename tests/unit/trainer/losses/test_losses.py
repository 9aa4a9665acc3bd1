import itertools
import json

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.loss import LossConfig
from trainer.data.labels import label_groups
from trainer.losses import label_weights, losses
from trainer.losses.description import describe_loss
from trainer.losses.prior_correction import prior_correction, undo_loss_weighting

POSITIVES = np.array([1, 20, 50, 99, 0])
COUNTS = {"positives": POSITIVES, "num_documents": 100}
# The float64 references below are written from the papers, one a loss; no key is at its default
# that could hide in another.
CONFIGS = [
    {"name": "weighted_bce", "pos_weight": "none"},
    {"name": "weighted_bce", "pos_weight": "balanced", "label_smoothing": 0.1},
    {"name": "squared_hinge"},
    {"name": "squared_hinge", "margin": 1.5, "label_smoothing": 0.1},
    {"name": "squared_hinge", "pos_weight": "fourth_root"},
    {"name": "focal"},
    {"name": "focal", "gamma": 0.5, "alpha": None, "label_smoothing": 0.2},
    {"name": "asymmetric"},
    {"name": "asymmetric", "gamma_positive": 1.0, "gamma_negative": 0.5, "probability_shift": 0.2},
    {
        "name": "asymmetric",
        "gamma_positive": 2.0,
        "gamma_negative": 3.0,
        "probability_shift": 0.0,
        "label_smoothing": 0.1,
    },
    {"name": "class_balanced"},
    {"name": "class_balanced", "beta": 0.9, "gamma": 1.5},
    {"name": "distribution_balanced"},
    {
        "name": "distribution_balanced",
        "alpha": 0.3,
        "beta": 5.0,
        "mu": 0.6,
        "negative_scale": 4.0,
        "bias_scale": 0.3,
        "gamma": 0.0,
    },
]
IDS = [f"{config['name']}-{i}" for i, config in enumerate(CONFIGS)]


def _config(**values):
    return TypeAdapter(LossConfig).validate_python({"name": "weighted_bce"} | values)


def _log_sigmoid(z):
    return -np.logaddexp(0, -z)


def _reference(config, labels, logits, document_weights):
    """Per-document losses in float64."""
    n, c = POSITIVES, config
    log_s, log_not_s = _log_sigmoid(logits), _log_sigmoid(-logits)
    s = np.exp(log_s)
    match c.name:
        case "weighted_bce":
            weight = {"none": np.ones(5), "balanced": np.array([20, 4, 1, 1, 20])}[c.pos_weight]
            positive, negative = -weight * log_s, -log_not_s
        case "squared_hinge":  # Fan et al. 2008, equation 3, in units of the margin
            weight = np.maximum((100 - n) / np.maximum(n, 0.5), 1) ** 0.25
            weight = {"none": np.ones(5), "fourth_root": weight}[c.pos_weight]
            positive = weight * np.maximum(0, 1 - logits / c.margin) ** 2
            negative = np.maximum(0, 1 + logits / c.margin) ** 2
        case "focal":  # Lin et al. 2017, equation 5
            alpha = (1, 1) if c.alpha is None else (c.alpha, 1 - c.alpha)
            positive, negative = (
                -alpha[0] * (1 - s) ** c.gamma * log_s,
                -alpha[1] * s**c.gamma * log_not_s,
            )
        case "asymmetric":  # Ridnik et al. 2021, equations 5 and 7
            p = np.maximum(s - c.probability_shift, 0)
            log_not_p = log_not_s if c.probability_shift == 0 else np.log(1 - p)
            positive, negative = (
                -((1 - s) ** c.gamma_positive) * log_s,
                -(p**c.gamma_negative) * log_not_p,
            )
        case "class_balanced":  # Cui et al. 2019, equation 12
            weight = (1 - c.beta) / (1 - c.beta ** np.maximum(n, 1))
            weight *= 5 / weight.sum()
            positive, negative = (
                -weight * (1 - s) ** c.gamma * log_s,
                -weight * s**c.gamma * log_not_s,
            )
        case (
            "distribution_balanced"
        ):  # Wu et al. 2020, equations 4 to 9, with Huang et al. 2021's focusing
            counts = np.maximum(n, 0.5)
            with np.errstate(divide="ignore"):
                ratio = (1 / counts) / (labels @ (1 / counts))[:, None]
            weight = c.alpha + 1 / (1 + np.exp(-c.beta * (ratio - c.mu)))
            z = logits - c.bias_scale * np.log((100 - counts) / counts)
            z[:, 4] = logits[:, 4] - c.bias_scale * np.log(100 / 0.5)
            scaled = c.negative_scale * z
            positive = -weight * np.exp(_log_sigmoid(-z)) ** c.gamma * _log_sigmoid(z)
            negative = (
                -weight
                / c.negative_scale
                * np.exp(_log_sigmoid(scaled)) ** c.gamma
                * _log_sigmoid(-scaled)
            )
    targets = labels * (1 - c.label_smoothing) + c.label_smoothing / 2
    return (targets * positive + (1 - targets) * negative).sum(1) * document_weights


def _reference_gradient(config, labels, logits, document_weights, step=1e-5):
    gradient = np.zeros_like(logits)
    for column in range(logits.shape[1]):
        moved = np.zeros_like(logits)
        moved[:, column] = step
        ahead, behind = (
            _reference(config, labels, logits + sign * moved, document_weights) for sign in (1, -1)
        )
        gradient[:, column] = (ahead - behind) / (2 * step)
    return gradient


def _random_batch(seed, scale):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, (6, 5)).astype(np.float64)
    labels[3] = 0  # a document without labels
    logits = np.float64(np.float32(generator.normal(0, scale, (6, 5))))
    document_weights = np.float64(np.float32(generator.uniform(0, 3, 6)))
    return labels, logits, document_weights


def _loss_and_gradient(config, labels, logits, document_weights, counts=COUNTS):
    loss = losses.build_loss(config, **counts)
    logits = tf.constant(logits, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(tf.constant(labels), logits, tf.constant(document_weights, tf.float32))
    return value.numpy(), tape.gradient(value, logits).numpy()


# --- values and gradients ----------------------------------------------------------------


@pytest.mark.parametrize("values", CONFIGS, ids=IDS)
@settings(max_examples=12)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.1, 3.0, 10.0]))
def test_loss_and_gradient_equal_the_papers_in_float64(values, seed, scale):
    config, batch = _config(**values), _random_batch(seed, scale)
    value, gradient = _loss_and_gradient(config, *batch)
    np.testing.assert_allclose(value, _reference(config, *batch), rtol=3e-5, atol=1e-6)
    expected = _reference_gradient(config, *batch)
    # The asymmetric loss has a kink where s = shift, which a difference may straddle.
    near_kink = (
        np.abs(1 / (1 + np.exp(-batch[1])) - getattr(config, "probability_shift", -1)) < 1e-4
    )
    np.testing.assert_allclose(
        np.where(near_kink, 0, gradient), np.where(near_kink, 0, expected), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("values", CONFIGS, ids=IDS)
def test_extreme_logits_give_finite_losses_and_gradients_of_the_right_sign(values):
    cases = np.array(list(itertools.product([0.0, 1.0], [-1000.0, -90.0, 0.0, 90.0, 1000.0])))
    labels, logits = (np.tile(column[:, None], 5) for column in cases.T)
    value, gradient = _loss_and_gradient(_config(**values), labels, logits, np.ones(len(cases)))
    assert np.isfinite(value).all() and (value >= 0).all()
    assert np.isfinite(gradient).all()
    if values.get("label_smoothing", 0) == 0:
        assert (gradient * (2 * labels - 1) <= 0).all()


@pytest.mark.parametrize("values", CONFIGS, ids=IDS)
def test_bool_and_integer_labels_count_like_floats_and_weights_multiply(values):
    labels, logits, document_weights = _random_batch(1, 1.0)
    document_weights[2] = 0
    config = _config(**values)
    value, gradient = _loss_and_gradient(config, labels, logits, document_weights)
    for dtype in (bool, np.int64):
        np.testing.assert_array_equal(
            _loss_and_gradient(config, labels.astype(dtype), logits, document_weights)[0], value
        )
    np.testing.assert_allclose(
        value,
        document_weights * _loss_and_gradient(config, labels, logits, np.ones(6))[0],
        rtol=1e-6,
    )
    assert value[2] == 0 and not gradient[2].any()


def test_focal_and_asymmetric_and_class_balanced_without_their_keys_are_plain_cross_entropy():
    labels, logits, document_weights = _random_batch(2, 3.0)
    plain = _loss_and_gradient(_config(pos_weight="none"), labels, logits, document_weights)
    for values in (
        {"name": "focal", "gamma": 0.0, "alpha": None},
        {
            "name": "asymmetric",
            "gamma_positive": 0.0,
            "gamma_negative": 0.0,
            "probability_shift": 0.0,
        },
        {"name": "class_balanced", "beta": 0.0},
    ):
        for got, expected in zip(
            _loss_and_gradient(_config(**values), labels, logits, document_weights),
            plain,
            strict=True,
        ):
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("values", CONFIGS, ids=IDS)
def test_losses_give_in_a_graph_what_they_give_outside(values):
    loss = losses.build_loss(_config(**values), **COUNTS)
    labels, logits, document_weights = (tf.constant(x, tf.float32) for x in _random_batch(4, 1.0))
    np.testing.assert_allclose(
        tf.function(loss)(labels, logits, document_weights),
        loss(labels, logits, document_weights),
        rtol=1e-5,
    )


def test_losses_and_calibration_can_be_read_by_autograph():
    loss = losses.build_loss(_config(), **COUNTS)
    for function in (loss, undo_loss_weighting, prior_correction, label_weights.label_weights):
        assert callable(
            tf.autograph.to_graph(function)
        )  # what AutoGraph cannot read it only warns of, at each use


def test_every_key_of_every_loss_changes_it():
    batch = _random_batch(3, 2.0)
    changes = {
        "weighted_bce": {"pos_weight": "balanced", "max_pos_weight": 2.0, "label_smoothing": 0.1},
        "squared_hinge": {"margin": 2.0, "pos_weight": "fourth_root", "label_smoothing": 0.1},
        "focal": {"gamma": 1.0, "alpha": 0.5, "label_smoothing": 0.1},
        "asymmetric": {
            "gamma_positive": 1.0,
            "gamma_negative": 2.0,
            "probability_shift": 0.1,
            "label_smoothing": 0.1,
        },
        "class_balanced": {"beta": 0.9, "gamma": 1.0, "label_smoothing": 0.1},
        "distribution_balanced": {
            "alpha": 0.2,
            "beta": 2.0,
            "mu": 0.5,
            "negative_scale": 5.0,
            "bias_scale": 0.5,
            "gamma": 1.0,
            "label_smoothing": 0.1,
        },
    }
    for name, keys in changes.items():
        default = _loss_and_gradient(_config(name=name), *batch)[0]
        for key, value in keys.items():
            assert not np.allclose(
                _loss_and_gradient(_config(name=name, **{key: value}), *batch)[0],
                default,
                rtol=1e-4,
            ), (name, key)
    one, other = (
        _loss_and_gradient(
            _config(pos_weight="effective_number", effective_number_beta=beta), *batch
        )[0]
        for beta in (0.9, 0.999)
    )
    assert not np.allclose(one, other)


# --- weights -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pos_weight", "max_pos_weight", "expected"),
    [
        # 100 documents; labels with 0, 1, 20, 50, 99 and 100 positives
        ("none", 20.0, [1, 1, 1, 1, 1, 1]),
        ("balanced", 20.0, [20, 20, 4, 1, 1, 1]),
        ("balanced", 3.0, [3, 3, 3, 1, 1, 1]),
        ("sqrt", 20.0, [20, 99**0.5, 2, 1, 1, 1]),
        ("sqrt", 5.0, [5, 5, 2, 1, 1, 1]),
        (
            "effective_number",
            20.0,
            [20, 10 * (1 - 0.9**99), (1 - 0.9**80) / (1 - 0.9**20), 1, 1, 1],
        ),
    ],
)
def test_positive_weights_follow_the_counts_and_stay_clipped(pos_weight, max_pos_weight, expected):
    config = _config(
        pos_weight=pos_weight, max_pos_weight=max_pos_weight, effective_number_beta=0.9
    )
    weights = label_weights.positive_weights(config, np.array([0, 1, 20, 50, 99, 100]), 100)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_effective_number_goes_from_one_to_the_plain_count_with_beta():
    counts = np.array([0, 1, 7, 1000])
    np.testing.assert_array_equal(label_weights.effective_number(counts, 0.0), [0, 1, 1, 1])
    np.testing.assert_allclose(label_weights.effective_number(counts, 1 - 1e-12), counts, rtol=1e-6)


def test_positive_weights_come_from_a_file_by_label_name(tmp_path):
    path = tmp_path / "weights.json"
    path.write_text(json.dumps({"b": 2.5, "a": 30}))
    config = _config(pos_weight="file", pos_weight_file=str(path))
    weights = label_weights.positive_weights(config, np.array([3, 4]), 10, label_names=["a", "b"])
    assert weights.dtype == np.float32
    np.testing.assert_array_equal(weights, [30, 2.5])
    loss = losses.build_loss(
        config, positives=np.array([3, 4]), num_documents=10, label_names=["a", "b"]
    )
    np.testing.assert_allclose(
        loss(tf.ones([1, 2]), tf.zeros([1, 2]), tf.ones([1])), [32.5 * np.log(2)], rtol=1e-6
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "cannot read .*No such file"),
        ("{", "cannot read "),
        ("[1, 2]", "holds list; expected a JSON object"),
        ('{"a": 1}', r"lacks 'b' \(1 missing, 0 unknown of 2 labels\)"),
        ('{"a": 1, "b": 1, "c": 1}', r"has the unknown 'c' \(0 missing, 1 unknown of 2 labels\)"),
        ('{"a": 1, "b": 0}', "has 0 for 'b'"),
        ('{"a": 1, "b": "2"}', "has '2' for 'b'"),
        ('{"a": 1, "b": true}', "has True for 'b'"),
        ('{"a": NaN, "b": 1}', "has nan for 'a'"),
    ],
)
def test_bad_file_of_weights_is_a_user_error(tmp_path, content, expected):
    path = tmp_path / "weights.json"
    if content is not None:
        path.write_text(content)
    config = _config(pos_weight="file", pos_weight_file=str(path))
    with pytest.raises(UserError, match=f"loss.pos_weight_file: .*{expected}"):
        label_weights.positive_weights(config, np.array([3, 4]), 10, label_names=["a", "b"])


def test_output_bias_is_the_log_odds_and_finite_for_labels_on_none_or_all_documents():
    bias = label_weights.output_bias(np.array([0, 1, 25, 50, 100]), 100)
    assert bias.dtype == np.float32
    np.testing.assert_allclose(
        bias, [np.log(0.5 / 100), np.log(1 / 99), np.log(1 / 3), 0, np.log(100 / 0.5)], rtol=1e-6
    )


def test_output_bias_minimises_the_unweighted_loss():
    labels = np.zeros((100, 2))
    labels[:3, 0] = labels[:40, 1] = 1
    positives = labels.sum(0).astype(int)
    bias = label_weights.output_bias(positives, 100)
    counts = {"positives": positives, "num_documents": 100}
    _, gradient = _loss_and_gradient(
        _config(pos_weight="none"), labels, np.tile(bias, (100, 1)), np.ones(100), counts
    )
    np.testing.assert_allclose(gradient.sum(0), 0, atol=1e-4)


# --- calibration -------------------------------------------------------------------------

# With this alpha the weights of the distribution-balanced loss, which depend on the document's
# other labels, are equal.
CALIBRATED = [
    values | ({"alpha": 1e6} if values["name"] == "distribution_balanced" else {})
    for values in CONFIGS
]


@pytest.mark.parametrize("values", CALIBRATED, ids=IDS)
def test_undo_loss_weighting_inverts_the_logit_that_minimises_the_expected_loss(values):
    config = _config(**values)
    grid = np.linspace(-12, 12, 24_001)
    absent, present = np.zeros((2, len(grid), 5))
    for label, loss in ((0.0, absent), (1.0, present)):
        for column in range(5):
            # One label at a time, the others at a logit that does not change.
            logits, labels = np.zeros((2, len(grid), 5))
            logits[:, column], labels[:, column] = grid, label
            loss[:, column] = _reference(config, labels, logits, np.ones(len(grid)))
    probabilities = np.array([0.06, 0.3, 0.5, 0.9])
    best = [grid[(p * present + (1 - p) * absent).argmin(0)] for p in probabilities]
    correction = prior_correction(config, **COUNTS)
    got = undo_loss_weighting(
        config, tf.constant(best, tf.float32), correction=tf.constant(correction)
    )
    expected = np.log(probabilities / (1 - probabilities))
    np.testing.assert_allclose(got, np.tile(expected[:, None], 5), atol=0.01)


@pytest.mark.parametrize("values", CONFIGS, ids=IDS)
def test_undone_logits_are_finite_and_keep_the_order(values):
    config = _config(**values)
    logits = tf.constant(
        np.tile(np.concatenate([[-1000.0], np.linspace(-40, 40, 801), [1000.0]])[:, None], 5),
        tf.float32,
    )
    got = undo_loss_weighting(
        config, logits, correction=tf.constant(prior_correction(config, **COUNTS))
    ).numpy()
    assert np.isfinite(got).all()
    assert (np.diff(got, axis=0) >= -1e-4 * np.abs(got[1:])).all()


def test_prior_correction_of_weighted_cross_entropy_is_minus_the_log_of_the_weight():
    correction = prior_correction(_config(pos_weight="balanced"), **COUNTS)
    assert correction.dtype == np.float32
    np.testing.assert_allclose(correction, -np.log([20, 4, 1, 1, 20]), rtol=1e-6)


# --- the plan ----------------------------------------------------------------------------


def test_plan_tells_the_weights_of_head_mid_and_tail_labels():
    positives = np.array([600, 10, 300, 40, 5, 45])
    plan = describe_loss(_config(pos_weight="balanced"), positives=positives, num_documents=1000)
    assert plan.splitlines() == [
        "loss weighted_bce (label_smoothing 0.0, pos_weight balanced, max_pos_weight 20.0, "
        "effective_number_beta 0.999)",
        "  head: 1 labels on 600 to 600 of 1,000 documents; mean weight of positives 1.00, of "
        "negatives 1.00; logits to be shifted by +0.00",
        "  mid: 1 labels on 300 to 300 of 1,000 documents; mean weight of positives 2.33, of "
        "negatives 1.00; logits to be shifted by -0.85",
        "  tail: 4 labels on 5 to 45 of 1,000 documents; mean weight of positives 20.00, of "
        "negatives 1.00; logits to be shifted by -3.00",
    ]


@given(positives=st.lists(st.integers(0, 1000), min_size=1, max_size=30))
def test_every_label_is_in_one_group_and_heads_are_the_fewest_that_hold_half(positives):
    positives = np.array(positives)
    groups = label_groups(positives)
    assert sorted(np.concatenate(list(groups.values()))) == list(range(len(positives)))
    head = positives[groups["head"]]
    if positives.sum():
        assert head.sum() >= positives.sum() / 2
        assert head[:-1].sum() < positives.sum() / 2
        assert head.min() >= max(
            positives[np.concatenate([groups["mid"], groups["tail"]])], default=0
        )


@pytest.mark.parametrize("values", CONFIGS, ids=IDS)
def test_plan_names_the_loss_and_its_options(values):
    plan = describe_loss(_config(**values), **COUNTS)
    assert plan.startswith(f"loss {values['name']} (")
    for key, value in values.items():
        assert key == "name" or value is None or f"{key} {value}" in plan
    assert ("by how rare the label is" in plan) == (values["name"] == "distribution_balanced")
