"""A generation is published by its mark, whole or not at all, whatever was killed before."""

import json
import os
from pathlib import Path

import pytest

from beam_jobs.contract import places
from beam_jobs.contract.atomic import temporary_path
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import FileInfo, file_info
from beam_jobs.runtime import generations

NAME, OTHER = generations.name_of("a"), generations.name_of("b")


def live(place) -> str | None:
    mark = Path(place) / "mark"
    return json.loads(mark.read_text()) if mark.exists() else None


def writing(place, name=NAME):
    return generations.writing(str(place), name, live=lambda: live(place), what="--output")


def files(place) -> dict[str, str]:
    return {name: Path(place, name).read_text() for name in places.list_files(place)}


def make(place, content: str, name=NAME) -> str:
    """A generation with one file; its name."""
    with writing(place, name) as generation:
        places.write(f"{generation.directory}/file", content)
        places.write(f"{generation.work_dir}/spilled", "rows")
        places.write(f"{generation.directory}/unnamed", "of an attempt that was given up")
        info = generation.named(file_info(generation.directory, "file"))
        generation.commit("mark", json.dumps(generation.name), [info])
    return generation.name


def test_what_the_mark_does_not_name_is_not_published(tmp_path):
    make(tmp_path / "out", "1")
    assert files(tmp_path / "out") == {"mark": f'"{NAME}"', f"{NAME}/file": "1"}
    assert os.listdir(tmp_path) == ["out"] and os.listdir(tmp_path / "out" / NAME) == ["file"]


def test_the_generation_before_stays_for_its_readers_until_the_next_run(tmp_path):
    make(tmp_path, "1")
    make(tmp_path, "2", OTHER)
    assert files(tmp_path) == {"mark": f'"{OTHER}"', f"{NAME}/file": "1", f"{OTHER}/file": "2"}
    third = generations.name_of("c")
    with writing(tmp_path, third):
        assert files(tmp_path) == {"mark": f'"{OTHER}"', f"{OTHER}/file": "2"}
    assert files(tmp_path) == {"mark": f'"{OTHER}"', f"{OTHER}/file": "2"}


def test_files_of_the_same_generation_are_never_written_again_where_they_are_named(tmp_path):
    names = [make(tmp_path, content) for content in "123"]
    assert names == [NAME, f"{NAME}-1", f"{NAME}-2"]
    assert files(tmp_path) == {
        "mark": f'"{NAME}-2"',
        f"{NAME}-1/file": "2",
        f"{NAME}-2/file": "3",
    }


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_what_was_there(tmp_path, error):
    with pytest.raises(error), writing(tmp_path / "out") as generation:
        places.write(f"{generation.directory}/file", "half")
        raise error
    assert os.listdir(tmp_path) == []
    make(tmp_path, "1")
    with pytest.raises(error), writing(tmp_path, OTHER) as generation:
        places.write(f"{generation.directory}/file", "half")
        raise error
    assert files(tmp_path) == {"mark": f'"{NAME}"', f"{NAME}/file": "1"}


@pytest.mark.parametrize("named", [[("file", 2)], [("file", 1), ("none", 1)]])
def test_a_file_that_is_missing_or_of_another_size_is_never_published(tmp_path, named):
    infos = [FileInfo(file=f"{NAME}/{file}", bytes=size, sha256="") for file, size in named]
    with (
        pytest.raises(RuntimeError, match="expected . bytes: nothing is published"),
        writing(tmp_path) as generation,
    ):
        places.write(f"{generation.directory}/file", "1")
        generation.commit("mark", "", infos)
    assert files(tmp_path) == {}


def test_the_next_run_removes_what_killed_runs_left(tmp_path):
    for name in (NAME, OTHER):
        places.write(tmp_path / name / "work-1/spilled", "rows")
    places.write(tmp_path / NAME / "file", "half")
    temporary_path(tmp_path / "mark").write_text("of a run that was killed before it renamed it")
    assert generations.is_empty(str(tmp_path))
    make(tmp_path, "1")
    assert files(tmp_path) == {"mark": f'"{NAME}"', f"{NAME}/file": "1"}


def test_what_a_run_left_that_was_killed_after_it_had_published_is_removed(tmp_path):
    make(tmp_path, "1")
    complete = files(tmp_path)
    for name in ("work-1/part", "unnamed"):
        places.write(tmp_path / NAME / name, "rows")
    (tmp_path / NAME / "work-2").mkdir()
    generations.remove_what_a_killed_run_left(str(tmp_path), [f"{NAME}/file"])
    assert files(tmp_path) == complete and os.listdir(tmp_path / NAME) == ["file"]
    # What no run has left is somebody's.
    places.write(tmp_path / NAME / "note", "mine")
    generations.remove_what_a_killed_run_left(str(tmp_path), [f"{NAME}/file"])
    assert files(tmp_path) == complete | {f"{NAME}/note": "mine"}
    # A place of versions before has its files at the place itself.
    generations.remove_what_a_killed_run_left(str(tmp_path), ["file"])


def test_a_second_live_run_is_refused(tmp_path):
    with (
        writing(tmp_path / "out"),
        pytest.raises(UserError, match="another run is writing .*; wait for it to end, or set"),
        writing(tmp_path / "out", OTHER),
    ):
        pass
    assert os.listdir(tmp_path) == []


def test_a_place_with_files_of_others_is_not_empty(tmp_path):
    assert generations.is_empty(str(tmp_path)) and generations.is_empty(str(tmp_path / "none"))
    places.write(tmp_path / "out/0123456789abcdef/x", "")
    assert generations.is_empty(str(tmp_path / "out"))
    places.write(tmp_path / "out/mine", "")
    assert not generations.is_empty(str(tmp_path / "out"))
    assert not generations.is_empty(str(tmp_path / "out/mine"))
