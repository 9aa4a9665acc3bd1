"""Every architecture as a SavedModel that another program loads."""

import json
import subprocess
import sys

import numpy as np
import tensorflow as tf
from pydantic import TypeAdapter

from beam_jobs.contract.sections.model import ModelConfig
from tests.small_models import SMALL, VOCABULARY
from trainer.models import build_model

DOCUMENTS = [
    [2, 3, 2, 6],
    [4],
    [],
    [5, 1, 6, 6, 6, 2, 9, 17],
    [8, 9],
    [2 + i % 40 for i in range(50)],
]


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
path, names = sys.argv[1], sys.argv[2].split(",")
ids, splits = (np.array(numbers.split(","), np.int64) for numbers in sys.argv[3:])
for name in names:
    loaded = tf.saved_model.load(f"{path}/{name}")
    got = loaded.logits(tf.constant(ids), tf.constant(splits))
    expected = np.load(f"{path}/{name}.npy")
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5, err_msg=name)
"""
    numbers = [",".join(map(str, x.numpy())) for x in (tokens.flat_values, tokens.row_splits)]
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), ",".join(SMALL), *numbers],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
