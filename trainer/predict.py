"""Prediction with an exported SavedModel; of this project it needs nothing but the model's directory."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_text  # noqa: F401  (registers the analyzer's ops)

from beam_jobs.contract.errors import UserError

BATCH_DOCUMENTS = 256


def load_model(model_dir: str) -> Any:
    """Loads a SavedModel: a version's directory, or the newest version in a directory of versions.

    Raises:
      UserError: there is no SavedModel of this project's.
    """
    advice = "expected a directory that `python -m trainer.task export` has written, such as out/docstrings/model"
    path = Path(model_dir)
    if not path.is_dir():
        raise UserError(f"--model: {model_dir} is no directory; {advice}")
    if not (path / "saved_model.pb").exists():
        numbers = [int(p.name) for p in path.iterdir() if p.name.isdigit() and (p / "saved_model.pb").exists()]
        if not numbers:
            raise UserError(f"--model: {model_dir} holds no SavedModel; {advice}")
        path = path / str(max(numbers))
    try:
        model = tf.saved_model.load(str(path))
    except (OSError, tf.errors.OpError, ValueError) as error:
        raise UserError(f"--model: {path} cannot be loaded: {str(error).splitlines()[0]}; {advice}") from None
    missing = {"serving_default", "decide"} - set(model.signatures)
    if missing:
        raise UserError(f"--model: {path} has the signatures {sorted(model.signatures)} and lacks {sorted(missing)}; {advice}")
    return model


def predict(model_dir: str, texts: Sequence[str], *, as_json: bool) -> None:
    """Prints the labels of each text, or of each line of stdin where no texts are given."""
    model = load_model(model_dir)
    lines = texts or (line.rstrip("\r\n") for line in sys.stdin)
    for prediction in predictions(model, lines):
        if as_json:
            print(json.dumps(prediction, ensure_ascii=False))
        else:
            print(prediction["text"])
            for label, score in zip(prediction["labels"], prediction["scores"], strict=True):
                print(f"  {score:.3f} {'*' if label in prediction['assigned'] else ' '} {label}")
    if not as_json:
        print("(* the score reaches the label's threshold)")


def predictions(model: Any, texts: Iterable[str]) -> Iterator[dict[str, Any]]:
    """{"text", "labels", "scores", "assigned"} of each text: the best labels with scores, and the labels at or above their thresholds."""
    for batch in _batches(texts):
        raw = tf.constant([text.encode("utf-8", "surrogateescape") for text in batch])
        best, decided = model.signatures["serving_default"](raw), model.signatures["decide"](raw)
        columns = best["labels"].numpy(), best["scores"].numpy(), decided["labels"].numpy(), decided["counts"].numpy()
        for text, labels, scores, assigned, count in zip(batch, *columns, strict=True):
            yield {
                "text": text,
                "labels": [label.decode() for label in labels],
                "scores": scores.tolist(),
                "assigned": [label.decode() for label in assigned[:count]],
            }


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == BATCH_DOCUMENTS:
            yield batch
            batch = []
    if batch:
        yield batch
