from typing import get_args

import keras
import numpy as np
import pytest
import tensorflow as tf

from beam_jobs.contract.sections.optimizer import OptimizerConfig
from trainer.training import optimizers
from trainer.training.optimizers import build_optimizer
from trainer.training.sparse_gradients import add_gradients, with_distinct_rows

NAMES = get_args(OptimizerConfig.model_fields["name"].annotation)


def _descend(optimizer, steps=3, gradients=None):
    """Weights after some steps on gradients that differ from step to step."""
    weights = keras.Variable(np.linspace(-1, 1, 6).reshape(3, 2), dtype="float32")
    optimizer.build([weights])
    for step in range(steps):
        gradient = (
            gradients[step] if gradients else tf.fill([3, 2], 0.1 + step) * tf.sign(weights.value)
        )
        optimizer.apply([gradient], [weights])
    return weights.numpy()


def test_each_name_is_another_optimizer():
    results = {
        name: _descend(build_optimizer(OptimizerConfig(name=name, learning_rate=0.1)))
        for name in NAMES
    }
    for a in NAMES:
        for b in NAMES:
            equal = a.removeprefix("lazy_") == b.removeprefix(
                "lazy_"
            )  # on dense gradients lazy Adam is Adam, by design
            assert np.allclose(results[a], results[b], atol=1e-6) == equal, (a, b)


@pytest.mark.parametrize("name", NAMES)
def test_learning_rate_scales_the_first_step(name):
    steps = [
        _descend(build_optimizer(OptimizerConfig(name=name, learning_rate=rate)), steps=1)
        for rate in (1e-3, 2e-3)
    ]
    start = np.linspace(-1, 1, 6).reshape(3, 2)
    np.testing.assert_allclose(steps[1] - start, 2 * (steps[0] - start), rtol=1e-2)


def test_lazy_adam_equals_adam_when_every_row_is_in_every_step():
    generator = np.random.default_rng(0)
    dense = [tf.constant(generator.normal(size=(3, 2)), tf.float32) for _ in range(5)]
    slices = [
        tf.IndexedSlices(
            tf.gather(g, [2, 0, 1]),
            tf.constant([2, 0, 1], tf.int64),
            dense_shape=tf.constant([3, 2]),
        )
        for g in dense
    ]
    lazy, adam = optimizers.LazyAdam(0.1), keras.optimizers.Adam(0.1)
    np.testing.assert_allclose(_descend(lazy, 5, slices), _descend(adam, 5, dense), rtol=1e-5)
    for a, b in zip(lazy.variables, adam.variables, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def _pairs(values):
    table = keras.layers.Layer(name="pairs")
    table.add_weight(
        name="embeddings",
        shape=values.shape,
        initializer=lambda shape, dtype: tf.constant(values, dtype),
    )
    return table.weights[0]


@pytest.mark.parametrize("dense", [False, True])
def test_lazy_adam_keeps_one_second_moment_a_row_of_pairs(dense):
    start = np.linspace(-1, 1, 6).reshape(3, 2)
    pairs = _pairs(start)
    optimizer = build_optimizer(OptimizerConfig(learning_rate=0.1))
    optimizer.build([pairs])
    assert [state.shape for state in optimizer.variables[2:]] == [(3, 2), (3,)]
    expected, m, v = start.copy(), np.zeros((3, 2)), np.zeros(3)
    for step in range(1, 4):
        gradient = np.array([[0.5, -1.0], [step, 2.0], [0.1, 0.3 * step]])
        optimizer.apply(
            [
                tf.constant(gradient, tf.float32)
                if dense
                else tf.IndexedSlices(
                    tf.constant(gradient[::-1], tf.float32), tf.constant([2, 1, 0])
                )
            ],
            [pairs],
        )
        m = 0.9 * m + 0.1 * gradient
        v = 0.999 * v + 0.001 * (gradient**2).mean(axis=1)
        rate = 0.1 * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        expected -= rate * m / (np.sqrt(v) + 1e-7)[:, None]
    np.testing.assert_allclose(pairs, expected, rtol=1e-4)


def test_the_state_of_lazy_adam_has_the_order_of_adams():
    weights = [keras.Variable(np.zeros((3, 2)), name=name) for name in ("one", "other")]
    lazy, adam = build_optimizer(OptimizerConfig()), keras.optimizers.Adam()
    for optimizer in (lazy, adam):
        optimizer.build(weights)
    assert [v.name for v in lazy.variables] == [v.name for v in adam.variables]


def test_rows_that_a_graph_shows_to_be_distinct_are_not_searched_for_repeated_ones():
    table = tf.Variable(np.eye(4), dtype=tf.float32)

    def gradient_of(rows):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(tf.gather(table, rows)))
        return with_distinct_rows(tape.gradient(loss, table)).indices

    def num_unique(step):
        graph = tf.function(step).get_concrete_function(tf.TensorSpec([None], tf.int64)).graph
        return sum(operation.type == "Unique" for operation in graph.get_operations())

    assert num_unique(lambda ids: gradient_of(tf.unique(ids).y)) == 1
    assert num_unique(lambda ids: gradient_of(tf.unique(ids).idx)) == 2
    assert num_unique(lambda ids: gradient_of(tf.concat([tf.unique(ids).y] * 2, 0))) == 2


