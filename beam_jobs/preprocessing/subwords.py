"""Words become subwords (WordPiece), which are learned from the train split alone."""

import collections
import dataclasses
import functools
import heapq
import itertools
from collections.abc import Callable, Iterator, Sequence

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.pvalue import AsSingleton

from beam_jobs.contract.quiet import import_tensorflow_quietly
from beam_jobs.contract.sections.vocabulary import VocabularyConfig
from beam_jobs.contract.word_lists import SUFFIX_MARK, UNKNOWN_SUBWORD, AnalyzerSpec
from beam_jobs.preprocessing.buckets import (
    Bucket,
    bucket_path,
    read_table,
    replace_column,
    tokens_of,
    write_table,
)
from beam_jobs.preprocessing.frequencies import Frequencies, MostFrequent, count_documents
from beam_jobs.preprocessing.splits import TRAIN
from beam_jobs.runtime.row_accounting import ACCOUNTING_TAG, received, sent
from beam_jobs.runtime.step_times import TimedDoFn
from beam_jobs.sources.batches import batches

LEARN_WORDS = 100_000  # subwords are learned from so many words, those in the most documents
SUBWORD_BUCKETS = "subwords"  # the stage's name in `bucket_path`
_MAX_LEARNED_CHARACTERS = 50
_COUNTS_TAG = "counts"
WORDS = "words of the train split"  # a kind of rows, for row accounting


@dataclasses.dataclass
class SplitIntoSubwords(beam.PTransform):
    """Buckets of words -> buckets of subwords; the subwords, one tuple; and row accounting.

    Attributes:
      directory: for spill files and the buckets.
      text: the analyzer's specification; its `subwords` is `train`, or the subwords.
      vocabulary: `size` is the largest number of subwords that are learned,
        `min_documents_of_ngram` the smallest number of occurrences of one that is merged.
    """

    directory: str
    text: AnalyzerSpec
    vocabulary: VocabularyConfig

    def expand(self, buckets):
        if self.text.subwords == "train":
            counted = buckets | "CountWords" >> beam.ParDo(
                TimedDoFn("words", CountWords())
            ).with_outputs(_COUNTS_TAG, ACCOUNTING_TAG, main="buckets")
            words = counted[_COUNTS_TAG] | "Words" >> MostFrequent(self.directory, 1, LEARN_WORDS)
            learned = words | "Learn" >> beam.ParDo(
                TimedDoFn("learn", LearnSubwords(self.vocabulary))
            ).with_outputs(ACCOUNTING_TAG, main="subwords")
            subwords = learned.subwords
            rows = (counted[ACCOUNTING_TAG], learned[ACCOUNTING_TAG])
            accounting = rows | "Accounting" >> beam.Flatten()
            # Counting passes the buckets on: one that is lost before it is counted is not written
            # either, which is noticed.
            buckets = counted.buckets
        else:
            subwords = buckets.pipeline | "Given" >> beam.Create(
                [self.text.subwords]
            ).with_output_types(tuple[str, ...])
            accounting = buckets.pipeline | "NothingCounted" >> beam.Create([])
        split = buckets | "Split" >> beam.ParDo(
            TimedDoFn("subwords", SplitBucket(self.directory, self.text)), AsSingleton(subwords)
        )
        return split, subwords, accounting


class CountWords(beam.DoFn):
    """Bucket -> the same; tagged, COUNTS of the words of the train split, and their accounting."""

    def process(self, bucket: Bucket) -> Iterator[Bucket]:
        table = read_table(bucket.path)
        counts = count_documents(tokens_of(table["texts"].filter(pc.equal(table["split"], TRAIN))))
        yield beam.pvalue.TaggedOutput(_COUNTS_TAG, counts)
        yield sent(WORDS, pc.sum(counts["count"], min_count=0).as_py())
        yield bucket


@dataclasses.dataclass
class LearnSubwords(beam.DoFn):
    """Frequencies of words -> the subwords, and row accounting."""

    vocabulary: VocabularyConfig

    def process(self, words: Frequencies) -> Iterator[tuple[str, ...]]:
        names, occurrences = (words.counts[key].to_pylist() for key in ("name", "occurrences"))
        yield received(WORDS, words.total)
        yield learn(
            list(zip(names, occurrences, strict=True)),
            max_subwords=self.vocabulary.size,
            min_occurrences=self.vocabulary.min_documents_of_ngram,
        )


