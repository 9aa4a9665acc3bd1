"""Learning subwords from words, and turning buckets of words into buckets of subwords."""

import collections
import itertools

import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from beam_jobs.contract.analyzer import SubwordTokenizer
from beam_jobs.contract.sections.text import TextConfig
from beam_jobs.contract.word_lists import AnalyzerSpec, resolve
from beam_jobs.preprocessing import subwords
from beam_jobs.preprocessing.buckets import ENCODED, Bucket, read_table, write_table
from beam_jobs.preprocessing.subwords import learn
from beam_jobs.sources import batches


def pieces_of(words: list[str], pieces: tuple[str, ...]) -> list[list[str]]:
    tokenizer = SubwordTokenizer(AnalyzerSpec(subwords=pieces, max_tokens_per_document=None))
    return [
        text.decode().split(" ")
        for text in tokenizer(tf.ragged.constant([[word] for word in words], tf.string)).numpy()
    ]


def test_stems_that_are_no_words_and_endings_are_learned():
    words = [
        (stem + ending, 1)
        for stem in ("rocket", "piano", "walk")
        for ending in ("s", "ed", "ing", "able")
    ] + [("tree", 1)]
    learned = learn(words, max_subwords=64, min_occurrences=2)
    assert {"rocket", "piano", "walk", "##s", "##ed", "##ing", "##able"} <= set(
        learned
    ) and "tree" not in learned
    assert pieces_of(["treeing", "pianoable", "zoo"], learned) == [
        ["t", "##r", "##e", "##e", "##ing"],
        ["piano", "##able"],
        ["[UNK]"],
    ]


def test_merges_are_golden():
    # Pairs: a ##b 10 + 3, ##b ##c 3; then ab ##c 3; then x ##y 2 before y ##x 2, which are equally
    # frequent; z ##z is too rare.
    words = [("ab", 10), ("abc", 3), ("xy", 2), ("yx", 2), ("zz", 1)]
    alone = ["a", "b", "c", "x", "y", "z"]
    expected = [
        "[UNK]",
        *alone,
        *(f"##{character}" for character in alone),
        "ab",
        "abc",
        "xy",
        "yx",
    ]
    assert learn(words, max_subwords=24, min_occurrences=2) == tuple(expected)


def test_rare_characters_are_left_out_where_there_is_room_for_few():
    learned = learn(
        [("aaa", 100), ("bbb", 50), ("aab", 20), ("zzz", 1), ("abz", 1)],
        max_subwords=8,
        min_occurrences=1,
    )
    assert learned[:5] == ("[UNK]", "a", "b", "##a", "##b") and len(learned) == 8
    assert (
        pieces_of(["abab", "za"], learned)[1] == ["[UNK]"] != pieces_of(["abab", "za"], learned)[0]
    )


def merges_by_definition(words: dict[str, int], count: int, min_occurrences: int) -> list[str]:
    """The first `count` pieces that merges give: all pairs are counted anew for each."""
    spellings = {word: [word[0], *(f"##{character}" for character in word[1:])] for word in words}
    pieces = []
    while len(pieces) < count:
        pairs = collections.Counter()
        for word, spelling in spellings.items():
            for pair in itertools.pairwise(spelling):
                pairs[pair] += words[word]
        frequent = [pair for pair in pairs if pairs[pair] >= min_occurrences]
        if not frequent:
            break
        best = min(frequent, key=lambda pair: (-pairs[pair], pair))
        piece = best[0] + best[1][2:]
        for spelling in spellings.values():
            for i in range(len(spelling)):
                if tuple(spelling[i : i + 2]) == best:
                    spelling[i : i + 2] = [piece]
        pieces.append(piece)
    return pieces


@settings(max_examples=50)
@given(
    words=st.dictionaries(
        st.text("abc", min_size=1, max_size=10), st.integers(1, 20), min_size=1, max_size=20
    ),
    count=st.integers(0, 20),
    min_occurrences=st.integers(1, 5),
)
def test_merges_are_those_of_the_definition_in_whatever_order_the_words_come(
    words, count, min_occurrences
):
    alphabet = len(set("".join(words)))
    max_subwords = max(1 + 2 * alphabet + count, 4 * alphabet)
    expected = merges_by_definition(words, max_subwords - 1 - 2 * alphabet, min_occurrences)
    for order in (list(words.items()), sorted(words.items())):
        assert (
            list(
                learn(order, max_subwords=max_subwords, min_occurrences=min_occurrences)[
                    1 + 2 * alphabet :
                ]
            )
            == expected
        )


@pytest.mark.parametrize("max_subwords", [1, 3, 4, 1000])
@pytest.mark.parametrize(
    "words", [[], [("a", 1)], [("[UNK]", 3)], [("x" * 99, 5)], [("##", 2), ("#", 1)]]
)
def test_next_to_nothing_to_learn_from_ends_in_few_pieces(words, max_subwords):
    learned = learn(words, max_subwords=max_subwords, min_occurrences=2)
    assert learned[0] == "[UNK]" and 1 <= len(learned) <= max_subwords
    assert resolve(TextConfig(subwords=learned)).subwords == learned


