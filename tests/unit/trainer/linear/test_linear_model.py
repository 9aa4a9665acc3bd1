import numpy as np
import pytest
import tensorflow as tf

from trainer.linear.documents import Documents
from trainer.linear.features import KINDS, Features, make_tables
from trainer.models.inputs import ModelInputs, VocabularyStatistics
from trainer.models.linear import FeatureTables, LinearClassifier, SparseWeights, one_text

TOKENS = ["a", "b", "cc", "dd", "eee"]
VOCABULARY = VocabularyStatistics(5, np.array([4, 4, 3, 2, 2]), 6, TOKENS)
DOCUMENTS = [[2, 3, 2, 3], [4, 2, 3], [], [5, 6, 1, 4], [6, 5, 4, 2, 3], [2]] * 30
LABELS = 4


def _ragged(documents):
    return tf.ragged.constant(documents, dtype=tf.int64, ragged_rank=1, row_splits_dtype=tf.int64)


def _documents():
    lengths = [len(document) for document in DOCUMENTS]
    tokens = np.array([token for document in DOCUMENTS for token in document], np.int32)
    return Documents(tokens, np.cumsum([0, *lengths]), None, np.ones(len(DOCUMENTS), np.float32))


def _model(features):
    tables = make_tables(features, _documents(), VOCABULARY)
    inputs = ModelInputs(VOCABULARY, LABELS, np.zeros(LABELS, np.float32), seed=0)
    num_terms = LinearClassifier(inputs, tables).features.num_rows
    dense = np.random.default_rng(0).normal(size=(num_terms, LABELS)).astype(np.float32)
    dense[np.abs(dense) < 0.5] = 0
    bias = np.array([-1, 0.5, -5, 2], np.float32)
    splits = np.cumsum([0, *np.count_nonzero(dense, axis=1)])
    weights = SparseWeights(splits, dense.nonzero()[1].astype(np.int32), dense[dense != 0], bias)
    return LinearClassifier(inputs, tables, weights), dense, bias, tables


@pytest.mark.parametrize("features", KINDS)
def test_logits_are_the_features_times_the_weights(features):
    model, dense, bias, tables = _model(features)
    expected = Features(tables, VOCABULARY).matrix(_documents()) @ dense + bias
    logits = model(_ragged(DOCUMENTS))  # more than are computed at a time
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(logits[2], bias)
    some = model(_ragged(DOCUMENTS), label_ids=tf.constant([3, 1], tf.int64))
    np.testing.assert_array_equal(some, logits.numpy()[:, [3, 1]])
    assert model(_ragged(DOCUMENTS)[:0]).shape == (0, LABELS)


@pytest.mark.parametrize("features", KINDS)
def test_the_contributions_of_tokens_and_the_bias_sum_to_the_logits(features):
    model, _, bias, _ = _model(features)
    for document in DOCUMENTS[:6]:
        tokens = _ragged([document])
        contributions, shown_bias = model.contributions(tokens)
        assert contributions.shape == (len(document), LABELS)
        np.testing.assert_array_equal(shown_bias, bias)
        np.testing.assert_allclose(
            contributions.numpy().sum(axis=0) + bias, model(tokens)[0], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("features", KINDS)
def test_a_model_of_the_saved_sizes_has_variables_of_the_same_shapes(features):
    model, *_ = _model(features)
    inputs = ModelInputs(VOCABULARY, LABELS, np.zeros(LABELS, np.float32), 0, sizes=model.sizes)
    empty = LinearClassifier(inputs)
    assert [v.shape for v in empty.variables] == [v.shape for v in model.variables]
    for variable, value in zip(empty.variables, model.variables, strict=True):
        variable.assign(value)
    np.testing.assert_array_equal(empty(_ragged(DOCUMENTS)), model(_ragged(DOCUMENTS)))


def test_several_texts_are_one_with_a_gap_that_no_bigram_spans():
    texts = _ragged([[2], [], [3, 4]]), _ragged([[3], [5], []])
    assert one_text(texts).to_list() == [[2, 1, 3], [1, 5], [3, 4, 1]]
    model, *_ = _model("words_bigrams")
    together, apart = model(_ragged([[2, 3]])), model((_ragged([[2]]), _ragged([[3]])))
    assert not np.allclose(together, apart)


def test_a_model_that_is_not_fitted_has_its_bias_alone():
    bias = np.array([1.0, -2.0], np.float32)
    model = LinearClassifier(ModelInputs(VOCABULARY, 2, bias, seed=0))
    np.testing.assert_array_equal(model(_ragged([[2, 3], []])), [bias, bias])
    assert FeatureTables.empty({}, VOCABULARY).characters is None
