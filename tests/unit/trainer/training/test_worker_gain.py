import dataclasses

import pytest

from trainer.training.worker_gain import Workload, describe_exchange

BAG = Workload(
    workers=2,
    tokens=88,
    tables=((17_075, 256),),
    dense_weights=480 * 257,
    sums_embeddings=True,
    passes=1,
)
CONVOLUTIONS = dataclasses.replace(
    BAG, tables=((17_075, 128),), dense_weights=380_000, sums_embeddings=False, passes=88
)


def test_what_is_sent_is_a_vector_and_the_terms_of_each_document_and_the_dense_weights():
    expected = 1024 * (4 * 256 + 12 * 88) + 4 * 480 * 257
    assert BAG.sent_bytes(2048) == pytest.approx(expected)
    four = dataclasses.replace(BAG, workers=4)
    expected = 3 * 512 * (4 * 256 + 12 * 88) + 1.5 * 4 * 480 * 257
    assert four.sent_bytes(2048) == pytest.approx(expected)


def test_other_models_send_rows_of_their_tables_and_so_does_a_batch_larger_than_the_table():
    rows = dataclasses.replace(CONVOLUTIONS, dense_weights=0)
    assert rows.sent_bytes(20) == pytest.approx(10 * 88 * (4 * 128 + 4))
    assert rows.sent_bytes(100_000) == pytest.approx(17_075 * (4 * 128 + 4))
    bag = dataclasses.replace(BAG, dense_weights=0)
    assert bag.sent_bytes(100_000) == pytest.approx(17_075 * (4 * 256 + 4))


def test_where_workers_do_not_pay_the_line_says_what_would_help():
    line = describe_exchange(BAG, 256)
    assert line.startswith("warning: each of 2 workers sends about 0.8 MB a step, which takes")
    assert "train.batch_size=2048 or more, or one worker with the cores of all" in line
    assert describe_exchange(BAG, 2048) == "each of 2 workers sends about 2.6 MB a step"
    assert "warning" not in describe_exchange(CONVOLUTIONS, 256)


def test_pairs_in_a_table_of_their_own_are_multiplied_by_every_worker_and_do_not_pay():
    pairs = dataclasses.replace(BAG, tables=(*BAG.tables, (65_536, 256)))
    more = pairs.seconds_of_exchange(2048) - BAG.seconds_of_exchange(2048)
    sent = pairs.sent_bytes(2048) - BAG.sent_bytes(2048)
    assert more == pytest.approx(2.4e-9 * sent + 0.43e-9 * 1024 * 88 * 256)
    line = describe_exchange(pairs, 2048)
    assert line.startswith("warning:") and "train.batch_size" not in line


def test_where_no_batch_is_large_enough_only_cores_are_named():
    vectors = Workload(
        workers=64,
        tokens=0,
        tables=((10**9, 2048),),
        dense_weights=10,
        sums_embeddings=True,
        passes=1,
    )
    line = describe_exchange(vectors, 256)
    assert "train.batch_size" not in line and "What would help: one worker with the cores" in line
