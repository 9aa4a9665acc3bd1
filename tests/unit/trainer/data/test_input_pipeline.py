"""Batches.

Every document once, in an order of its own each epoch, from any step on, on any number of replicas
and workers.
"""

import collections
import dataclasses
import types

import numpy as np
import pytest
import tensorflow as tf

from beam_jobs.contract.records import RecordSpec
from trainer.data.input_pipeline import evaluation_batches, make_vectorizer, train_batches
from trainer.data.shards import SplitPlan, num_steps, plan_split

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
                    shards=[types.SimpleNamespace(examples=n) for n in self.sizes]
                )
            }
        )

    def num_examples(self, split):
        return sum(self.sizes)

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


@pytest.fixture(scope="module")
def vectorizer():
    return make_vectorizer(VOCABULARY)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write(tmp_path_factory.mktemp("shards"), [20, 0, 17, 8, 1])


@pytest.fixture
def as_worker(monkeypatch):
    """Makes the pipeline believe that it is worker `index` of `count`."""

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


def test_an_epoch_has_every_document_once_and_each_epoch_and_seed_its_own_order(
    shards, vectorizer, as_worker
):
    strategy, plan = as_worker(0, 1), SplitPlan(num_steps(46, 8), None)
    orders = [
        flat(epoch(shards, vectorizer, strategy, plan, epoch=e, seed=s))
        for e, s in ((0, 3), (0, 3), (1, 3), (0, 4))
    ]
    assert all(sorted(order) == list(range(46)) for order in orders)
    assert orders[0] == orders[1]
    assert len({tuple(order) for order in orders}) == 3


@pytest.mark.parametrize(("workers", "how"), [(1, "example"), (4, "example"), (2, "file")])
def test_from_any_step_on_an_epoch_goes_on_as_it_would_have(
    shards, vectorizer, as_worker, workers, how
):
    plan = plan_split(shards, "train", num_workers=workers, global_batch_size=8, shard_by=how)
    for index in {0, workers - 1}:
        strategy = as_worker(index, workers)
        whole = epoch(shards, vectorizer, strategy, plan)
        for first in (1, 3, plan.steps - 1):
            assert epoch(shards, vectorizer, strategy, plan, first_step=first) == whole[first:]


@pytest.mark.parametrize("length_bucket_steps", [1, 3])
def test_by_example_each_step_has_the_same_documents_whatever_the_number_of_workers(
    shards, vectorizer, as_worker, length_bucket_steps
):
    plan = SplitPlan(num_steps(46, 8), None)
    window = {"length_bucket_steps": length_bucket_steps}
    alone = epoch(shards, vectorizer, as_worker(0, 1), plan, **window)
    assert sorted(flat(alone)) == list(range(46))
    for workers, replicas in ((4, 1), (1, 2), (2, 2)):
        parts = [
            epoch(
                shards,
                vectorizer,
                as_worker(i, workers, replicas=replicas),
                plan,
                replicas=replicas,
                **window,
            )
            for i in range(workers)
        ]
        assert [flat(step) for step in zip(*parts, strict=True)] == alone, (workers, replicas)


def test_the_vectorizer_maps_tokens_to_ids_and_a_text_without_tokens_to_none():
    ids = make_vectorizer(["ärger", "w1"])(tf.constant(["w1 ärger", "", "other", "w1 w1 1w"]))
    assert ids.to_list() == [[3, 2], [], [1], [3, 3, 1]] and ids.dtype == tf.int64
    assert make_vectorizer(["w1"])(tf.constant([], tf.string)).to_list() == []


@pytest.mark.parametrize(
    ("workers", "how", "sizes"),
    [
        (3, "file", [20, 0, 17, 8, 1]),
        (3, "example", [20, 0, 17, 8, 1]),
        (4, "file", [3]),
        (4, "example", [3]),
        (2, "file", [5, 5, 5, 5]),
        (2, "file", []),
        (2, "example", []),
    ],
)
def test_all_workers_together_see_every_document_once_in_the_same_number_of_steps(
    tmp_path, vectorizer, as_worker, workers, how, sizes
):
    shards = write(tmp_path, sizes)
    plan = plan_split(shards, "train", num_workers=workers, global_batch_size=12, shard_by=how)
    trained, evaluated = collections.Counter(), collections.Counter()
    for index in range(workers):
        strategy = as_worker(index, workers)
        trained.update(flat(epoch(shards, vectorizer, strategy, plan, batch_size=12)))
        batches = [
            documents_of(b)
            for b in evaluation_batches(
                shards, "train", vectorizer, strategy, global_batch_size=12, plan=plan
            )
        ]
        assert len(batches) == plan.steps
        evaluated.update(flat(batches))
    assert trained == evaluated == collections.Counter(range(sum(sizes)))


def test_what_follows_a_corrupt_record_in_its_shard_is_skipped_and_padded(
    tmp_path, vectorizer, as_worker
):
    shards = write(tmp_path, [10, 10])
    path = shards.paths[0]
    content = bytearray(tf.io.gfile.GFile(path, "rb").read())
    content[4 * (len(content) // 10) + 14] ^= 1
    with open(path, "wb") as stream:
        stream.write(content)
    plan = SplitPlan(num_steps(20, 8), None)
    seen = flat(epoch(shards, vectorizer, as_worker(0, 1), plan, skip_corrupt=True))
    assert sorted(seen) == [*range(4), *range(10, 20)]
    with pytest.raises(tf.errors.DataLossError):
        epoch(shards, vectorizer, as_worker(0, 1), plan)
