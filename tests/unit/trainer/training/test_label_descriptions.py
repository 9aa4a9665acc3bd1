"""The last layer from texts of labels: which texts, and what first kernel and bias."""

import json

import numpy as np
import pytest

from beam_jobs.contract.errors import UserError
from trainer.training.label_descriptions import head_of, read_descriptions

NAMES = ["cs.CL", "math.CO", "q-bio"]


def test_texts_are_those_of_the_file_or_else_the_labels_names(tmp_path):
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"cs.CL": "language", " q-bio ": "biology", "other": "x"}))
    assert read_descriptions("names", NAMES) == NAMES
    assert read_descriptions(str(path), NAMES) == ["language", "math.CO", "biology"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "cannot read .*No such file"),
        ("{", "cannot read .*expected a JSON object with a text for each label"),
        ('["cs.CL"]', "holds something else"),
        ('{"cs.CL": 3}', "holds something else"),
        ('{"other": "x"}', "has none of the 3 labels, such as 'cs.CL'"),
    ],
)
def test_a_file_without_texts_of_labels_is_refused(tmp_path, content, expected):
    path = tmp_path / "labels.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=f"model.label_descriptions: .*{expected}"):
        read_descriptions(str(path), NAMES)


def test_first_logits_vary_by_one_about_log_odds_and_are_highest_towards_the_labels_text():
    random = np.random.default_rng(0)
    documents = (random.normal(size=(500, 8)) * 3 + 5).astype(np.float32)
    labels = (random.normal(size=(4, 8)) * 7 + 2).astype(np.float32)
    log_odds = np.array([-1, -2, -9, -4], np.float32)
    is_trained = np.array([True, True, False, True])
    kernel, bias = head_of(labels, documents, bias=log_odds, is_trained=is_trained)
    logits = documents @ kernel.T + bias
    # A label without train documents starts from the median of the others.
    np.testing.assert_allclose(logits.mean(axis=0), [-1, -2, -2, -4], atol=1e-4)
    assert (logits - logits.mean(axis=0)).std() == pytest.approx(1, rel=1e-4)
    towards = documents.mean(axis=0) + labels - labels.mean(axis=0)
    above = towards @ kernel.T + bias - logits.mean(axis=0)
    assert (above.argmax(axis=1) == range(4)).all()
    alone, _ = head_of(labels[:1], documents, bias=log_odds[:1], is_trained=is_trained[:1])
    assert not alone.any()  # one label has no direction from the mean of all
