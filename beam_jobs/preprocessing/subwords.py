"""Words become pieces (WordPiece) once the split is known, so that pieces are learned from the train split alone."""

import collections
import dataclasses
import functools
import heapq
import itertools
from collections.abc import Callable, Iterator, Sequence

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.io.filesystems import FileSystems
from apache_beam.pvalue import AsSingleton

from beam_jobs.contract.dataset_config import TextConfig, VocabularyConfig
from beam_jobs.contract.quiet import import_tensorflow_quietly
from beam_jobs.contract.word_lists import SUFFIX_MARK, UNKNOWN_PIECE
from beam_jobs.preprocessing.buckets import Bucket, read_table, tokens_of, write_table
from beam_jobs.preprocessing.frequencies import Frequencies, MostFrequent, count_documents
from beam_jobs.preprocessing.tally import TRAIN, select
from beam_jobs.runtime.row_accounting import BALANCE_TAG, entry
from beam_jobs.runtime.step_times import Timed
from beam_jobs.sources.batches import BATCH_DOCUMENTS

LEARN_WORDS = 100_000  # pieces are learned from so many words, those in the most documents
_MAX_LEARNED_CHARACTERS = 50
_COUNTS_TAG = "counts"


@dataclasses.dataclass
class WordsToPieces(beam.PTransform):
    """Buckets of words -> buckets of pieces; the pieces, one tuple; and the balance of the words counted, see `beam_jobs.runtime.row_accounting`.

    Attributes:
      directory: for spill files and the buckets.
      text: the analyzer's specification; its `subwords` is `train`, or the pieces.
      vocabulary: `size` is the most pieces learned, a piece of `min_document_count` occurrences the rarest.
      keep_unlabeled: whether documents without kept labels are in the dataset; of others no words are counted.
      label_names: PCollection of one array, the kept labels.
    """

    directory: str
    text: TextConfig
    vocabulary: VocabularyConfig
    keep_unlabeled: bool
    label_names: beam.PCollection

    def expand(self, buckets):
        if self.text.subwords == "train":
            counted = buckets | "CountWords" >> beam.ParDo(
                Timed("words", _CountWords(self.keep_unlabeled)), AsSingleton(self.label_names)
            ).with_outputs(_COUNTS_TAG, BALANCE_TAG, main="buckets")
            words = counted[_COUNTS_TAG] | "Words" >> MostFrequent(
                self.directory, 1, LEARN_WORDS
            )  # one Frequencies
            received = words | "Received" >> beam.Map(lambda words: ("words", -words.total))
            balance = (counted[BALANCE_TAG], received) | "Balance" >> beam.Flatten()
            pieces = words | "Learn" >> beam.ParDo(Timed("learn", _Learn(self.vocabulary)))
            buckets = counted.buckets  # counted on their way, so that what is lost there is missed
        else:
            pieces = buckets.pipeline | "Pieces" >> beam.Create(
                [self.text.subwords]
            ).with_output_types(tuple[str, ...])
            balance = buckets.pipeline | "NothingCounted" >> beam.Create([])
        in_pieces = buckets | "ToPieces" >> beam.ParDo(
            Timed("pieces", _ToPieces(self.directory, self.text)), AsSingleton(pieces)
        )
        return in_pieces, pieces, balance


@dataclasses.dataclass
class _CountWords(beam.DoFn):
    """(Bucket, label names) -> Bucket; tagged, COUNTS of the words of the train split, and their balance."""

    keep_unlabeled: bool

    def process(self, bucket: Bucket, label_names: pa.Array) -> Iterator[Bucket]:
        table = select(read_table(bucket.path), label_names, keep_unlabeled=self.keep_unlabeled)
        counts = count_documents(tokens_of(table["text"].filter(pc.equal(table["split"], TRAIN))))
        yield beam.pvalue.TaggedOutput(_COUNTS_TAG, counts)
        yield entry("words", pc.sum(counts["count"], min_count=0).as_py())
        yield bucket


@dataclasses.dataclass
class _Learn(beam.DoFn):
    """Frequencies -> the pieces."""

    vocabulary: VocabularyConfig

    def process(self, words: Frequencies) -> Iterator[tuple[str, ...]]:
        occurrences = zip(
            words.counts["name"].to_pylist(), words.counts["occurrences"].to_pylist(), strict=True
        )
        yield learn(
            list(occurrences),
            max_pieces=self.vocabulary.size,
            min_occurrences=self.vocabulary.min_document_count,
        )


