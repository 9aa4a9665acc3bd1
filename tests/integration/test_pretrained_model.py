"""The model on a pretrained encoder: its vectors, and what stands on them, against NumPy."""

import json

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from pydantic import TypeAdapter

from beam_jobs.contract.encoder_tokenizer import read_tokenizer
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.model import ModelConfig
from tests.tiny_encoder import DIM, PIECES, write_encoder
from trainer.models import VocabularyStatistics, build_model
from trainer.models.backbones import build_encoder, layer_number, load_encoder

BIAS = np.array([0.5, -1.0, 0.0], np.float32)
# The vocabulary has the pieces in another order than the encoder, as a dataset's has.
TOKENS = PIECES[::-1]
DOCUMENTS = [[5, 9, 2], [], [30, 31, 1, 7, 8, 9, 10], [12]]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return str(write_encoder(tmp_path_factory.mktemp("encoder")))


@pytest.fixture(scope="module")
def encoder(directory):
    return load_encoder(directory)


def build(encoder, directory, num_texts=1, **options):
    values = {"name": "pretrained", "max_tokens": 8} | options
    return build_model(
        TypeAdapter(ModelConfig).validate_json(json.dumps(values)),
        vocabulary=VocabularyStatistics(
            size=len(TOKENS),
            document_counts=np.ones(len(TOKENS), np.int64),
            num_documents=9,
            tokens=TOKENS,
        ),
        num_labels=3,
        output_bias=BIAS,
        seed=3,
        num_texts=num_texts,
        encoder=encoder,
        tokenizer=read_tokenizer(directory),
    )


def ragged(rows):
    return tf.ragged.constant(rows, dtype=tf.int64, ragged_rank=1, row_splits_dtype=tf.int64)


def states_of(encoder, document) -> np.ndarray:
    """The encoder's states of a document alone: [CLS], at most six pieces, [SEP]."""
    ids = {piece: i for i, piece in enumerate(PIECES)}
    names = [TOKENS[i - 2] if i > 1 else "[UNK]" for i in document[:6]]
    row = np.array([[ids[name] for name in ("[CLS]", *names, "[SEP]")]], np.int32)
    inputs = {"token_ids": row, "padding_mask": np.ones_like(row), "segment_ids": 0 * row}
    return encoder.network(inputs, training=False).numpy()[0]


def test_a_vector_is_the_mean_or_the_first_of_the_states_of_the_document_alone(encoder, directory):
    states = [states_of(encoder, document) for document in DOCUMENTS]
    mean = build(encoder, directory).encode(ragged(DOCUMENTS)).numpy()
    np.testing.assert_allclose(mean, [rows.mean(axis=0) for rows in states], atol=1e-5)
    first = build(encoder, directory, pooling="cls").encode(ragged(DOCUMENTS)).numpy()
    np.testing.assert_allclose(first, [rows[0] for rows in states], atol=1e-5)


def test_a_batch_of_many_documents_is_encoded_as_each_of_them_is(encoder, directory):
    lengths = np.random.default_rng(0).integers(0, 9, 150)
    documents = [[2 + (i * 7 + j) % 60 for j in range(n)] for i, n in enumerate(lengths)]
    for options in ({"hidden_units": [5]}, {"pooling": "label_attention"}):
        model = build(encoder, directory, **options)
        compiled = tf.function(lambda tokens, model=model: model(tokens, training=False))
        logits = compiled(ragged(documents)).numpy()
        assert logits.shape == (150, 3)
        for i in (0, 70, 149):
            np.testing.assert_allclose(logits[i], model(ragged([documents[i]]))[0], atol=1e-5)
        assert compiled(ragged(documents[:1])[:0]).shape == (0, 3)


def test_vectors_may_take_the_place_of_tokens_and_of_several_texts_each_has_its_own(
    encoder, directory
):
    model = build(encoder, directory, num_texts=2, hidden_units=[5])
    texts = ragged(DOCUMENTS), ragged(DOCUMENTS[::-1])
    vectors = model.encode(texts)
    assert vectors.shape == (4, 2 * DIM)
    np.testing.assert_allclose(vectors[:, :DIM], vectors[::-1, DIM:], atol=1e-5)
    np.testing.assert_allclose(model(texts), model(vectors), atol=1e-6)
    some = model(texts, label_ids=tf.constant([2, 0], tf.int64))
    np.testing.assert_allclose(some, model(texts).numpy()[:, [2, 0]], atol=1e-6)
    assert len(model.trainable_variables) == 4  # the encoder's are not


def test_label_attention_is_that_of_its_equation_over_the_states_of_all_texts(encoder, directory):
    model = build(encoder, directory, num_texts=2, pooling="label_attention")
    weights = {variable.name: variable.numpy() for variable in model.trainable_variables}
    queries, outputs = (weights[f"{name}_kernel"] * DIM**-0.5 for name in ("queries", "outputs"))
    expected = []
    for first, second in zip(DOCUMENTS, DOCUMENTS[::-1], strict=True):
        states = np.concatenate([states_of(encoder, first), states_of(encoder, second)])
        scores = np.exp(states @ queries.T)
        attention = scores / scores.sum(axis=0)
        expected.append((attention * (states @ outputs.T)).sum(axis=0) + BIAS)
    received = model((ragged(DOCUMENTS), ragged(DOCUMENTS[::-1])))
    np.testing.assert_allclose(received, expected, atol=1e-5)
    with pytest.raises(Exception, match="expected no hidden_units with `pooling: label_attention`"):
        build(encoder, directory, pooling="label_attention", hidden_units=[5])


