"""Batches are the same from any step on, and on any number of replicas and workers."""

import collections

import pytest

from tests.small_shards import VOCABULARY, documents_of, epoch, flat, worker_of, write
from trainer.data.input_pipeline import evaluation_batches, make_vectorizer
from trainer.data.shards import SplitPlan, num_steps, plan_split


@pytest.fixture(scope="module")
def vectorizer():
    return make_vectorizer(VOCABULARY)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write(tmp_path_factory.mktemp("shards"), [20, 0, 17, 8, 1])


@pytest.fixture
def as_worker(monkeypatch):
    return worker_of(monkeypatch)


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