def learn(
    words: Sequence[tuple[str, int]], *, max_subwords: int, min_occurrences: int
) -> tuple[str, ...]:
    """Subwords that spell words in few tokens.

    They are `[UNK]`, single characters, then what pairs of subwords were merged to, the most
    frequent pair first: byte-pair merges (Sennrich et al. 2016) over characters that are marked
    with `##` within a word. TensorFlow Text's learner is not used: in its version 2.21 it finds
    only whole words and their endings, no stem that is not a word itself (every string takes its
    count from its prefixes, even from one that becomes no subword), and it searches for the number
    of subwords by trials of half a minute.

    Args:
      words: words and their occurrences, in any order. Those of more than 50 characters are not
        learned from.
      max_subwords: the largest number of subwords; at most half of them are single characters, each
        with and without `##`. Words with rarer characters are not learned from.
      min_occurrences: of a pair that is merged.
    """
    alphabet = _most_frequent_characters(words, max_subwords // 4)
    subwords = dict.fromkeys(
        (UNKNOWN_SUBWORD, *alphabet, *(SUFFIX_MARK + character for character in alphabet))
    )
    words = [
        (word, number)
        for word, number in words
        if len(word) <= _MAX_LEARNED_CHARACTERS and set(alphabet).issuperset(word)
    ]
    spellings = [
        [word[0], *(SUFFIX_MARK + character for character in word[1:])] for word, _ in words
    ]
    counts: dict[tuple[str, str], int] = collections.Counter()
    # The indices of the words that a pair is in, or was in before a merge.
    words_of_pair: dict[tuple[str, str], set[int]] = collections.defaultdict(set)
    for index, (_, number) in enumerate(words):
        for pair in itertools.pairwise(spellings[index]):
            counts[pair] += number
            words_of_pair[pair].add(index)
    queue = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(queue)
    while queue and len(subwords) < max_subwords:
        count, pair = heapq.heappop(queue)
        if -count != counts[pair]:
            continue  # outdated: the pair is in the queue again, with its present count
        if -count < min_occurrences:
            break
        subwords[_merged(pair)] = None
        changed = set()
        for index in words_of_pair.pop(pair):
            number = words[index][1]
            before, spellings[index] = spellings[index], _merge(spellings[index], pair)
            for sign, spelling in ((-1, before), (1, spellings[index])):
                for neighbours in itertools.pairwise(spelling):
                    counts[neighbours] += sign * number
                    changed.add(neighbours)
            for neighbours in itertools.pairwise(spellings[index]):
                words_of_pair[neighbours].add(index)
        for neighbours in changed:
            heapq.heappush(queue, (-counts[neighbours], neighbours))
    return tuple(subwords)


def _most_frequent_characters(words: Sequence[tuple[str, int]], size: int) -> list[str]:
    """The most frequent characters, of equally frequent ones the first; sorted."""
    frequency: dict[str, int] = collections.Counter()
    for word, number in words:
        for character in word:
            frequency[character] += number
    by_frequency = sorted(frequency, key=lambda character: (-frequency[character], character))
    return sorted(by_frequency[:size])


def _merged(pair: tuple[str, str]) -> str:
    return pair[0] + pair[1].removeprefix(SUFFIX_MARK)


def _merge(spelling: list[str], pair: tuple[str, str]) -> list[str]:
    """The spelling with each occurrence of the pair merged, from left to right."""
    merged: list[str] = []
    index = 0
    while index < len(spelling):
        if tuple(spelling[index : index + 2]) == pair:
            merged.append(_merged(pair))
            index += 2
        else:
            merged.append(spelling[index])
            index += 1
    return merged


@dataclasses.dataclass
class SplitBucket(beam.DoFn):
    """(Bucket of words, subwords) -> Bucket of subwords."""

    directory: str
    text: AnalyzerSpec

    def process(self, bucket: Bucket, subwords: tuple[str, ...]) -> Iterator[Bucket]:
        tokenize = _process_tokenizer(self.text.model_copy(update={"subwords": subwords}))
        table = read_table(bucket.path)
        texts = table["texts"].combine_chunks()
        words = pc.list_flatten(texts).to_pylist()
        split = [text for batch in batches(words, len) for text in tokenize(batch)]
        offsets = np.concatenate([[0], np.cumsum(pc.list_value_length(texts).to_numpy())])
        column = pa.LargeListArray.from_arrays(
            pa.array(offsets, pa.int64()), pa.array(split, pa.large_string())
        )
        path = bucket_path(self.directory, SUBWORD_BUCKETS, bucket.index)
        write_table(path, replace_column(table, "texts", column))
        yield dataclasses.replace(bucket, path=path)


@functools.lru_cache(maxsize=1)
def _process_tokenizer(text: AnalyzerSpec) -> Callable[[list[str]], list[bytes]]:
    """A function from texts of words to texts of subwords, with one graph per process, whatever the
    number of DoFns.
    """
    import_tensorflow_quietly()
    import tensorflow as tf

    from beam_jobs.contract.analyzer import SubwordTokenizer

    tokenizer = SubwordTokenizer(text)
    to_subwords = tf.function(
        lambda texts: tokenizer(tf.strings.split(texts)),
        input_signature=[tf.TensorSpec([None], tf.string)],
    )
    return lambda texts: to_subwords(tf.constant(texts, tf.string)).numpy().tolist()
