"""What every architecture promises, and each one against a reference in NumPy.

A document at a time and without padding.
"""

import functools
import json
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from pydantic import TypeAdapter

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.model import ModelConfig
from tests.small_models import SMALL, VOCABULARY
from trainer.models import build_model
from trainer.models.transformer import sinusoidal_positions

SIZE = VOCABULARY.size
BIAS = np.array([-3.0, -1.0, 0.5], np.float32)
DOCUMENTS = [[2, 3, 2, 6], [4], [], [5, 1, 6, 6, 6, 2, 9, 17], [8, 9]]
LONG = [2 + i % SIZE for i in range(20)]
SEQUENCE_MODELS = ["cnn", "lstm", "cnn_lwan", "bow_lwan", "transformer"]
every_architecture = pytest.mark.parametrize("name", SMALL)


def _build(name, *, seed=0, **changes):
    config = TypeAdapter(ModelConfig).validate_json(
        json.dumps({"name": name} | SMALL[name] | changes)
    )
    return build_model(config, vocabulary=VOCABULARY, num_labels=3, output_bias=BIAS, seed=seed)


def _ragged(documents):
    return tf.ragged.constant(documents, dtype=tf.int64, ragged_rank=1, row_splits_dtype=tf.int64)


def _logits(model, documents, training=False):
    return model(_ragged(documents), training=training).numpy()


def _weights(model):
    """Weights in float64 by their path, grown so that nothing hides in values near 0."""
    generator = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(generator.normal(0, 0.5, variable.shape))
    values = {v.path.removeprefix(f"{model.name}/"): np.float64(v.numpy()) for v in model.variables}
    by_label = (
        "logits/kernel",
        "label_attention/queries_kernel",
        "label_attention/outputs_kernel",
    )  # [labels, inputs]; the formulas have them the other way
    return {name: value.T if name in by_label else value for name, value in values.items()}


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


# --- what all promise --------------------------------------------------------------------


@every_architecture
def test_padding_never_changes_a_documents_logits(name):
    model = _build(name)
    _weights(model)
    alone = [_logits(model, [document])[0] for document in DOCUMENTS]
    np.testing.assert_allclose(_logits(model, [*DOCUMENTS, LONG])[:-1], alone, rtol=1e-4, atol=1e-5)


@every_architecture
def test_a_batch_of_empty_documents_gives_finite_logits_and_gradients(name):
    model = _build(name)
    tokens = _ragged([[], []])
    with tf.GradientTape() as tape:
        logits = model(tokens, training=True)
        loss = tf.reduce_sum(tf.square(logits))
    assert np.isfinite(logits).all() and logits.shape == (2, 3)
    gradients = [tf.convert_to_tensor(g) for g in tape.gradient(loss, model.trainable_variables)]
    assert all(np.isfinite(g).all() for g in gradients)
    np.testing.assert_allclose(_logits(model, [[]]), [BIAS], rtol=1e-6)


@every_architecture
def test_equal_seeds_give_equal_models_and_dropout_and_others_do_not(name):
    def steps(seed):
        model = _build(name, seed=seed, dropout=0.5)
        return [model.get_weights(), [_logits(model, DOCUMENTS, training=True) for _ in range(2)]]

    one, same, other = steps(1), steps(1), steps(2)
    for a, b in zip(tf.nest.flatten(one), tf.nest.flatten(same), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.allclose(one[1][0], other[1][0])
    assert not np.allclose(one[1][0], one[1][1], atol=1e-7)  # the dropout goes on


@every_architecture
def test_no_two_weights_start_equal(name):
    matrices = [
        v.numpy()
        for v in _build(
            name, **({"embedding_dim": 6} if name != "transformer" else {})
        ).trainable_variables
        if v.path.endswith("kernel")
    ]
    for i, a in enumerate(matrices):
        for b in matrices[:i]:
            size = min(a.size, b.size)
            assert not np.allclose(
                a.ravel()[:size] / np.abs(a).max(), b.ravel()[:size] / np.abs(b).max(), atol=1e-3
            )


@every_architecture
def test_gradient_of_the_embeddings_is_sparse_with_each_row_once(name):
    model = _build(name)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(model(_ragged(DOCUMENTS), training=True)))
    tables = [v for v in model.trainable_variables if v.name == "embeddings"]
    tokens = {token for document in DOCUMENTS for token in document}
    of_bags = [name in ("bow", "mlp")] if name != "bow_lwan" else [True, False]
    for is_of_bags, gradient in zip(of_bags, tape.gradient(loss, tables), strict=True):
        assert isinstance(gradient, tf.IndexedSlices)
        rows = gradient.indices.numpy()
        assert len(set(rows)) == len(rows)
        read = tokens
        if is_of_bags:  # unknown tokens have weight 0
            assert not gradient.values.numpy()[rows < 2].any()
            rows, read = rows[rows >= 2], tokens - {1}
        assert {row for row in rows if row < SIZE + 2} == read


