"""Every architecture where other processes come in: a SavedModel that another program loads, and mirrored replicas."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from pydantic import TypeAdapter

from beam_jobs.contract.training_config import ModelConfig
from trainer.models import VocabularyStatistics, build_model

VOCABULARY = VocabularyStatistics(
    size=40, document_counts=np.arange(40, 0, -1) + 1, num_documents=100
)
DOCUMENTS = [
    [2, 3, 2, 6],
    [4],
    [],
    [5, 1, 6, 6, 6, 2, 9, 17],
    [8, 9],
    [2 + i % 40 for i in range(50)],
]
SMALL = {
    "bow": {"embedding_dim": 8, "bigram_buckets": 8, "wide": True},
    "mlp": {"embedding_dim": 8, "bigram_buckets": 8, "hidden_units": [6, 5]},
    "cnn": {"embedding_dim": 8, "filter_widths": [1, 3], "filters": 6},
    "lstm": {"embedding_dim": 8, "units": 6},
    "cnn_lwan": {"embedding_dim": 8, "filter_width": 4, "filters": 6},
    "transformer": {"embedding_dim": 8, "layers": 1, "heads": 2, "feed_forward_dim": 12},
}


def _logits_of(model):
    return lambda ids, splits: model(tf.RaggedTensor.from_row_splits(ids, splits), training=False)


def test_saved_models_answer_the_same_without_keras_or_our_code(tmp_path):
    tokens = tf.ragged.constant(DOCUMENTS, dtype=tf.int64, ragged_rank=1, row_splits_dtype=tf.int64)
    for name, options in SMALL.items():
        model = build_model(
            TypeAdapter(ModelConfig).validate_json(json.dumps({"name": name} | options)),
            vocabulary=VOCABULARY,
            num_labels=3,
            output_bias=np.zeros(3, np.float32),
            seed=0,
        )
        generator = np.random.default_rng(0)
        for variable in model.trainable_variables:
            variable.assign(generator.normal(0, 0.5, variable.shape))
        module = tf.Module()
        module.model_variables = [v.value for v in model.variables]
        signature = [tf.TensorSpec([None], tf.int64), tf.TensorSpec([None], tf.int64)]
        module.logits = tf.function(_logits_of(model), input_signature=signature)
        tf.saved_model.save(module, str(tmp_path / name))
        np.save(tmp_path / f"{name}.npy", model(tokens, training=False).numpy())
    program = """
import sys
sys.modules["trainer"] = sys.modules["keras"] = None  # importing them fails
import numpy as np
import tensorflow as tf
path, names, ids, splits = sys.argv[1], sys.argv[2].split(","), *(np.array(a.split(","), np.int64) for a in sys.argv[3:])
for name in names:
    loaded = tf.saved_model.load(f"{path}/{name}")
    got = loaded.logits(tf.constant(ids), tf.constant(splits))
    np.testing.assert_allclose(got, np.load(f"{path}/{name}.npy"), rtol=1e-4, atol=1e-5, err_msg=name)
"""
    numbers = [",".join(map(str, x.numpy())) for x in (tokens.flat_values, tokens.row_splits)]
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), ",".join(SMALL), *numbers],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_two_mirrored_replicas_train_to_the_weights_of_one_device():
    program = """
import json, sys
import keras, numpy as np, tensorflow as tf
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
from pydantic import TypeAdapter
from beam_jobs.contract.training_config import ModelConfig
from trainer.models import VocabularyStatistics, build_model
from trainer.training.optimizers import LazyAdam

vocabulary = VocabularyStatistics(size=40, document_counts=np.arange(40, 0, -1) + 1, num_documents=100)
documents = [[2, 3, 2, 6], [4], [], [5, 1, 6, 6, 6, 2]]

def train(config, strategy, documents_of_replica):
    with strategy.scope():
        model = build_model(config, vocabulary=vocabulary, num_labels=3, output_bias=np.zeros(3, np.float32), seed=0)
        optimizer = LazyAdam(0.01)
        optimizer.build(model.trainable_variables)
    def step(tokens):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(model(tokens, training=True) - 1)) / 4
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
    run = tf.function(lambda tokens: strategy.run(step, (tokens,)))
    for _ in range(2):
        run(strategy.experimental_distribute_values_from_function(
            lambda context: tf.ragged.constant(documents_of_replica[context.replica_id_in_sync_group], tf.int64, 1, row_splits_dtype=tf.int64)))
    return [v.numpy() for v in model.trainable_variables]

mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
for name, options in json.loads(sys.argv[1]).items():
    still = {"dropout": 0.0} | ({"spatial_dropout": 0.0} if name == "lstm" else {})
    config = TypeAdapter(ModelConfig).validate_json(json.dumps({"name": name} | options | still))
    one = train(config, tf.distribute.OneDeviceStrategy("CPU:0"), [documents])
    two = train(config, mirrored, [documents[:2], documents[2:]])
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4, err_msg=name)
    if name == "mlp":
        moving = TypeAdapter(ModelConfig).validate_json(json.dumps({"name": name} | options | {"dropout": 0.5}))
        assert all(np.isfinite(a).all() for a in train(moving, mirrored, [documents[:2], documents[2:]]))
"""

    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(SMALL)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
