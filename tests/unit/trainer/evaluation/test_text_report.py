import numpy as np
import pytest
from sklearn.metrics import classification_report

from trainer.evaluation import text_report
from trainer.metrics import classification

SUMMARY = {
    "labels_present": 2,
    "micro_f1": 0.8061,
    "macro_f1": 0.547,
    "macro_f1_present": 0.82,
    "sample_f1": 0.7,
    "micro_precision": 0.81,
    "micro_recall": 0.8,
    "subset_accuracy": 0.987654,
    "hamming_loss": 0.012345,
}


def row(name, *, train=100, positives=10, f1=0.5, threshold=0.37):
    return {
        "name": name,
        "train_positives": train,
        "positives": positives,
        "predicted": 12345,
        "threshold": threshold,
        "precision": 0.25,
        "recall": 0.125,
        "f1": f1,
    }


AREAS = {
    "macro_roc_auc": 0.9712,
    "macro_roc_auc_error": 0.0011,
    "mean_average_precision": 0.61,
    "mean_average_precision_error": 0.002,
}
RANKING = {
    "precision_at": {"1": 0.9, "10": 0.4, "3": 0.6},
    "recall_at": {"1": 0.3, "10": 0.8, "3": 0.5},
    "ndcg_at": {"1": 0.9, "10": 0.85, "3": 0.7},
    "propensity_scored_precision_at": {"1": 0.5, "10": 0.65, "3": 0.6},
    "coverage_error": 3.25,
    "ranking_loss": 0.0234,
}


def evaluation(**changes):
    return {
        "split": "test",
        "documents": 12345,
        "labels": 2,
        "thresholds": {
            "tuned_on": "validation",
            "documents": 6000,
            "min_positives": 10,
            "global": 0.37,
            "top_k": 3,
        },
        "systems": [
            {
                "name": "model, one threshold",
                **SUMMARY,
                **RANKING,
                "intervals": {"micro_f1": [0.79, 0.82], "macro_f1_present": [0.5, 0.6]},
            },
            {"name": "no labels", **SUMMARY, "micro_f1": 0.0},
        ],
        "areas": AREAS,
        "calibration": {
            "method": "platt",
            "stages": [
                {"name": "the model's logits", "ece": 0.02},
                {"name": "calibrated: platt", "ece": 0.0031},
            ],
        },
        "groups": [
            {
                "name": "head",
                "labels": 2,
                "least": 5,
                "most": 2000,
                "micro_f1": 0.8,
                "macro_f1": 0.5,
            }
        ],
        "slices": [
            {
                "by": "length",
                "name": "0 to 12 tokens",
                "documents": 3000,
                "micro_f1": 0.7,
                "sample_f1": 0.6,
            }
        ],
        "per_label": [row("beta", train=5, positives=0), row("alpha", train=2000, threshold=0.2)],
    } | changes


def test_golden_text():
    assert text_report.format_evaluation(evaluation()) == (
        "test: 12,345 documents, 2 labels\n"
        "\n"
        "                      micro-F1  macro-F1  sample-F1  micro-P  micro-R    P@1    P@3   "
        "P@10\n"
        "model, one threshold     0.806     0.547      0.700    0.810    0.800  0.900  0.600  "
        "0.400\n"
        "no labels                0.000     0.547      0.700    0.810    0.800      -      -    "
        "  -\n"
        "\n"
        "95% intervals of `model, one threshold`: micro-F1 0.790 to 0.820, macro-F1 of the "
        "labels that occur 0.500 to 0.600\n"
        "mean average precision 0.610 +- 0.002, macro ROC AUC 0.971 +- 0.001 (+-: what score "
        "bins may change)\n"
        "R@10 0.800, nDCG@10 0.850, PSP@10 0.650, coverage error 3.2, ranking loss 0.0234\n"
        "expected calibration error 0.0200 (the model's logits) -> 0.0031 (calibrated: platt)\n"
        "\n"
        "Thresholds, tuned on 6,000 documents of the validation split: 0.370 global; 1 of 2 "
        "labels differ from it\n"
        "(a label with fewer than 10 positives there keeps the global one); k best labels: 3.\n"
        "\n"
        "Labels by documents in train\n"
        "                            labels  micro-F1  macro-F1\n"
        "head: 5 to 2,000 documents       2     0.800     0.500\n"
        "\n"
        "Documents by slice\n"
        "                        documents  micro-F1  sample-F1\n"
        "length: 0 to 12 tokens      3,000     0.700      0.600\n"
        "\n"
        "All labels, most frequent in train first\n"
        "       train  positives  predicted  threshold  precision  recall     F1\n"
        "alpha  2,000         10     12,345      0.200      0.250   0.125  0.500\n"
        "beta       5          0     12,345      0.370      0.250   0.125  0.500\n"
    )


