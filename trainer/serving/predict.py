"""Prediction with an exported model, of which nothing but its directory is needed."""

import codecs
import io
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from beam_jobs.contract import saved_model
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.saved_model import SavedModel

BATCH_DOCUMENTS = 256


def predict(model_dir: str, texts: Sequence[str], *, as_json: bool) -> None:
    """Prints the labels of each text, or of each line of stdin where no texts are given.

    For a model of several text fields, each text is a JSON object with a string for every field.

    Raises:
      UserError: there is no model, or a text is not such an object.
    """
    model = saved_model.load(model_dir)
    if isinstance(sys.stdin, io.TextIOWrapper):  # in Jupyter it is something else
        if not sys.stdin.isatty():  # a file is in UTF-8, whatever the terminal shows
            sys.stdin.reconfigure(encoding="utf-8")
        sys.stdin.reconfigure(errors="replace")
    is_utf8 = codecs.lookup(sys.stdout.encoding or "ascii").name == "utf-8"
    lines = texts or (line.rstrip("\r\n") for line in sys.stdin)
    for prediction in predictions(model, lines):
        if as_json:
            print(json.dumps(prediction, ensure_ascii=not is_utf8))
        else:
            print(prediction["text"])
            for label, score in zip(prediction["labels"], prediction["scores"], strict=True):
                mark = "*" if label in prediction["assigned"] else " "
                print(f"  {score:.3f} {mark} {label}")
    if not as_json:
        print("(* the score reaches the label's threshold)")


def predictions(model: SavedModel, texts: Iterable[str]) -> Iterator[dict[str, Any]]:
    """{"text", "labels", "scores", "assigned"} of each text.

    `labels` are the best labels and `scores` theirs; `assigned` are the labels at or above their
    thresholds.
    """
    texts = iter(texts)
    while batch := list(itertools.islice(texts, BATCH_DOCUMENTS)):
        columns = raw_columns(model, [document_of(model, text) for text in batch])
        best = model.module.signatures["serving_default"](**columns)
        best_labels, best_scores = best["labels"].numpy(), best["scores"].numpy()
        decided = model.module.signatures["decide"](**columns)
        assigned, counts = decided["labels"].numpy(), decided["counts"].numpy()
        for i, text in enumerate(batch):
            yield {
                "text": text,
                "labels": [label.decode() for label in best_labels[i]],
                "scores": best_scores[i].tolist(),
                "assigned": [label.decode() for label in assigned[i, : counts[i]]],
            }


def document_of(model: SavedModel, text: str) -> dict[str, str]:
    """The text of each of the model's fields.

    Raises:
      UserError: the model has several fields, and `text` is not a JSON object with them.
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
            f"received the text {text[:80]!r}; the model takes documents of several texts: "
            f"expected a JSON object with strings for {' and '.join(model.text_fields)}"
        )
    return document


def raw_columns(model: SavedModel, documents: Sequence[Mapping[str, str]]) -> dict[str, tf.Tensor]:
    """The documents as the model's signatures take them: string [N] for each text field."""
    # The analyzer replaces what is not valid Unicode, as in the Beam job.
    return {
        field: tf.constant(
            [document[field].encode("utf-8", "surrogatepass") for document in documents]
        )
        for field in model.text_fields
    }
