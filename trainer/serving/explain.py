"""Which words drove each label that an exported model gives to a text."""

import dataclasses
import html
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from beam_jobs.contract import saved_model
from beam_jobs.contract.atomic import write_atomically
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.saved_model import SavedModel
from trainer.serving.predict import document_of

BATCH_DOCUMENTS = 256
MAX_LABELS = 10
_WORDS_PRINTED = 8
_LEAST_PROBABILITY = 1e-7  # log-odds beyond those of it are cut
_HOW = {
    "exact": "Exact: the model is linear in its words, so what they add to a label's logit, and its bias, sum to it.",
    "occlusion": "By occlusion: how much a label's log-odds fall when all occurrences of the word are left out.",
}


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Why one label has its score.

    Attributes:
      label: its name.
      score: its probability.
      is_assigned: whether the score reaches the label's threshold.
      effects: float32 [tokens] for each text field, what each token adds to the label's log-odds.
      bias: the logit of a document about which nothing is known; None where `effects` are no sum.
    """

    label: str
    score: float
    is_assigned: bool
    effects: tuple[np.ndarray, ...]
    bias: float | None

    @property
    def summary(self) -> str:
        """Score, whether it is assigned, and bias, in words."""
        state = "assigned" if self.is_assigned else "below its threshold"
        return f"{self.score:.3f}, {state}" + (
            "" if self.bias is None else f", bias {self.bias:+.2f}"
        )


@dataclasses.dataclass(frozen=True)
class Explanations:
    """Why a document has its labels.

    Attributes:
      method: `exact` or `occlusion`.
      tokens: of each text field, by its name: what the model sees of it.
      labels: those that are assigned, or else the best one; at most MAX_LABELS, best first.
    """

    method: str
    tokens: dict[str, list[str]]
    labels: list[Explanation]


def explain(model_dir: str, text: str, *, html_file: str | None) -> None:
    """Prints which words drove each label of a text, and writes a page of it where `html_file` names one.

    Raises:
      UserError: there is no model, the text has not the model's fields, or the page cannot be written.
    """
    model = saved_model.load(model_dir)
    found = explanations(model, text)
    print(as_text(found))
    if html_file:
        try:
            write_atomically(Path(html_file), as_page(found))
        except OSError as error:
            raise UserError(
                f"--html: cannot write {html_file}: {error.strerror}; expected a file in a directory you may write"
            ) from None
        print(f"\nwrote {html_file}")


def explanations(model: SavedModel, text: str) -> Explanations:
    """Explains the labels of one document, see `trainer.serving.predict.document_of` for its text."""
    document = document_of(model, text)
    raw = {
        field: tf.constant([document[field].encode("utf-8", "surrogatepass")])
        for field in model.text_fields
    }
    answer = model.module.signatures["analyze"](**raw)
    analyzed = [
        text.numpy()[0].decode()
        for text in (
            answer.values()
            if len(answer) == 1
            else (answer[f"analyzed/{f}"] for f in model.text_fields)
        )
    ]
    tokens = {field: text.split() for field, text in zip(model.text_fields, analyzed, strict=True)}
    best, decided = (
        model.module.signatures["serving_default"](**raw),
        model.module.signatures["decide"](**raw),
    )
    count = int(decided["counts"][0])
    chosen, scores = (
        (decided if count else best)["labels"].numpy()[0],
        (decided if count else best)["scores"].numpy()[0],
    )
    size = min(count or 1, MAX_LABELS)
    names = model.label_names()
    ids = [names.index(name.decode()) for name in chosen[:size]]
    if hasattr(model.module, "contributions"):
        method = "exact"
        contributions, bias = (
            value.numpy() for value in model.module.contributions(tf.constant(analyzed))
        )
        effects, biases = [(contributions[:, i],) for i in ids], bias[ids].tolist()
    else:
        method = "occlusion"
        effects, biases = _occlusion(model, list(tokens.values()), ids), [None] * size
    rows = zip(ids, scores[:size].tolist(), effects, biases, strict=True)
    return Explanations(
        method,
        tokens,
        [Explanation(names[i], score, count > 0, effect, bias) for i, score, effect, bias in rows],
    )


def _occlusion(
    model: SavedModel, texts: Sequence[Sequence[str]], labels: Sequence[int]
) -> list[tuple[np.ndarray, ...]]:
    """By label, float32 [tokens] for each text: how much its log-odds fall without the word (Zeiler & Fergus 2014)."""
    words = [(i, word) for i, text in enumerate(texts) for word in dict.fromkeys(text)]
    columns = [
        [" ".join(text)] + [" ".join(t for t in text if (i, t) != without) for without in words]
        for i, text in enumerate(texts)
    ]
    parts = []
    for start in range(0, len(words) + 1, BATCH_DOCUMENTS):
        scores = model.module.score_analyzed(
            *(tf.constant(column[start : start + BATCH_DOCUMENTS]) for column in columns)
        )
        parts.append(tf.gather(scores, labels, axis=1).numpy())
    scores = np.clip(
        np.concatenate(parts).astype(np.float64), _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY
    )
    log_odds = np.log(scores / (1 - scores))
    fall = dict(zip(words, (log_odds[0] - log_odds[1:]).astype(np.float32), strict=True))
    by_text = [
        np.array([fall[i, word] for word in text], np.float32).reshape(len(text), len(labels))
        for i, text in enumerate(texts)
    ]
    return [tuple(effects[:, k] for effects in by_text) for k in range(len(labels))]


# --- as text -------------------------------------------------------------------------------


def as_text(found: Explanations) -> str:
    """The words with the largest effects on each label, a line each."""
    lines = [_HOW[found.method]]
    for label in found.labels:
        lines.append(f"\n{label.label}: {label.summary}")
        for effect, word in _ranked(found, label)[:_WORDS_PRINTED]:
            lines.append(f"  {effect:+8.3f}  {word}")
    if not any(found.tokens.values()):
        lines.append(
            "\nNo token is left of the text after analysis: the scores are those of a document about which nothing is known."
        )
    return "\n".join(lines)


def _ranked(found: Explanations, label: Explanation) -> list[tuple[float, str]]:
    """Words with their effects, the largest first, up or down; occurrences of an exact effect are summed, an occlusion leaves out all of them."""
    total: dict[tuple[str, str], float] = {}
    for (field, tokens), effects in zip(found.tokens.items(), label.effects, strict=True):
        for word, effect in zip(tokens, effects.tolist(), strict=True):
            before = total.get((field, word), 0.0) if found.method == "exact" else 0.0
            total[field, word] = before + effect
    several = len(found.tokens) > 1
    ranked = [
        (effect, f"{field}: {word}" if several else word)
        for (field, word), effect in total.items()
        if effect
    ]
    return sorted(ranked, key=lambda row: (-abs(row[0]), row[1]))


# --- as a page -----------------------------------------------------------------------------

_STYLE = """
:root { color-scheme: light dark; --up: 46 125 50; --down: 198 40 40; --line: #8886; --faint: #777; }
* { box-sizing: border-box; }
body { font: 16px/1.6 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; overflow-wrap: anywhere; }
h1 { font-size: 1.3rem; margin: 0; }
h2 { font-size: 1.1rem; margin: 2rem 0 .3rem; padding-top: .8rem; border-top: 1px solid var(--line); }
h2 small, p, dt { color: var(--faint); font-weight: normal; }
.text { line-height: 2; }
.text span { padding: .1rem .15rem; border-radius: .25rem; }
.up { background: rgb(var(--up) / var(--strength)); }
.down { background: rgb(var(--down) / var(--strength)); }
ol { list-style: none; padding: 0; columns: 14rem; column-gap: 3rem; margin: .5rem 0; }
li { display: flex; justify-content: space-between; gap: 1rem; break-inside: avoid; }
li b { font-weight: normal; font-variant-numeric: tabular-nums; }
"""


def as_page(found: Explanations) -> str:
    """A page of HTML that needs no other file: each label's text with its words coloured by their effect."""
    sections = "\n".join(_section(found, label) for label in found.labels)
    nothing = (
        "" if any(found.tokens.values()) else "<p>No token is left of the text after analysis.</p>"
    )
    return f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Why these labels</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Why these labels</h1>
<p>Green words speak for a label, red ones against it. {html.escape(_HOW[found.method])}</p>
{nothing}{sections}
</body>
</html>
"""


def _section(found: Explanations, label: Explanation) -> str:
    largest = (
        max((float(np.abs(effects).max(initial=0)) for effects in label.effects), default=0) or 1.0
    )
    texts = []
    for (field, tokens), effects in zip(found.tokens.items(), label.effects, strict=True):
        spans = " ".join(
            _span(word, effect, largest)
            for word, effect in zip(tokens, effects.tolist(), strict=True)
        )
        name = f"<strong>{html.escape(field)}</strong> " if len(found.tokens) > 1 else ""
        texts.append(f'<div class="text">{name}{spans}</div>')
    words = "".join(
        f"<li>{html.escape(word)} <b>{effect:+.3f}</b></li>"
        for effect, word in _ranked(found, label)[:_WORDS_PRINTED]
    )
    heading = f"<h2>{html.escape(label.label)} <small>{label.summary}</small></h2>"
    return "\n".join([heading, *texts, f"<ol>{words}</ol>"])


def _span(word: str, effect: float, largest: float) -> str:
    strength = round(0.65 * abs(effect) / largest, 2)
    if not strength:
        return html.escape(word)
    way = "up" if effect > 0 else "down"
    return f'<span class="{way}" style="--strength: {strength}" title="{effect:+.3f}">{html.escape(word)}</span>'
