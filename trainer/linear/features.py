"""Which terms a linear model has weights for, and the documents as sparse rows of them."""

from collections.abc import Sequence

import numpy as np
import scipy.sparse

from trainer.linear.documents import Documents
from trainer.models.char_bags import CharNgrams, count_char_ngrams
from trainer.models.inputs import VocabularyStatistics
from trainer.models.layers import NUM_SPECIAL_IDS
from trainer.models.linear import SCALE_OF_BOTH, FeatureTables
from trainer.models.term_bags import (
    TINY,
    Ngrams,
    TermBags,
    ngram_code,
    smooth_idf,
    vocabulary_ngrams,
)

# `model.features` -> whether it has bigrams and character n-grams.
KINDS = {
    "words": (False, False),
    "words_bigrams": (True, False),
    "words_chars": (False, True),
    "words_bigrams_chars": (True, True),
}
MIN_DOCUMENT_COUNT = 2  # train documents of a bigram or a character n-gram
MAX_NGRAMS = 1_000_000  # bigrams, and character n-grams; the most frequent ones are kept
_BATCH_DOCUMENTS = 2048


def make_tables(
    features: str, documents: Documents, vocabulary: VocabularyStatistics
) -> FeatureTables:
    """The tables of the terms that `model.features` names.

    Args:
      features: a key of KINDS.
      documents: the train split, which bigrams and the frequencies of character n-grams are from.
      vocabulary: of the dataset; its own n-grams are always terms.
    """
    has_bigrams, has_characters = KINDS[features]
    ngrams = vocabulary_ngrams(vocabulary)
    if has_bigrams:
        ngrams = _with_bigrams(ngrams, documents, num_tokens=vocabulary.size)
    characters = _char_ngrams(documents, vocabulary.tokens) if has_characters else None
    if characters is not None and not len(characters.idf):
        characters = None
    return FeatureTables(ngrams, characters)


class Features:
    """Documents -> their terms as `LinearFeatures` weighs them.

    Those of words come from the layer that the model has; n-grams of characters, of which a
    document has many, from a product of sparse matrices, in a quarter of the layer's time.
    """

    def __init__(self, tables: FeatureTables, vocabulary: VocabularyStatistics):
        idf = smooth_idf(vocabulary.document_counts, vocabulary.num_documents)
        self._bags = TermBags(idf, bigram_buckets=0, ngrams=tables.ngrams)
        self._characters = tables.characters

    def matrix(self, documents: Documents) -> scipy.sparse.csr_matrix:
        """float64 CSR [documents, terms]."""
        words = _words(self._bags, documents)
        if self._characters is None:
            return words.astype(np.float64)
        characters = _characters(self._characters, documents)
        both = scipy.sparse.hstack([words, characters], format="csr")
        both.data *= np.float32(SCALE_OF_BOTH)
        return both.astype(np.float64)


def _words(bags: TermBags, documents: Documents) -> scipy.sparse.csr_matrix:
    """float32 CSR [documents, tokens and n-grams], each document's weights with L2 norm 1."""
    rows, values = [np.zeros(0, np.int32)], [np.zeros(0, np.float32)]
    lengths = [np.zeros(1, np.int64)]
    for first in range(0, len(documents), _BATCH_DOCUMENTS):
        last = min(first + _BATCH_DOCUMENTS, len(documents))
        batch = documents.batch(first, last)
        owners, terms, weights = (part.numpy() for part in bags.weighted_terms(batch))
        known = weights != 0
        owners, terms, weights = owners[known], terms[known], weights[known]
        order = np.lexsort((terms, owners))
        rows.append(terms[order].astype(np.int32))
        values.append(weights[order])
        lengths.append(np.bincount(owners, minlength=last - first))
    return scipy.sparse.csr_matrix(
        (np.concatenate(values), np.concatenate(rows), np.cumsum(np.concatenate(lengths))),
        shape=(len(documents), bags.num_rows),
    )


