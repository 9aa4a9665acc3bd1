import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import f1_score, precision_recall_fscore_support

from trainer.evaluation.slices import Slicing, describe_slices, slice_counts


def test_documents_are_divided_by_length_and_by_the_values_of_each_field():
    slicing = Slicing((2, 5), {"kind": (b"a", b""), "year": (b"1999",)})
    parsed = {
        "id": tf.constant(["1", "2", "3"]),
        "metadata/kind": tf.constant(["a", "zz", ""]),
        "metadata/year": tf.constant(["1999", "2000", "1999"]),
    }
    lengths = tf.constant([2, 6, 3], tf.int64)
    members = slicing.members(lengths, slicing.metadata_slices(parsed)).numpy()
    names = [f"{by}: {name}" for by, name in slicing.names]
    assert [[name for name, is_in in zip(names, row, strict=True) if is_in] for row in members] == [
        ["length: 0 to 2 tokens", "kind: a", "year: 1999"],
        ["length: 6 tokens and more", "kind: (other)", "year: (other)"],
        ["length: 3 to 5 tokens", "kind: (empty)", "year: 1999"],
    ]


def test_slices_without_quantiles_are_one():
    assert Slicing((), {}).names == [("length", "0 tokens and more")]


def test_numbers_of_each_slice_equal_scikit_learn_on_its_documents_and_add_up():
    random = np.random.default_rng(0)
    y, decided = (random.random((60, 5)) < 0.4).astype(np.float32), random.random((60, 5)) < 0.5
    slice_of, mask = random.integers(0, 3, 60), (random.random(60) < 0.8).astype(np.float32)
    members = np.eye(3, dtype=np.float32)[slice_of]
    slicing = Slicing((10, 20), {})

    def counts(rows):
        return {
            name: value.numpy()
            for name, value in slice_counts(
                y[rows], decided[rows], members[rows], mask[rows]
            ).items()
        }

    whole, left, right = counts(slice(None)), counts(slice(0, 25)), counts(slice(25, None))
    for name in whole:
        np.testing.assert_allclose(left[name] + right[name], whole[name])
    for i, row in enumerate(describe_slices(slicing, whole)):
        kept = (slice_of == i) & (mask > 0)
        assert row.documents == kept.sum()
        expected = precision_recall_fscore_support(
            y[kept], decided[kept], average="micro", zero_division=0
        )[:3]
        assert [
            getattr(row, f"micro_{name}") for name in ("precision", "recall", "f1")
        ] == pytest.approx(expected)
        assert row.sample_f1 == pytest.approx(
            f1_score(y[kept], decided[kept], average="samples", zero_division=0)
        )


def test_slices_without_documents_are_left_out():
    counts = {name: np.array([3, 0]) for name in ("documents", "tp", "fp", "fn", "sample_f1")}
    assert [row.name for row in describe_slices(Slicing((4,), {}), counts)] == ["0 to 4 tokens"]
