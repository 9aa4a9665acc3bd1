"""The model card: what an exported model is, what it learned from, how good it is and where it ends (Mitchell et al. 2019)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from beam_jobs.contract.config import Config
from trainer.data.dataset import Dataset
from trainer.metrics.thresholds import Thresholds

_FEW_DOCUMENTS = 50  # of a label in the train split: few to learn from


def model_card(
    config: Config,
    dataset: Dataset,
    origin: Mapping[str, Any],
    thresholds: Thresholds,
    evaluation: str | None,
) -> str:
    """The card as Markdown.

    Args:
      config: the experiment.
      dataset: what the model learned from.
      origin: what `origin.json` beside the card holds.
      thresholds: tuned on the validation split.
      evaluation: the report that `evaluate` has written; None: there is none.
    """
    manifest, counts = dataset.manifest, dataset.manifest.counts
    splits = "\n".join(
        f"| {name} | {split.examples:,} | {split.token_length_quantiles.get('0.5', '-')} |"
        for name, split in manifest.splits.items()
    )
    members = "".join(
        f"- {member['share']:.3f} x `{member['path']}`\n" for member in origin.get("members", [])
    )
    model = (
        f"The weighted mean of the scores of {len(origin['members'])} models:\n\n{members}"
        if members
        else _model(config, origin)
    )
    validation = "".join(
        f"- {name}: micro-F1 {f1['micro_f1']:.4f}, macro-F1 {f1['macro_f1']:.4f}\n"
        for name, f1 in origin.get("validation", {}).items()
    )
    return f"""\
# {config.name}

Assigns any number of {dataset.num_labels:,} labels to a document, from its {" and its ".join(f"`{field}`" for field in manifest.text_fields)}.

## Model

{model}
SavedModel fingerprint: `{origin["saved_model_fingerprint"]}`

## Data

| split | documents | median tokens |
|---|---|---|
{splits}

Of {counts.read:,} documents read, {counts.duplicates + counts.near_duplicates:,} were duplicates, {sum(counts.rejected.values()):,} were rejected and
{counts.dropped_without_labels:,} were dropped without labels. The vocabulary has {manifest.vocabulary_size:,} tokens of the train split.
SHA-256 of the dataset's manifest: `{origin["dataset_manifest_sha256"]}`

## Metrics

{f"On the validation split:{chr(10)}{chr(10)}{validation}" if validation else ""}
{_fenced(evaluation) if evaluation else "No evaluation of this model was there when it was exported."}

## Thresholds

{_thresholds(config, dataset, thresholds)}

## Limits

{_limits(config, dataset)}
"""


def _model(config: Config, origin: Mapping[str, Any]) -> str:
    kind = f"`{config.model.name}`" if config.model.name != "custom" else f"`{config.model.build}`"
    return (
        f"{kind}, trained with the loss `{config.loss.name}` and the optimizer `{config.optimizer.name}`; the weights of epoch {origin['epoch']}, "
        f"step {origin['step']:,}, stored as {origin['weights']}. Calibration: {origin['calibration']}. "
        "`config.yaml` beside this card has every setting.\n"
    )


def _thresholds(config: Config, dataset: Dataset, thresholds: Thresholds) -> str:
    tuned_on = f"{dataset.num_examples('validation'):,} documents of the validation split"
    if config.export.threshold == "global":
        return f"A label is assigned from a score of {thresholds.global_threshold:.3f} on, tuned on {tuned_on} for micro-F1."
    own = np.array(thresholds.per_label_thresholds)
    low, middle, high = np.quantile(own, [0.05, 0.5, 0.95])
    return (
        f"Each label has its own, tuned on {tuned_on} for its F1: {low:.3f} at the 5th percentile, {middle:.3f} at the median, {high:.3f} at the "
        f"95th. Labels with fewer than {config.evaluate.min_positives} positives there take {thresholds.global_threshold:.3f}, tuned for micro-F1."
    )


def _limits(config: Config, dataset: Dataset) -> str:
    positives = dataset.label_counts("train")
    few = int((positives < _FEW_DOCUMENTS).sum())
    unknown = (
        "are not in its vocabulary"
        if dataset.manifest.analyzer.subwords is None
        else "its pieces cannot spell"
    )
    lines = [
        f"- {few:,} of {dataset.num_labels:,} labels stand on fewer than {_FEW_DOCUMENTS} train documents, too few to trust them.",
        f"- It knows the labels of its dataset only, and text like that one's. Words that {unknown} tell it nothing.",
        "- A text of which no token is left after analysis still gets scores: those of a document about which nothing is known.",
    ]
    if (most := dataset.manifest.analyzer.max_tokens_per_document) is not None:
        lines.append(f"- Of a longer text only the first {most:,} tokens are read.")
    if (most := getattr(config.model, "max_tokens", None)) is not None:
        lines.append(f"- The model reads at most {most:,} of them.")
    if dataset.num_examples("test") == 0:
        lines.append(
            "- There was no test split: no number here was measured on documents that decided nothing."
        )
    return "\n".join(lines)


def _fenced(text: str) -> str:
    return f"```\n{text.strip()}\n```"
