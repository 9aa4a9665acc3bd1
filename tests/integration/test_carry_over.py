"""`train --from RUN`: a run on a dataset of more documents starts from what another one knows."""

import json
import shutil

import numpy as np
import pytest

from beam_jobs.contract.config import load_config
from tests.command_lines import fail_cleanly, succeed
from tests.runs import history
from tests.small_experiment import Trained
from trainer.experiment import assemble, restore_best
from trainer.runs.checkpoints import best_weights
from trainer.runs.layout import BEST_CHECKPOINT, EARLIER_RUN
from trainer.training.carry_over import CarryOver

MORE = """\
name: small
data: {source: jsonl, inputs: [more.jsonl], id_field: key}
vocabulary: {min_document_count: 1}
labels: {include: [rare]}
output: {shards: 3, dataset_dir: more/dataset}
model: {embedding_dim: 16}
train: {batch_size: 32, epochs: 1, run_dir: more/run}
export: {model_dir: more/model}
"""


@pytest.fixture(scope="module")
def root(trained: Trained, tmp_path_factory):
    """A folder with a dataset of 300 documents with a new label and new words, and without one of
    the labels of the earlier one, which is included.
    """
    root = tmp_path_factory.mktemp("more")
    rows = [json.loads(line) for line in (trained.root / "documents.jsonl").open()][:300]
    for row in rows[::5]:
        row["labels"] = [*row["labels"], "zoo"]
        row["text"] += " giraffe elephant"
    for row in rows:
        row["labels"] = [label for label in row["labels"] if label != "rare"]
    (root / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "more.yaml").write_text(MORE)
    (root / "out").symlink_to(trained.root / "out")
    succeed("beam_jobs.preprocess", "--config", "more.yaml", cwd=root)
    return root


def train(root, *arguments, run=succeed):
    return run("trainer.task", "train", "--config", "more.yaml", *arguments, cwd=root)


def test_rows_of_known_tokens_and_labels_are_those_of_the_other_run(root, monkeypatch):
    monkeypatch.chdir(root)
    new, other = (
        assemble(load_config(name)) for name in ("more.yaml", "out/small/run/config.yaml")
    )
    restore_best(other)
    initial = [variable.numpy().copy() for variable in new.model.variables]
    earlier = CarryOver(new, root / "out/small/run")
    earlier.give_weights()
    assert "5 of 6 labels (1 new, 0 of the earlier ones gone); labels without train doc" in str(
        earlier
    )
    ours, theirs = new.model.variables, other.model.variables
    token, label = (e.dataset.vocabulary.index("goal") for e in (new, other)), "space"
    rows = [index + 2 for index in token]
    columns = [e.dataset.label_names.index(label) for e in (new, other)]
    named = {variable.path.partition("/")[2]: i for i, variable in enumerate(ours)}
    (table,) = [i for name, i in named.items() if name.endswith("embeddings")]
    np.testing.assert_array_equal(ours[table].numpy()[rows[0]], theirs[table].numpy()[rows[1]])
    giraffe = new.dataset.vocabulary.index("giraffe") + 2
    np.testing.assert_array_equal(ours[table].numpy()[giraffe], initial[table][giraffe])
    (bias,) = [i for name, i in named.items() if name.endswith("bias")]
    assert ours[bias].numpy()[columns[0]] == theirs[bias].numpy()[columns[1]]
    zoo = new.dataset.label_names.index("zoo")
    assert ours[bias].numpy()[zoo] == initial[bias][zoo]


def test_an_exported_model_gives_what_its_run_gives_without_its_dataset(root, monkeypatch):
    monkeypatch.chdir(root)
    new = assemble(load_config("more.yaml"))
    initial = [variable.numpy() for variable in new.model.variables]
    given = []
    for source in ("out/small/run", "out/small/model"):
        for variable, value in zip(new.model.variables, initial, strict=True):
            variable.assign(value)
        earlier = CarryOver(new, source)
        earlier.give_weights()
        given.append([variable.numpy() for variable in new.model.trainable_variables])
    assert str(earlier).startswith("carried over from out/small/model: ")
    assert "5 of 6 labels" in str(earlier)
    for of_run, of_model in zip(*given, strict=True):
        np.testing.assert_array_equal(of_run, of_model)


def test_a_run_that_starts_from_another_is_ahead_of_one_from_scratch(root):
    train(root)
    scratch = history(root / "more/run")[0]["validation_micro_f1"]
    assert not (root / "more/run" / EARLIER_RUN).exists()
    printed = train(root, "--fresh", "--from", "out/small/run")
    assert "carried over from out/small/run: " in printed
    assert history(root / "more/run")[0]["validation_micro_f1"] > scratch
    assert "carried over" not in train(root, "--from", "out/small/run")  # it is finished
    assert json.loads((root / "more/run" / EARLIER_RUN).read_text()) == {
        "run": "out/small/run",
        "kept_labels": ["rare"],
    }


def test_a_label_without_train_documents_is_kept_as_the_other_run_knows_it(root, monkeypatch):
    train(root, "--from", "out/small/run")
    monkeypatch.chdir(root)
    new, other = (
        assemble(load_config(name)) for name in ("more.yaml", "out/small/run/config.yaml")
    )
    rows = []
    for experiment in (new, other):
        restore_best(experiment)
        column = experiment.dataset.label_names.index("rare")
        rows.append(
            [
                variable.numpy()[column]
                for variable in experiment.model.trainable_variables
                if variable.shape[0] == experiment.dataset.num_labels
            ]
        )
    assert len(rows[0]) == 2  # of kernel and bias
    for ours, theirs in zip(*rows, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert new.dataset.is_trained.all()  # so that it takes part in what is given


def test_a_damaged_checkpoint_of_the_other_run_is_told_and_one_before_it_is_taken(root, tmp_path):
    shutil.copytree(root / "out/small/run", tmp_path / "run")
    best = tmp_path / "run" / BEST_CHECKPOINT
    whole = best_weights(tmp_path / "run")
    (last,) = {path.with_suffix("") for path in best.glob("*.index")}
    for path in best.glob(f"{last.name}.*"):
        shutil.copy(path, path.with_name(path.name.replace(last.name, "ckpt-1")))
    (data,) = best.glob(f"{last.name}.data*")
    data.write_bytes(data.read_bytes()[:100])
    arguments = ["--from", str(tmp_path / "run"), "--set", "train.run_dir=more/other"]
    message = train(root, *arguments, run=fail_cleanly)
    assert f"no checkpoint in {best} can be read" in message and "from a copy" in message
    (best / "checkpoint").write_text(
        f'model_checkpoint_path: "{last.name}"\nall_model_checkpoint_paths: "ckpt-1"\n'
        f'all_model_checkpoint_paths: "{last.name}"\n'
    )
    for ours, theirs in zip(best_weights(tmp_path / "run"), whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "nowhere"], "--from: nowhere holds no run"),
        (["--from", "out/small/run", "--set", "model={name: linear}"], "labels are fitted anew"),
        (
            ["--from", "out/small/run", "--set", "model.embedding_dim=8"],
            "differ in model.embedding_dim; expected the same model",
        ),
        (
            ["--from", "out/small/run", "--set", "model={name: bow_tree}"],
            "whose labels are in clusters of their own dataset's; expected another model",
        ),
    ],
)
def test_what_cannot_be_carried_over_is_one_message(root, arguments, message):
    arguments = [*arguments, "--set", "train.run_dir=more/other"]
    assert message in train(root, *arguments, run=fail_cleanly)
