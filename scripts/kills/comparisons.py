"""What an output has in common with that of a run that nothing interrupted."""

import json
import sqlite3
from pathlib import Path

import numpy as np

_TIMES = {"documents_per_second", "seconds"}
_VARIABLES = ("model", "optimizer")


def bytes_of_files(received: Path, expected: Path) -> list[str]:
    """Every file has the bytes of the other, and there is no other."""
    return _of_files(_contents(received), _contents(expected))


def run(received: Path, expected: Path, *, nearly: bool = False) -> list[str]:
    """Histories and all variables are equal, and the same files are there."""
    ours, theirs = (_without_logs(_contents(folder)) for folder in (received, expected))
    found = _other_names(ours, theirs)
    left, right = (_history(folder) for folder in (received, expected))
    if nearly:
        left, right = ([row["step"] for row in rows] for rows in (left, right))
    if left != right:
        found.append("history.json")
    for folder in ("checkpoints", "best"):
        a, b = (_variables(path / folder) for path in (received, expected))
        if a.keys() != b.keys():
            found.append(f"{folder}: other variables")
        elif nearly:
            if any(not np.allclose(a[name], b[name], rtol=1e-3, atol=1e-5) for name in b):
                found.append(f"{folder}: other weights")
        elif any(not np.array_equal(a[name], b[name]) for name in b):
            found.append(f"{folder}: other bits")
    return found


def run_nearly(received: Path, expected: Path) -> list[str]:
    """As `run`, but for last bits: sums over workers are added up in any order."""
    return run(received, expected, nearly=True)


def evaluation(received: Path, expected: Path) -> list[str]:
    """Every file of the run directory has the bytes of the other."""
    ours, theirs = (_without_logs(_contents(folder)) for folder in (received, expected))
    return _of_files(ours, theirs)


def model(received: Path, expected: Path) -> list[str]:
    """The newest version has the graph's answers' constants and variables, and no other file.

    A run that was killed after it had published is a version too.
    """
    versions = sorted(path.name for path in received.iterdir() if path.name.isdigit())
    others = sorted(path.name for path in received.iterdir() if not path.name.isdigit())
    found = [f"{name} is left" for name in others]
    if versions not in (["1"], ["1", "2"]):
        return [*found, f"versions {versions}"]
    for version in versions:
        ours, theirs = _contents(received / version), _contents(expected / "1")
        changing = {"saved_model.pb", "fingerprint.pb", "README.md", "assets.extra/origin.json"}
        found += _other_names(ours, theirs)
        found += [
            f"{version}/{name}"
            for name in ours.keys() & theirs.keys()
            if ours[name] != theirs[name] and name not in changing
        ]
    return found


def search(received: Path, expected: Path) -> list[str]:
    """The same trials with the same values and histories, none of which runs any more."""
    found = []
    if _trials(received) != _trials(expected):
        found.append(f"trials {_trials(received)}, expected {_trials(expected)}")
    for path in sorted(expected.glob("trials/*/run/history.json")):
        other = received / path.relative_to(expected)
        if not other.exists() or _history(other.parent) != _history(path.parent):
            found.append(f"{path.parent.parent.name}: another history")
    if (received / "best.yaml").read_bytes() != (expected / "best.yaml").read_bytes():
        found.append("best.yaml")
    return found


def _trials(folder: Path) -> list[tuple]:
    """(values, score) of the finished trials; one that was taken over has another number."""
    with sqlite3.connect(folder / "study.db") as database:
        return database.execute(
            "select p.param_value, v.value, t.state from trials t "
            "left join trial_params p using (trial_id) left join trial_values v using (trial_id) "
            "where t.state != 'FAIL' order by 1, 2"
        ).fetchall()


def _history(folder: Path) -> list[dict]:
    rows = json.loads((folder / "history.json").read_text(encoding="utf-8"))
    return [{name: row[name] for name in row.keys() - _TIMES} for row in rows]


def _variables(folder: Path) -> dict[str, np.ndarray]:
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(folder))
    names = [n for n in reader.get_variable_to_shape_map() if n.startswith(_VARIABLES)]
    return {name: reader.get_tensor(name) for name in names}


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _without_logs(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if not name.startswith("logs/")}


def _other_names(ours: dict[str, bytes], theirs: dict[str, bytes]) -> list[str]:
    return [f"{name} is left" for name in sorted(ours.keys() - theirs.keys())] + [
        f"{name} is missing" for name in sorted(theirs.keys() - ours.keys())
    ]


def _of_files(ours: dict[str, bytes], theirs: dict[str, bytes]) -> list[str]:
    differ = [name for name in ours.keys() & theirs.keys() if ours[name] != theirs[name]]
    return _other_names(ours, theirs) + sorted(differ)
