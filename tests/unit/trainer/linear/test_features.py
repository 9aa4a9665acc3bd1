import numpy as np
import scipy.sparse
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from trainer.linear.documents import Documents
from trainer.linear.features import Features, make_tables
from trainer.models.char_bags import char_ngrams_of, count_char_ngrams
from trainer.models.inputs import VocabularyStatistics

TEXTS = ["b a b a", "c a b", "a", "", "unknown b a unknown a b", "c c ccc é"]
TOKENS = ["a", "b", "c", "ccc", "é"]


def _documents(texts):
    ids = {token: i + 2 for i, token in enumerate(TOKENS)}
    tokens = [[ids.get(token, 1) for token in text.split()] for text in texts]
    return Documents(
        np.array([token for text in tokens for token in text], np.int32),
        np.cumsum([0, *map(len, tokens)]),
        scipy.sparse.csr_matrix((len(texts), 1), dtype=np.float32),
        np.ones(len(texts), np.float32),
    )


def _statistics(**ngrams):
    counts = [sum(token in text.split() for text in TEXTS) for token in TOKENS]
    return VocabularyStatistics(len(TOKENS), np.array(counts), len(TEXTS), TOKENS, **ngrams)


def _matrix(features, statistics=None):
    statistics = statistics or _statistics()
    documents = _documents(TEXTS)
    tables = make_tables(features, documents, statistics)
    return Features(tables, statistics).matrix(documents).toarray(), tables


def _tfidf(**options):
    return TfidfVectorizer(lowercase=False, sublinear_tf=True, dtype=np.float64, **options)


def test_words_are_tf_idf_of_the_vocabularys_tokens():
    expected = _tfidf(analyzer=str.split, vocabulary=TOKENS).fit_transform(TEXTS).toarray()
    matrix, _ = _matrix("words")
    np.testing.assert_allclose(matrix[:, 2:], expected, rtol=1e-6)
    assert not matrix[:, :2].any()


def test_bigrams_are_those_of_two_train_documents_with_a_weight_of_their_own():
    def words_and_bigrams(text):
        tokens = text.split()
        pairs = [(x, y) for x, y in zip(tokens, tokens[1:], strict=False)]
        return [token for token in tokens if token in TOKENS] + [
            " ".join(pair) for pair in pairs if pair in [("a", "b"), ("b", "a")]
        ]

    vectorizer = _tfidf(analyzer=words_and_bigrams, vocabulary=[*TOKENS, "a b", "b a"])
    matrix, tables = _matrix("words_bigrams")
    np.testing.assert_allclose(matrix[:, 2:], vectorizer.fit_transform(TEXTS).toarray(), rtol=1e-6)
    assert tables.sizes == {"ngrams": 2, "max_ngram_size": 2}


def test_bigrams_of_the_dataset_are_not_counted_twice():
    statistics = _statistics(ngrams=[(0, 1), (2, 2)], ngram_document_counts=np.array([3, 1]))
    _, tables = _matrix("words_bigrams", statistics)
    assert len(tables.ngrams.codes) == len(set(tables.ngrams.codes.tolist())) == 3


def test_characters_are_scikit_learns_char_wb_of_each_token():
    counter = CountVectorizer(analyzer="char_wb", ngram_range=(2, 5), lowercase=False)
    tokens = ["a", "word", "é", "ccc", "abcdefgh", "x" * 9]
    expected = counter.fit_transform(tokens).toarray()
    counts, ngrams = count_char_ngrams(tokens)
    assert sorted(ngrams) == counter.get_feature_names_out().tolist()
    order = [ngrams.index(ngram) for ngram in counter.get_feature_names_out()]
    np.testing.assert_array_equal(counts.toarray()[:, order], expected)


def test_the_characters_of_documents_are_tf_idf_beside_that_of_words():
    known = [" ".join(token for token in text.split() if token in TOKENS) for text in TEXTS]

    def of_text(text):
        return [ngram for token in text.split() for ngram in char_ngrams_of(token)]

    expected = _tfidf(analyzer=of_text, min_df=2).fit_transform(known).toarray() / np.sqrt(2)
    words, _ = _matrix("words")
    matrix, _ = _matrix("words_chars")
    np.testing.assert_allclose(matrix[:, :7], words / np.sqrt(2), rtol=1e-6)

    def by_column(values):
        return values[:, np.lexsort(np.round(values, 5))]

    np.testing.assert_allclose(by_column(matrix[:, 7:]), by_column(expected), rtol=1e-5)


def test_there_may_be_more_bigrams_than_tokens():
    words = [f"w{i}" for i in range(9)]
    pairs = [(i, j) for i in range(9) for j in range(9)]
    tokens = np.array([id + 2 for pair in pairs for id in pair] * 2, np.int32)
    documents = Documents(
        tokens,
        np.arange(0, len(tokens) + 1, 2),
        scipy.sparse.csr_matrix((len(tokens) // 2, 1), dtype=np.float32),
        np.ones(len(tokens) // 2, np.float32),
    )
    statistics = VocabularyStatistics(9, np.full(9, 34), len(documents), words)
    tables = make_tables("words_bigrams", documents, statistics)
    matrix = Features(tables, statistics).matrix(documents).toarray()
    assert len(tables.ngrams.codes) == 81
    np.testing.assert_array_equal(np.argmax(matrix[:81], axis=1), 11 + np.arange(81))
