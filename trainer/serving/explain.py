"""Which words drove each label that an exported model gives to a text."""

import dataclasses
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from beam_jobs.contract import saved_model
from beam_jobs.contract.atomic import write_atomically
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.saved_model import SavedModel
from trainer.serving.predict import document_of, raw_columns
from trainer.serving.templates import render

BATCH_DOCUMENTS = 256
MAX_LABELS = 10
_TOP_WORDS = 8
_MIN_PROBABILITY = 1e-7  # log-odds are clipped to those of it
_MAX_STRENGTH = 0.65  # opacity of the colour of the word with the largest effect
_METHODS = {
    "exact": "Exact: the model is linear in its words, so their effects on a label's logit and "
    "its bias sum to the logit.",
    "integrated_gradients": "By integrated gradients: what each piece adds to a label's logit on "
    "the way from a text of unknown pieces to this one; they sum, nearly, to the difference of the "
    "two.",
    "occlusion": "By occlusion: how much a label's log-odds fall when all occurrences of the word "
    "are left out.",
}


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Why one label has its score.

    Attributes:
      label: its name.
      score: its probability.
      is_assigned: whether the score reaches the label's threshold.
      effects: float32 [tokens] for each text field, what each token adds to the label's log-odds.
      bias: the logit of a document about which nothing is known; None where `effects` do not sum
        to the logit.
    """

    label: str
    score: float
    is_assigned: bool
    effects: tuple[np.ndarray, ...]
    bias: float | None

    @property
    def summary(self) -> str:
        """Score, whether it is assigned, and bias, in words."""
        parts = [f"{self.score:.3f}", "assigned" if self.is_assigned else "below its threshold"]
        if self.bias is not None:
            parts.append(f"bias {self.bias:+.2f}")
        return ", ".join(parts)


@dataclasses.dataclass(frozen=True)
class Explanations:
    """Why a document has its labels.

    Attributes:
      method: `exact`, `integrated_gradients` or `occlusion`.
      tokens: by text field, what the model reads of it.
      labels: those that are assigned, or else the best one; at most MAX_LABELS, best first.
    """

    method: str
    tokens: dict[str, list[str]]
    labels: list[Explanation]

    @property
    def has_tokens(self) -> bool:
        """Whether a token is left of the text after analysis."""
        return any(self.tokens.values())

    def _repr_html_(self) -> str:
        """The page in a frame, which a notebook shows."""
        page = html.escape(as_page(self))
        return f'<iframe srcdoc="{page}" style="width: 100%; height: 30rem; border: 0"></iframe>'


def explain(model_dir: str, text: str, *, html_file: str | None) -> None:
    """Prints which words drove each label of a text; also writes a page to `html_file`, if given.

    Raises:
      UserError: there is no model, the text lacks the model's fields, or the page cannot be
        written.
    """
    model = saved_model.load(model_dir)
    results = explanations(model, text)
    print(as_text(results))
    if html_file:
        try:
            write_atomically(Path(html_file), as_page(results))
        except OSError as error:
            raise UserError(
                f"--html: cannot write {html_file}: {error.strerror}; expected a file in a "
                "directory you may write"
            ) from None
        print(f"\nwrote {html_file}")


def explanations(model: SavedModel, text: str) -> Explanations:
    """Explains the labels of one document.

    Args:
      model: an exported model.
      text: as in `trainer.serving.predict.document_of`.

    Raises:
      UserError: the text lacks the model's fields, or an older version has exported the model.
    """
    if not hasattr(model.module, "decide_analyzed"):
        raise UserError(f"--model: an older version has exported {model.path}; export it again")
    analyzed = _analyze(model, text)
    texts = [tf.constant([analyzed[field]]) for field in model.text_fields]
    tokens = {field: analyzed[field].split() for field in model.text_fields}

    decision = model.module.decide_analyzed(*texts)
    scores, assigned = decision["scores"].numpy()[0], decision["assigned"].numpy()[0]
    best_first = np.argsort(-scores, kind="stable")
    label_ids = best_first[assigned[best_first]][:MAX_LABELS]
    if not len(label_ids):
        label_ids = best_first[:1]

    if hasattr(model.module, "contributions"):
        method = "exact"
        contributions, bias = model.module.contributions(*texts)
        effects = [(contributions.numpy()[:, label_id],) for label_id in label_ids]
        biases = bias.numpy()[label_ids].tolist()
    else:
        biases = [None] * len(label_ids)
        if hasattr(model.module, "attributions"):
            method = "integrated_gradients"
            effects = [
                tuple(effect.numpy() for effect in model.module.attributions(*texts, label_id))
                for label_id in tf.constant(label_ids, tf.int64)
            ]
        else:
            method = "occlusion"
            effects = _occlusion(model, list(tokens.values()), label_ids)

    names = model.label_names()
    labels = [
        Explanation(
            label=names[label_id],
            score=float(scores[label_id]),
            is_assigned=bool(assigned[label_id]),
            effects=effects[i],
            bias=biases[i],
        )
        for i, label_id in enumerate(label_ids)
    ]
    return Explanations(method, tokens, labels)


def _analyze(model: SavedModel, text: str) -> dict[str, str]:
    """By text field, the tokens that the model reads, joined by one space."""
    columns = raw_columns(model, [document_of(model, text)])
    outputs = model.module.signatures["analyze"](**columns)
    if len(outputs) == 1:
        (analyzed,) = outputs.values()
        return {model.text_fields[0]: analyzed.numpy()[0].decode()}
    return {field: outputs[f"analyzed/{field}"].numpy()[0].decode() for field in model.text_fields}


def _occlusion(
    model: SavedModel, texts: Sequence[Sequence[str]], label_ids: np.ndarray
) -> list[tuple[np.ndarray, ...]]:
    """How much the log-odds of labels fall without each word (Zeiler & Fergus 2014).

    Returns:
      By label, float32 [tokens] for each text.
    """
    words = [(i, word) for i, text in enumerate(texts) for word in dict.fromkeys(text)]
    # The document as it is, then once without each word.
    columns = []
    for i, text in enumerate(texts):
        without = [" ".join(token for token in text if (i, token) != word) for word in words]
        columns.append([" ".join(text), *without])

    batches = []
    for start in range(0, len(words) + 1, BATCH_DOCUMENTS):
        batch = [tf.constant(column[start : start + BATCH_DOCUMENTS]) for column in columns]
        scores = model.module.score_analyzed(*batch)
        batches.append(tf.gather(scores, label_ids, axis=1).numpy())
    scores = np.concatenate(batches).astype(np.float64)
    scores = np.clip(scores, _MIN_PROBABILITY, 1 - _MIN_PROBABILITY)
    log_odds = np.log(scores / (1 - scores))
    falls = (log_odds[0] - log_odds[1:]).astype(np.float32)  # [words, labels]

    fall_of = dict(zip(words, falls, strict=True))
    by_text = [
        np.array([fall_of[i, word] for word in text], np.float32).reshape(len(text), len(label_ids))
        for i, text in enumerate(texts)
    ]
    return [tuple(effects[:, k] for effects in by_text) for k in range(len(label_ids))]


def as_text(results: Explanations) -> str:
    """The words with the largest effects on each label, one per line."""
    lines = [_METHODS[results.method]]
    for label in results.labels:
        lines.append(f"\n{label.label}: {label.summary}")
        for effect, word in _top_words(results, label):
            lines.append(f"  {effect:+8.3f}  {word}")
    if not results.has_tokens:
        lines.append(
            "\nNo token is left of the text after analysis: the scores are those of a document "
            "about which nothing is known."
        )
    return "\n".join(lines)


def as_page(results: Explanations) -> str:
    """A page of HTML that loads nothing: each label's text, its words coloured by their effect."""
    labels = [
        {
            "name": label.label,
            "summary": label.summary,
            "texts": _coloured_texts(results, label),
            "top_words": _top_words(results, label),
        }
        for label in results.labels
    ]
    method = _METHODS[results.method]
    return render("explain.html", method=method, has_tokens=results.has_tokens, labels=labels)


