"""One process at a time writes a directory of a store, whatever becomes of the others."""

import json
import subprocess
import sys
import threading

import pytest

from beam_jobs.contract import places, store_lock
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.store_lock import StoreLock, exclusive_on_store

PLACE = "s3://bucket/run"
PATH = f"{PLACE}/.lock"


class MemoryStore:
    """A store in memory; without `conditional`, `put_new` puts a file in any case."""

    def __init__(self, *, conditional: bool = True):
        self.files: dict[str, bytes] = {}
        self.conditional = conditional
        self._step = threading.Lock()

    def read(self, path, offset=0, length=None):
        try:
            return self.files[path]
        except KeyError:
            raise FileNotFoundError(path) from None

    def put(self, path, source):
        self.files[path] = source.read()

    def put_new(self, path, content):
        with self._step:
            if self.conditional and path in self.files:
                return False
            self.files[path] = content
        return True

    def delete(self, paths):
        for path in paths:
            self.files.pop(path, None)


@pytest.fixture
def store(monkeypatch):
    memory = MemoryStore()
    monkeypatch.setattr(places, "_store", lambda scheme: memory)
    monkeypatch.setattr(store_lock, "_BEAT_SECONDS", 0.02)
    monkeypatch.setattr(store_lock, "_POLL_SECONDS", 0.05)
    return memory


def left_by(process: int, *, machine: str | None = None) -> bytes:
    """The lock of a process that was killed."""
    own = json.loads(StoreLock(PLACE, "train.run_dir")._content())
    left = own | {"process": process, "token": "t", "holder": f"process {process} of h"}
    return json.dumps(left | ({"machine": machine} if machine else {})).encode()


def test_a_second_process_is_refused_and_told_who_holds_the_lock(store):
    with exclusive_on_store(PLACE, "train.run_dir") as lock:
        with pytest.raises(UserError) as raised, exclusive_on_store(PLACE, "train.run_dir"):
            raise AssertionError("it was let in")
        lock.check()
    message = str(raised.value)
    assert message.startswith(f"train.run_dir: {PLACE} is being written by process ")
    assert f"another directory. To have it write no more, delete {PATH}" in message
    assert not store.files
    with exclusive_on_store(PLACE, "train.run_dir"):
        pass


def test_a_lock_whose_writing_was_answered_the_second_time_is_taken_at_once(store, monkeypatch):
    monkeypatch.setattr(store_lock, "_EXPIRY_SECONDS", 600)
    put_new = store.put_new
    monkeypatch.setattr(store, "put_new", lambda *given: put_new(*given) and put_new(*given))
    with exclusive_on_store(PLACE, "train.run_dir") as lock:
        lock.check()
    assert not store.files


def test_a_lock_without_a_sign_of_life_is_taken_over(store, monkeypatch):
    monkeypatch.setattr(store_lock, "_EXPIRY_SECONDS", 0.2)
    store.files[PATH] = left_by(1, machine="another one")
    with exclusive_on_store(PLACE, "train.run_dir") as lock:
        lock.check()
    assert not store.files


def test_a_lock_of_a_process_of_this_machine_that_has_ended_is_taken_over_at_once(
    store, monkeypatch
):
    monkeypatch.setattr(store_lock, "_EXPIRY_SECONDS", 600)
    ended = subprocess.Popen([sys.executable, "-S", "-c", ""])
    ended.wait()
    store.files[PATH] = left_by(ended.pid)
    with exclusive_on_store(PLACE, "train.run_dir") as lock:
        lock.check()


@pytest.mark.parametrize("content", [None, left_by(7, machine="another one")])
def test_a_holder_whose_lock_is_broken_or_taken_over_writes_no_more(store, content):
    with exclusive_on_store(PLACE, "train.run_dir") as lock:
        del store.files[PATH]
        if content is not None:
            store.files[PATH] = content
        who = "process 7 of h" if content else "another process"
        with pytest.raises(UserError, match=f"{who} writes {PLACE} in place of this process"):
            lock.check()
    assert store.files == ({PATH: content} if content else {})  # another's lock stays


def test_of_two_that_begin_together_one_is_refused_or_ends_when_it_looks_next(store):
    store.conditional = False  # as a store that knows no conditions
    first, second = (StoreLock(PLACE, "train.run_dir") for _ in range(2))
    first.acquire()
    places.write(PATH, second._content())  # it had found none, and writes a moment later
    with pytest.raises(UserError, match="in place of this process"):
        first.check()
    second.check()
    first.release()
    assert PATH in store.files
