"""Small shards, and the documents of each step of a worker that reads them."""

import dataclasses
import os
import types

import numpy as np
import tensorflow as tf

from beam_jobs.contract.records import RecordSpec
from trainer.data.input_pipeline import train_batches

VOCABULARY = [f"w{i}" for i in range(50)]


@dataclasses.dataclass
class Shards:
    """A dataset as far as the input pipeline looks at it. Document i has the text `w<i>`."""

    paths: list[str]
    sizes: list[int]
    record_spec: RecordSpec = RecordSpec()

    @property
    def manifest(self):
        return types.SimpleNamespace(
            splits={
                "train": types.SimpleNamespace(
                    shards=[
                        types.SimpleNamespace(examples=size, file=path, bytes=os.path.getsize(path))
                        for path, size in zip(self.paths, self.sizes, strict=True)
                    ]
                )
            }
        )

    def num_examples(self, split):
        return sum(self.sizes)

    def fetch(self, shards):
        return shards

    def shards(self, split):
        return self.paths


def write(directory, sizes) -> Shards:
    paths, document = [], 0
    for i, size in enumerate(sizes):
        path = str(directory / f"shard{i}")
        with tf.io.TFRecordWriter(path) as writer:
            for _ in range(size):
                writer.write(
                    RecordSpec().encode(
                        {
                            "id": b"%d" % document,
                            "text": f"w{document}".encode(),
                            "labels": [document % 3],
                            "weight": 2.0,
                        }
                    )
                )
                document += 1
        paths.append(path)
    return Shards(paths, sizes)


def worker_of(monkeypatch):
    """A function that makes the pipeline believe that it is worker `index` of `count`."""

    def pretend(index, count, *, replicas=1):
        strategy = types.SimpleNamespace(
            num_replicas_in_sync=count * replicas,
            extended=types.SimpleNamespace(worker_devices=["/device:CPU:0"]),
            distribute_datasets_from_function=lambda make: make(None),
        )
        monkeypatch.setattr("trainer.data.input_pipeline.num_workers", lambda _: count)
        monkeypatch.setattr("trainer.data.input_pipeline.worker_index", lambda _: index)
        return strategy

    return pretend


def documents_of(batch) -> list[int]:
    """The documents of a batch, by their one token; padding must have no weight."""
    mask = batch["mask"].numpy().astype(bool)
    np.testing.assert_array_equal(batch["weights"].numpy(), np.where(mask, 2.0, 0.0))
    tokens = [row.tolist() for row in batch["tokens"].numpy()] if batch["tokens"].shape[0] else []
    assert [len(row) for row in tokens] == mask.astype(int).tolist()
    return [row[0] - 2 for row in tokens if len(row)]


def epoch(
    shards, vectorizer, strategy, plan, *, batch_size=8, replicas=1, **kwargs
) -> list[list[int]]:
    """The documents of each step, of all replicas of a worker."""
    arguments = {"seed": 3, "epoch": 0, "shuffle_buffer": 16, "first_step": 0} | kwargs
    batches = train_batches(
        shards, vectorizer, strategy, plan=plan, global_batch_size=batch_size, **arguments
    )
    iterator = iter(batches)
    return [
        flat(documents_of(next(iterator)) for _ in range(replicas))
        for _ in range(plan.steps - arguments["first_step"])
    ]


def flat(steps) -> list[int]:
    return [document for step in steps for document in step]
