"""Small exported models, of one text field and of two."""

import pytest
import tensorflow as tf

from beam_jobs.contract import saved_model
from beam_jobs.contract.analyzer import Analyzer
from beam_jobs.contract.word_lists import AnalyzerSpec
from trainer.serving.serving_module import ServingModule

LABELS = ["sport", "music", "food"]


class WordScore(tf.Module):
    """A label scores 0.75 where its word is in the text, and 0.125 elsewhere."""

    def __call__(self, text):
        found = [
            tf.strings.regex_full_match(text, f".*{word}.*") for word in ("goal", "song", "soup")
        ]
        return 0.125 + 0.625 * tf.cast(tf.stack(found, axis=1), tf.float32)


class LengthScore(tf.Module):
    """Scores follow from the lengths of the analyzed title and body, which they tell apart."""

    def __call__(self, title, body):
        lengths = tf.stack([tf.strings.length(title), 3 * tf.strings.length(body)], axis=1)
        return tf.cast(lengths, tf.float32) / 100


def save_and_load(path, score, **kwargs):
    # Without the steps that only make the graph large.
    spec = AnalyzerSpec(normalize="lower", strip_urls=False, expand_contractions=False)
    module = ServingModule(analyzer=Analyzer(spec), score=score, top_k=5, **kwargs)
    tf.saved_model.save(module, str(path), signatures=module.signatures())
    return saved_model.load(str(path.parent))


@pytest.fixture(scope="package")
def one_text_model(tmp_path_factory):
    return save_and_load(
        tmp_path_factory.mktemp("model") / "1",
        WordScore(),
        text_fields=("text",),
        label_names=LABELS,
        threshold_bins=[512, 512, 512],
    )


@pytest.fixture(scope="package")
def two_text_model(tmp_path_factory):
    """Its fields are not in alphabetical order, by which TensorFlow sorts names."""
    return save_and_load(
        tmp_path_factory.mktemp("model") / "3",
        LengthScore(),
        text_fields=("title", "body"),
        label_names=["long title", "long body"],
        threshold_bins=[50, 512],
    )
