import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfTransformer

from beam_jobs.contract.sections.network_models import BowConfig
from trainer.models import VocabularyStatistics, build_model
from trainer.models.term_bags import hash_pairs, smooth_idf

COUNTS = np.array([90, 40, 12, 3, 2], np.int64)
VOCABULARY = VocabularyStatistics(size=5, document_counts=COUNTS, num_documents=100)
BIAS = np.array([-3.0, -1.0, 0.5], np.float32)
DOCUMENTS = [[2, 3, 2, 6], [4], [], [1, 1], [5, 1, 6, 6, 6, 2]]


def _build(*, seed=0, vocabulary=VOCABULARY, output_bias=BIAS, **config):
    config = BowConfig(**({"embedding_dim": 4, "bigram_buckets": 0} | config))
    return build_model(
        config, vocabulary=vocabulary, num_labels=3, output_bias=output_bias, seed=seed
    )


def _ragged(documents):
    return tf.ragged.constant(documents, dtype=tf.int64, ragged_rank=1, row_splits_dtype=tf.int64)


def _variable(model, name):
    return next(v for v in model.variables if v.path.endswith(name)).numpy()


def _reference_logits(model, documents, idf_of_token):
    """Unigram logits by scikit-learn's sublinear TF-IDF and a dense matrix product."""
    counts = np.zeros((len(documents), len(idf_of_token)))
    for row, ids in enumerate(documents):
        for token in ids:
            counts[row, token] += token >= 2
    transformer = TfidfTransformer(sublinear_tf=True, use_idf=False, norm=None)
    weights = transformer.fit_transform(counts).toarray() * idf_of_token
    weights /= np.maximum(np.linalg.norm(weights, axis=1, keepdims=True), 1e-12)
    return weights @ _variable(model, "embeddings")[: len(idf_of_token)] @ _variable(
        model, "kernel"
    ).T + _variable(model, "bias")


def test_smooth_idf_equals_scikit_learns():
    generator = np.random.default_rng(0)
    matrix = generator.random((50, 7)) < generator.random(7)
    expected = TfidfTransformer(smooth_idf=True).fit(matrix).idf_
    np.testing.assert_allclose(smooth_idf(matrix.sum(0), 50), expected, rtol=1e-6)


@settings(max_examples=25)
@given(
    documents=st.lists(st.lists(st.integers(1, 6), max_size=12), min_size=1, max_size=6),
    weighting=st.sampled_from(["tfidf", "uniform"]),
)
def test_logits_equal_a_dense_tfidf_reference(documents, weighting):
    model = _build(token_weights=weighting)
    idf = smooth_idf(COUNTS, 100) if weighting == "tfidf" else np.ones(5)
    expected = _reference_logits(model, documents, np.concatenate([[0, 0], idf]))
    np.testing.assert_allclose(
        model(_ragged(documents), training=False), expected, rtol=1e-4, atol=1e-5
    )


PAIRS = pytest.mark.parametrize(
    "pairs", [{}, {"bigram_buckets": 16}, {"bigram_buckets": 16, "bigram_dim": 2}], ids=str
)


@PAIRS
def test_documents_without_a_known_token_get_the_bias(pairs):
    logits = _build(**pairs)(_ragged([[], [1], [1, 1, 1]]), training=False)
    np.testing.assert_array_equal(logits, np.tile(BIAS, (3, 1)))


@pytest.mark.parametrize("wrap", [lambda step: step, tf.function], ids=["eager", "graph"])
@PAIRS
def test_a_batch_without_any_token_trains_the_bias_alone(pairs, wrap):
    model = _build(**pairs)

    def gradients():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(_ragged([[], [1]] * 32), training=True))
        return tape.gradient(loss, model.trainable_variables)

    for variable, gradient in zip(model.trainable_variables, wrap(gradients)(), strict=True):
        assert np.abs(tf.convert_to_tensor(gradient)).sum() == (
            192.0 if variable.path.endswith("bias") else 0.0
        )


@PAIRS
def test_a_documents_logits_do_not_depend_on_its_batch(pairs):
    model = _build(**pairs)
    together = model(_ragged(DOCUMENTS), training=False)
    for row, document in enumerate(DOCUMENTS):
        np.testing.assert_allclose(
            model(_ragged([document]), training=False)[0], together[row], rtol=1e-5, atol=1e-6
        )


NGRAMS = [(0, 1), (4, 0), (0, 4, 4), (3, 3)]
WITH_NGRAMS = VocabularyStatistics(
    size=5,
    document_counts=COUNTS,
    num_documents=100,
    ngrams=NGRAMS,
    ngram_document_counts=np.array([30, 9, 4, 2]),
)


