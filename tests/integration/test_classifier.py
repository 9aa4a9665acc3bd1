"""The estimator fits, predicts, is kept and selected as scikit-learn's own are."""

import json
import sys

import joblib
import numpy as np
import pytest
from sklearn.metrics import f1_score
from sklearn.model_selection import GridSearchCV, ShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MultiLabelBinarizer

from multihot import MultihotClassifier
from tests.small_experiment import write_documents

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    """Texts and the labels of each."""
    path = tmp_path_factory.mktemp("documents") / "documents.jsonl"
    write_documents(path, 300)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [row["text"] for row in rows], [row["labels"] for row in rows]


@pytest.fixture(autouse=True)
def script(monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)


def test_an_indicator_matrix_is_learned_and_an_estimator_of_a_file_predicts_the_same(
    documents, tmp_path
):
    texts, labels = documents
    binarizer = MultiLabelBinarizer()
    y = binarizer.fit_transform(labels)
    y = np.hstack([y, np.zeros((len(y), 1), int)])  # a class without a document
    estimator = MultihotClassifier({"model.name": "linear"}).fit(texts[:200], y[:200])
    predicted = estimator.predict(texts[200:])
    assert predicted.shape == (100, 6) and f1_score(y[200:], predicted, average="micro") > 0.9
    scores = estimator.predict_proba(texts[200:])
    assert not scores[:, 5].any() and (scores[:, :5] > 0).all()
    joblib.dump(estimator, tmp_path / "estimator")
    copy = joblib.load(tmp_path / "estimator")
    np.testing.assert_array_equal(copy.predict_proba(texts[200:]), scores)


def test_a_pipeline_of_single_labels_is_selected_by_a_grid(documents):
    texts, labels = documents
    lower = FunctionTransformer(lambda values: [text.lower() for text in values])
    pipeline = make_pipeline(lower, MultihotClassifier({"model.name": "linear"}))
    search = GridSearchCV(
        pipeline,
        {"multihotclassifier__model__C": [0.5]},
        cv=ShuffleSplit(1, test_size=0.3, random_state=0),
        refit=False,
        error_score="raise",
    )
    search.fit(np.array(texts), [names[0] for names in labels])
    assert search.best_params_ == {"multihotclassifier__model__C": 0.5} and search.best_score_ > 0.9
