"""What the estimator takes for X, y and parameters, before anything is fitted."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.utils.estimator_checks import check_estimator

from beam_jobs.contract.errors import UserError
from multihot import MultihotClassifier
from multihot.classifier import _label_names, _texts

MATRIX = [[0, 1, 1], [1, 0, 0]]


def test_scikit_learn_finds_nothing_to_say_as_far_as_it_knows_texts():
    with pytest.warns(SkipTestWarning, match="requires input .*string=True"):
        check_estimator(MultihotClassifier())


def test_keys_of_the_config_are_parameters_that_a_clone_keeps():
    estimator = MultihotClassifier({"model": {"name": "bow"}, "train.epochs": 3})
    assert estimator.get_params()["model__name"] == "bow"
    estimator.set_params(model__embedding_dim=8, verbose=True)
    copy = clone(estimator)
    settings = {"model.name": "bow", "train.epochs": 3, "model.embedding_dim": 8}
    assert copy.settings == settings and copy.verbose
    with pytest.raises(ValueError, match="Invalid parameter 'epochs'"):
        estimator.set_params(epochs=3)


@pytest.mark.parametrize(
    ("y", "classes", "ids"),
    [
        (np.array(MATRIX), [0, 1, 2], [[1, 2], [0]]),
        (MATRIX, [0, 1, 2], [[1, 2], [0]]),
        (sparse.csr_matrix(MATRIX), [0, 1, 2], [[1, 2], [0]]),
        (pd.DataFrame(MATRIX, columns=["x", "y", "z"]), ["x", "y", "z"], [[1, 2], [0]]),
        (["b", "a"], ["a", "b"], [[1], [0]]),
        (pd.Series([7, 3]), [3, 7], [[1], [0]]),
    ],
    ids=["array", "lists", "sparse", "frame", "names", "series"],
)
def test_targets_of_every_form_give_the_classes_of_each_document(y, classes, ids):
    estimator = MultihotClassifier()
    rows = estimator._indicator(y)
    assert estimator.classes_.tolist() == classes
    assert [row.indices.tolist() for row in rows] == ids


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([["a"], ["b", "c"]], "MultiLabelBinarizer makes such a matrix"),
        ([["a", "b"], ["b", "c"]], "MultiLabelBinarizer makes such a matrix"),
        ([[0, 2], [1, 0]], "y: received the value 2, expected 0 and 1"),
        ([], "y: received neither"),
    ],
)
def test_targets_of_other_forms_are_refused(y, message):
    with pytest.raises(UserError, match=message):
        MultihotClassifier()._indicator(y)


@pytest.mark.parametrize(
    "texts",
    [
        ["a\n\nb", "c\n\n"],
        np.array(["a\n\nb", "c\n\n"]),
        pd.Series(["a\n\nb", "c\n\n"]),
        pd.DataFrame({"title": ["a", "c"], "number": [1, 2], "body": ["b", None]}),
        np.array([["a", "b"], ["c", ""]], object),
    ],
    ids=["list", "array", "series", "frame", "matrix"],
)
def test_texts_of_every_form_become_one_a_document(texts):
    assert _texts(texts) == ["a\n\nb", "c\n\n"]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("a text", "X: received 'a text', expected a list of texts"),
        ([1, 2], "X: received 1, expected texts"),
        (pd.DataFrame({"n": [1]}), "X: received the columns n, expected one or more of strings"),
    ],
)
def test_what_holds_no_texts_is_refused(texts, message):
    with pytest.raises(UserError, match=message):
        _texts(texts)


def test_classes_whose_names_would_be_one_label_are_numbered():
    assert _label_names(np.array(["a", "b"])) == ["a", "b"]
    assert _label_names(np.array(["a", " a"])) == ["0", "1"]


def test_texts_and_targets_of_different_number_are_refused_and_so_is_predicting_unfitted():
    with pytest.raises(UserError, match="received 1 texts and 2 rows of y"):
        MultihotClassifier().fit(["a"], MATRIX)
    with pytest.raises(NotFittedError):
        MultihotClassifier().predict(["a"])
