"""Weights whose rows are divided over devices."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.distribution.divided_rows import Division, computed_on, wholes

TWO_CPUS = ("/cpu:0", "/cpu:1")
VALUES = np.arange(15, dtype=np.float32).reshape(5, 3)


def _weight(division, values=VALUES, name="kernel"):
    def initial(shape, dtype):
        return tf.constant(values, dtype)

    return division.add_weight(keras.layers.Layer(), name, values.shape, initial)


@pytest.mark.parametrize("scope", ["one_device", "none"])
def test_parts_are_blocks_of_rows_on_their_devices_whatever_the_strategy(scope):
    strategy = {
        "one_device": tf.distribute.OneDeviceStrategy("/cpu:0"),
        "none": tf.distribute.get_strategy(),
    }[scope]
    with strategy.scope():
        parts = _weight(Division(5, TWO_CPUS))
        vectors = _weight(Division(5, TWO_CPUS), np.arange(10.0))
    for first, second in (parts, vectors):
        assert first.value.device.endswith("CPU:0") and second.value.device.endswith("CPU:1")
    np.testing.assert_array_equal(parts[0], VALUES[:2])
    np.testing.assert_array_equal(parts[1], VALUES[2:])
    assert [part.shape for part in vectors] == [(4,), (6,)]  # two numbers a row
    Division(5, TWO_CPUS).assign(parts, -VALUES)
    np.testing.assert_array_equal(np.concatenate(parts), -VALUES)


@pytest.mark.parametrize("rows", [[4, 0, 2, 2, 1], [0, 1], [3], []])
@pytest.mark.parametrize("devices", [(None,), TWO_CPUS, (*TWO_CPUS, "/cpu:0")])
def test_what_is_computed_of_rows_is_in_their_order(devices, rows):
    division = Division(5, devices)
    parts = _weight(division)

    def rows_times(number, rows, factors):
        return tf.gather(parts[number].value, rows) * factors[:, None]

    factors = tf.range(len(rows), dtype=tf.float32)
    rows = tf.constant(rows, tf.int64)
    result = division.of_blocks(rows_times, rows, factors)
    np.testing.assert_array_equal(result, VALUES[rows.numpy()] * factors.numpy()[:, None])


def test_a_gradient_is_that_of_the_tape_and_has_only_the_rows_that_were_read():
    factors = tf.Variable([2.0, 3.0])
    found = []
    for device in (None, "/cpu:1"):
        (part,) = _weight(Division(5, (device,)))
        with tf.GradientTape() as tape:
            result = computed_on(
                device,
                lambda values, part=part: tf.gather(part.value, [3, 1]) * values[:, None],
                tf.square(factors),
                variables=[part],
            )
            loss = tf.reduce_sum(tf.square(result))
        found.append(tape.gradient(loss, [factors, part.value]))
    (whole, rows), (placed, placed_rows) = found
    np.testing.assert_allclose(placed, whole, rtol=1e-6)
    assert isinstance(placed_rows, tf.IndexedSlices) and placed_rows.values.device[-5:] == "CPU:1"
    np.testing.assert_array_equal(placed_rows.indices, [3, 1])
    np.testing.assert_allclose(placed_rows.values, rows.values, rtol=1e-6)


def test_a_checkpoint_of_one_division_is_restored_in_another(tmp_path):
    divisions = [Division(5, devices) for devices in ((None,), TWO_CPUS)]
    for i, saved in enumerate(divisions):
        other = keras.Variable(float(i))
        variables = [other, *_weight(saved), *_weight(saved, -VALUES, "bias")]
        path = tf.train.Checkpoint(all=wholes(variables)).save(str(tmp_path / str(i)))
        reader = tf.train.load_checkpoint(path)
        np.testing.assert_array_equal(reader.get_tensor("all/1/.ATTRIBUTES/VARIABLE_VALUE"), VALUES)
        for restored in divisions:
            kernel, bias = _weight(restored, 0 * VALUES), _weight(restored, 0 * VALUES, "bias")
            checkpoint = tf.train.Checkpoint(all=wholes([other, *kernel, *bias]))
            status = checkpoint.restore(path)
            status.assert_existing_objects_matched()
            np.testing.assert_array_equal(np.concatenate(kernel), VALUES)
            np.testing.assert_array_equal(np.concatenate(bias), -VALUES)
