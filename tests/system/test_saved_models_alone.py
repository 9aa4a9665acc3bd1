"""SavedModels in processes that know nothing of this project: they answer what they answer here."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests.command_lines import ROOT, succeed
from tests.served import answers_of
from tests.small_experiment import CONFIG, make_dataset

# Everything but TensorFlow and TensorFlow Text is kept from being imported; for some models
# TensorFlow Text too.
SERVE = """
import importlib.util, json, sys
served, path, *blocked = sys.argv[1:]
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ImportError(f"{name} is not there where the model is served")
sys.meta_path.insert(0, Block())
import tensorflow as tf
if "tensorflow_text" not in blocked:
    import tensorflow_text
spec = importlib.util.spec_from_file_location("served", served)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(json.dumps(module.answers_of(tf.saved_model.load(path), json.load(sys.stdin))))
"""
BLOCKED = (
    *("beam_jobs", "trainer", "multihot", "apache_beam", "pydantic", "pyarrow"),
    *("sklearn", "matplotlib"),
)
TEXTS = ["Rocket in orbit around the moon", "", "<b>guitar</b> &amp; GOAL", "Étude, don't", "日本"]


def assert_answers_alone(path, texts, *, tensorflow_text: bool = True) -> dict:
    """What the model answers, here as in a process of its own far from its dataset and run."""
    blocked = BLOCKED if tensorflow_text else (*BLOCKED, "tensorflow_text")
    ended = subprocess.run(
        [sys.executable, "-I", "-c", SERVE, str(ROOT / "tests/served.py"), str(path), *blocked],
        cwd=path,
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    alone, here = json.loads(ended.stdout), answers_of(tf.saved_model.load(str(path)), texts)
    assert alone.keys() == here.keys()
    for name in alone.keys() - {"analyzed"}:
        scores = alone[name].pop("scores"), here[name].pop("scores")
        np.testing.assert_allclose(*scores, atol=1e-6)
    assert alone == here
    return here


def test_a_model_far_from_its_dataset_and_run_answers_as_here(trained, tmp_path):
    shutil.copytree(trained.root / "out/small/model/1", tmp_path / "model")
    with open(trained.root / "documents.jsonl", encoding="utf-8") as stream:
        texts = [json.loads(line)["text"] for line in stream]
    assert_answers_alone(tmp_path / "model", texts + TEXTS)


@pytest.mark.parametrize(
    ("setting", "needs_tensorflow_text"),
    [("text.normalize=lower", False), ("text.subwords=train", True)],
)
def test_models_of_other_analyzers_answer_alone(tmp_path, setting, needs_tensorflow_text):
    arguments = "--config", "small.yaml", "--set", setting, "--set", "train.epochs=1"
    make_dataset(tmp_path, 300, CONFIG, setting)
    for command in ("train", "evaluate", "export"):
        succeed("trainer.task", command, *arguments, cwd=tmp_path)
    answers = assert_answers_alone(
        tmp_path / "out/small/model/1", TEXTS, tensorflow_text=needs_tensorflow_text
    )
    if not needs_tensorflow_text:  # lower case and white space need core ops only
        assert answers["analyzed"][3:] == ["étude do not", "日本"]
