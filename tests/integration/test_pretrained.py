"""`model.name: pretrained`, through the command lines, on an encoder of two layers."""

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from beam_jobs.contract.config import load_config
from beam_jobs.contract.manifest import load, load_document_counts, load_vocabulary
from beam_jobs.contract.records import RecordSpec
from tests.command_lines import fail_cleanly, succeed
from tests.runs import assert_same_bits, history, variables
from tests.small_experiment import CONFIG, make_dataset
from tests.tiny_encoder import DIM, HEADS, PIECES, POSITIONS, write_encoder, write_tokenizer
from trainer.document_vectors import VectorReader
from trainer.experiment import assemble, restore_best
from trainer.training.carry_over import CarryOver
from trainer.training.label_descriptions import start_from_descriptions

SETTINGS = """\
text: {tokenizer: encoder}
model: {name: pretrained, max_tokens: 64}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A dataset of an encoder's pieces, and a run that trains the head on its vectors."""
    root = tmp_path_factory.mktemp("pretrained")
    write_encoder(root / "encoder")
    config = CONFIG.replace("model: {embedding_dim: 16}\n", SETTINGS)
    make_dataset(root, 500, config.replace("vocabulary: {min_document_count: 1}\n", ""))
    return root


@pytest.fixture(scope="module")
def frozen(place):
    """What was printed when the head was trained on vectors."""
    return _run(place, "train")


def _options(*settings):
    overrides = [part for setting in settings for part in ("--set", setting)]
    return ("--config", "small.yaml", *overrides)


def _run(place, command, *settings):
    return succeed("trainer.task", command, *_options(*settings), cwd=place)


def _scores_in_a_process(model, texts):
    """The scores of analyzed texts by a SavedModel, where KerasHub is not installed."""
    code = """
import json, sys
sys.modules["keras_hub"] = None
import tensorflow as tf, tensorflow_text
model = tf.saved_model.load(sys.argv[1])
print(json.dumps(model.score_analyzed(tf.constant(json.load(sys.stdin))).numpy().tolist()))
"""
    command = [sys.executable, "-c", code, str(model)]
    ended = subprocess.run(
        command, input=json.dumps(texts), capture_output=True, text=True, timeout=300
    )
    assert not ended.returncode, ended.stderr
    return np.array(json.loads(ended.stdout))


def _refused(place, *settings, command="train"):
    return fail_cleanly("trainer.task", command, *_options(*settings), cwd=place)


def test_the_vocabulary_is_all_pieces_with_their_counts_and_the_manifest_holds_the_tokenizer(place):
    manifest = load(place / "out/small/dataset")
    tokens = load_vocabulary(manifest, place / "out/small/dataset")
    counts = load_document_counts(manifest, place / "out/small/dataset")
    assert sorted(tokens) == sorted(PIECES) and tokens[-1] in PIECES
    assert counts[0] > 0 and counts[tokens.index("[MASK]")] == 0
    assert (np.diff(counts) <= 0).all()
    assert manifest.analyzer.encoder_tokenizer.pieces == PIECES
    assert set(manifest.named_files) == {"text.tokenizer"}


def test_another_tokenizer_makes_another_dataset(place, tmp_path):
    shutil.copytree(place, tmp_path / "copy")
    write_tokenizer(tmp_path / "copy/encoder", do_lower_case=False)
    output = fail_cleanly("beam_jobs.preprocess", *_options(), cwd=tmp_path / "copy")
    assert "was made with other content of encoder (text.tokenizer)" in output
    assert "model.backbone: the tokenizer of encoder differs" in _refused(tmp_path / "copy")


@pytest.mark.slow
def test_documents_are_encoded_once_and_a_second_run_reads_their_vectors(place, frozen):
    assert "encoded " in frozen and f"{5 * (DIM + 1)} weights" in frozen.replace(",", "")
    cache = place / "out/small/dataset.vectors"
    printed = _run(place, "train", "train.run_dir=out/again")
    assert "encoded " not in printed
    assert_same_bits(place / "out/again", place / "out/small/run")
    # A shard that is missing is made again, and of other windows or pooling there are others.
    next(cache.rglob("*-train.tfrecord-*")).unlink()
    printed = _run(place, "train", "train.run_dir=out/third", "train.epochs=1")
    assert "encoded " in printed and "validation documents" not in printed
    assert history(place / "out/third") == history(place / "out/small/run")[:1]
    windows = ("model.window=8", "model.stride=4")
    other = ("model.pooling=cls", "model.hidden_units=[8]", "train.epochs=1", *windows)
    printed = _run(place, "train", "train.run_dir=out/cls", *other)
    assert f"{DIM * 8 + 8 + 5 * (8 + 1)} weights" in printed
    assert len(list(cache.iterdir())) == 2


