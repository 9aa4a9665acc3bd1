import gzip

import numpy as np
import pytest
import tensorflow as tf
from pydantic import TypeAdapter

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.model import ModelConfig
from trainer.models import VocabularyStatistics, build_model
from trainer.models.pretrained_vectors import coverage_text, load_vectors
from trainer.training.optimizers import LazyAdam

TOKENS = ["the", "naïve", "of", "rare"]
GLOVE = "of 1 2 3\nparis 4 5 6\nthe 0.5 -1e-1 7\nnaïve 8 9 10\n"
EXPECTED = [[0.5, -0.1, 7], [8, 9, 10], [1, 2, 3], [0, 0, 0]]


def _file(tmp_path, text):
    path = tmp_path / "vectors.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


# --- reading -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        GLOVE,
        "4 3\n" + GLOVE,
        GLOVE.replace("\n", " \n"),
        GLOVE.replace("\n", "\r\n"),
        GLOVE + "the 9 9 9\n",
    ],
)
def test_vectors_are_read_with_and_without_a_header(tmp_path, text):
    vectors = load_vectors(_file(tmp_path, text), TOKENS, dim=3)
    np.testing.assert_allclose(vectors.values, EXPECTED, rtol=1e-6)
    assert vectors.values.dtype == np.float32
    assert vectors.found.tolist() == [True, True, True, False]
    assert vectors.broken == []


def test_compressed_vectors_are_read(tmp_path):
    path = tmp_path / "vectors.txt.gz"
    path.write_bytes(gzip.compress(GLOVE.encode()))
    np.testing.assert_allclose(load_vectors(str(path), TOKENS, dim=3).values, EXPECTED, rtol=1e-6)


def test_broken_lines_are_left_out_and_told_with_their_numbers(tmp_path):
    text = (
        GLOVE
        + "rare 1 2\nlondon 1 2\nrare 1 x 3\nrare 1 2 nan\n\nrare 1 2 3 4\n. . . 1 2 3\n".replace(
            "\n\n", "\n"
        )
    )
    vectors = load_vectors(_file(tmp_path, text + "rare 3 2 1\n"), TOKENS, dim=3)
    assert vectors.broken == [
        (5, "received 2 numbers, expected 3"),
        (6, "received 2 numbers, expected 3"),
        (7, "a field is not a number"),
        (8, "a number is not finite"),
        (
            9,
            "received 4 numbers, expected 3",
        ),  # and `. . .` is a token with spaces, which no vocabulary has
    ]
    np.testing.assert_allclose(vectors.values[3], [3, 2, 1])
    assert coverage_text("v.txt", vectors, np.array([50, 30, 15, 5])) == (
        "vectors of v.txt: 4 of 4 tokens (100.0%), which are 100.0% of the documents' distinct "
        "tokens; 5 broken lines skipped: "
        "line 5: received 2 numbers, expected 3; line 6: received 2 numbers, expected 3; line 7: a "
        "field is not a number; "
        "line 8: a number is not finite; line 9: received 4 numbers, expected 3"
    )


def test_coverage_weighs_tokens_by_their_documents(tmp_path):
    vectors = load_vectors(_file(tmp_path, GLOVE), TOKENS, dim=3)
    text = coverage_text("v.txt", vectors, np.array([50, 30, 15, 5]))
    assert (
        text
        == "vectors of v.txt: 3 of 4 tokens (75.0%), which are 95.0% of the documents' distinct "
        "tokens"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "cannot read .*No such file"),
        (
            "of 1 2\n",
            "vectors of 2 numbers by its first line, and model.embedding_dim is 3; .*set "
            "model.embedding_dim to 2",
        ),
        (
            "2 300\nof 1 2\n",
            "vectors of 300 numbers by its first line, and model.embedding_dim is 3",
        ),
        (
            "paris 4 5 6\nthe 1 2 x\n",
            "none of the 4 tokens of the vocabulary in its 2 lines; 1 broken lines skipped: line "
            "2: a field is not a number",
        ),
        (b"\x80\x81 1 2 3\n", "none of the 4 tokens of the vocabulary in its 1 lines"),
        ("", "none of the 4 tokens of the vocabulary in its 0 lines"),
    ],
)
def test_file_that_does_not_fit_is_a_user_error(tmp_path, text, expected):
    path = str(tmp_path / "nowhere.txt") if text is None else _file(tmp_path, text)
    with pytest.raises(UserError, match=f"model.pretrained_vectors: .*{expected}"):
        load_vectors(path, TOKENS, dim=3)