def _characters(table: CharNgrams, documents: Documents) -> scipy.sparse.csr_matrix:
    """float32 CSR [documents, n-grams], as `CharBags` weighs them."""
    num_ids = len(table.row_splits) - 1
    counts_of_token = scipy.sparse.csr_matrix(
        (table.counts, table.ids, table.row_splits), shape=(num_ids, len(table.idf))
    )
    matrix = _occurrences(documents, 0, len(documents), num_ids) @ counts_of_token
    matrix.sort_indices()
    matrix.data = (1 + np.log(matrix.data)) * table.idf[matrix.indices]
    lengths = np.diff(matrix.indptr)
    squares = np.concatenate([[0], np.cumsum(np.square(matrix.data), dtype=np.float64)])
    norms = np.sqrt(np.diff(squares[matrix.indptr])).astype(np.float32)
    matrix.data /= np.repeat(np.maximum(norms, TINY), lengths)
    return matrix


def _occurrences(
    documents: Documents, first: int, last: int, num_ids: int
) -> scipy.sparse.csr_matrix:
    """How often documents have each token id, float32 CSR [documents, ids]."""
    splits = documents.row_splits[first : last + 1]
    ids = documents.tokens[splits[0] : splits[-1]].copy()  # they are sorted below
    occurrences = scipy.sparse.csr_matrix(
        (np.ones(len(ids), np.float32), ids, splits - splits[0]), shape=(last - first, num_ids)
    )
    occurrences.sum_duplicates()
    return occurrences


def _with_bigrams(known: Ngrams, documents: Documents, *, num_tokens: int) -> Ngrams:
    """The n-grams known and the train split's bigrams."""
    owners, tokens = documents.document_of_token, documents.tokens.astype(np.int64)
    first, second = tokens[:-1], tokens[1:]
    is_bigram = (
        (owners[:-1] == owners[1:]) & (first >= NUM_SPECIAL_IDS) & (second >= NUM_SPECIAL_IDS)
    )
    codes = ngram_code(first, second, num_token_rows=NUM_SPECIAL_IDS + num_tokens)[is_bigram]
    codes, indices = np.unique(codes, return_inverse=True)
    occurrences = scipy.sparse.csr_matrix(
        (
            np.ones(len(indices), bool),
            indices.astype(np.int32),
            np.concatenate(
                [[0], np.cumsum(np.bincount(owners[:-1][is_bigram], minlength=len(documents)))]
            ),
        ),
        shape=(len(documents), len(codes)),
    )
    counts = _document_counts(occurrences)
    kept = _most_frequent(counts)
    kept = kept[~np.isin(codes[kept], known.codes)]
    codes = np.concatenate([known.codes, codes[kept]])
    idf = np.concatenate([known.idf, smooth_idf(counts[kept], len(documents))])
    order = np.argsort(codes)
    return Ngrams(codes[order], idf[order], max(known.max_size, 2) if len(codes) else 1)


def _char_ngrams(documents: Documents, tokens: Sequence[str]) -> CharNgrams:
    counts, _ = count_char_ngrams(tokens)
    document_counts = np.zeros(counts.shape[1], np.int64)
    for first in range(0, len(documents), _BATCH_DOCUMENTS):
        last = min(first + _BATCH_DOCUMENTS, len(documents))
        occurrences = _occurrences(documents, first, last, NUM_SPECIAL_IDS + len(tokens))
        document_counts += _document_counts(occurrences[:, NUM_SPECIAL_IDS:] @ counts)
    kept = np.sort(_most_frequent(document_counts))
    counts = counts[:, kept]
    counts.sort_indices()
    return CharNgrams(
        np.concatenate([np.zeros(NUM_SPECIAL_IDS, np.int64), counts.indptr.astype(np.int64)]),
        counts.indices.astype(np.int32),
        counts.data.astype(np.float32),
        smooth_idf(document_counts[kept], len(documents)),
    )


def _document_counts(occurrences: scipy.sparse.csr_matrix) -> np.ndarray:
    """int64 [terms]: the documents that have each term, of occurrences [documents, terms]."""
    occurrences.sum_duplicates()
    return np.bincount(occurrences.indices, minlength=occurrences.shape[1])


def _most_frequent(document_counts: np.ndarray) -> np.ndarray:
    """At most MAX_NGRAMS terms with MIN_DOCUMENT_COUNT documents, the most frequent first."""
    order = np.argsort(-document_counts, kind="stable")[:MAX_NGRAMS]
    return order[document_counts[order] >= MIN_DOCUMENT_COUNT]
