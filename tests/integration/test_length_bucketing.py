"""Windows sorted by length.

Every document once, less padding, the same order from any step on.
"""

import types

import numpy as np
import pytest
import tensorflow as tf

from beam_jobs.contract.records import RecordSpec
from trainer.data.input_pipeline import make_vectorizer, train_batches
from trainer.data.shards import SplitPlan, num_steps, plan_split

SIZES, BATCH_SIZE = [50, 0, 37, 30, 6], 8
LENGTHS = np.random.default_rng(0).geometric(0.05, sum(SIZES))


@pytest.fixture(scope="module")
def vectorizer():
    return make_vectorizer(["w"])


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Document i has LENGTHS[i] tokens and the label i."""
    directory, document = tmp_path_factory.mktemp("shards"), 0
    for i, size in enumerate(SIZES):
        with tf.io.TFRecordWriter(str(directory / f"shard{i}")) as writer:
            for _ in range(size):
                text = b" ".join([b"w"] * LENGTHS[document])
                writer.write(
                    RecordSpec().encode(
                        {"id": b"", "text": text, "labels": [document], "weight": 1.0}
                    )
                )
                document += 1
    split = types.SimpleNamespace(
        shards=[types.SimpleNamespace(examples=n, file="shard", bytes=100 * n) for n in SIZES]
    )
    return types.SimpleNamespace(
        record_spec=RecordSpec(),
        manifest=types.SimpleNamespace(splits={"train": split}),
        num_examples=lambda _: sum(SIZES),
        fetch=list,
        shards=lambda _: [str(directory / f"shard{i}") for i in range(len(SIZES))],
    )


@pytest.fixture
def as_worker(monkeypatch):
    def pretend(index, count):
        monkeypatch.setattr("trainer.data.input_pipeline.num_workers", lambda _: count)
        monkeypatch.setattr("trainer.data.input_pipeline.worker_index", lambda _: index)
        return types.SimpleNamespace(
            num_replicas_in_sync=count, distribute_datasets_from_function=lambda make: make(None)
        )

    return pretend


def steps_of(
    shards, vectorizer, strategy, plan, *, first_step=0, window=4, seed=3
) -> list[list[int]]:
    options = {
        "plan": plan,
        "global_batch_size": BATCH_SIZE,
        "shuffle_buffer": 40,
        "seed": seed,
        "epoch": 0,
    }
    iterator = iter(
        train_batches(
            shards,
            vectorizer,
            strategy,
            first_step=first_step,
            length_bucket_steps=window,
            **options,
        )
    )
    steps = []
    for _ in range(plan.steps - first_step):
        batch = next(iterator)
        labels = batch["labels"].to_list()
        assert [len(row) for row in labels] == batch["mask"].numpy().astype(int).tolist()
        documents = [row[0] for row in labels if row]
        assert (
            batch["tokens"].row_lengths().numpy()[batch["mask"] > 0].tolist()
            == LENGTHS[documents].tolist()
        )
        steps.append(documents)
    assert not next(iterator)["mask"].numpy().any()  # padding without end
    return steps


def cells(steps) -> int:
    """Tokens with their padding."""
    return sum(len(step) * max(LENGTHS[step]) for step in steps if step)


def test_every_document_is_there_once_and_wider_windows_pad_less(shards, vectorizer, as_worker):
    plan = SplitPlan(num_steps(sum(SIZES), BATCH_SIZE), None)
    waste = {}
    for window in (1, 2, 4, 100):
        steps = steps_of(shards, vectorizer, as_worker(0, 1), plan, window=window)
        assert sorted(document for step in steps for document in step) == list(range(sum(SIZES)))
        waste[window] = cells(steps) - LENGTHS.sum()
    assert waste[4] < 0.6 * waste[1]


def test_the_order_of_batches_is_random_and_follows_from_the_seed(shards, vectorizer, as_worker):
    plan = SplitPlan(num_steps(sum(SIZES), BATCH_SIZE), None)
    runs = [
        steps_of(shards, vectorizer, as_worker(0, 1), plan, window=100, seed=seed)
        for seed in (3, 3, 4)
    ]
    assert runs[0] == runs[1] != runs[2]
    lengths = [max(LENGTHS[step]) for step in runs[0] if step]
    assert lengths != sorted(lengths) and lengths != sorted(lengths, reverse=True)


@pytest.mark.parametrize(("workers", "how"), [(1, "example"), (2, "example"), (2, "file")])
def test_from_any_step_on_the_order_goes_on_as_it_would_have(
    shards, vectorizer, as_worker, workers, how
):
    plan = plan_split(
        shards, "train", num_workers=workers, global_batch_size=BATCH_SIZE, shard_by=how
    )
    strategy = as_worker(workers - 1, workers)
    whole = steps_of(shards, vectorizer, strategy, plan)
    for first in (1, 4, 6, plan.steps - 1):
        assert steps_of(shards, vectorizer, strategy, plan, first_step=first) == whole[first:]