@settings(max_examples=25)
@given(documents=st.lists(st.lists(st.integers(0, 6), max_size=12), min_size=1, max_size=6))
def test_ngrams_of_the_vocabulary_are_terms_with_their_own_idf(documents):
    model = _build(vocabulary=WITH_NGRAMS)
    idf = np.concatenate(
        [[0, 0], smooth_idf(COUNTS, 100), smooth_idf(WITH_NGRAMS.ngram_document_counts, 100)]
    )
    ids = [tuple(place + 2 for place in ngram) for ngram in NGRAMS]
    # The rows of n-grams stand in the order of their codes.
    order = sorted(
        ids,
        key=lambda ngram: sum(token * 7 ** (len(ngram) - 1 - i) for i, token in enumerate(ngram)),
    )
    idf = np.concatenate([idf[:7], idf[7:][[ids.index(ngram) for ngram in order]]])
    rows = []
    for document in documents:
        runs = [tuple(document[i : i + n]) for n in (2, 3) for i in range(len(document) - n + 1)]
        rows.append([*document, *(7 + order.index(run) for run in runs if run in order)])
    np.testing.assert_allclose(
        model(_ragged(documents), training=False),
        _reference_logits(model, rows, idf),
        rtol=1e-4,
        atol=1e-5,
    )


def test_word_order_matters_with_bigrams_only():
    forward, backward = _ragged([[2, 3, 4, 5]]), _ragged([[5, 4, 3, 2]])
    unigrams, bigrams = _build(), _build(bigram_buckets=1 << 16)
    np.testing.assert_allclose(unigrams(forward), unigrams(backward), rtol=1e-5)
    assert not np.allclose(bigrams(forward), bigrams(backward), rtol=1e-3)


def test_bigrams_do_not_cross_documents_or_unknown_tokens():
    model = _build(bigram_buckets=1 << 16)
    apart = model(_ragged([[2], [3], [2, 1, 3]]), training=False)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(_ragged([[2], [3], [2, 1, 3]]), training=False))
    gradient = tape.gradient(loss, model.trainable_variables)[0]
    rows = gradient.indices.numpy()
    assert sorted(rows[rows >= 2]) == [2, 3]
    assert not gradient.values.numpy()[rows < 2].any()
    assert np.isfinite(apart).all()


def test_bigrams_that_share_a_row_are_terms_of_their_own():
    model = _build(bigram_buckets=1)
    rows, bags = model._bag._terms(_ragged([[2, 3, 4]]))
    of_bigrams = bags.values.numpy()[
        rows.numpy()[bags.indices.numpy()[:, 1]] == model._bag._terms.num_rows - 1
    ]
    assert len(of_bigrams) == 2 and of_bigrams.all()
    np.testing.assert_allclose(tf.reduce_sum(tf.square(bags.values)), 1, rtol=1e-6)


def test_pairs_of_their_own_equal_a_dense_reference():
    model = _build(bigram_buckets=1000, bigram_dim=2)
    idf = np.concatenate([[0, 0], smooth_idf(COUNTS, 100)])
    words, pairs = (_variable(model, f"{table}/embeddings") for table in ("table", "pairs"))
    vectors = []
    for document in DOCUMENTS:
        known = [token for token in set(document) if token > 1]
        of_words = {token: (1 + np.log(document.count(token))) * idf[token] for token in known}
        of_pairs = [
            ((a, b), (idf[a] + idf[b]) / 2)
            for a, b in zip(document, document[1:], strict=False)
            if min(a, b) > 1
        ]
        weights = [*of_words.values(), *(weight for _, weight in of_pairs)]
        vector = sum((weight * words[token] for token, weight in of_words.items()), np.zeros(4))
        for pair, weight in of_pairs:
            bucket = int(hash_pairs(*map(tf.constant, np.array(pair)), 1000))
            vector[:2] += 2 * weight * pairs[bucket]  # 4 units / 2 dimensions
        vectors.append(vector / max(np.linalg.norm(weights), 1e-12))
    logits = np.array(vectors) @ _variable(model, "kernel").T + BIAS
    np.testing.assert_allclose(model(_ragged(DOCUMENTS)), logits, rtol=1e-4, atol=1e-5)


def test_bigram_rows_are_stable():
    # Golden: an exported model's hash must never change under a trained table.
    model = _build(bigram_buckets=1000)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(_ragged([[2, 3, 6]]), training=False))
    assert sorted(tape.gradient(loss, model.trainable_variables)[0].indices.numpy()) == [
        0,  # where no bigram ends
        2,
        3,
        6,
        221,
        954,
    ]


def test_bigram_hash_spreads_over_its_buckets():
    model = _build(bigram_buckets=1024)
    pairs = [[a, b] for a in range(2, 102) for b in range(2, 102)]
    first, second = tf.unstack(tf.constant(pairs, tf.int64), axis=1)
    used = model._bag._terms._bigram_rows(first, second).numpy() - model._bag._terms._num_token_rows
    loads = np.bincount(used, minlength=1024)
    # Mean 9.8 a bucket; a random hash stays within this at all but a chance of one in a million.
    assert len(loads) == 1024
    assert loads.max() < 30
    assert (loads == 0).mean() < 0.02