@pytest.mark.slow
def test_the_exported_model_scores_as_the_vectors_do_and_needs_no_keras_hub(
    place, frozen, monkeypatch
):
    assert "micro-F1" in _run(place, "evaluate")
    # The encoder is rebuilt from the run, whatever became of its directory.
    (place / "encoder/model.safetensors").rename(place / "kept.safetensors")
    try:
        _run(place, "export")
    finally:
        (place / "kept.safetensors").rename(place / "encoder/model.safetensors")
    (shard,) = (place / "out/small/dataset.vectors").rglob("*-test.tfrecord-00000-of-*")
    spec = RecordSpec(with_vectors=True)
    records = spec.parse_batch(next(iter(tf.data.TFRecordDataset(str(shard)).batch(64))))
    texts = [*(text.decode() for text in records["text"].numpy()), ""]
    scores = _scores_in_a_process(place / "out/small/model/1", texts)
    assert np.isfinite(scores).all()
    monkeypatch.chdir(place)
    experiment = assemble(load_config("small.yaml"))
    restore_best(experiment)
    vectors = VectorReader(DIM)(records["vector"])
    np.testing.assert_allclose(experiment.scores(vectors), scores[:-1], atol=1e-5)
    output = succeed(
        "trainer.task", "explain", "--model", "out/small/model", "rocket moon", cwd=place
    )
    assert "By integrated gradients" in output and "rocket" in output


@pytest.mark.slow
def test_low_rank_updates_of_upper_layers_are_trained_and_a_run_resumes_with_the_same_bits(
    place, frozen
):
    settings = (
        "model.trainable_layers=1",
        "model.lora_rank=2",
        "optimizer.name=adamw",
        "optimizer.learning_rate=1e-3",
        "optimizer.learning_rate_output=1e-2",
        "optimizer.layer_decay=0.9",
    )
    _run(place, "train", "train.run_dir=out/whole", "train.epochs=2", *settings)
    for epochs in (1, 2):
        printed = _run(
            place, "train", "train.run_dir=out/resumed", f"train.epochs={epochs}", *settings
        )
    assert "resuming after step" in printed
    # A and B of queries and values, with their biases, and the last layer.
    num_updates = 2 * (DIM * HEADS * 2 + 2 * DIM // HEADS)
    weights = num_updates + 2 * DIM + 5 * (DIM + 1)
    assert f"{weights:,} weights" in printed
    assert_same_bits(place / "out/resumed", place / "out/whole")
    before = tf.train.load_checkpoint(str(place / "out/small/run/checkpoints"))
    after = tf.train.load_checkpoint(str(place / "out/whole/checkpoints"))
    kept = {
        before.get_tensor(name).tobytes()
        for name, shape in before.get_variable_to_shape_map().items()
        if name.startswith("model/") and len(shape) > 1 and 5 not in shape
    }
    shapes = after.get_variable_to_shape_map()
    there = {after.get_tensor(name).tobytes() for name in shapes if len(shapes[name]) > 1}
    assert len(kept - there) == 2  # those biases


@pytest.mark.slow
def test_the_last_layer_starts_from_the_labels_texts(place, frozen):
    (place / "texts.json").write_text('{"space": "rocket orbit moon", "music": "song album"}')
    settings = ("model.label_descriptions=texts.json", "train.epochs=1")
    slow = "optimizer.learning_rate=1e-9"
    _run(place, "train", "train.run_dir=out/texts", *settings, slow)
    weights = variables(place / "out/texts").items()
    (kernel,) = (v for name, v in weights if name.startswith("model") and v.shape == (5, DIM))
    norms = np.linalg.norm(kernel, axis=1)
    np.testing.assert_allclose(norms, norms[0], rtol=1e-3)
    (place / "texts.json").write_text('{"space": "rocket"}')
    refusal = _refused(place, "train.run_dir=out/texts", *settings, slow)
    assert "texts.json (model.label_descriptions) has other content" in refusal


@pytest.mark.slow
def test_a_run_starts_with_the_encoder_and_rows_of_another_and_new_labels_with_their_texts(
    place, frozen, monkeypatch
):
    more = ("labels.deny=[rare]", "labels.include=[zoo]", "output.dataset_dir=out/more")
    succeed("beam_jobs.preprocess", *_options(*more), cwd=place)
    monkeypatch.chdir(place)
    described = (
        *more,
        "model.label_descriptions=names",
        "model.trainable_layers=1",
        "train.run_dir=out/from",
    )
    new = assemble(load_config("small.yaml", overrides=described), for_training=True)
    other = assemble(load_config("small.yaml"))
    restore_best(other)
    of_encoder = {v.path: v for v in new.model.variables if v.path.startswith("encoder")}
    for variable in of_encoder.values():
        variable.assign(0 * variable)
    earlier = CarryOver(new, "out/small/run")
    assert "4 of 5 labels (1 new, 1 of the earlier ones gone)" in str(earlier)
    earlier.give_weights()
    theirs = {v.path: v.numpy() for v in other.model.variables}
    for path, variable in of_encoder.items():
        np.testing.assert_array_equal(variable, theirs[path])
    before = new.model.head()
    start_from_descriptions(new, only=earlier.is_new_label)
    zoo, *others = (new.dataset.label_names.index(name) for name in ("zoo", "food", "space"))
    ids = [other.dataset.label_names.index(name) for name in ("food", "space")]
    for ours, known, initial in zip(new.model.head(), other.model.head(), before, strict=True):
        np.testing.assert_array_equal(ours[others], known[ids])
        assert np.isfinite(ours[zoo]).all() and not np.array_equal(ours[zoo], initial[zoo])


@pytest.mark.slow
def test_a_layer_is_trained_on_replicas_in_mixed_precision(place):
    settings = (
        "model.trainable_layers=1",
        "model.gradient_checkpointing=true",
        "train.precision=bfloat16",
        "train.strategy=mirrored",
        "train.replicas=2",
        "train.batch_size=128",
        "train.epochs=1",
    )
    printed = _run(place, "train", "train.run_dir=out/replicas", *settings)
    assert "MirroredStrategy on CPU:0, CPU:1" in printed
    assert all(np.isfinite(weights).all() for weights in variables(place / "out/replicas").values())
    assert np.isfinite(history(place / "out/replicas")[0]["loss"])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["model.lora_rank=2"], "no layer is trained; expected trainable_layers above 0, such as"),
        (["model.label_descriptions=names", "model.hidden_units=[8]"], "neither hidden_units nor"),
        (["model.trainable_layers=3"], "received 3, and the encoder has 2 layers; expected at"),
        ([f"model.max_tokens={POSITIONS + 1}"], f"positions for {POSITIONS}; expected no more"),
        (["vocabulary.size=9"], "expected no vocabulary.size with the tokenizer of an encoder"),
        (["text.normalize=lower"], "expected no normalize with the tokenizer of the encoder"),
        (["text.tokenizer=whitespace"], "expected the directory of the encoder as text.tokenizer"),
    ],
)
def test_what_the_encoder_cannot_do_is_refused(place, settings, expected):
    assert expected in _refused(place, *settings, "train.run_dir=out/refused")


