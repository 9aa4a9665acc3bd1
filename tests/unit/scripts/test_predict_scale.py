"""The cost model is fitted to the small sizes, checked on the large ones, and is what docs show."""

import json
import re

import pytest

from beam_jobs.contract.errors import UserError
from beam_jobs.preprocessing import frequencies, job
from beam_jobs.runtime import spill
from scripts import predict_scale
from scripts.scale import cost_model
from tests.command_lines import ROOT
from trainer.training import worker_gain


def row(documents: int, seconds: float) -> dict:
    return {
        "kind": "documents",
        "stage": "preprocess",
        "model": "bow",
        "documents": documents,
        "processor_seconds": seconds,
        "text_bytes": 1000 * documents,
        "input_bytes": 400 * documents,
        "output_bytes": 1200 * documents,
        "peak_disk_mb": 0.0042 * documents,
        "distinct_words": 50 * documents**0.5,
    }


def test_a_start_and_a_rate_are_fitted_to_the_small_sizes_and_checked_on_the_two_largest():
    rows = [row(size, 10 + size / 5_000) for size in (100_000, 25_000, 50_000)]
    disturbed = row(50_000, 31.0)  # the least of several counts
    one = cost_model.fit([row(1_000_000, 252.0), disturbed, *rows, row(200_000, 50.0)])
    assert one.fitted == (25_000, 50_000, 100_000)
    assert (one.start, 1 / one.per_document) == pytest.approx((10, 5_000))
    assert [(size, measured) for size, measured, _ in one.checks] == [
        (200_000, 50.0),
        (1_000_000, 252.0),
    ]
    assert [predicted for *_, predicted in one.checks] == pytest.approx([50, 210])
    rows.append(row(200_000, 50.0))
    one = cost_model.fit(rows, checked=[50_000, 100_000])
    assert one.fitted == (25_000, 200_000)
    assert [documents for documents, *_ in one.checks] == [50_000, 100_000]
    with pytest.raises(UserError, match="received 3 sizes of the stage preprocess, of which 2 are"):
        cost_model.fit(rows[:3])
    with pytest.raises(UserError, match="of which 1 are to be checked; expected 2 or more"):
        cost_model.fit(rows, checked=[50_000])


def test_bytes_grow_with_documents_and_buckets_until_there_are_as_many_as_there_may_be():
    results = {"rows": [row(1000, 1.0), row(100_000, 30.0)]}
    few, many = (cost_model.sizes(results, number) for number in (1e5, 1e9))
    assert (few.text, few.stored, few.between, few.dataset) == pytest.approx(
        (100e6, 40e6, 300e6, 120e6)
    )
    assert (few.buckets, many.buckets) == (16, 4096)
    assert many.bucket == pytest.approx(1e12 / 4096)
    assert (few.shards, few.ranges) == (1, 2 * 16)
    assert many.ranges == pytest.approx(1e12 / (64 << 20) * 4096, rel=1e-3)
    assert many.references == 200 * many.ranges
    words = 4096 * 50 * (1e9 / 4096) ** 0.5  # of all buckets
    assert many.partition == pytest.approx(words * 40 / 4096)


def test_the_cost_model_knows_the_constants_of_the_jobs():
    assert (job.BUCKET_BYTES, 1 << job.MAX_BUCKET_BITS, spill.SPILL_BYTES) == (
        cost_model.BUCKET_BYTES,
        cost_model.MAX_BUCKETS,
        cost_model.SPILL_BYTES,
    )
    partitions = frequencies.NUM_PARTITIONS, frequencies.MAX_PARTITIONS
    assert partitions == cost_model.PARTITIONS
    assert frequencies.PARTITION_BYTES == cost_model.PARTITION_BYTES
    assert (worker_gain._SECONDS_OF_EXCHANGES, worker_gain._SECONDS_OF_BYTE) == (
        cost_model.SECONDS_OF_EXCHANGES,
        cost_model.SECONDS_OF_BYTE,
    )
    assert worker_gain._BYTES_OF_TERM == cost_model.TERM_BYTES


def test_workers_get_what_all_others_give_and_their_share_of_dense_sums():
    gradients = {
        "batch_size": 100,
        "sparse_gradient_bytes": 10,
        "dense_gradient_bytes": 8,
        "all_dense_gradient_bytes": 58,
    }
    assert cost_model.exchanged_bytes(gradients, 1) == 0
    assert cost_model.exchanged_bytes(gradients, 4) == 3 * 10 + 2 * 3 / 4 * 8
    many_rows = gradients | {"sparse_gradient_bytes": 10**9}  # so factors are fewer bytes
    assert cost_model.given_bytes(many_rows) == 100 * (4 * 128 + 12 * 82)
    one = cost_model.Fit(start=5.0, per_document=0.01, fitted=(), checks=())
    of_others = 0.43e-9 * 82 * 128 * 100
    alone = cost_model.step_of(one, gradients, workers=1, bytes_per_second=4.0)
    assert alone == cost_model.Step(own=1.0, exchange=0.0, others=0.0)
    step = cost_model.step_of(one, gradients, workers=3, bytes_per_second=4.0)
    assert (step.own, step.others) == (1.0, 2 * of_others)
    assert step.exchange == pytest.approx(0.006 + (2 * 10 + 4 / 3 * 8) / 4)
    assert step.slowdown == pytest.approx(1 + step.exchange + step.others)
    # A fast network is not faster than a worker copies.
    step = cost_model.step_of(one, gradients, workers=2, bytes_per_second=1e12)
    assert step.exchange == pytest.approx(0.006 + (10 + 8) * 2.4e-9)
    assert cost_model.hours(one, 720_000, 2) == pytest.approx((5 + 3600) / 3600)
    # In as long as a dense sum, 2 x 50 bytes, gradients of so many others are got and worked out.
    others = cost_model.dense_pays_from(gradients, bytes_per_second=4.0) - 1
    assert others * (10 / 4 + of_others) == pytest.approx(2 * 50 / 4)


def test_a_gpu_is_as_fast_as_the_bytes_of_a_step_allow_and_needs_cores_that_read_for_it():
    one = cost_model.gpu_step(
        {"batch_size": 1000, "bytes": 10**8}, bytes_per_second=2e12, share=0.1
    )
    assert one.documents_per_second == pytest.approx(2e6)
    assert one.input_cores == pytest.approx(2e6 / cost_model.INPUT_RATE)


def test_the_page_shows_what_the_script_prints():
    results = json.loads((ROOT / "docs/experiments/scale.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs/scale.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"python scripts/predict_scale.py (.*)", page)
    arguments = predict_scale.make_parser().parse_args(command.split())
    for table in predict_scale.tables(results, arguments):
        assert table in page
    for one in cost_model.fits(results, arguments.checked).values():
        for _, measured, predicted in one.checks:
            assert predicted == pytest.approx(measured, rel=0.2)
