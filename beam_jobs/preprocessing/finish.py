"""The end of the pipeline: labels, vocabulary, statistics and the accounting of every document."""

import json
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.io.filesystems import FileSystems

from beam_jobs.contract.manifest import (
    DOCUMENT_COUNTS,
    LABELS,
    NGRAM_DOCUMENT_COUNTS,
    NGRAMS,
    SPLITS,
    STATISTICS,
    TERM_COUNTS,
    VOCABULARY,
    Counts,
    LabelChanges,
    LabelCounts,
    ShardInfo,
    SplitInfo,
    dump_json,
)
from beam_jobs.contract.validation import Section
from beam_jobs.preprocessing.dataset_statistics import TOP_LABELS, describe, quantiles
from beam_jobs.preprocessing.frequencies import Frequencies
from beam_jobs.preprocessing.tally import POSITIVES, Tally
from beam_jobs.runtime.row_accounting import imbalance

RESULTS = "results.json"


class Results(Section):
    """What the pipeline tells the process that started it, in `results.json` of the work directory."""

    parts: tuple[int, ...]
    counts: Counts
    uncounted_names: int
    splits: dict[str, SplitInfo]
    num_labels: int
    label_counts: LabelCounts
    vocabulary_size: int
    has_weights: bool
    subwords: tuple[str, ...] | None


def sorted_names(frequencies: Frequencies) -> pa.Array:
    return pc.take(names := frequencies.counts["name"].combine_chunks(), pc.sort_indices(names))


def _name_splits(leaks: np.ndarray) -> dict[str, dict[str, int]]:
    """By split: how many of its documents have a near-duplicate in the same split or in one before."""
    return {
        split: {f"in {SPLITS[j]}": int(leaks[i, j]) for j in range(i + 1)}
        for i, split in enumerate(SPLITS)
    }


def top_labels_of(frequencies: Frequencies) -> np.ndarray:
    top = frequencies.counts["name"].combine_chunks()[:TOP_LABELS]
    return pc.index_in(top, value_set=sorted_names(frequencies)).to_numpy().astype(np.int64)


def finish(
    _,
    dataset_dir: str,
    work_dir: str,
    *,
    read,
    rejected,
    tallies: list[Tally],
    positives: list[pa.Table],
    leaks: list[np.ndarray] | None,
    balance: Iterable[tuple[str, int]],
    shards,
    kept_labels: Frequencies,
    vocabulary: Frequencies,
    ngrams: Frequencies | None,
    pieces: tuple[str, ...] | None,
) -> None:
    """Writes labels, vocabulary and results."""
    label_names = sorted_names(kept_labels)
    counted = pa.concat_tables([POSITIVES.empty_table(), *positives])
    by_label = np.zeros((len(label_names), len(SPLITS)), np.int64)
    by_label[counted["label"].to_numpy(), counted["split"].to_numpy()] = counted["count"].to_numpy()
    _write_labels(f"{dataset_dir}/{LABELS}", label_names, by_label)
    token_lengths, labels_each = (
        _add([getattr(tally, key) for tally in tallies]) for key in ("token_lengths", "labels_each")
    )
    top_labels = top_labels_of(kept_labels)
    statistics = describe(
        label_names=label_names,
        positives=by_label,
        labels_each=labels_each,
        token_lengths=token_lengths,
        top_labels=top_labels,
        together=sum(
            (tally.together for tally in tallies),
            np.zeros((len(top_labels), len(top_labels)), np.int64),
        ),
    )
    if leaks is not None:
        statistics["near_duplicates"] = _name_splits(
            sum(leaks, np.zeros((len(SPLITS), len(SPLITS)), np.int64))
        )
    _write(f"{dataset_dir}/{STATISTICS}", dump_json(statistics).encode())
    _write(
        f"{dataset_dir}/{VOCABULARY}",
        "".join(f"{token}\n" for token in vocabulary.counts["name"].to_pylist()).encode(),
    )
    for file, column in ((DOCUMENT_COUNTS, "count"), (TERM_COUNTS, "occurrences")):
        with FileSystems.create(f"{dataset_dir}/{file}") as stream:
            np.save(stream, vocabulary.counts[column].to_numpy(), allow_pickle=False)
    if ngrams is not None:
        _write_ngrams(dataset_dir, ngrams.counts, vocabulary.counts)
    splits = {
        split: _split_info(
            token_lengths[i],
            [info for name, _, info in sorted(shards, key=_place) if name == split],
        )
        for i, split in enumerate(SPLITS)
    }
    results = Results(
        parts=tuple(sorted(number for number, _ in read if number is not None)),
        counts=Counts(
            read=sum(rows for _, rows in read),
            rejected=next(iter(rejected), {}),
            duplicates=sum(tally.duplicates for tally in tallies),
            near_duplicates=sum(tally.bucket.near_duplicates for tally in tallies),
            dropped_without_labels=sum(tally.dropped for tally in tallies),
            written=sum(split.examples for split in splits.values()),
            written_without_labels=int(sum(tally.without_labels.sum() for tally in tallies)),
        ),
        uncounted_names=abs(sum(tally.merged_labels for tally in tallies) - kept_labels.total)
        + abs(sum(tally.kept_labels for tally in tallies) - int(by_label.sum()))
        + abs(sum(tally.train_tokens for tally in tallies) - vocabulary.total)
        + (
            abs(sum(tally.train_ngrams for tally in tallies) - ngrams.total)
            if ngrams is not None
            else 0
        )
        + imbalance(balance),
        splits=splits,
        num_labels=len(label_names),
        label_counts=_label_counts_of(tallies, kept_labels),
        vocabulary_size=vocabulary.counts.num_rows,
        has_weights=any(tally.has_weights for tally in tallies),
        subwords=pieces,
    )
    _write(f"{work_dir}/{RESULTS}", json.dumps(results.model_dump(mode="json")).encode())