@settings(max_examples=30)
@given(
    words=st.dictionaries(
        st.text("abcdé東#", min_size=1, max_size=12), st.integers(1, 10**7), min_size=1, max_size=30
    ),
    max_subwords=st.integers(1, 60),
    min_occurrences=st.integers(1, 50),
)
@example(words={"a": 10**7, "b": 1}, max_subwords=5, min_occurrences=1)
def test_learned_pieces_are_a_tokenizers_and_spell_every_word_of_their_characters(
    words, max_subwords, min_occurrences
):
    learned = learn(list(words.items()), max_subwords=max_subwords, min_occurrences=min_occurrences)
    assert learned[0] == "[UNK]" and len(learned) <= max_subwords
    assert (
        resolve(TextConfig(subwords=learned)).subwords == learned
    )  # so they are different and without white space
    assert (
        learn(list(words.items()), max_subwords=max_subwords, min_occurrences=min_occurrences)
        == learned
    )
    for word, pieces in zip(words, pieces_of(list(words), learned), strict=True):
        if pieces != ["[UNK]"]:
            assert pieces[0] + "".join(piece.removeprefix("##") for piece in pieces[1:]) == word
        else:
            assert any(
                character not in learned or f"##{character}" not in learned for character in word
            )


def bucket_of(folder, texts: list[list[str]]) -> Bucket:
    rows = [
        {
            "digest": i.to_bytes(16, "big"),
            "id": b"%d" % i,
            "texts": fields,
            "labels": [3],
            "weight": 0.5,
            "metadata": ["m"],
            "split": i % 3,
        }
        for i, fields in enumerate(texts)
    ]
    path = str(folder / "bucket.arrow")
    write_table(path, pa.Table.from_pylist(rows, schema=ENCODED))
    return Bucket(4, path, len(rows), 7)


def split(folder, texts: list[list[str]], **text) -> tuple[Bucket, pa.Table]:
    known = ("[UNK]", "un", "##able", "a", "##b")
    (bucket,) = subwords.SplitBucket(str(folder), AnalyzerSpec(subwords="train", **text)).process(
        bucket_of(folder, texts), known
    )
    return bucket, read_table(bucket.path)


def test_a_bucket_of_subwords_differs_from_its_words_in_nothing_but_the_texts(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(batches, "BATCH_DOCUMENTS", 2)  # batches end within documents
    texts = [["unable a", "", "x ab"], ["a", "unable", "un"], ["", "", "abb"]]
    bucket, table = split(tmp_path, texts)
    assert (bucket.index, bucket.documents, bucket.duplicates) == (4, 3, 7)
    assert table["texts"].to_pylist() == [
        ["un ##able a", "", "[UNK] a ##b"],
        ["a", "un ##able", "un"],
        ["", "", "a ##b ##b"],
    ]
    before = read_table(str(tmp_path / "bucket.arrow"))
    assert table.schema == before.schema == ENCODED
    assert table.drop_columns("texts") == before.drop_columns("texts")


def test_the_texts_that_are_split_at_once_are_few_where_they_are_long(tmp_path, monkeypatch):
    sizes = []

    def tokenize(texts: list[str]) -> list[str]:
        sizes.append(len(texts))
        return texts

    monkeypatch.setattr(batches, "BATCH_CHARACTERS", 100)
    monkeypatch.setattr(subwords, "_process_tokenizer", lambda text: tokenize)
    split(tmp_path, [["x" * 200], ["x" * 60], ["x" * 60], *([["x" * 20]] * 7)])
    assert sizes == [1, 2, 5, 2]


def test_max_tokens_per_document_is_that_of_each_text(tmp_path):
    texts = [["unable unable", "ab ab"], ["a", "a"]]
    _, table = split(tmp_path, texts, max_tokens_per_document=3)
    assert table["texts"].to_pylist() == [["un ##able un", "a ##b a"], ["a", "a"]]


def test_a_bucket_without_documents_stays_one(tmp_path):
    _, table = split(tmp_path, [])
    assert table.schema == ENCODED and not table.num_rows


def test_words_are_counted_of_train_documents_alone(tmp_path):
    bucket = bucket_of(tmp_path, [["a a", "b"], ["x", ""], ["y", "z"], ["a c", ""]])
    counts, accounting, passed = subwords.CountWords().process(bucket)
    rows = zip(*counts.value.to_pydict().values(), strict=True)
    assert {name: (documents, occurrences) for name, documents, occurrences in rows} == {
        "a": (2, 3),
        "b": (1, 1),
        "c": (1, 1),
    }
    assert accounting.value == (subwords.WORDS, 4) and passed is bucket
