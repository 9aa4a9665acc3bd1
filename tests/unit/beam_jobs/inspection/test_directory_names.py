"""What the directories of text files say: labels and splits, and posts by their headers."""

import io
import tarfile
import zipfile

from beam_jobs.contract.sections.data import DirectoriesData
from beam_jobs.inspection.directory_names import have_headers, labels_of, names_of, splits_of
from beam_jobs.sources.directories import DirectoriesReader

NAMES = ["set-train/cats/1", "set-train/cats/2", "set-train/dogs/3", "set-test/dogs/4"]


def names(path) -> list[str]:
    data = DirectoriesData(source="directories", inputs=(str(path),))
    return [name.removeprefix(f"{path}/") for name in names_of(DirectoriesReader(data).files())]


def test_names_of_directories_and_archives(tmp_path):
    for name in [*NAMES, "set-train/cats/.hidden"]:
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_text("words")
    with tarfile.open(tmp_path / "set.tar.gz", "w:gz") as archive:
        for name in NAMES:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for name in NAMES:
            archive.writestr(name, "words")
    for path in (tmp_path / "set", tmp_path / "set.tar.gz", tmp_path / "set.zip"):
        assert sorted(names(path)) == sorted(NAMES)


def test_labels_and_splits():
    found = [f"in.tar/{name}" for name in NAMES]
    assert labels_of(found) == {"cats": 2, "dogs": 2}
    assert splits_of(found) == {"test": ["*/set-test/*"], "train": ["*/set-train/*"]}
    assert splits_of(["in/cats/1", "in/dogs/1"]) == {} and splits_of([]) == {}
    assert splits_of(["train/cats/1", "train/dogs/1"]) == {}


def test_headers_of_posts_are_told_from_prose():
    post = "From: a@example.org (A)\nSubject: Re: x\n  and more\nLines: 3\n\nwords\n"
    assert have_headers([post] * 9) and not have_headers(["Note: this is prose.\n\nAnd more\n"] * 9)
