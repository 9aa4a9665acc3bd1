"""Reading what training runs have left, and comparing it to the bit."""

import json
from pathlib import Path

import numpy as np
import tensorflow as tf

# Of a run that is resumed. Dropout, so that the state of its random numbers counts.
SETTINGS = (
    "train.epochs=3",
    "train.patience=null",
    "train.checkpoint_steps=3",
    "train.steps_per_call=2",
    "model.dropout=0.3",
)

TIMING = ("documents_per_second", "seconds")


def history(run: Path) -> list[dict]:
    """The rows of history.json without timings."""
    return [
        {k: v for k, v in row.items() if k not in TIMING}
        for row in json.loads((run / "history.json").read_text())
    ]


def newest_step(run: Path) -> int:
    """The step of the newest complete checkpoint; 0: there is none."""
    path = tf.train.latest_checkpoint(str(run / "checkpoints"))
    return int(path.rpartition("-")[2]) if path else 0


def variables(run: Path, *, folder: str = "checkpoints") -> dict[str, np.ndarray]:
    """All tensors of the newest checkpoint but the text of the run's state, which holds timings."""
    reader = tf.train.load_checkpoint(str(run / folder))
    names = sorted(
        name
        for name in reader.get_variable_to_shape_map()
        if name.startswith(("model", "optimizer"))
    )
    assert any(name.startswith("optimizer") for name in names)
    return {name: reader.get_tensor(name) for name in names}


def assert_same_bits(left: Path, right: Path) -> None:
    """Both runs ended with equal histories and equal bits in every variable."""
    assert history(left) == history(right)
    a, b = variables(left), variables(right)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def assert_equal_within_tolerance(run: Path, reference: Path) -> None:
    """Runs of equal histories and weights, but for their last bits."""
    assert [row["step"] for row in history(run)] == [row["step"] for row in history(reference)]
    for key in ("loss", "validation_micro_f1"):
        np.testing.assert_allclose(
            [row[key] for row in history(run)], [row[key] for row in history(reference)], rtol=1e-4
        )
    ours, theirs = variables(run), variables(reference)
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-3, atol=1e-5, err_msg=name)
