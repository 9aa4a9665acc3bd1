"""Explanations of exported models: exact ones sum to the logit, occlusion leaves a word out."""

import functools
import json
import re

import numpy as np
import pytest
import tensorflow as tf

from beam_jobs.contract.analyzer import Analyzer
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.saved_model import SavedModel
from beam_jobs.contract.sections.network_models import BowConfig
from beam_jobs.contract.word_lists import AnalyzerSpec
from tests.weighted_bow import LABELS, VOCABULARY, bow
from trainer.data.input_pipeline import make_vectorizer
from trainer.serving import explain
from trainer.serving.serving_module import ServingModule


class Score(tf.Module):
    """Analyzed strings of each text -> probabilities; with `contributions` if `is_exact`."""

    def __init__(self, model, *, is_exact):
        super().__init__()
        self.model, self.vectorizer = model, make_vectorizer(VOCABULARY)
        if is_exact:
            self.contributions = tf.function(
                lambda text: model.contributions(self.vectorizer(text)),
                input_signature=[tf.TensorSpec([1], tf.string)],
            )

    def __call__(self, *analyzed):
        return tf.sigmoid(
            tf.add_n([self.model(self.vectorizer(text), training=False) for text in analyzed])
        )


@functools.cache
def analyzer():
    """One whose graph is small: lower case, and words apart from what stands around them."""
    steps = dict.fromkeys(("strip_html", "strip_urls", "expand_contractions"), False)
    return Analyzer(AnalyzerSpec(normalize="lower", **steps))


def saved(score, *, fields=("text",), threshold_bins=(512, 512, 512)):
    module = ServingModule(
        text_fields=fields,
        analyzer=analyzer(),
        score=score,
        label_names=LABELS,
        threshold_bins=threshold_bins,
        top_k=2,
    )

    def analyze(**texts):  # as the signature of a loaded model is called
        return module.analyze(*(texts[field] for field in fields))

    module.signatures = {"analyze": analyze}
    return SavedModel("nowhere", module, fields, len(LABELS))


def test_exact_explanations_are_of_the_labels_assigned_best_first():
    model = bow(BowConfig(embedding_dim=4))
    found = explain.explanations(
        saved(Score(model, is_exact=True), threshold_bins=(0, 0, 1025)), "Goal, team & song!"
    )
    assert (found.method, found.tokens) == ("exact", {"text": ["goal", "team", "song"]})
    assert {label.label for label in found.labels} == {"sport", "<music>"} and all(
        label.is_assigned for label in found.labels
    )
    assert found.labels[0].score >= found.labels[1].score
    for label in found.labels:
        logit = label.bias + label.effects[0].sum()
        assert label.score == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-5)


def test_the_best_label_is_explained_where_none_is_assigned():
    found = explain.explanations(
        saved(Score(bow(BowConfig(embedding_dim=4)), is_exact=True), threshold_bins=(1025,) * 3),
        "goal",
    )
    assert [label.is_assigned for label in found.labels] == [False]
    assert "below its threshold" in explain.as_text(found)


def test_occlusion_is_the_fall_of_the_log_odds_without_all_occurrences_of_a_word(monkeypatch):
    score = Score(bow(BowConfig(embedding_dim=4)), is_exact=False)
    model = saved(score, threshold_bins=(0, 0, 0))
    found = explain.explanations(model, "goal team goal song")
    assert found.method == "occlusion"
    monkeypatch.setattr(explain, "BATCH_DOCUMENTS", 2)
    for label, again in zip(
        found.labels, explain.explanations(model, "goal team goal song").labels, strict=True
    ):
        np.testing.assert_allclose(again.effects[0], label.effects[0], rtol=1e-5)

    def log_odds(text, label):
        probability = float(score(tf.constant([text]))[0, LABELS.index(label)])
        return np.log(probability / (1 - probability))

    for label in found.labels:
        effects = label.effects[0]
        for i, without in enumerate(["team song", "goal goal song", "team song", "goal team goal"]):
            assert effects[i] == pytest.approx(
                log_odds("goal team goal song", label.label) - log_odds(without, label.label),
                abs=1e-3,
            )


def test_words_of_several_texts_are_left_out_of_their_own_text_only():
    score = Score(bow(BowConfig(embedding_dim=4)), is_exact=False)
    model = saved(score, fields=("title", "body"), threshold_bins=(0, 0, 0))
    found = explain.explanations(model, json.dumps({"title": "goal", "body": "goal song"}))
    assert found.tokens == {"title": ["goal"], "body": ["goal", "song"]}
    for label in found.labels:
        assert label.effects[0][0] != label.effects[1][0]
    assert "title: goal" in explain.as_text(found)
    with pytest.raises(UserError, match="expected a JSON object with strings for title and body"):
        explain.explanations(model, "goal")


def test_a_model_of_an_older_export_is_refused():
    model = saved(Score(bow(BowConfig(embedding_dim=4)), is_exact=True))
    del model.module.decide_analyzed
    with pytest.raises(UserError, match="an older version has exported nowhere; export it again"):
        explain.explanations(model, "goal")


def test_a_text_without_a_token_is_explained_as_such():
    for is_exact in (True, False):
        found = explain.explanations(
            saved(Score(bow(BowConfig(embedding_dim=4)), is_exact=is_exact)), "... \ud800 !"
        )
        assert found.tokens == {"text": []}
        assert "No token is left" in explain.as_text(
            found
        ) and "No token is left" in explain.as_page(found)


def test_the_page_escapes_text_and_labels_and_fetches_nothing():
    model = bow(BowConfig(embedding_dim=4))
    found = explain.explanations(
        saved(Score(model, is_exact=True), threshold_bins=(1025, 0, 1025)), "goal song unknown"
    )
    page = explain.as_page(found)
    assert "<music>" not in page and "&lt;music&gt;" in page
    assert not re.search(r"https?:|src=|href=|@import|url\(", page)
    strengths = [float(value) for value in re.findall(r"--strength: ([\d.]+)", page)]
    assert len(strengths) == 2 and max(strengths) == 0.65  # `unknown` has no effect and no colour
    found.tokens["text"][0] = "<script>"
    assert "<script>" not in explain.as_page(found)