def _coloured_texts(results: Explanations, label: Explanation) -> list[dict[str, Any]]:
    """By text field, its words with their effects and, from 0 to 1, the strength of colour."""
    largest = max(float(np.abs(effects).max(initial=0)) for effects in label.effects) or 1.0
    texts = []
    for (field, tokens), effects in zip(results.tokens.items(), label.effects, strict=True):
        words = [
            {
                "text": token,
                "effect": effect,
                "strength": round(_MAX_STRENGTH * abs(effect) / largest, 2),
            }
            for token, effect in zip(tokens, effects.tolist(), strict=True)
        ]
        texts.append({"field": field, "words": words})
    return texts


def _top_words(results: Explanations, label: Explanation) -> list[tuple[float, str]]:
    """The words with the largest effects, in either direction, and these effects.

    The effects of a word's occurrences are summed. Occlusion left all of them out already.
    """
    total: dict[tuple[str, str], float] = {}
    for (field, tokens), effects in zip(results.tokens.items(), label.effects, strict=True):
        for word, effect in zip(tokens, effects.tolist(), strict=True):
            before = 0.0 if results.method == "occlusion" else total.get((field, word), 0.0)
            total[field, word] = before + effect
    has_fields = len(results.tokens) > 1
    words = [
        (effect, f"{field}: {word}" if has_fields else word)
        for (field, word), effect in total.items()
        if effect
    ]
    return sorted(words, key=lambda row: (-abs(row[0]), row[1]))[:_TOP_WORDS]
