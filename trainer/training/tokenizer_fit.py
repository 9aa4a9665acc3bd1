"""Whether the tokenizer of a pretrained encoder was made for the train documents' language.

Words of another language are cut into many pieces, or are unknown: such an encoder has read little
or nothing like them (Rust et al. 2021, How Good is Your Tokenizer?, call the first its fertility).
"""

from collections.abc import Sequence

import numpy as np

from beam_jobs.contract import manifest as manifests
from beam_jobs.contract.encoder_tokenizer import WordPiece
from trainer.data.dataset import Dataset

_CONTINUES = "##"
# English has 1.02 to 1.10 by an English encoder, and Finnish 2.5.
_MANY_PIECES = 2.0
_MANY_UNKNOWN = 0.1


def misfit(dataset: Dataset) -> str:
    """What to say of an encoder that was made for other documents than a dataset's; else empty.

    SentencePiece is not judged: it does not mark the inside of words, and most of its encoders are
    of many languages.
    """
    counts = manifests.load_term_counts(dataset.manifest, dataset.directory)
    tokenizer = dataset.manifest.analyzer.encoder_tokenizer
    if counts is None or not isinstance(tokenizer, WordPiece):
        return ""
    found = describe_pieces(dataset.vocabulary, counts, unknown=tokenizer.unknown)
    return found and (
        f"warning: the encoder's tokenizer {found}: it was made for another language than that of "
        "the train documents; expected an encoder of their language. Without one, a model of "
        "another text.tokenizer, such as `linear` on words, is likely to be better"
    )


def describe_pieces(tokens: Sequence[str], counts: np.ndarray, *, unknown: str) -> str:
    """What is unusual in the pieces of train documents; empty if nothing is.

    Args:
      tokens: WordPiece's.
      counts: int64 [tokens], how often each occurs.
      unknown: the piece of what no other piece spells.
    """
    found = []
    starts = np.array([not token.startswith(_CONTINUES) for token in tokens], bool)
    letters = np.array([token.removeprefix(_CONTINUES).isalpha() for token in tokens], bool)
    per_word = counts[letters].sum() / max(counts[letters & starts].sum(), 1)
    if per_word >= _MANY_PIECES:
        found.append(f"cuts a word into {per_word:.1f} pieces in the mean, where 1.1 are usual")
    share = counts[np.array(tokens) == unknown].sum() / max(counts.sum(), 1)
    if share >= _MANY_UNKNOWN:
        found.append(f"has no piece for {share:.0%} of the words")
    return " and ".join(found)