@pytest.mark.parametrize(("layers", "matrices"), [(0, 1), (1, 7), (2, 13), ("all", 16)])
def test_so_many_upper_layers_are_trained(directory, layers, matrices):
    model = build(load_encoder(directory), directory, trainable_layers=layers)
    assert sum(v.path.endswith(("kernel", "embeddings")) for v in model.trainable_variables) == (
        matrices
    )


def test_an_encoder_is_built_again_from_its_description_in_another_precision(encoder):
    again = build_encoder(json.loads(json.dumps(encoder.description)))
    shapes = [variable.shape for variable in encoder.network.variables]
    assert [variable.shape for variable in again.network.variables] == shapes
    again.network.set_weights(encoder.network.get_weights())
    row = np.array([[2, 7, 3]], np.int32)
    inputs = {"token_ids": row, "padding_mask": np.ones_like(row), "segment_ids": 0 * row}
    np.testing.assert_array_equal(again.network(inputs), encoder.network(inputs))
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        half = build_encoder(encoder.description).network
    finally:
        keras.config.set_dtype_policy("float32")
    assert half(inputs).dtype == tf.bfloat16 and half.variables[0].dtype == "float32"


def test_the_pooling_of_a_folder_of_sentence_transformers_is_read(directory, tmp_path):
    root = write_encoder(tmp_path / "sentences")
    (root / "1_Pooling").mkdir()
    pooling = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (root / "1_Pooling/config.json").write_text(json.dumps(pooling))
    assert build(load_encoder(str(root)), directory).pooling == "cls"
    assert build(load_encoder(str(root)), directory, pooling="mean").pooling == "mean"
    pooling = {"pooling_mode_max_tokens": True}
    (root / "1_Pooling/config.json").write_text(json.dumps(pooling))
    with pytest.raises(UserError, match="pools by max_tokens; expected model.pooling"):
        build(load_encoder(str(root)), directory)
    assert build(load_encoder(str(root)), directory, pooling="mean").pooling == "mean"


@pytest.mark.parametrize(("targets", "matrices"), [("query_value", 4), ("all", 12)])
def test_low_rank_updates_alone_are_trained_and_once_merged_the_scores_are_the_same(
    directory, targets, matrices, tmp_path
):
    plain = build(load_encoder(directory), directory)
    options = {"trainable_layers": 1, "lora_rank": 2, "lora_targets": targets}
    model = build(load_encoder(directory), directory, **options)
    logits = model(ragged(DOCUMENTS)).numpy()
    np.testing.assert_allclose(logits, plain(ragged(DOCUMENTS)), atol=1e-5)  # they start at 0
    updates = [v for v in model.trainable_variables if "lora" in v.name]
    assert len(updates) == matrices and {layer_number(v.path) for v in updates} == {1}
    assert len(model.trainable_variables) == 2 + matrices * 3 // 2  # each has its bias
    for variable in updates:
        variable.assign(variable + 0.1)
    logits = model(ragged(DOCUMENTS)).numpy()
    assert not np.allclose(logits, plain(ragged(DOCUMENTS)), atol=1e-3)
    for _ in range(2):
        model.merge_updates()
        np.testing.assert_allclose(model(ragged(DOCUMENTS)), logits, atol=1e-5)
        assert [v.shape for v in model.variables] == [v.shape for v in plain.variables]
    if targets == "all":
        module = tf.Module()
        module.model = model
        tf.saved_model.save(module, str(tmp_path))
        saved = tf.train.list_variables(str(tmp_path / "variables/variables"))
        assert not [name for name, _ in saved if "lora" in name]


@pytest.mark.parametrize("pooling", ["mean", "max", "label_attention"])
def test_a_long_document_is_read_in_windows_by_all_of_which_it_has_a_vector(
    encoder, directory, pooling
):
    if pooling == "label_attention":
        options = {"pooling": pooling}
    else:
        options = {"window_pooling": pooling}
    # Of four pieces each, which begin at every third; one of three, since max_tokens is 14.
    model = build(encoder, directory, window=6, stride=3, max_tokens=14, **options)
    document = list(range(2, 40))
    windows = [document[:4], document[3:7], document[6:10], document[9:12]]
    states = [states_of(encoder, window) for window in windows]
    documents = ragged([[5, 9], document, [], document[:4], [7]])
    if pooling == "label_attention":
        received = model(documents).numpy()
        weights = {variable.name: variable.numpy() for variable in model.trainable_variables}
        queries, outputs = (weights[f"{name}_kernel"] / DIM**0.5 for name in ("queries", "outputs"))
        states = np.concatenate(states)
        scores = np.exp(states @ queries.T)
        expected = (scores / scores.sum(axis=0) * (states @ outputs.T)).sum(axis=0) + BIAS
        short = build(encoder, directory, **options)(documents[:1])
    else:
        received = model.encode(documents).numpy()
        vectors = [rows.mean(axis=0) for rows in states]
        expected = np.max(vectors, axis=0)
        if pooling == "mean":
            expected = np.concatenate(states).mean(axis=0)
        short = [states_of(encoder, [5, 9]).mean(axis=0)]
    np.testing.assert_allclose(received[1], expected, atol=1e-5)
    np.testing.assert_allclose(received[:1], short, atol=1e-5)
    if pooling == "max":
        assert tf.function(model)(documents[:0]).shape == (0, 3)


