"""`statistics.json`: figures of the dataset for people who look at it before they train."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from beam_jobs.contract.manifest import SPLITS
from beam_jobs.preprocessing.histograms import Histogram

TOP_LABELS = 20  # labels whose co-occurrence is counted


def describe(
    *,
    label_names: Sequence[Any],
    positives: np.ndarray,
    labels_per_document: Histogram,
    token_lengths: Histogram,
    top_labels: np.ndarray,
    co_occurrence: np.ndarray,
) -> dict:
    """The content of `statistics.json`.

    Label cardinality is the mean number of labels per document, label density the cardinality over
    the number of labels (Tsoumakas and Katakis 2007). A label's imbalance ratio is the number of
    positives of the most frequent label over its own (Charte et al. 2015); labels without positives
    have none.

    Args:
      label_names: by label id; strings, or an Arrow array of them.
      positives: int64 [labels, splits], documents with each label.
      labels_per_document: documents by number of labels.
      token_lengths: documents by number of tokens.
      top_labels: int64 [top], ids of the most frequent labels.
      co_occurrence: int64 [top, top], documents of all splits that have both labels.
    """
    splits = {}
    for i, split in enumerate(SPLITS):
        counts = positives[:, i][positives[:, i] > 0]
        ratios = counts.max(initial=0) / counts
        cardinality = labels_per_document.mean(i)
        splits[split] = {
            "documents": labels_per_document.total(i),
            "label_cardinality": round(cardinality, 6),
            "label_density": round(cardinality / max(len(label_names), 1), 9),
            "labels_per_document": labels_per_document.quantiles(i),
            "labels_without_positives": len(label_names) - len(counts),
            "imbalance_ratio": {
                "mean": round(float(ratios.mean()), 3),
                "max": round(float(ratios.max()), 3),
            }
            if len(counts)
            else {},
            "tokens_per_document": {"mean": round(token_lengths.mean(i), 3)}
            | token_lengths.quantiles(i),
        }
    pairs = [
        {
            "labels": [str(label_names[int(top_labels[i])]) for i in (a, b)],
            "documents": int(co_occurrence[a, b]),
        }
        for a in range(len(top_labels))
        for b in range(a + 1, len(top_labels))
        if co_occurrence[a, b]
    ]
    pairs.sort(key=lambda pair: (-pair["documents"], pair["labels"]))
    return {"splits": splits, "co_occurrence": pairs}
