"""The stages that are killed: their commands, what they start from, and what they write."""

import dataclasses
import json
import random
from collections.abc import Callable
from pathlib import Path

from kills import comparisons, readers

BUCKET = "soak"
STORE = f"s3://{BUCKET}/out"
_DATASET, _RUN, _MODEL = "out/small/dataset", "out/small/run", "out/small/model"
CONFIG = """\
name: small
data: {source: jsonl, inputs: [documents.jsonl], id_field: key}
vocabulary: {min_document_count: 1}
output: {shards: 4}
model: {embedding_dim: 16, dropout: 0.2}
train: {batch_size: 32, epochs: 4, steps_per_call: 2, checkpoint_steps: 3, patience: null}
evaluate: {batch_size: 64}
tune:
  trials: 2
  space: {optimizer.learning_rate: {low: 0.001, high: 0.1, log: true}}
"""


@dataclasses.dataclass(frozen=True)
class Stage:
    """A command that is killed.

    Attributes:
      name: for people and `--stage`.
      arguments: a module and its arguments.
      after: the stage whose result it starts from; None: the documents alone.
      output: what it writes: a path from its working directory, or the URL of one.
      reader: what whoever reads `output` at this moment sees: complaints, at most one.
      differences: (the output after the kill and another run, that of an uninterrupted run) ->
        what differs, for people.
      workers: processes that train together, of which one is killed.
    """

    name: str
    arguments: tuple[str, ...]
    after: str | None
    output: str
    reader: Callable[[str, Path], str | None]
    differences: Callable[[Path, Path], list[str]]
    workers: int = 1

    @property
    def is_remote(self) -> bool:
        return "://" in self.output


def _preprocess(*arguments: str) -> tuple[str, ...]:
    return "beam_jobs.preprocess", "--config", "small.yaml", *arguments


def _task(command: str, *arguments: str) -> tuple[str, ...]:
    return "trainer.task", command, "--config", "small.yaml", *arguments


def _predict(output: str) -> tuple[str, ...]:
    files = ("--model", _MODEL, "--input", "documents.jsonl", "--output", output)
    return "beam_jobs.predict", *files


_TWO = ("--", "--direct_running_mode=multi_processing", "--direct_num_workers=2")
_DATA = (readers.dataset, comparisons.bytes_of_files)
_WEIGHTS = (readers.run, comparisons.run)
_SERVED = (readers.model, comparisons.model)
_PREDICTED = (readers.predictions, comparisons.bytes_of_files)

STAGES = {
    stage.name: stage
    for stage in (
        Stage("preprocess", _preprocess(), None, _DATASET, *_DATA),
        Stage("preprocess-workers", _preprocess(*_TWO), None, _DATASET, *_DATA),
        Stage(
            "preprocess-s3",
            _preprocess("--set", f"output.dataset_dir={STORE}"),
            *(None, STORE),
            *_DATA,
        ),
        Stage("train", _task("train"), "preprocess", _RUN, *_WEIGHTS),
        Stage(
            "train-s3",
            _task("train", "--set", f"train.run_dir={STORE}"),
            *("preprocess", STORE),
            *_WEIGHTS,
        ),
        Stage(
            "train-workers",
            _task("train"),
            *("preprocess", _RUN, readers.run, comparisons.run_nearly),
            workers=2,
        ),
        Stage(
            "evaluate", _task("evaluate"), "train", _RUN, readers.evaluation, comparisons.evaluation
        ),
        Stage("export", _task("export"), "evaluate", _MODEL, *_SERVED),
        Stage(
            "export-s3",
            _task("export", "--set", f"export.model_dir={STORE}"),
            *("evaluate", STORE),
            *_SERVED,
        ),
        Stage("predict", _predict("predicted"), "export", "predicted", *_PREDICTED),
        Stage("predict-s3", _predict(STORE), "export", STORE, *_PREDICTED),
        Stage(
            "tune",
            ("trainer.tune", "--config", "small.yaml"),
            *("preprocess", "out/small/tune", readers.search, comparisons.search),
        ),
    )
}


def write_inputs(folder: Path, documents: int = 500) -> None:
    """A config, and documents whose labels follow from their words."""
    rng = random.Random(0)
    topics = {label: [f"{label}{i}" for i in range(6)] for label in ("a", "b", "c", "d", "e")}
    with open(folder / "documents.jsonl", "w", encoding="utf-8") as stream:
        for i in range(documents):
            labels = rng.sample(sorted(topics), rng.randint(1, 3))
            words = [rng.choice(topics[label]) for label in labels for _ in range(3)]
            words += [f"word{int(rng.paretovariate(0.8))}" for _ in range(20)]
            text = " ".join(rng.sample(words, len(words)))
            row = {"key": f"d{i}", "text": text, "labels": sorted(labels)}
            stream.write(json.dumps(row) + "\n")
    (folder / "small.yaml").write_text(CONFIG, encoding="utf-8")
