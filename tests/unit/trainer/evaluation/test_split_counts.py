import tensorflow as tf

from tests.pair_matrices import matrix_of
from trainer.evaluation.split_counts import model_decisions
from trainer.metrics.classification import NEVER
from trainer.metrics.thresholds import NEVER_TRAINED, OWN, WITHHELD, Thresholds
from trainer.runs.evaluation_record import EXPECTED_F1, LABEL_THRESHOLDS, ONE_THRESHOLD, TOP_K


def test_no_rule_of_decision_assigns_a_label_that_is_withheld_or_was_never_trained():
    scores = tf.constant([[0.9, 0.1, 1.0, 0.95], [0.2, 0.3, 1.0, 0.95]])
    thresholds = Thresholds(
        global_bin=0,
        per_label_bins=(100, 200, NEVER, 1000),
        sources=(OWN, OWN, NEVER_TRAINED, WITHHELD),
        top_k=3,
    )
    decisions = model_decisions(scores, thresholds)
    assert set(decisions) == {ONE_THRESHOLD, LABEL_THRESHOLDS, TOP_K, EXPECTED_F1}
    for key, decided in decisions.items():
        decided = matrix_of(decided)
        assert not decided[:, 2:].any(), key
        assert decided[:, :2].any(axis=1).all(), key
