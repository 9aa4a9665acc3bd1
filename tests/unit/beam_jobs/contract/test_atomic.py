"""Files and directories appear whole or not at all, whatever is killed and whoever else runs."""

import errno
import fcntl
import os
import shutil
import threading
import time

import pytest

from beam_jobs.contract import atomic
from beam_jobs.contract.atomic import (
    in_turn,
    publish,
    recover,
    staging,
    staging_within,
    temporary_path,
    write_atomically,
)
from beam_jobs.contract.errors import UserError


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write(folder, content: str):
    folder.mkdir(exist_ok=True)
    (folder / "file").write_text(content)
    return folder


def killed_run(dataset_dir, content: str):
    """A staging directory as a killed run leaves it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atomic, "_clean_up", lambda _: None)
        with staging(dataset_dir) as staged:
            return write(staged, content)


def test_the_dataset_appears_with_publish_and_nothing_else_stays(tmp_path):
    dataset = tmp_path / "made/here/dataset"
    with staging(dataset) as staged:
        write(staged, "new")
        assert not dataset.exists()
        publish(staged, dataset)
        assert (dataset / "file").read_text() == "new"
    assert names(dataset.parent) == ["dataset"]
    assert names(dataset) == ["file"]


def test_publish_replaces_the_whole_older_dataset(tmp_path):
    dataset = write(tmp_path / "dataset", "old")
    (dataset / "stale-shard").touch()
    with staging(dataset) as staged:
        publish(write(staged, "new"), dataset)
    assert (names(tmp_path), names(dataset), (dataset / "file").read_text()) == (
        ["dataset"],
        ["file"],
        "new",
    )


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_no_trace_and_keeps_the_old_dataset(tmp_path, error):
    dataset = write(tmp_path / "dataset", "old")
    with pytest.raises(error), staging(dataset) as staged:
        write(staged, "half")
        raise error
    assert (names(tmp_path), (dataset / "file").read_text()) == (["dataset"], "old")


def test_a_rename_that_fails_puts_the_old_dataset_back(tmp_path, monkeypatch):
    dataset = write(tmp_path / "dataset", "old")
    replace = os.replace

    def fail_the_second(source, target):
        if "staging" in str(source):
            raise OSError("no space")
        replace(source, target)

    with pytest.raises(OSError, match="no space"), staging(dataset) as staged:
        write(staged, "new")
        monkeypatch.setattr(os, "replace", fail_the_second)
        publish(staged, dataset)
    assert (names(tmp_path), (dataset / "file").read_text()) == (["dataset"], "old")


def test_the_next_run_removes_what_killed_runs_left(tmp_path):
    dataset = tmp_path / "dataset"
    killed_run(dataset, "half")
    killed_run(dataset, "half")
    assert len(names(tmp_path)) == 2
    with staging(dataset) as staged:
        assert names(staged) == []
        assert names(tmp_path) == [".dataset.lock", staged.name]
    assert names(tmp_path) == []


def test_a_run_killed_between_the_renames_of_publish_loses_no_dataset(tmp_path):
    dataset = write(tmp_path / "dataset", "old")
    killed_run(dataset, "new")
    os.replace(dataset, tmp_path / ".dataset.old")
    recover(dataset)
    assert (names(tmp_path), (dataset / "file").read_text()) == (["dataset"], "old")


def test_a_run_killed_after_the_renames_of_publish_keeps_the_new_dataset(tmp_path):
    dataset = write(tmp_path / "dataset", "new")
    write(tmp_path / ".dataset.old", "old")
    recover(dataset)
    assert (names(tmp_path), (dataset / "file").read_text()) == (["dataset"], "new")


def test_a_failing_run_after_one_killed_between_the_renames_still_puts_the_dataset_back(
    tmp_path,
):
    dataset = tmp_path / "dataset"
    write(tmp_path / ".dataset.old", "old")
    with pytest.raises(RuntimeError), staging(dataset):
        raise RuntimeError
    assert (names(tmp_path), (dataset / "file").read_text()) == (["dataset"], "old")


def test_recover_with_nothing_left_touches_nothing(tmp_path):
    recover(tmp_path / "no/such/dataset")
    assert names(tmp_path) == []
    tmp_path.chmod(0o500)  # a finished dataset may stand where nobody can write
    recover(tmp_path / "dataset")
    tmp_path.chmod(0o700)


def test_a_second_live_run_is_refused_and_disturbs_nothing(tmp_path):
    dataset = tmp_path / "dataset"
    with staging(dataset) as staged:
        write(staged, "first")
        for attempt in (lambda: staging(dataset).__enter__(), lambda: recover(dataset)):
            with pytest.raises(UserError, match="another run is writing .*dataset; wait"):
                attempt()
        assert (staged / "file").read_text() == "first"
        with staging(tmp_path / "other"):
            pass
        publish(staged, dataset)
    assert names(tmp_path) == ["dataset"]
    with staging(dataset):
        pass


def test_a_lock_file_that_its_owner_has_just_removed_locks_nobody_out_and_lets_no_two_in(
    tmp_path, monkeypatch
):
    dataset = tmp_path / "dataset"
    flock, removed = fcntl.flock, []

    def owner_ends_first(lock, how):
        if not removed:
            removed.append(os.unlink(tmp_path / ".dataset.lock"))
        flock(lock, how)

    monkeypatch.setattr(fcntl, "flock", owner_ends_first)
    with staging(dataset), pytest.raises(UserError, match="another run"), staging(dataset):
        pass
    assert removed and names(tmp_path) == []


def test_a_killed_runs_workers_that_still_write_reach_no_file_of_the_next_run(tmp_path):
    dataset = tmp_path / "dataset"
    orphan = killed_run(dataset, "half")
    with staging(dataset) as staged:
        assert staged != orphan
        write(orphan, "late")  # Beam makes missing folders again
        publish(write(staged, "new"), dataset)
    assert (names(tmp_path), (dataset / "file").read_text()) == (["dataset"], "new")


def test_a_link_to_the_dataset_stays_a_link(tmp_path):
    target = write(tmp_path / "disk", "old")
    (tmp_path / "dataset").symlink_to(target)
    for content in ("new", "newer"):
        with staging(tmp_path / "dataset") as staged:
            publish(write(staged, content), tmp_path / "dataset")
        assert ((tmp_path / "dataset").is_symlink(), (target / "file").read_text()) == (
            True,
            content,
        )
    assert names(tmp_path) == ["dataset", "disk"]


def test_only_our_own_leftovers_are_removed(tmp_path):
    for name in (
        ".dataset.staging-notes",
        ".dataset.older",
        ".dataset.staging-" + "0" * 32 + ".bak",
        "dataset.staging-" + "0" * 32,
        ".other.old",
    ):
        write(tmp_path / name, "mine")
    before = names(tmp_path)
    with staging(tmp_path / "dataset"):
        pass
    assert names(tmp_path) == before


def test_a_published_dataset_is_readable_as_the_umask_says(tmp_path):
    with staging(tmp_path / "dataset") as staged:
        publish(write(staged, "new"), tmp_path / "dataset")
    plain = tmp_path / "plain"
    plain.mkdir()
    assert (tmp_path / "dataset").stat().st_mode == plain.stat().st_mode


def test_a_place_that_cannot_be_written_is_the_users_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        UserError,
        match="output.dataset_dir: cannot write in .*file/x.*expected a directory you may write",
    ):
        with staging(tmp_path / "file/x/dataset"):
            pass
    shutil.rmtree(tmp_path)


def test_a_stale_lock_file_keeps_nobody_out(tmp_path):
    (tmp_path / ".dataset.lock").write_text("of a run that was killed")
    with staging(tmp_path / "dataset") as staged:
        publish(write(staged, "new"), tmp_path / "dataset")
    assert names(tmp_path) == ["dataset"]


# --- versions within a directory -------------------------------------------------------


def test_versions_are_staged_by_one_run_at_a_time_each_after_the_one_before(tmp_path):
    parent, order = tmp_path / "model", []

    def export():
        with staging_within(parent) as staged:
            write(staged, "new")
            number = len(list(parent.glob("[0-9]*"))) + 1
            time.sleep(0.05)  # without turns two of them would count the same versions
            publish(staged, parent / str(number))
            order.append(number)

    threads = [threading.Thread(target=export) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert order == [1, 2, 3, 4] and names(parent) == ["1", "2", "3", "4"]


def test_what_a_killed_or_failed_export_left_is_removed(tmp_path):
    write(tmp_path / ".staging", "half")
    with pytest.raises(RuntimeError), staging_within(tmp_path) as staged:
        assert not staged.exists()
        write(staged, "half")
        raise RuntimeError
    assert names(tmp_path) == []


# --- files -----------------------------------------------------------------------------


@pytest.mark.parametrize(("content", "expected"), [("\u00e9", b"\xc3\xa9"), (b"\xff", b"\xff")])
def test_a_file_is_written_in_the_place_of_an_older_one_and_nothing_else_stays(
    tmp_path, content, expected
):
    for _ in range(2):
        write_atomically(tmp_path / "file", content)
        assert ((tmp_path / "file").read_bytes(), names(tmp_path)) == (expected, ["file"])


def test_a_file_whose_writing_fails_stays_as_it_was(tmp_path, monkeypatch):
    write_atomically(tmp_path / "file", "old")

    def fail(source, target):
        raise OSError("no space")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        write_atomically(tmp_path / "file", "new")
    assert ((tmp_path / "file").read_text(), names(tmp_path)) == ("old", ["file"])


def test_a_file_system_without_locks_has_run_directories_and_no_outputs(tmp_path, monkeypatch):
    def acquire(self):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(atomic.FileLock, "acquire", acquire)
    with atomic.exclusive_within(tmp_path / "run", "train.run_dir"):
        assert (tmp_path / "run").is_dir()
    with (
        pytest.raises(UserError, match="No locks available"),
        atomic.exclusive(tmp_path / "out", "output.dataset_dir"),
    ):
        pass


def test_what_a_killed_writer_had_begun_is_removed_in_its_turn_and_nothing_else(tmp_path):
    left, other = (temporary_path(tmp_path / name) for name in ("a.json", "b.json"))
    for path in (left, other, tmp_path / "a.json", tmp_path / ".turn"):
        path.touch()
    with in_turn(tmp_path, ".turn", owns=lambda name: name == "a.json"):
        assert names(tmp_path) == sorted([".turn", other.name, "a.json"])
        write_atomically(tmp_path / "a.json", "x")
    assert names(tmp_path) == sorted([other.name, "a.json"])


def test_writers_of_the_same_files_wait_for_each_other(tmp_path):
    order = []

    def write():
        with in_turn(tmp_path, ".turn", owns=lambda name: True):
            order.append("second")

    with in_turn(tmp_path, ".turn", owns=lambda name: True):
        thread = threading.Thread(target=write)
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join(60)
    assert order == ["first", "second"] and names(tmp_path) == []