@pytest.mark.parametrize("name", sorted(set(SEQUENCE_MODELS) - {"bow_lwan"}))
def test_tokens_behind_max_tokens_do_not_count_and_others_do(name):
    model = _build(name, max_tokens=4)
    document = [2, 3, 4, 5]
    np.testing.assert_allclose(
        _logits(model, [document + [7, 8], document]), _logits(model, [document] * 2), rtol=1e-5
    )
    assert not np.allclose(_logits(model, [[2, 3, 4, 7]]), _logits(model, [document]))


@pytest.mark.parametrize("name", SEQUENCE_MODELS)
def test_word_order_matters(name):
    model = _build(name)
    _weights(model)
    assert not np.allclose(
        _logits(model, [[2, 3, 4, 5]]), _logits(model, [[5, 4, 3, 2]]), rtol=1e-3
    )


CHANGES = {
    "mlp": {
        "embedding_dim": 5,
        "dropout": 0.5,
        "token_weights": "uniform",
        "bigram_buckets": 0,
        "hidden_units": [6, 4],
    },
    "cnn": {
        "embedding_dim": 5,
        "dropout": 0.5,
        "max_tokens": 2,
        "filter_widths": [1, 2],
        "filters": 5,
    },
    "lstm": {
        "embedding_dim": 5,
        "dropout": 0.5,
        "max_tokens": 2,
        "units": 5,
        "layers": 2,
        "bidirectional": False,
        "pooling": "last",
        "spatial_dropout": 0.5,
    },
    "cnn_lwan": {
        "embedding_dim": 5,
        "dropout": 0.5,
        "max_tokens": 2,
        "filter_width": 3,
        "filters": 5,
    },
    "bow_lwan": {
        "embedding_dim": 5,
        "dropout": 0.5,
        "token_weights": "uniform",
        "bigram_buckets": 0,
        "max_tokens": 2,
        "filter_width": 2,
        "filters": 5,
        "candidates": 1,
        "convolution_dim": 5,
    },
    "transformer": {
        "embedding_dim": 6,
        "dropout": 0.5,
        "max_tokens": 2,
        "layers": 2,
        "heads": 4,
        "feed_forward_dim": 10,
        "positions": "learned",
    },
}


@pytest.mark.parametrize(
    ("name", "key"), [(name, key) for name, keys in CHANGES.items() for key in keys]
)
def test_every_config_key_changes_the_model(name, key):
    changed = _build(name, **(_still(name) | {key: CHANGES[name][key]}))
    assert not np.allclose(_logits(changed, DOCUMENTS, training=True), _unchanged_logits(name))


def _still(name):
    return {"dropout": 0.0} | ({"spatial_dropout": 0.0} if name == "lstm" else {})


@functools.cache
def _unchanged_logits(name):
    return _logits(_build(name, **_still(name)), DOCUMENTS, training=True)


# --- each against its paper --------------------------------------------------------------


def test_mlp_is_dense_layers_on_the_vector_of_bow():
    model = _build("mlp", bigram_buckets=0)
    w = _weights(model)
    bow = _build("bow", bigram_buckets=0, wide=False)
    table, dense = (
        next(v for v in bow.trainable_variables if v.path.endswith(end))
        for end in ("embeddings", "logits/kernel")
    )
    table.assign(w["table/embeddings"])
    dense.assign(np.eye(8, 3).T)
    x = np.zeros((len(DOCUMENTS), 8))
    for start in (0, 3, 5):  # the bag's vector, three of its units at a time
        dense.assign(np.eye(8, 3, -start).T)
        x[:, start : start + 3] = _logits(bow, DOCUMENTS) - BIAS
    for layer in ("hidden_0", "hidden_1"):
        x = np.maximum(x @ w[f"{layer}/kernel"] + w[f"{layer}/bias"], 0)
    np.testing.assert_allclose(
        _logits(model, DOCUMENTS), x @ w["logits/kernel"] + w["logits/bias"], rtol=1e-3, atol=1e-4
    )


