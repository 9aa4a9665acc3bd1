"""The model card: what an exported model is, what it was trained on, how good it is and its limits.

Mitchell et al. 2019, Model Cards for Model Reporting.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from beam_jobs.contract.config import Config
from beam_jobs.contract.manifest import Manifest
from trainer.data.dataset import Dataset
from trainer.evaluation.text_report import labels_without_own_threshold
from trainer.metrics.thresholds import TUNED, Thresholds
from trainer.serving.templates import render

FILE = "README.md"
_RARE_LABEL_DOCUMENTS = 50  # labels with fewer in the train split are counted as rare


def model_card(
    config: Config,
    dataset: Dataset,
    origin: Mapping[str, Any],
    thresholds: Thresholds,
    *,
    evaluation: str | None,
    measured: Mapping[str, Any] | None = None,
) -> str:
    """The card as Markdown, with the front matter that the Hugging Face Hub reads.

    Args:
      config: the experiment.
      dataset: what the model was trained on.
      origin: what `origin.json` beside the card holds.
      thresholds: those that the model applies, and more.
      evaluation: the report that `evaluate` has written; None: there is none.
      measured: `split`, and in `metrics` values by name, for the front matter; None: nothing.
    """
    manifest = dataset.manifest
    return render(
        "model_card.md",
        config=config,
        dataset=dataset,
        origin={"members": [], "validation": {}} | dict(origin),
        thresholds=thresholds,
        are_tuned=thresholds.global_source == TUNED,
        without_own_threshold=labels_without_own_threshold(thresholds.sources, dataset.label_names),
        evaluation=evaluation,
        measured=measured,
        text_fields=manifest.text_fields,
        model_name=config.model.build if config.model.name == "custom" else config.model.name,
        splits=_splits(manifest),
        counts=_counts(manifest),
        vocabulary_size=manifest.vocabulary_size,
        num_validation=dataset.num_examples("validation"),
        num_test=dataset.num_examples("test"),
        quantiles=_threshold_quantiles(thresholds),
        num_rare_labels=int((dataset.label_counts("train") < _RARE_LABEL_DOCUMENTS).sum()),
        rare_label_documents=_RARE_LABEL_DOCUMENTS,
        has_encoder=manifest.analyzer.encoder_tokenizer is not None,
        has_subwords=manifest.analyzer.subwords is not None,
        max_tokens_per_document=manifest.analyzer.max_tokens_per_document,
        model_max_tokens=getattr(config.model, "max_tokens", None),
    )


def _splits(manifest: Manifest) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "num_documents": split.examples,
            "median_tokens": split.token_length_quantiles.get("0.5", "-"),
        }
        for name, split in manifest.splits.items()
    ]


def _counts(manifest: Manifest) -> dict[str, int]:
    """What became of the documents that were read."""
    counts = manifest.counts
    return {
        "read": counts.read,
        "duplicates": counts.duplicates + counts.near_duplicates,
        "rejected": sum(counts.rejected.values()),
        "without_labels": counts.dropped_without_labels,
    }


def _threshold_quantiles(thresholds: Thresholds) -> dict[str, float]:
    # The threshold of a label that is never assigned is no score.
    assignable = np.array(thresholds.per_label_thresholds)[thresholds.is_assignable]
    low, median, high = np.quantile(assignable if len(assignable) else [0.5], [0.05, 0.5, 0.95])
    return {"low": low, "median": median, "high": high}
