"""Whoever reads an output while it is being written: what it must never see.

Each takes the place and the output of an uninterrupted run, and returns a complaint or None. What
is not there yet is no fault, and neither is a file that goes while it is being read, if what names
it has changed meanwhile.
"""

import hashlib
import json
import re
from pathlib import Path

from beam_jobs.contract import manifest as manifests
from beam_jobs.contract import places, saved_model
from beam_jobs.contract.errors import UserError


def dataset(place: str, whole: Path) -> str | None:
    """A manifest, and not all that it names."""
    mark = _read(place, manifests.MANIFEST)
    if mark is None:
        return None
    if mark != (whole / manifests.MANIFEST).read_bytes():
        return "another manifest"
    try:
        described = manifests.load(place)
    except (UserError, FileNotFoundError) as error:
        return f"a manifest without its files: {error}"
    return _damaged(place, described.files())


def predictions(place: str, whole: Path) -> str | None:
    """A summary, and not all that it names."""
    mark = _read(place, "predictions.json")
    if mark is None:
        return None
    if mark != (whole / "predictions.json").read_bytes():
        return "another predictions.json"
    return _damaged(place, [manifests.FileInfo(**_of(file)) for file in json.loads(mark)["files"]])


def _of(file: dict) -> dict:
    return {name: file[name] for name in ("file", "bytes", "sha256")}


def _damaged(place: str, files) -> str | None:
    for info in files:
        content = _read(place, info.file)
        if content is None or hashlib.sha256(content).hexdigest() != info.sha256:
            return f"{info.file} is not as it is described"
    return None


def run(place: str, whole: Path) -> str | None:
    """A list of complete checkpoints of which the newest is not there."""
    for folder in ("checkpoints", "best"):
        listed = _read(place, f"{folder}/checkpoint")
        if listed is None:
            continue
        name = re.search(r'model_checkpoint_path: "([^"]+)"', listed.decode())
        if name is None:
            return f"{folder}/checkpoint names none"
        parts = (f"{name[1]}.index", f"{name[1]}.data-00000-of-00001")
        missing = [part for part in parts if _read(place, f"{folder}/{part}") is None]
        if missing and _read(place, f"{folder}/checkpoint") == listed:
            return f"{folder}/checkpoint names {missing[0]}, which is not there"
    for name in ("history.json", "dataset_manifest.json"):
        if (content := _read(place, name)) is not None and not _is_json(content):
            return f"{name} is no JSON"
    return None


def evaluation(place: str, whole: Path) -> str | None:
    """Thresholds of one calibration beside another, or half a file."""
    from trainer.evaluation.tuned import load_tuned

    folder = Path(place)
    for path in folder.glob("evaluation-*.json"):
        if not _is_json(path.read_bytes()):
            return f"{path.name} is no JSON"
    if (folder / "thresholds.json").exists():
        labels = len(json.loads((whole / "thresholds.json").read_text())["per_label_bins"])
        try:
            load_tuned(folder, num_labels=labels)
        except UserError as error:
            return str(error)
    return run(place, whole)


def model(place: str, whole: Path) -> str | None:
    """A version without all its files."""
    version = saved_model.newest_version(place)
    if version is None:
        return None
    expected = set(places.list_files(whole / "1"))
    if missing := expected - places.list_files(version).keys():
        return f"{version} lacks {sorted(missing)[0]}"
    return None


def search(place: str, whole: Path) -> str | None:
    """Half a config of the best trial."""
    content = _read(place, "best.yaml")
    return None if content is None or b"learning_rate" in content else "best.yaml is not whole"


def _is_json(content: bytes) -> bool:
    try:
        json.loads(content)
    except ValueError:
        return False
    return True


def _read(place: str, name: str) -> bytes | None:
    try:
        return places.read_bytes(places.join(place, name))
    except (FileNotFoundError, NotADirectoryError):
        return None
