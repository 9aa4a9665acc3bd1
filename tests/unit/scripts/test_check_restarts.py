"""The check of restarts gives two workers the variables of each launch file."""

from pathlib import Path

import pytest

from scripts import check_restarts
from trainer.distribution.cluster import find_cluster


@pytest.mark.parametrize("kind", check_restarts.KINDS)
def test_both_workers_find_each_other_by_the_names_and_addresses_of_their_hosts(kind):
    clusters = [
        find_cluster(check_restarts.environment(kind, index, Path("run"))) for index in range(2)
    ]
    assert [cluster.index for cluster in clusters] == [0, 1]
    first, second = clusters[0].addresses
    assert clusters[1].addresses == (first, second)
    has_names = kind in ("kubernetes", "vertex")
    expected = check_restarts._names(kind) if has_names else check_restarts.ADDRESSES
    assert [address.rpartition(":")[0] for address in (first, second)] == list(expected)


def test_the_newest_checkpoint_is_that_which_the_list_names(tmp_path):
    assert check_restarts._newest_step(tmp_path) == 0
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/checkpoint").write_text(
        'model_checkpoint_path: "ckpt-12"\nall_model_checkpoint_paths: "ckpt-10"\n'
    )
    assert check_restarts._newest_step(tmp_path) == 12
