"""A source and a model of the user's own, through the commands, wherever their module is."""

import sys

import pytest

from beam_jobs import preprocess
from beam_jobs.contract import user_code
from beam_jobs.contract.errors import UserError
from trainer import task

MODULE = '''
import dataclasses
import keras
import tensorflow as tf
from multihot import Document, InputFile, ModelInputs

@dataclasses.dataclass
class Numbers:
    """A source: every number is odd or even."""

    count: int

    def files(self):
        return [InputFile("numbers", "", 0)]

    def read(self, file):
        for i in range(self.count):
            label = ("even", "odd")[i % 2]
            yield Document(f"{i}", (f"number {i} {label}",), (label,), 1.0, file.name, i + 1)

def build(options, inputs: ModelInputs):
    """A model that counts tokens."""

    class Counts(keras.Model):
        def __init__(self):
            super().__init__()
            self._dense = keras.layers.Dense(inputs.num_labels)

        def call(self, tokens, training=False, label_ids=None):
            one_hot = tokens.with_values(tf.one_hot(tokens.values, 50))
            return self._dense(tf.reduce_sum(one_hot, axis=1))

    return Counts()
'''
CONFIG = """\
name: own
data: {{source: custom, reader: '{module}:Numbers', options: {{count: 120}}}}
vocabulary: {{min_document_count: 1}}
output: {{shards: 1}}
model: {{name: custom, build: '{module}:build'}}
train: {{batch_size: 16, epochs: 1}}
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with a folder `configs`; afterwards nothing of it is loaded."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(user_code, "_config_dirs", [])
    monkeypatch.setenv("PYTHONPATH", "")
    (tmp_path / "configs").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("folder", [".", "configs"])
def test_preprocess_and_train_find_a_module_there(place, monkeypatch, folder):
    module = f"own_code_in_{'cwd' if folder == '.' else folder}"
    (place / folder / f"{module}.py").write_text(MODULE)
    (place / "configs/own.yaml").write_text(CONFIG.format(module=module))
    preprocess.main(["--config", "configs/own.yaml", "--", "--direct_running_mode=in_memory"])
    monkeypatch.delitem(sys.modules, module)  # as in a process of its own
    task.main(["train", "--config", "configs/own.yaml"])
    assert (place / "out/own/run/history.json").exists()


@pytest.mark.parametrize("command", ["preprocess", "train"])
def test_an_import_error_in_the_module_shows_its_own_message(place, command):
    (place / "own_code_that_fails.py").write_text("import no_such_library_anywhere")
    (place / "configs/own.yaml").write_text(CONFIG.format(module="own_code_that_fails"))
    arguments = ["--config", "configs/own.yaml"]
    if command == "train":
        data = "data={source: jsonl, inputs: [a.jsonl]}"
        (place / "a.jsonl").write_text(
            "".join(f'{{"text": "word{i}", "labels": ["x"]}}\n' for i in range(60))
        )
        arguments += ["--set", data]
        preprocess.main([*arguments, "--", "--direct_running_mode=in_memory"])
    with pytest.raises(
        UserError, match="the module raises ModuleNotFoundError: No module named 'no_such_library_"
    ):
        if command == "train":
            task.main(["train", *arguments])
        else:
            preprocess.main(arguments)