def learn(
    words: Sequence[tuple[str, int]], *, max_pieces: int, min_occurrences: int
) -> tuple[str, ...]:
    """Pieces that spell words in few tokens: `[UNK]`, single characters, then what pairs of pieces were merged to, the most frequent pair first.

    Byte-pair merges (Sennrich et al. 2016) over characters that are marked with `##` within a word. TensorFlow Text's learner is not
    used: in its version 2.21 it finds whole words and their ends alone, no stem that is no word itself (every string takes its count
    from its prefixes, also one that becomes no piece), and looks for the number of pieces by trials of half a minute.

    Args:
      words: words and their occurrences; the same words give the same pieces. Those of more than 50 characters are not learned from.
      max_pieces: at most so many pieces, and half of them single characters, each alone and with `##`. Words with rarer ones are not
        learned from.
      min_occurrences: of a pair that is merged.
    """
    frequency: dict[str, int] = collections.Counter()
    for word, number in words:
        for character in word:
            frequency[character] += number
    alphabet = sorted(
        sorted(frequency, key=lambda character: (-frequency[character], character))[
            : max_pieces // 4
        ]
    )
    pieces = dict.fromkeys(
        (UNKNOWN_PIECE, *alphabet, *(SUFFIX_MARK + character for character in alphabet))
    )
    known = set(alphabet)
    learned_from = [
        (word, number)
        for word, number in words
        if len(word) <= _MAX_LEARNED_CHARACTERS and known.issuperset(word)
    ]
    spellings = [
        [word[0], *(SUFFIX_MARK + character for character in word[1:])] for word, _ in learned_from
    ]
    counts: dict[tuple[str, str], int] = collections.Counter()
    places: dict[tuple[str, str], set[int]] = collections.defaultdict(
        set
    )  # words that a pair stands in, or has stood in
    for place, (_, number) in enumerate(learned_from):
        for pair in itertools.pairwise(spellings[place]):
            counts[pair] += number
            places[pair].add(place)
    queue = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(queue)
    while queue and len(pieces) < max_pieces:
        count, pair = heapq.heappop(queue)
        if -count != counts[pair]:
            continue  # the pair stands in the queue again, with the count that it has now
        if -count < min_occurrences:
            break
        pieces[_merged(pair)] = None
        changed = set()
        for place in places.pop(pair):
            number = learned_from[place][1]
            before, spellings[place] = spellings[place], _merge(spellings[place], pair)
            for sign, spelling in ((-1, before), (1, spellings[place])):
                for neighbours in itertools.pairwise(spelling):
                    counts[neighbours] += sign * number
                    changed.add(neighbours)
            for neighbours in itertools.pairwise(spellings[place]):
                places[neighbours].add(place)
        for neighbours in changed:
            heapq.heappush(queue, (-counts[neighbours], neighbours))
    return tuple(pieces)


def _merged(pair: tuple[str, str]) -> str:
    return pair[0] + pair[1].removeprefix(SUFFIX_MARK)


def _merge(spelling: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    place = 0
    while place < len(spelling):
        is_pair = (
            spelling[place],
            spelling[place + 1] if place + 1 < len(spelling) else "",
        ) == pair
        merged.append(_merged(pair) if is_pair else spelling[place])
        place += 2 if is_pair else 1
    return merged


@dataclasses.dataclass
class _ToPieces(beam.DoFn):
    """(Bucket of words, pieces) -> Bucket of pieces."""

    directory: str
    text: TextConfig

    def process(self, bucket: Bucket, pieces: tuple[str, ...]) -> Iterator[Bucket]:
        to_pieces = _process_tokenizer(self.text.model_copy(update={"subwords": pieces}))
        table = read_table(bucket.path)
        fields = pc.split_pattern(table["text"], "\n")  # the texts of a document are a line each
        texts = pc.list_flatten(fields).to_pylist()
        in_pieces = itertools.chain.from_iterable(
            to_pieces(texts[i : i + BATCH_DOCUMENTS]) for i in range(0, len(texts), BATCH_DOCUMENTS)
        )
        rows = [
            b"\n".join(itertools.islice(in_pieces, size))
            for size in pc.list_value_length(fields).to_pylist()
        ]
        column = pa.array(rows, pa.large_binary()).cast(pa.large_string())
        path = FileSystems.join(self.directory, f"pieces-{bucket.index:05d}.arrow")
        write_table(path, table.set_column(table.column_names.index("text"), "text", column))
        yield dataclasses.replace(bucket, path=path)


@functools.lru_cache(maxsize=1)
def _process_tokenizer(text: TextConfig) -> Callable[[list[str]], list[bytes]]:
    """Analyzed texts of words -> of pieces: one graph a process, whatever the number of DoFns."""
    import_tensorflow_quietly()
    import tensorflow as tf

    from beam_jobs.contract.analyzer import PieceTokenizer

    tokenizer = PieceTokenizer(text)
    to_pieces = tf.function(
        lambda texts: tokenizer(tf.strings.split(texts)),
        input_signature=[tf.TensorSpec([None], tf.string)],
    )
    return lambda texts: to_pieces(tf.constant(texts, tf.string)).numpy().tolist()