def test_binary_and_subset_accuracy_never_appear():
    text = text_report.format_evaluation(evaluation()).lower()
    assert "accuracy" not in text and "0.988" not in text and "0.012" not in text


def test_labels_absent_from_the_split_are_told_beside_macro_f1():
    text = text_report.format_evaluation(evaluation(labels=1500))
    assert "macro-F1  macro-F1*  sample-F1" in text
    assert (
        "\n* over the 2 labels that occur in this split; in macro-F1 each of the other 1,498 "
        "counts as 0\n" in text
    )


def test_untuned_thresholds_are_told():
    tuned = {
        "tuned_on": "validation",
        "documents": 0,
        "min_positives": 10,
        "global": 0.5,
        "top_k": 1,
    }
    assert (
        "Thresholds: 0.500 for all labels, untuned: the validation split is empty."
        in text_report.format_evaluation(evaluation(thresholds=tuned))
    )


def test_many_labels_give_the_most_frequent_the_best_and_the_worst_of_those_present():
    rows = [row(f"label{i:02}", train=1000 - i, positives=i % 31, f1=i / 100) for i in range(40)]
    text = text_report.format_evaluation(evaluation(labels=40, per_label=rows))
    tables = {
        block.splitlines()[0]: [line.split()[0] for line in block.splitlines()[2:]]
        for block in text.split("\n\n")[6:]
    }
    assert tables == {
        "Most frequent labels in train": [f"label{i:02}" for i in range(10)],
        "Best F1 of the 38 labels that occur in this split": [
            f"label{i}" for i in (39, 38, 37, 36, 35, 34, 33, 32, 30, 29)
        ],
        "Worst F1 of the 38 labels that occur in this split": [
            f"label{i:02}" for i in range(1, 11)
        ],
    }


def test_equal_f1_lists_the_more_frequent_label_first():
    rows = [row(f"label{i:02}", train=i, f1=0.0) for i in range(31)]
    worst = (
        text_report.format_evaluation(evaluation(labels=31, per_label=rows))
        .split("Worst F1")[1]
        .splitlines()
    )
    assert worst[2].split()[0] == "label30"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("x" * 60, "x" * 37 + "..."),
        ("a\nb\x1b[31m", "a?b?[31m"),
        ("日本語" * 10, "日本語" * 6 + "..."),
    ],
)
def test_names_are_cut_to_fit_and_cannot_break_lines_or_steer_the_terminal(name, shown):
    lines = text_report.format_evaluation(
        evaluation(per_label=[row(name), row("z" * 40)])
    ).splitlines()
    line = next(line for line in lines if line.startswith(shown))
    other = next(line for line in lines if line.startswith("z"))
    assert line.index("100") + shown.count("日") + shown.count("本") + shown.count(
        "語"
    ) == other.index("100")
    assert "\x1b" not in "".join(lines)


def test_combining_marks_take_no_column():
    lines = text_report.format_evaluation(
        evaluation(per_label=[row("e\u0301z"), row("zz")])
    ).splitlines()
    accented, plain = (
        next(line for line in lines if line.startswith(start)) for start in ("e\u0301", "zz")
    )
    assert accented.index("100") == plain.index("100") + 1


def test_evaluation_without_labels_or_systems_is_still_text():
    text = text_report.format_evaluation(
        evaluation(documents=0, labels=0, systems=[], per_label=[], groups=[], slices=[])
    )
    assert text.startswith("test: 0 documents, 0 labels\n")


def test_classification_report_is_that_of_scikit_learn_to_the_letter():
    random = np.random.default_rng(0)
    y, decided = random.random((50, 3)) < 0.4, random.random((50, 3)) < 0.5
    names = ["a", "a rather long name of a label", "none"]
    y[:, 2] = decided[:, 2] = False
    counts = {
        key: value.numpy()
        for key, value in classification.decision_counts(
            y, decided, np.ones(50, np.float32)
        ).items()
    }
    ours = {
        "systems": [{"name": "model, a threshold per label"} | classification.summarize(counts)],
        "per_label": [
            {"name": name} | row
            for name, row in zip(names, classification.per_label(counts), strict=True)
        ],
    }
    assert text_report.classification_report(ours) == classification_report(
        y, decided, target_names=names, zero_division=0
    )
