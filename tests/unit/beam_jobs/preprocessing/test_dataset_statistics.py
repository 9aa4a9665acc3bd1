"""Statistics, against plain Python."""

import numpy as np

from beam_jobs.preprocessing.dataset_statistics import describe
from beam_jobs.preprocessing.histograms import Histogram


def test_cardinality_density_imbalance_and_pairs():
    documents = {0: [["a", "b"], ["a"], ["a", "b"], ["a", "c"], []], 1: [["a"]], 2: []}
    names = ["a", "b", "c", "d"]
    positives = np.array(
        [[sum(name in row for row in rows) for rows in documents.values()] for name in names]
    )
    splits = np.repeat(list(documents), [len(rows) for rows in documents.values()])
    labels_each = Histogram.of(
        splits, np.array([len(row) for rows in documents.values() for row in rows])
    )
    together = np.array([[4, 2, 1], [2, 2, 0], [1, 0, 1]])
    found = describe(
        label_names=names,
        positives=positives,
        labels_per_document=labels_each,
        token_lengths=labels_each,
        top_labels=np.array([0, 1, 2]),
        co_occurrence=together,
    )
    train = found["splits"]["train"]
    assert train["documents"] == 5
    assert train["label_cardinality"] == 7 / 5
    assert train["label_density"] == 7 / 5 / 4
    assert train["labels_without_positives"] == 1
    assert train["imbalance_ratio"] == {"mean": round((1 + 2 + 4) / 3, 3), "max": 4.0}
    assert train["tokens_per_document"]["mean"] == 7 / 5
    assert found["splits"]["test"] == {
        "documents": 0,
        "label_cardinality": 0.0,
        "label_density": 0.0,
        "labels_per_document": {},
        "labels_without_positives": 4,
        "imbalance_ratio": {},
        "tokens_per_document": {"mean": 0.0},
    }
    assert found["co_occurrence"] == [
        {"labels": ["a", "b"], "documents": 2},
        {"labels": ["a", "c"], "documents": 1},
    ]