WORD2VEC = b"2 3\nof " + np.array([1, 2, 3], "<f4").tobytes() + b"\nthe " + bytes(12)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (WORD2VEC, "it has word2vec's header and binary numbers after it, so write it as text"),
        (gzip.compress(WORD2VEC, mtime=0), "it has word2vec's header and binary numbers after it"),
        (b"PK\3\4" + GLOVE.encode(), "its first bytes are those of a zip file, so unpack it"),
        (GLOVE.encode("utf-16"), "those of a text in UTF-16, so save it in UTF-8"),
        (b"\xba\x16\x4f\x2f\f", "those of a fastText model, so take its .vec file"),
    ],
)
def test_a_file_that_is_no_text_is_told_by_its_first_bytes(tmp_path, content, kind):
    with pytest.raises(UserError, match=f"model.pretrained_vectors: cannot read .*; .*{kind}"):
        load_vectors(_file(tmp_path, content), TOKENS, dim=3)


def test_short_vectors_of_tokens_that_are_not_ascii_are_text(tmp_path):
    path = _file(tmp_path, "2 3\nthe 1 2 3\ncaf\u00e9 4 5 6\n")
    assert load_vectors(path, TOKENS, dim=3).found.any()


def test_gzip_is_recognised_by_content(tmp_path):
    path = _file(tmp_path, gzip.compress(GLOVE.encode()))
    assert load_vectors(path, TOKENS, dim=3).found.any()


def test_damaged_compressed_file_is_a_user_error(tmp_path):
    path = tmp_path / "vectors.txt.gz"
    path.write_bytes(gzip.compress(GLOVE.encode())[:-9])
    with pytest.raises(UserError, match="model.pretrained_vectors: cannot read"):
        load_vectors(str(path), TOKENS, dim=3)


# --- in models ---------------------------------------------------------------------------

VOCABULARY = VocabularyStatistics(
    size=4, document_counts=np.array([50, 30, 15, 5]), num_documents=100, tokens=TOKENS
)
ARCHITECTURES = {
    "bow": {"bigram_buckets": 4, "dropout": 0.0},
    "mlp": {"hidden_units": [4], "bigram_buckets": 4, "dropout": 0.0},
    "cnn": {"filters": 3},
    "lstm": {"units": 3},
    "cnn_lwan": {"filters": 3},
    "bow_lwan": {"filters": 3, "bigram_buckets": 4, "dropout": 0.0},
    "transformer": {"heads": 1, "layers": 1, "feed_forward_dim": 4},
}


def _build(name, path, vocabulary=VOCABULARY, with_pretrained=True, **changes):
    config = TypeAdapter(ModelConfig).validate_python(
        {"name": name, "embedding_dim": 3, "pretrained_vectors": path} | changes, strict=False
    )
    return build_model(
        config,
        vocabulary=vocabulary,
        num_labels=2,
        output_bias=np.zeros(2, np.float32),
        seed=0,
        with_pretrained=with_pretrained,
    )


def _table(model):
    return next(v for v in model.trainable_variables if v.name == "embeddings")


def _train(model):
    tokens = tf.ragged.constant([[2, 3, 4, 5], [5, 1, 2]], tf.int64, 1, row_splits_dtype=tf.int64)
    optimizer = LazyAdam(0.1)
    optimizer.build(model.trainable_variables)
    for _ in range(3):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(model(tokens, training=True) - 1))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("freeze", [False, True])
def test_embeddings_start_from_the_vectors_and_stay_where_they_are_frozen(
    tmp_path, capsys, name, freeze
):
    model = _build(
        name, _file(tmp_path, GLOVE), freeze_pretrained_vectors=freeze, **ARCHITECTURES[name]
    )
    assert "3 of 4 tokens (75.0%)" in capsys.readouterr().out
    before = _table(model).numpy()
    np.testing.assert_allclose(before[2:5], EXPECTED[:3], rtol=1e-6)
    assert (np.abs(before[[0, 1, 5]]) <= 0.05).all()
    _train(model)
    moved = (_table(model).numpy() != before).any(axis=1)
    assert moved[5]  # it is not in the file
    assert moved[2:5].tolist() == [not freeze] * 3


def test_model_for_a_checkpoint_has_the_same_variables_and_needs_no_file(tmp_path, capsys):
    path = _file(tmp_path, GLOVE)
    trained = _build("bow", path, freeze_pretrained_vectors=True)
    (tmp_path / "vectors.txt").unlink()
    capsys.readouterr()
    restored = _build("bow", path, with_pretrained=False, freeze_pretrained_vectors=True)
    assert capsys.readouterr().out == ""
    restored.set_weights(trained.get_weights())
    tokens = tf.ragged.constant([[2, 5]], tf.int64, 1, row_splits_dtype=tf.int64)
    np.testing.assert_array_equal(trained(tokens), restored(tokens))


def test_vectors_without_the_vocabularys_tokens_are_refused(tmp_path):
    vocabulary = VocabularyStatistics(size=4, document_counts=np.ones(4, int), num_documents=9)
    with pytest.raises(ValueError, match="received 0 tokens, expected 4"):
        _build("bow", _file(tmp_path, GLOVE), vocabulary=vocabulary)
