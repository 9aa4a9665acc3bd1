"""One small experiment, taken from raw text to a model through the command lines."""

import dataclasses
import json
import shutil
from pathlib import Path

import filelock

from tests.command_lines import succeed, train


@dataclasses.dataclass(frozen=True)
class Trained:
    """An experiment with every stage done.

    Attributes:
      root: the working directory of its commands.
      config: its config file, relative to `root`.
      output: what the commands printed, by stage.
    """

    root: Path
    config: str
    output: dict[str, str]


# Words that tell a document's labels, and words that tell nothing.
_TOPICS = {
    "sport": "goal match team coach",
    "music": "song guitar album concert",
    "food": "bread soup oven salt",
    "space": "orbit rocket moon star",
}
_NOISE = "the a of and with some more other new old one two".split()


def write_documents(path: Path, count: int, *, first: int = 0) -> None:
    """JSONL documents with one to three labels each, which follow from the words."""
    names = list(_TOPICS)
    with open(path, "w", encoding="utf-8") as stream:
        for i in range(first, first + count):
            labels = sorted(
                {names[i % 4], names[(i * 7 // 3) % 4]} | ({"rare"} if i % 25 == 0 else set())
            )
            words = [
                _TOPICS[label].split()[(i * 13 + j) % 4]
                for label in labels
                if label != "rare"
                for j in range(3)
            ]
            words += (
                ["peculiar"] * ("rare" in labels)
                + [_NOISE[(i * 5 + j * j) % len(_NOISE)] for j in range(6)]
                + [f"n{i}"]
            )
            stream.write(
                json.dumps(
                    {
                        "key": f"doc-{i}",
                        "text": "<p>" + " ".join(words).capitalize() + ".</p>",
                        "labels": labels,
                    }
                )
                + "\n"
            )


CONFIG = """\
name: small
data: {source: jsonl, inputs: [documents.jsonl], id_field: key}
vocabulary: {min_document_count: 1}
output: {shards: 3}
model: {embedding_dim: 16}
train: {batch_size: 32, epochs: 3, steps_per_call: 5, shuffle_buffer: 100}
evaluate: {batch_size: 64}
"""


def make_dataset(root: Path, documents: int, config: str = CONFIG, *settings: str) -> str:
    """Writes `documents.jsonl` and `small.yaml` in `root` and preprocesses; what that printed."""
    write_documents(root / "documents.jsonl", documents)
    (root / "small.yaml").write_text(config, encoding="utf-8")
    overrides = [part for setting in settings for part in ("--set", setting)]
    return succeed("beam_jobs.preprocess", "--config", "small.yaml", *overrides, cwd=root)


def make_run(small_dataset: Path, root: Path, model: str, *settings: str) -> Path:
    """`root`, a copy of `small_dataset` with a run `whole` of another model, given in YAML."""
    shutil.copytree(small_dataset, root)
    config = CONFIG.replace("{embedding_dim: 16}", model)
    (root / "small.yaml").write_text(config, encoding="utf-8")
    train(root, "train.run_dir=whole", *settings)
    return root


def make_shared_dataset(root: Path, documents: int) -> Path:
    """`root`, where the first process that asks makes the dataset of CONFIG."""
    with filelock.FileLock(f"{root}.lock"):
        done = root.with_suffix(".done")
        if not done.exists():
            root.mkdir()
            make_dataset(root, documents)
            done.touch()
    return root


def make_trained(root: Path) -> Trained:
    """A small experiment, from raw text to the exported model.

    The first process that asks makes it in `root`, the others wait for it there and read it only.
    """
    with filelock.FileLock(f"{root}.lock"):
        printed = root / "printed.json"
        if not printed.exists():
            root.mkdir()
            output = {"preprocess": make_dataset(root, 1200)}
            for command in ("train", "evaluate", "export"):
                output[command] = succeed(
                    "trainer.task", command, "--config", "small.yaml", cwd=root
                )
            printed.write_text(json.dumps(output), encoding="utf-8")
        return Trained(root, "small.yaml", json.loads(printed.read_text(encoding="utf-8")))