def test_lazy_adam_leaves_rows_outside_the_batch_alone():
    gradient = tf.IndexedSlices(
        tf.ones([1, 2]), tf.constant([1], tf.int64), dense_shape=tf.constant([3, 2])
    )
    optimizer = optimizers.LazyAdam(0.1)
    before, after = (
        np.linspace(-1, 1, 6).reshape(3, 2).astype(np.float32),
        _descend(optimizer, 3, [gradient] * 3),
    )
    np.testing.assert_array_equal(after[[0, 2]], before[[0, 2]])
    np.testing.assert_allclose(after[1], before[1] - 0.3, rtol=1e-4)


def test_lazy_adam_sums_the_gradients_of_a_repeated_row():
    def slices(rows, values):
        return tf.IndexedSlices(
            tf.constant(values), tf.constant(rows, tf.int64), dense_shape=tf.constant([3, 2])
        )

    repeated = [slices([1, 0, 1], [[1.0, 2.0], [3.0, 3.0], [5.0, -4.0]]), slices([0], [[1.0, 1.0]])]
    summed = [slices([1, 0], [[6.0, -2.0], [3.0, 3.0]]), slices([0], [[1.0, 1.0]])]
    np.testing.assert_allclose(
        _descend(optimizers.LazyAdam(0.1), 2, repeated),
        _descend(optimizers.LazyAdam(0.1), 2, summed),
        rtol=1e-6,
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_takes_a_row_that_occurs_twice_for_the_sum_of_both(name):
    def slices(rows, values):
        return tf.IndexedSlices(
            tf.constant(values), tf.constant(rows, tf.int64), dense_shape=tf.constant([3, 2])
        )

    repeated, summed = (
        slices([1, 0, 1], [[1.0, 2.0], [3.0, 3.0], [5.0, -4.0]]),
        slices([1, 0], [[6.0, -2.0], [3.0, 3.0]]),
    )
    results = [
        _descend(build_optimizer(OptimizerConfig(name=name, learning_rate=0.1)), 2, [g] * 2)
        for g in (repeated, summed)
    ]
    np.testing.assert_allclose(results[0], results[1], rtol=1e-6)


@pytest.mark.parametrize(
    "kinds",
    ["dense dense", "sparse sparse", "dense sparse", "none sparse", "dense none", "none none"],
)
def test_gradients_of_every_kind_add_up(kinds):
    made = {
        "dense": tf.reshape(tf.range(6.0), [3, 2]),
        "sparse": tf.IndexedSlices(
            tf.constant([[1.0, 2.0], [3.0, 4.0]]),
            tf.constant([2, 2], tf.int64),
            tf.constant([3, 2], tf.int64),
        ),
        "none": None,
    }
    left, right = (made[kind] for kind in kinds.split())
    total = add_gradients(left, right)
    if left is right is None:
        assert total is None
        return
    expected = sum(tf.convert_to_tensor(g).numpy() for g in (left, right) if g is not None)
    np.testing.assert_array_equal(tf.convert_to_tensor(total), expected)
    assert isinstance(total, tf.IndexedSlices) == ("dense" not in kinds)


# --- row-wise Adagrad --------------------------------------------------------------------


def _embeddings(values):
    return keras.Variable(np.float32(values), name="embeddings")


def test_row_wise_adagrad_equals_its_reference_and_keeps_one_number_a_row():
    generator = np.random.default_rng(0)
    start = generator.normal(size=(4, 3))
    table, optimizer = _embeddings(start), optimizers.RowWiseAdagrad(0.5)
    optimizer.build([table])
    assert [v.shape for v in optimizer.variables if "accumulator" in v.path] == [(4,)]
    expected, sums = start.copy(), np.zeros(4)
    for _ in range(4):
        rows, values = np.array([2, 0, 2]), generator.normal(size=(3, 3))
        optimizer.apply(
            [
                tf.IndexedSlices(
                    tf.constant(values, tf.float32),
                    tf.constant(rows, tf.int64),
                    tf.constant([4, 3]),
                )
            ],
            [table],
        )
        for row, gradient in (
            (0, values[1]),
            (2, values[0] + values[2]),
        ):  # a row that occurs twice counts once
            sums[row] += np.mean(gradient**2)
            expected[row] -= 0.5 * gradient / np.sqrt(sums[row] + 1e-7)
    np.testing.assert_allclose(table.numpy(), expected, rtol=1e-5)
    np.testing.assert_array_equal(table.numpy()[[1, 3]], np.float32(start[[1, 3]]))


def test_row_wise_adagrad_takes_dense_gradients_of_embeddings_and_sparse_ones_of_other_weights():
    generator = np.random.default_rng(0)
    start, dense = (
        generator.normal(size=(3, 2)),
        [tf.constant(generator.normal(size=(3, 2)), tf.float32) for _ in range(3)],
    )
    slices = [tf.IndexedSlices(g, tf.range(3), tf.constant([3, 2])) for g in dense]
    results = {}
    for name, gradients in (
        ("embeddings", dense),
        ("embeddings", slices),
        ("kernel", dense),
        ("kernel", slices),
    ):
        weights, optimizer = (
            keras.Variable(np.float32(start), name=name),
            optimizers.RowWiseAdagrad(0.1),
        )
        optimizer.build([weights])
        for gradient in gradients:
            optimizer.apply([gradient], [weights])
        results[name, gradients is dense] = weights.numpy()
    np.testing.assert_allclose(results["embeddings", True], results["embeddings", False], rtol=1e-6)
    np.testing.assert_allclose(results["kernel", True], results["kernel", False], rtol=1e-6)
    assert not np.allclose(results["kernel", True], results["embeddings", True])


# --- clipping, decay, schedules, averages --------------------------------------------------


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_gradients_are_clipped_to_the_norm_of_all_weights_with_repeated_rows_summed(scale):
    table, bias = (
        _embeddings(np.zeros((3, 2))),
        keras.Variable(np.zeros(2, np.float32), name="bias"),
    )
    optimizer = build_optimizer(OptimizerConfig(name="sgd", learning_rate=1.0, clip_norm=2.0))
    optimizer.build([table, bias])
    slices = tf.IndexedSlices(
        scale * tf.constant([[1.0, 0], [2.0, 0], [0, 4.0]]),
        tf.constant([1, 1, 2]),
        tf.constant([3, 2]),
    )
    optimizer.apply([slices, scale * tf.constant([12.0, 0.0])], [table, bias])
    factor = min(scale, 2.0 / 13)  # the norm of 3, 4 and 12 is 13
    np.testing.assert_allclose(
        table.numpy(), -factor * np.array([[0, 0], [3, 0], [0, 4]]), rtol=1e-5
    )
    np.testing.assert_allclose(bias.numpy(), -factor * np.array([12, 0]), rtol=1e-5)


def test_a_gradient_that_is_no_number_is_not_hidden_by_clipping():
    weights = keras.Variable(np.zeros(2, np.float32))
    optimizer = build_optimizer(OptimizerConfig(name="sgd", clip_norm=1.0))
    optimizer.build([weights])
    optimizer.apply([tf.constant([np.inf, 1.0])], [weights])
    assert np.isnan(weights.numpy()).any()


@pytest.mark.parametrize("name", NAMES)
def test_weight_decay_shrinks_kernels_and_nothing_else(name):
    def after(**config):
        variables = [
            keras.Variable(np.ones((2, 2), np.float32), name=n)
            for n in ("kernel", "bias", "gamma", "beta", "embeddings")
        ]
        optimizer = build_optimizer(OptimizerConfig(name=name, learning_rate=0.1, **config))
        optimizer.build(variables)
        optimizer.apply([tf.zeros([2, 2])] * 5, variables)
        return {v.name: v.numpy()[0, 0] for v in variables}

    assert after(weight_decay=0.0) == dict.fromkeys(
        ("kernel", "bias", "gamma", "beta", "embeddings"), 1.0
    )
    decayed = after(weight_decay=0.5)
    assert decayed.pop("kernel") == pytest.approx(0.95)
    assert set(decayed.values()) == {1.0}
    assert after()["kernel"] == pytest.approx(1 - 0.1 * 0.004 if name == "adamw" else 1.0, abs=1e-7)


def test_schedule_sets_the_rate_of_each_step():
    config = OptimizerConfig(
        name="sgd", learning_rate=1.0, schedule="linear", warmup_fraction=0.5, final_fraction=0.5
    )
    optimizer, weights = (
        build_optimizer(config, total_steps=4),
        keras.Variable(np.zeros(1, np.float32)),
    )
    optimizer.build([weights])
    moves = []
    for _ in range(4):
        before = weights.numpy()[0]
        optimizer.apply([tf.ones(1)], [weights])
        moves.append(before - weights.numpy()[0])
    np.testing.assert_allclose(moves, [0.5, 1.0, 1.0, 0.75], rtol=1e-5)


# --- loss scaling, plateaus ------------------------------------------------------------------


def _scaled(**config):
    table, bias = _embeddings(np.ones((3, 2))), keras.Variable(np.ones(2, np.float32), name="bias")
    optimizer = build_optimizer(
        OptimizerConfig(name="sgd", learning_rate=0.5, **config), scales_loss=True
    )
    optimizer.build([table, bias])

    def step(table_gradient, bias_gradient):
        values = tf.constant([table_gradient], tf.float32) * optimizer.scale_loss(1.0)
        slices = tf.IndexedSlices(values, tf.constant([1], tf.int64), tf.constant([3, 2], tf.int64))
        optimizer.apply(
            [slices, tf.constant(bias_gradient, tf.float32) * optimizer.scale_loss(1.0)],
            [table, bias],
        )
        return table.numpy()[1].tolist(), bias.numpy().tolist()

    return optimizer, step


@pytest.mark.parametrize("config", [{}, {"clip_norm": 100.0}])
def test_scaled_gradients_give_the_steps_of_plain_ones(config):
    _, step = _scaled(**config)
    assert step([1.0, -1.0], [0.5, 0.0]) == ([0.5, 1.5], [0.75, 1.0])


@pytest.mark.parametrize("wrong", [np.inf, np.nan])
@pytest.mark.parametrize("config", [{}, {"clip_norm": 1.0}])
def test_an_update_with_a_gradient_that_overflows_is_left_out_and_the_scale_halved(wrong, config):
    optimizer, step = _scaled(**config)
    before = float(optimizer.scale_loss(1.0))
    assert step([wrong, 0.0], [1.0, 1.0]) == ([1.0, 1.0], [1.0, 1.0])
    assert step([0.0, 0.0], [1.0, wrong]) == ([1.0, 1.0], [1.0, 1.0])
    assert float(optimizer.scale_loss(1.0)) == before / 4
    assert step([0.5, 0.0], [0.0, 0.5]) == ([0.75, 1.0], [1.0, 0.75])


def test_the_scale_doubles_after_many_finite_updates_in_a_row(monkeypatch):
    monkeypatch.setattr(optimizers, "_LOSS_SCALE_GROWTH_STEPS", 3)
    optimizer, step = _scaled()
    before, scales = float(optimizer.scale_loss(1.0)), []
    for gradient in (0.0, 0.0, np.inf, 0.0, 0.0, 0.0, 0.0):
        step([0.0, 0.0], [gradient, 0.0])
        scales.append(float(optimizer.scale_loss(1.0)) / before)
    assert scales == [1, 1, 0.5, 0.5, 0.5, 1, 1]


def test_at_the_least_scale_a_run_that_diverges_shows_in_its_weights():
    optimizer, step = _scaled()
    for _ in range(15):  # from 2**15 to 1
        assert step([0.0, 0.0], [np.inf, 0.0])[1] == [1.0, 1.0]
    assert float(optimizer.scale_loss(1.0)) == 1.0
    assert not np.isfinite(step([0.0, 0.0], [np.inf, 0.0])[1]).all()


def test_the_rate_factor_of_a_plateau_scales_the_step_and_the_warm_up():
    config = OptimizerConfig(name="sgd", learning_rate=1.0, schedule="plateau", warmup_fraction=0.5)
    optimizer, weights = (
        build_optimizer(config, total_steps=4),
        keras.Variable(np.zeros(1, np.float32)),
    )
    optimizer.build([weights])
    moves = []
    for factor in (1.0, 0.5, 0.5, 0.25):
        optimizer.rate_factor.assign(factor)
        before = weights.numpy()[0]
        optimizer.apply([tf.ones(1)], [weights])
        moves.append(before - weights.numpy()[0])
    np.testing.assert_allclose(moves, [0.5, 0.5, 0.5, 0.25], rtol=1e-5)
    assert sum(variable is optimizer.rate_factor for variable in optimizer.variables) == 1
