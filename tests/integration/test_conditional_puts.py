"""On Google Cloud Storage, a lock is put by one request only where there is none."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from beam_jobs.contract import places, store_lock
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.store_lock import exclusive_on_store
from tests.conditional_gcs import conditional_gcs

RUN = "gs://bucket/run"
LOCK = f"{RUN}/.lock"


@pytest.fixture
def gcs(monkeypatch):
    pytest.importorskip("google.cloud.storage")
    retries = pytest.importorskip("google.api_core.retry.retry_unary")
    monkeypatch.setattr(retries.time, "sleep", lambda seconds: None)
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")
    with conditional_gcs() as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.address)
        places._store.cache_clear()
        yield server
    places._store.cache_clear()


def test_a_file_is_put_only_where_there_is_none_and_any_other_put_has_no_condition(gcs):
    assert places.write_new(LOCK, "1") and not places.write_new(LOCK, "2")
    assert places.read_bytes(LOCK) == b"1"
    places.write(LOCK, "3")
    assert places.read_bytes(LOCK) == b"3"
    assert gcs.conditions == ["0", "0", None]
    places.delete([LOCK])
    assert places.write_new(LOCK, "4")


def test_of_many_that_put_a_file_at_once_one_has_put_it(gcs):
    with ThreadPoolExecutor(8) as pool:
        have_put = list(pool.map(lambda i: places.write_new(LOCK, str(i)), range(8)))
    assert have_put.count(True) == 1
    assert places.read_bytes(LOCK) == str(have_put.index(True)).encode()


def test_of_two_processes_that_begin_together_the_second_is_refused(gcs, monkeypatch):
    """It has looked, and found no lock, before the first has put its own."""
    monkeypatch.setattr(store_lock, "_BEAT_SECONDS", 0.02)
    monkeypatch.setattr(store_lock, "_POLL_SECONDS", 0.05)
    monkeypatch.setattr(store_lock, "_EXPIRY_SECONDS", 600)
    read, looked = store_lock._read, []

    def read_as_the_second(path):
        if threading.current_thread() is threading.main_thread() and not looked:
            looked.append(path)
            return None
        return read(path)

    with exclusive_on_store(RUN, "train.run_dir") as first:
        second = store_lock.StoreLock(RUN, "train.run_dir")
        monkeypatch.setattr(store_lock, "_read", read_as_the_second)
        with pytest.raises(UserError, match=f"{RUN} is being written by process"):
            second.acquire()
        first.check()


def test_a_lock_whose_first_answer_was_lost_is_held_at_once(gcs, monkeypatch):
    monkeypatch.setattr(store_lock, "_EXPIRY_SECONDS", 600)
    gcs.lost_answers = 1
    with exclusive_on_store(RUN, "train.run_dir") as lock:
        lock.check()
        assert gcs.conditions == ["0", "0"]
    assert not gcs.objects