def test_embedding_gradient_is_sparse_with_each_row_once_and_equals_finite_differences():
    model = _build(bigram_buckets=8)
    tokens = _ragged(DOCUMENTS)
    projection = tf.constant(np.random.default_rng(0).normal(size=(5, 3)), tf.float32)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(tokens, training=False) * projection)
    embeddings = model.trainable_variables[0]
    gradient = tape.gradient(loss, embeddings)
    assert isinstance(gradient, tf.IndexedSlices)
    assert len(set(gradient.indices.numpy())) == len(gradient.indices)
    dense = tf.convert_to_tensor(gradient).numpy()
    before = embeddings.numpy()
    for row in range(len(before)):
        moved = before.copy()
        moved[row, 1] += 1.0  # the logits are linear in the embeddings, so any step is exact
        embeddings.assign(moved)
        change = tf.reduce_sum(model(tokens, training=False) * projection) - loss
        np.testing.assert_allclose(change, dense[row, 1], rtol=1e-3, atol=1e-4)


def test_equal_seeds_give_equal_models_and_others_do_not():
    one, same, other = _build(seed=1), _build(seed=1), _build(seed=2)
    for a, b in zip(one.variables, same.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(_variable(one, "embeddings"), _variable(other, "embeddings"))
    assert not np.array_equal(_variable(one, "kernel"), _variable(other, "kernel"))


def test_repeated_steps_in_a_graph_are_bit_equal():
    generator = np.random.default_rng(0)
    vocabulary = VocabularyStatistics(
        size=2000, document_counts=generator.integers(2, 100, 2000), num_documents=1000
    )
    model = _build(embedding_dim=64, bigram_buckets=4096, vocabulary=vocabulary)
    tokens = _ragged(
        [generator.integers(1, 2002, n).tolist() for n in generator.integers(0, 120, 256)]
    )

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(model(tokens, training=False)))
        gradients = tape.gradient(loss, model.trainable_variables)
        return [gradients[0].values, *gradients[1:]]

    first = step()
    for _ in range(3):
        for a, b in zip(first, step(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_dropout_drops_in_training_only():
    model = _build(dropout=0.5, embedding_dim=64)
    tokens = _ragged([[2, 3, 4, 5, 6]])
    still = [model(tokens, training=False).numpy() for _ in range(2)]
    moving = [model(tokens, training=True).numpy() for _ in range(2)]
    np.testing.assert_array_equal(*still)
    assert not np.allclose(*moving)


def test_every_config_key_changes_the_model():
    tokens = _ragged(DOCUMENTS)
    default = _build()(tokens, training=True).numpy()
    # The wide part starts at 0 and freezing at no difference; tests below are on them, and tests of
    # vectors on those.
    for changes in (
        {"embedding_dim": 5},
        {"token_weights": "uniform"},
        {"dropout": 0.5},
        {"bigram_buckets": 8},
        {"bigram_buckets": 8, "bigram_dim": 3},
        {"bigram_buckets": 8, "bigram_dim": 4},
    ):
        assert not np.allclose(_build(**changes)(tokens, training=True), default), changes


def test_wide_part_adds_a_linear_model_on_the_weights_of_the_terms():
    narrow, wide = _build(), _build(wide=True)
    np.testing.assert_array_equal(
        narrow(_ragged(DOCUMENTS)), wide(_ragged(DOCUMENTS))
    )  # it starts at 0
    weights = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    next(v for v in wide.trainable_variables if v.name == "wide_embeddings").assign(weights)
    next(v for v in wide.trainable_variables if v.name == "embeddings").assign(np.zeros((7, 4)))
    counts = np.array(
        [[document.count(token) * (token >= 2) for token in range(7)] for document in DOCUMENTS]
    )
    features = (
        TfidfTransformer(sublinear_tf=True, use_idf=False, norm=None)
        .fit_transform(counts)
        .toarray()
    )
    features *= np.concatenate([[0, 0], smooth_idf(COUNTS, 100)])
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    np.testing.assert_allclose(
        wide(_ragged(DOCUMENTS)), features @ weights + BIAS, rtol=1e-4, atol=1e-5
    )


def test_wide_part_gets_a_sparse_gradient_with_each_row_once():
    model = _build(wide=True, bigram_buckets=8)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(model(_ragged(DOCUMENTS), training=True)))
    gradients = dict(
        zip(
            [v.name for v in model.trainable_variables],
            tape.gradient(loss, model.trainable_variables),
            strict=True,
        )
    )
    rows = gradients["wide_embeddings"].indices.numpy()
    assert len(set(rows)) == len(rows)
    np.testing.assert_array_equal(rows, gradients["embeddings"].indices)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"document_counts of shape \(5,\), expected \(6,\)"):
        _build(vocabulary=VocabularyStatistics(size=6, document_counts=COUNTS, num_documents=100))
    with pytest.raises(ValueError, match=r"output_bias of shape \(2,\), expected \(3,\)"):
        _build(output_bias=BIAS[:2])