def test_cnn_equals_its_reference():
    model = _build("cnn")
    w = _weights(model)
    expected = []
    for document in DOCUMENTS:
        vectors = np.concatenate([w["table/embeddings"][document].reshape(-1, 8), np.zeros((2, 8))])
        features = []
        for width in (1, 3):
            windows = [
                np.einsum("wd,wdf->f", vectors[i : i + width], w[f"width_{width}/kernel"])
                for i in range(len(document))
            ]
            features.append(
                np.max([np.maximum(x + w[f"width_{width}/bias"], 0) for x in windows], axis=0)
                if windows
                else np.zeros(6)
            )
        expected.append(np.concatenate(features) @ w["logits/kernel"] + w["logits/bias"])
    np.testing.assert_allclose(_logits(model, DOCUMENTS), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pooling", ["max", "last"])
def test_lstm_equals_its_reference(pooling):
    model = _build("lstm", pooling=pooling, layers=2)
    w = _weights(model)

    def read(vectors, layer):
        h, c, states = np.zeros(6), np.zeros(6), []
        for x in vectors:
            kernel, recurrent, bias = (
                w[f"{layer}/lstm_cell/{part}"] for part in ("kernel", "recurrent_kernel", "bias")
            )
            i, f, g, o = np.split(x @ kernel + h @ recurrent + bias, 4)
            c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
            h = _sigmoid(o) * np.tanh(c)
            states.append(h)
        return np.array(states).reshape(-1, 6)

    expected = []
    for document in DOCUMENTS:
        x = w["table/embeddings"][document].reshape(-1, 8)
        for layer in range(2):
            x = np.concatenate(
                [read(x, f"forward_{layer}"), read(x[::-1], f"backward_{layer}")[::-1]], axis=1
            )
        pooled = (
            np.zeros(12)
            if not document
            else x.max(0)
            if pooling == "max"
            else np.concatenate([x[-1, :6], x[0, 6:]])
        )
        expected.append(pooled @ w["logits/kernel"] + w["logits/bias"])
    np.testing.assert_allclose(_logits(model, DOCUMENTS), expected, rtol=1e-4, atol=1e-4)


def test_cnn_lwan_equals_its_reference():
    model = _build("cnn_lwan")
    w = {name.removeprefix("label_attention/"): value for name, value in _weights(model).items()}
    filters = w["convolution_kernel"] / (4 * 8) ** 0.5
    queries, outputs = w["queries_kernel"] / 6**0.5, w["outputs_kernel"] / 6**0.5
    expected = []
    for document in DOCUMENTS:
        padded = np.concatenate(
            [np.zeros((1, 8)), w["table/embeddings"][document].reshape(-1, 8), np.zeros((2, 8))]
        )
        windows = [np.einsum("wd,wdf->f", padded[i : i + 4], filters) for i in range(len(document))]
        hidden = np.tanh(np.array(windows).reshape(-1, 6) + w["convolution_bias"])
        logits = w["labels_bias"].copy()
        for label in range(3):
            attention = np.exp(hidden @ queries[:, label])
            attention /= max(attention.sum(), 1e-300)
            logits[label] += (attention @ hidden) @ outputs[:, label]
        expected.append(logits)
    np.testing.assert_allclose(_logits(model, DOCUMENTS), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
def test_transformer_equals_its_reference(positions):
    model = _build("transformer", positions=positions, layers=2)
    w = _weights(model)

    def norm(x, layer):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * w[
            f"{layer}/gamma"
        ] + w[f"{layer}/beta"]

    def dense(x, layer):
        return x @ w[f"{layer}/kernel"] + w[f"{layer}/bias"]

    expected = []
    for document in DOCUMENTS:
        places = (
            w["positions"] if positions == "learned" else np.float64(sinusoidal_positions(256, 8))
        )
        x = w["table/embeddings"][document].reshape(-1, 8) * np.sqrt(8) + places[: len(document)]
        for i in range(2):
            query, key, value = np.split(
                dense(norm(x, f"encoder_{i}_attention_norm"), f"encoder_{i}_query_key_value"),
                3,
                axis=1,
            )
            heads = []
            for head in (slice(0, 4), slice(4, 8)):
                scores = np.exp(query[:, head] @ key[:, head].T / 2)
                heads.append(scores / scores.sum(1, keepdims=True) @ value[:, head])
            x = x + dense(np.concatenate(heads, axis=1), f"encoder_{i}_attention_output")
            inner = np.maximum(
                dense(norm(x, f"encoder_{i}_feed_forward_norm"), f"encoder_{i}_feed_forward_in"), 0
            )
            x = x + dense(inner, f"encoder_{i}_feed_forward_out")
        mean = norm(x, "norm").mean(0) if document else np.zeros(8)
        expected.append(dense(mean, "logits"))
    np.testing.assert_allclose(_logits(model, DOCUMENTS), expected, rtol=1e-3, atol=1e-3)


def test_sinusoidal_positions_have_the_papers_wavelengths():
    positions = sinusoidal_positions(100, 6)
    for pair, wavelength in enumerate([1.0, 10_000 ** (2 / 6), 10_000 ** (4 / 6)]):
        np.testing.assert_allclose(
            positions[:, 2 * pair], np.sin(np.arange(100) / wavelength), atol=1e-5
        )
        np.testing.assert_allclose(
            positions[:, 2 * pair + 1], np.cos(np.arange(100) / wavelength), atol=1e-5
        )


# --- a model of one's own ----------------------------------------------------------------

OWN_MODULE = """
import keras, numpy as np, tensorflow as tf

class Own(keras.Model):
    def __init__(self, options, inputs):
        super().__init__()
        shape = (inputs.vocabulary.size + 2, inputs.num_labels)
        self.table = self.add_weight(name="embeddings", shape=shape, initializer="zeros")
        bias = inputs.output_bias * options["scale"]
        self.bias = self.add_weight(
            name="bias",
            shape=(inputs.num_labels,),
            initializer=lambda shape, dtype: tf.constant(bias, dtype),
        )
        self.built = True
    def call(self, tokens, training=False):
        return tf.reduce_sum(tf.gather(self.table.value, tokens), axis=1) + self.bias

def build(options, inputs):
    return Own(options, inputs)

def no_model(options, inputs):
    return 7

def infinite(options, inputs):
    return Own({"scale": float("inf")}, inputs)

def wrong_shape(options, inputs):
    import dataclasses
    bias = np.zeros(2, np.float32)
    return Own(options, dataclasses.replace(inputs, num_labels=2, output_bias=bias))
"""


def _own(tmp_path, monkeypatch, function):
    (tmp_path / "own_model_for_tests.py").write_text(OWN_MODULE)
    monkeypatch.chdir(tmp_path)  # installed commands find modules where they are called
    monkeypatch.setattr(sys, "path", list(sys.path))
    config = TypeAdapter(ModelConfig).validate_python(
        {"name": "custom", "build": f"own_model_for_tests:{function}", "scale": 2.0}
    )
    return build_model(config, vocabulary=VOCABULARY, num_labels=3, output_bias=BIAS, seed=0)


def test_custom_model_is_built_with_its_options(tmp_path, monkeypatch):
    model = _own(tmp_path, monkeypatch, "build")
    assert isinstance(model, keras.Model)
    np.testing.assert_allclose(_logits(model, [[2, 3], []]), [2 * BIAS] * 2)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (
            "nothing",
            "received 'own_model_for_tests:nothing': .*has no attribute 'nothing'; expected "
            "package.module:name",
        ),
        ("no_model", "own_model_for_tests:no_model returned int, expected a keras.Model"),
        (
            "wrong_shape",
            r"gives tf.float32 \[2, 2\] for two documents and 3 labels, expected tf.float32 \[2, "
            r"3\]",
        ),
        ("infinite", "expected finite logits"),
    ],
)
def test_custom_model_that_does_not_fit_is_a_user_error(tmp_path, monkeypatch, function, expected):
    with pytest.raises(UserError, match=f"model.build: .*{expected}"):
        _own(tmp_path, monkeypatch, function)


def test_custom_model_of_a_missing_module_is_a_user_error():
    config = TypeAdapter(ModelConfig).validate_python(
        {"name": "custom", "build": "no.such_module:build"}
    )
    with pytest.raises(
        UserError, match="model.build: received 'no.such_module:build': No module named 'no'"
    ):
        build_model(config, vocabulary=VOCABULARY, num_labels=3, output_bias=BIAS, seed=0)
