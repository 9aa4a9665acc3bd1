import numpy as np
import pytest
from rich.cells import cell_len
from sklearn.metrics import classification_report

from tests.unit.trainer.evaluations import evaluation, label, method, per_label
from trainer.evaluation import text_report
from trainer.metrics import classification
from trainer.runs.evaluation_record import LABEL_THRESHOLDS, DecisionMetrics, TunedThresholds

GOLDEN = """\
test: 12,345 documents, 2 labels

                      micro-F1  macro-F1  sample-F1  micro-P  micro-R    P@1    P@3   P@10
model, one threshold     0.806     0.547      0.700    0.810    0.800  0.900  0.600  0.400
baseline: no labels      0.000     0.547      0.700    0.810    0.800      -      -      -

95% intervals of `model, one threshold`: micro-F1 0.790 to 0.820, \
macro-F1 of the labels that occur 0.500 to 0.600
mean average precision 0.610 +- 0.002, macro ROC AUC 0.971 +- 0.001 (+-: what score bins may change)
R@10 0.800, nDCG@10 0.850, PSP@10 0.650, coverage error 3.2, ranking loss 0.0234
expected calibration error 0.0200 (logits) -> 0.0031 (calibrated: platt)

Thresholds, tuned for micro-F1 on 6,000 documents of the validation split: 0.370 global; \
1 of 2 labels differ from it
(a label with fewer than 10 positives there keeps the global one); k best labels: 3.

Labels by documents in train
                            labels  micro-F1  macro-F1
head: 5 to 2,000 documents       2     0.800     0.500

Documents by slice
                        documents  micro-F1  sample-F1
length: 0 to 12 tokens      3,000     0.700      0.600

All labels, most frequent in train first
       train  positives  predicted  threshold  precision  recall     F1
alpha  2,000         10     12,345      0.200      0.250   0.125  0.500
beta       5          0     12,345      0.370      0.250   0.125  0.500
"""


def test_golden_text():
    assert text_report.format_evaluation(evaluation()) == GOLDEN


def test_binary_and_subset_accuracy_never_appear():
    text = text_report.format_evaluation(evaluation()).lower()
    assert "accuracy" not in text and "0.988" not in text and "0.012" not in text


def test_the_accuracy_of_single_label_data_is_told_with_the_export_that_decides_so():
    text = text_report.format_evaluation(evaluation(accuracy=0.8125))
    assert "\naccuracy of the best-scored label 0.812: " in text and "threshold: best" in text


def test_labels_absent_from_the_split_are_told_beside_macro_f1():
    text = text_report.format_evaluation(evaluation(labels=1500))
    assert "macro-F1  macro-F1*  sample-F1" in text
    assert (
        "\n* over the 2 labels that occur in this split; "
        "in macro-F1 each of the other 1,498 counts as 0\n" in text
    )


def test_untuned_thresholds_are_told():
    tuned = TunedThresholds(
        tuned_on="validation",
        documents=0,
        min_positives=10,
        global_threshold=0.5,
        global_source="0.5: no validation documents",
        top_k=1,
    )
    assert (
        "Thresholds: 0.500 for all labels, untuned: the validation split is empty."
        in text_report.format_evaluation(evaluation(thresholds=tuned))
    )
    tuned = tuned.model_copy(
        update={"documents": 6000, "global_source": "0.5: scores at chance on validation"}
    )
    assert (
        "Thresholds: 0.500 for all labels, untuned: scores at chance on validation "
        "(6,000 documents of the validation split)."
        in text_report.format_evaluation(evaluation(thresholds=tuned))
    )


def test_labels_without_a_threshold_of_their_own_are_listed_by_reason_with_a_few_names():
    sources = ["common: too few positives"] * 7 + ["own", "never assigned: no train positives"]
    names = [*"abcdefgh", "long " * 20]
    assert text_report.labels_without_own_threshold(sources, names) == [
        "7 labels: common: too few positives (a, b, c, d, e and 2 more)",
        f"1 label: never assigned: no train positives ({('long ' * 20)[:39]}\u2026)",
    ]


def test_many_labels_give_the_most_frequent_the_best_and_the_worst_of_those_present():
    rows = [label(f"label{i:02}", train=1000 - i, positives=i % 31, f1=i / 100) for i in range(40)]
    text = text_report.format_evaluation(evaluation(labels=40, per_label=per_label(rows)))
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
    rows = [label(f"label{i:02}", train=i, f1=0.0) for i in range(31)]
    text = text_report.format_evaluation(evaluation(labels=31, per_label=per_label(rows)))
    worst = text.split("Worst F1")[1].splitlines()
    assert worst[2].split()[0] == "label30"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("x" * 60, "x" * 39 + "…"),
        ("a\nb\x1b[31m", "a?b?[31m"),
        ("[red]a[/red] :smile: [", "[red]a[/red] :smile: ["),
        ("日本語" * 10, "日本語" * 6 + "日 …"),
        ("e\u0301z", "e\u0301z"),
    ],
)
def test_names_are_cut_to_fit_and_cannot_break_lines_or_steer_the_terminal(name, shown):
    rows = per_label([label(name), label("z" * 40)])
    lines = text_report.format_evaluation(evaluation(per_label=rows)).splitlines()
    line = next(line for line in lines if line.startswith(shown))
    other = next(line for line in lines if line.startswith("z" * 40))
    # Numbers begin in the same column of the terminal.
    before, other_before = (text[: text.index("  100  ")] for text in (line, other))
    assert cell_len(before) == cell_len(other_before)
    assert "\x1b" not in "".join(lines)


def test_the_text_depends_on_no_terminal(monkeypatch):
    plain = text_report.format_evaluation(evaluation())
    for name, value in (("COLUMNS", "20"), ("FORCE_COLOR", "1"), ("TERM", "xterm-256color")):
        monkeypatch.setenv(name, value)
    assert text_report.format_evaluation(evaluation()) == plain and "\x1b" not in plain


def test_evaluation_without_labels_or_methods_is_still_text():
    text = text_report.format_evaluation(
        evaluation(documents=0, labels=0, methods=(), per_label=per_label([]), groups=(), slices=())
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
    rows = classification.per_label(counts)
    labels = [
        label(name)._replace(**{key: column[i].item() for key, column in rows.items()})
        for i, name in enumerate(names)
    ]
    metrics = DecisionMetrics(**classification.summarize(counts))
    ours = evaluation(
        methods=(method(LABEL_THRESHOLDS).model_copy(update={"metrics": metrics}),),
        per_label=per_label(labels),
    )
    assert text_report.classification_report(ours) == classification_report(
        y, decided, target_names=names, zero_division=0
    )
