"""Prediction with an exported SavedModel; of this project it needs nothing but the model's directory."""

import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from beam_jobs.contract import saved_model
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.saved_model import SavedModel

BATCH_DOCUMENTS = 256


def predict(model_dir: str, texts: Sequence[str], *, as_json: bool) -> None:
    """Prints the labels of each text, or of each line of stdin where no texts are given.

    For a model of several text fields each is a JSON object with a string for every field.

    Raises:
      UserError: there is no model, or a text is no such object.
    """
    model = saved_model.load(model_dir)
    for stream in (sys.stdin, sys.stdout):
        stream.reconfigure(errors="replace")
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


def predictions(model: SavedModel, texts: Iterable[str]) -> Iterator[dict[str, Any]]:
    """{"text", "labels", "scores", "assigned"} of each text: the best labels with scores, and the labels at or above their thresholds."""
    texts = iter(texts)
    while batch := list(itertools.islice(texts, BATCH_DOCUMENTS)):
        documents = [document_of(model, text) for text in batch]
        raw = {
            field: tf.constant([_bytes(document[field]) for document in documents])
            for field in model.text_fields
        }
        best, decided = (
            model.module.signatures["serving_default"](**raw),
            model.module.signatures["decide"](**raw),
        )
        columns = (
            best["labels"].numpy(),
            best["scores"].numpy(),
            decided["labels"].numpy(),
            decided["counts"].numpy(),
        )
        for text, labels, scores, assigned, count in zip(batch, *columns, strict=True):
            yield {
                "text": text,
                "labels": [label.decode() for label in labels],
                "scores": scores.tolist(),
                "assigned": [label.decode() for label in assigned[:count]],
            }


def document_of(model: SavedModel, text: str) -> dict[str, str]:
    """The text of each of the model's fields.

    Raises:
      UserError: the model has several, and `text` is no JSON object of them.
    """
    if len(model.text_fields) == 1:
        return {model.text_fields[0]: text}
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict) or not all(
        isinstance(document.get(field), str) for field in model.text_fields
    ):
        raise UserError(
            f"received the text {text[:80]!r}; the model takes documents of several texts: expected a JSON object with strings for "
            f"{' and '.join(model.text_fields)}"
        )
    return document


def _bytes(text: str) -> bytes:
    return text.encode(
        "utf-8", "surrogatepass"
    )  # what is no valid Unicode is the analyzer's to replace, as in the Beam job
