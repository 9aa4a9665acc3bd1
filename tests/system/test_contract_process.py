"""What the contract promises beyond one process."""

import os
import subprocess
import sys

from beam_jobs.contract.records import RecordSpec
from tests.command_lines import ROOT


def test_encoded_bytes_depend_on_neither_process_nor_hash_seed_nor_insertion_order():
    record = {"id": b"doc-1", "text": b"caf\xc3\xa9 word", "labels": [0, 3, 300], "weight": 0.5}
    # This process has a hash seed of its own, so a single fresh one is enough.
    script = f"""
from beam_jobs.contract.records import RecordSpec
print(RecordSpec().encode({dict(reversed(record.items()))!r}).hex())
"""
    fresh = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": "1"},
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
        check=True,
    )
    encoded = RecordSpec().encode(record)
    assert fresh.stdout.strip() == encoded.hex()
    assert encoded == RecordSpec().encode(dict(reversed(record.items())))


def test_a_library_is_loaded_without_what_few_use_of_it_which_is_there_when_it_is_asked_for():
    script = """
import sys
from beam_jobs.contract.quiet import import_tensorflow_quietly
from trainer.libraries import import_keras_alone
import_tensorflow_quietly()
import tensorflow as tf
import tensorflow_text
tensorflow_text.normalize_utf8("e", "NFKC")
assert "keras" not in sys.modules
import_keras_alone()
import trainer.evaluation.evaluate, trainer.serving.ensemble, trainer.training.train
others = ("IPython", "apache_beam", "keras_hub", "matplotlib", "pandas", "scipy.stats", "sklearn")
assert not [name for name in others if name in sys.modules]
from tensorflow.keras import layers
import keras
assert tf.keras.layers.Dense is layers.Dense is keras.layers.Dense
assert issubclass(tensorflow_text.keras.layers.ToDense, layers.Layer)
assert float(keras.optimizers.Adam().learning_rate) > 0
assert issubclass(keras.wrappers.SKLearnClassifier, sys.modules["sklearn"].base.BaseEstimator)
assert keras.visualization.plot_image_gallery and "matplotlib" in sys.modules
import IPython, pandas
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_reader_that_has_gone_makes_no_noise():
    script = """
from beam_jobs.contract.command_line import run_main
run_main(lambda argv: print("told to nobody"), [])
"""
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (1, "")