def _label_counts_of(tallies: list[Tally], kept: Frequencies) -> LabelCounts:
    changes = sum((tally.bucket.label_changes for tally in tallies), LabelChanges())
    return LabelCounts(
        **changes.model_dump(),
        distinct=kept.distinct,
        below_min_count=kept.distinct - kept.frequent,
        beyond_top_k=kept.frequent - kept.counts.num_rows,
        occurrences=kept.total,
        occurrences_kept=pc.sum(kept.counts["count"], min_count=0).as_py(),
    )


def _write_ngrams(dataset_dir: str, ngrams: pa.Table, vocabulary: pa.Table) -> None:
    """Those n-grams whose tokens all stand in the vocabulary: a model looks them up by the ids of their tokens."""
    tokens = pc.split_pattern(ngrams["name"], " ")
    is_unknown = pc.invert(
        pc.is_in(pc.list_flatten(tokens), value_set=vocabulary["name"].combine_chunks())
    ).to_numpy()
    unknown = np.bincount(
        pc.list_parent_indices(tokens).to_numpy(), is_unknown, minlength=ngrams.num_rows
    )
    ngrams = ngrams.filter(pa.array(unknown == 0))
    _write(
        f"{dataset_dir}/{NGRAMS}",
        "".join(f"{ngram}\n" for ngram in ngrams["name"].to_pylist()).encode(),
    )
    with FileSystems.create(f"{dataset_dir}/{NGRAM_DOCUMENT_COUNTS}") as stream:
        np.save(stream, ngrams["count"].to_numpy(), allow_pickle=False)


def _write_labels(path: str, names: pa.Array, positives: np.ndarray) -> None:
    with FileSystems.create(path) as stream:
        start = "[\n"
        for name, counts in zip(
            names, positives, strict=True
        ):  # one at a time: there may be a million
            row = {
                "name": name.as_py(),
                "positives": dict(zip(SPLITS, counts.tolist(), strict=True)),
            }
            stream.write(f"{start}{json.dumps(row, ensure_ascii=False)}".encode())
            start = ",\n"
        stream.write(b"\n]\n" if len(names) else b"[]\n")


def _place(shard: tuple[str, int, ShardInfo]) -> tuple[str, int]:
    return shard[0], shard[1]


def _split_info(token_lengths: np.ndarray, shards: list[ShardInfo]) -> SplitInfo:
    return SplitInfo(
        examples=sum(shard.examples for shard in shards),
        shards=tuple(shards),
        token_length_quantiles=quantiles(token_lengths),
    )


def _add(histograms: list[np.ndarray]) -> np.ndarray:
    """The sum of int64 [splits, any length]."""
    total = np.zeros(
        (len(SPLITS), max((histogram.shape[1] for histogram in histograms), default=1)), np.int64
    )
    for histogram in histograms:
        total[:, : histogram.shape[1]] += histogram
    return total


def _write(path: str, content: bytes) -> None:
    with FileSystems.create(path) as stream:
        stream.write(content)