def test_what_cannot_be_read_is_refused_with_what_can(place, tmp_path, monkeypatch):
    def refused(directory):
        return _refused(place, f"model.backbone={directory}", "train.run_dir=out/refused")

    other = write_encoder(tmp_path / "other")
    (other / "config.json").write_text('{"model_type": "modernbert"}')
    assert "type 'modernbert', which KerasHub does not convert; expected" in refused(other)
    (other / "config.json").unlink()
    assert "holds no config.json that can be read" in refused(other)
    (other / "config.json").write_text("[]")
    assert "holds a config.json without an object in it" in refused(other)
    pooled = write_encoder(tmp_path / "pooled")
    (pooled / "1_Pooling").mkdir()
    (pooled / "1_Pooling/config.json").write_text("[]")
    assert "holds a 1_Pooling/config.json of no use" in refused(pooled)
    with monkeypatch.context() as patch:
        patch.setattr("tests.tiny_encoder.PIECES", PIECES[:60])
        few = write_encoder(tmp_path / "few")
    assert "has embeddings of 60 pieces, and its tokenizer has" in refused(few)
    bare = write_encoder(tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    assert "holds no *.safetensors" in refused(bare)
    damaged = write_encoder(tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"no")
    assert "damaged cannot be read: " in refused(damaged)
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=int))
    assert "model.backbone: cannot get hf://owner/name: " in refused("hf://owner/name")
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    assert "pip install 'multihot[pretrained]'" in refused(place / "encoder")


def test_other_weights_in_the_directory_do_not_continue_a_run(place, frozen, tmp_path):
    shutil.copytree(place / "encoder", place / "changed")
    options = ("model.backbone=changed", "train.run_dir=out/changed", "train.epochs=1")
    _run(place, "train", *options)
    write_encoder(place / "changed", seed=1)
    assert "changed holds other weights than when" in _refused(place, *options)
