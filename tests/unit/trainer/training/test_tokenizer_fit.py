"""Whether an encoder's tokenizer was made for the documents' language."""

from types import SimpleNamespace

import numpy as np
import pytest

from beam_jobs.contract import manifest as manifests
from beam_jobs.contract.encoder_tokenizer import SentencePiece, WordPiece
from trainer.training.tokenizer_fit import describe_pieces, misfit

TOKENS = ("[UNK]", "rocket", "##et", "moon", "##on", "!", "##7")
OF_BERT = {"lower_case": True, "strip_accents": True, "start": "[CLS]", "end": "[SEP]"}


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([0, 9, 1, 9, 1, 90, 90], ""),  # 20 pieces of 18 words; what are no words does not count
        ([9, 41, 10, 40, 0, 0, 0], ""),
        ([0, 5, 6, 5, 6, 0, 0], "cuts a word into 2.2 pieces in the mean, where 1.1 are usual"),
        ([25, 75, 0, 0, 0, 0, 0], "has no piece for 25% of the words"),
        ([50, 10, 20, 0, 20, 0, 0], "5.0 pieces in the mean, where 1.1 are usual and has no piece"),
        ([0, 0, 0, 0, 0, 0, 0], ""),
    ],
)
def test_words_in_many_pieces_and_unknown_ones_are_told(counts, expected):
    described = describe_pieces(TOKENS, np.array(counts), unknown="[UNK]")
    assert expected in described and bool(expected) == bool(described)


def test_a_warning_names_what_to_do_and_sentencepiece_has_none(monkeypatch):
    monkeypatch.setattr(
        manifests, "load_term_counts", lambda *_: np.array([0, 1, 9, 0, 0, 0, 0], np.int64)
    )

    def said(tokenizer):
        analyzer = SimpleNamespace(encoder_tokenizer=tokenizer)
        manifest = SimpleNamespace(analyzer=analyzer)
        return misfit(SimpleNamespace(manifest=manifest, directory="", vocabulary=TOKENS))

    options = OF_BERT | {"pieces": TOKENS, "unknown": "[UNK]"}
    warning = said(WordPiece(**options, max_word_characters=100))
    assert warning.startswith("warning: the encoder's tokenizer cuts a word into 10.0 pieces in")
    assert "expected an encoder of their language" in warning
    assert said(SentencePiece(**options, model="")) == "" and said(None) == ""