def test_windows_that_leave_tokens_out_or_cut_no_document_are_refused(encoder, directory):
    for options, expected in (
        ({"window": 6, "stride": 5, "max_tokens": 9}, "leaves tokens out; expected at most"),
        ({"window": 8}, "expected max_tokens above window"),
        ({"stride": 2}, "expected no stride and no window_pooling without window"),
    ):
        with pytest.raises(Exception, match=expected):
            build(encoder, directory, **options)
    with pytest.raises(UserError, match="model.window: received 65, and the encoder has positions"):
        build(encoder, directory, window=65, max_tokens=99)


def test_activations_that_are_computed_again_have_the_same_gradients_and_drop_the_same_units(
    directory,
):
    def gradients(**options):
        keras.utils.set_random_seed(1)  # of dropout within the encoder
        model = build(load_encoder(directory), directory, trainable_layers="all", **options)
        with tf.GradientTape() as tape:
            # Twice: the second pass drops other units than the first.
            logits = [model(ragged(DOCUMENTS), training=True) for _ in range(2)]
            loss = tf.reduce_sum(logits)
        weights = model.trainable_variables
        return (
            logits,
            [tf.convert_to_tensor(g) for g in tape.gradient(loss, weights)],
            [*model.variables],
        )

    kept, again = gradients(), gradients(gradient_checkpointing=True)
    assert not np.allclose(kept[0][0], kept[0][1])
    for one, other in zip(tf.nest.flatten(kept), tf.nest.flatten(again), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def preset(kind, directory, **options):
    sizes = {"vocabulary_size": len(PIECES), "num_heads": 4, "hidden_dim": DIM}
    sizes |= {"intermediate_dim": 64, "max_sequence_length": 64, "num_layers": 2}
    getattr(keras_hub.models, kind)(**sizes, **options).save_to_preset(directory)
    return load_encoder(directory)


@pytest.mark.parametrize(
    ("kind", "options", "layers"),
    [("AlbertBackbone", {"embedding_dim": 16}, 1), ("RobertaBackbone", {}, 2)],
)
def test_layers_of_an_encoder_whose_layers_share_weights_and_of_one_without_segments_are_trained(
    directory, kind, options, layers, tmp_path
):
    encoder = preset(kind, str(tmp_path), **options)
    assert len(encoder.layers) == layers
    settings = {"trainable_layers": 1, "lora_rank": 2, "gradient_checkpointing": True}
    model = build(encoder, directory, **settings)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(ragged(DOCUMENTS), training=True))
    assert None not in tape.gradient(loss, model.trainable_variables)
    assert sum("lora" in v.name for v in model.trainable_variables) == 4
    np.testing.assert_allclose(
        model.encode(ragged(DOCUMENTS[:1])), model.encode(ragged(DOCUMENTS))[:1], atol=1e-5
    )


def test_layers_that_take_more_than_states_are_not_computed_again(directory, tmp_path):
    encoder = preset("DebertaV3Backbone", str(tmp_path))
    expected = "takes rel_embeddings beside states; expected false"
    with pytest.raises(UserError, match=expected):
        build(encoder, directory, trainable_layers=1, gradient_checkpointing=True)


@pytest.mark.parametrize(
    "options",
    [{}, {"window": 6, "stride": 3, "max_tokens": 14}, {"pooling": "label_attention"}],
    ids=["one pass", "windows", "label attention"],
)
def test_the_effects_of_tokens_sum_to_the_logits_difference_from_a_text_of_unknown_pieces(
    encoder, directory, options
):
    model = build(encoder, directory, num_texts=2, **options)
    texts = [[5, 9, 1, 2, 30], [7, 8, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53]]
    label = tf.constant(2, tf.int64)
    effects = model.attributions(tuple(ragged([text]) for text in texts), label)
    unknown = tuple(ragged([[1] * len(text)]) for text in texts)
    logits = [model(tuple(ragged([t]) for t in texts)), model(unknown)]
    assert [len(effect) for effect in effects] == [len(text) for text in texts]
    difference = float(logits[0][0, 2] - logits[1][0, 2])
    assert float(sum(map(tf.reduce_sum, effects))) == pytest.approx(difference, rel=0.05, abs=0.02)
    assert effects[0][2] == 0  # token 1 is unknown
    read = model._max_pieces
    assert np.all(effects[1][:read].numpy() != 0) and not np.any(effects[1][read:])
