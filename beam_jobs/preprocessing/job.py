"""The preprocessing job from a config to a published dataset."""

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator, Sequence

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.runners.runner import PipelineResult

from beam_jobs.contract import manifest as manifests
from beam_jobs.contract import places
from beam_jobs.contract.atomic import OUTPUT_KEY
from beam_jobs.contract.config import Config
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import Manifest
from beam_jobs.contract.named_files import DATASET_KEYS, hash_files, hash_tokenizer
from beam_jobs.contract.quiet import import_tensorflow_quietly
from beam_jobs.contract.sections.data import CustomData, DirectoriesData
from beam_jobs.contract.sections.splits import FileSplits
from beam_jobs.contract.word_lists import AnalyzerSpec, resolve
from beam_jobs.preprocessing import (
    dataset_manifest,
    finish,
    frequencies,
    labels,
    pipeline,
    progress,
    splits,
)
from beam_jobs.preprocessing.bucket_stats import MIN_SHARE_OF_UNSPACED, UNSPACED
from beam_jobs.preprocessing.dataset_manifest import InputHashes
from beam_jobs.runtime import (
    document_counters,
    engines,
    file_systems,
    generations,
    local_progress,
    runners,
    step_times,
    write_errors,
)
from beam_jobs.runtime.generations import Generation
from beam_jobs.sources import delimited, registry
from beam_jobs.sources.custom import TransformSource
from beam_jobs.sources.directories import is_archive
from beam_jobs.sources.documents import BLANK_LINE, UNREADABLE
from beam_jobs.sources.input_files import InputFile
from beam_jobs.sources.registry import Reader
from beam_jobs.sources.streams import is_zip

BUCKET_BYTES = 8 << 20  # about 8 MiB of input per bucket
MAX_BUCKET_BITS = 12
UNKNOWN_BYTES = 1 << 30  # assumed size of a source that lists no files: 1 GiB


@dataclasses.dataclass(frozen=True)
class _Input:
    """What a config names, resolved once, before any work.

    Attributes:
      reader: of the source.
      files: those that it reads; none where that is not known before.
      analyzer_spec: `text`, with the words that it names.
      label_rules: `labels`, with the names in its files.
      hashes: of all files that the config names.
    """

    reader: Reader | TransformSource
    files: Sequence[InputFile]
    analyzer_spec: AnalyzerSpec
    label_rules: labels.ResolvedLabels
    hashes: InputHashes

    @property
    def plain_bytes(self) -> int:
        """The size of the input, not compressed; an assumption where it is not known."""
        return sum(file.plain_bytes for file in self.files) if self.files else UNKNOWN_BYTES


def preprocess(
    config: Config, *, beam_arguments: Sequence[str], overwrite: bool, force: bool
) -> None:
    """Makes the dataset that `config` describes, unless it is there already.

    Raises:
      UserError: the config, the input or the output directory is wrong, or too much is rejected.
      RuntimeError: the runner lost or repeated documents; nothing is published.
    """
    started = time.monotonic()
    dataset_dir = config.output.dataset_dir
    engines.check_access(beam_arguments)
    file_systems.configure(beam_arguments)
    given = _resolve(config)
    if dataset_manifest.is_complete(config, given.hashes, overwrite=overwrite, force=force):
        named = [info.file for info in manifests.read(dataset_dir).files()]
        generations.remove_what_a_killed_run_left(dataset_dir, named)
        print(
            f"{dataset_dir} is complete: the same config and input made it (--force makes it again)"
        )
        return
    _check_patterns(given.analyzer_spec)
    options = _options(config, given, beam_arguments)
    _announce(config, given, options)
    manifest, results, result = _publish(config, given, options, beam_arguments)
    if step_report := step_times.format_report(result):
        print(step_report)
    print(summary(manifest))
    for line in warnings(config, results, result):
        print(f"warning: {line}")
    print(f"wrote {dataset_dir} in {time.monotonic() - started:.1f} s")


def _resolve(config: Config) -> _Input:
    """Lists the files of the input and reads those that the config names.

    Raises:
      UserError: one of them is not there, or holds what it should not.
    """
    reader = registry.make_reader(config.data)
    files = reader.files()
    _check_file_patterns(config, files)
    return _Input(
        reader=reader,
        files=files,
        analyzer_spec=resolve(config.text),
        label_rules=labels.resolve(config.labels),
        hashes=InputHashes(
            registry.input_hash(files), hash_files(config, DATASET_KEYS) | hash_tokenizer(config)
        ),
    )


def _options(config: Config, given: _Input, beam_arguments: Sequence[str]) -> PipelineOptions:
    """The runner's options; raises UserError where its workers cannot reach input or output."""
    options = runners.pipeline_options(beam_arguments, given.plain_bytes)
    of_files = [] if isinstance(config.data, CustomData) else [file.path for file in given.files]
    engines.check_places(
        options, {OUTPUT_KEY: [config.output.dataset_dir], "data.inputs": of_files}
    )
    return options


def _announce(config: Config, given: _Input, options: PipelineOptions) -> None:
    """Says what is about to be done, and where."""
    if (
        runners.is_local(options)
        and options.view_as(DirectOptions).direct_running_mode == "in_memory"
    ):
        # This process needs it, and no progress can be shown while it is imported.
        import_tensorflow_quietly()
    megabytes = sum(file.bytes for file in given.files) / 1e6
    what = (
        f"{len(given.files):,} files, {megabytes:,.1f} MB," if given.files else config.data.reader
    )
    print(f"preprocessing {what} on {runners.describe(options)}", flush=True)


def _publish(
    config: Config, given: _Input, options: PipelineOptions, beam_arguments: Sequence[str]
) -> tuple[Manifest, finish.Results, PipelineResult]:
    """Makes the dataset and publishes it, whole or not at all.

    Raises:
      UserError: too much is rejected, or nothing is left to train with.
      RuntimeError: the runner lost or repeated documents.
    """
    dataset_dir = config.output.dataset_dir
    with (
        write_errors.told(dataset_dir, what=OUTPUT_KEY, quiet=runners.is_local(options)),
        generations.writing(
            dataset_dir,
            dataset_manifest.generation_name(config, given.hashes),
            live=lambda: dataset_manifest.live_generation(dataset_dir),
            what=OUTPUT_KEY,
        ) as generation,
    ):
        result, results = _run(
            config.model_copy(update={"text": given.analyzer_spec, "labels": given.label_rules}),
            given,
            options=options,
            generation=generation,
            beam_arguments=beam_arguments,
        )
        _check_usable(results, config, places.join(generation.directory, manifests.REJECTS))
        manifest = dataset_manifest.make_manifest(
            config,
            given.analyzer_spec.model_copy(update={"subwords": results.subwords}),
            results,
            given.hashes,
            generation,
        )
        generation.commit(
            manifests.MANIFEST,
            manifests.dumps(manifest),
            manifest.files(),
            replaced=dataset_manifest.files_at_the_place(dataset_dir),
        )
    return manifest, results, result


def _check_file_patterns(config: Config, files: Sequence[InputFile]) -> None:
    """Raises UserError if the splits name files that are not there, before any work.

    The sources of documents in an archive, or of a reader of the user's own, are not known yet.
    """
    if isinstance(config.data, CustomData):
        return
    if isinstance(config.data, DirectoriesData) and any(
        is_archive(file.path) or is_zip(file.path) for file in files
    ):
        return
    splits.check_file_patterns(config.splits, [file.name for file in files])


def _check_patterns(spec: AnalyzerSpec) -> None:
    """Raises UserError if a pattern of the user's own is wrong, before any work."""
    if spec.has_own_patterns:
        import_tensorflow_quietly()  # takes seconds, and again in each worker process
        from beam_jobs.contract.analyzer import Analyzer

        Analyzer(spec.without_subwords)


def _run(
    config: Config,
    given: _Input,
    *,
    options: PipelineOptions,
    generation: Generation,
    beam_arguments: Sequence[str],
) -> tuple[PipelineResult, finish.Results]:
    """Runs the pipeline, which writes the files of the generation.

    Raises:
      RuntimeError: the runner lost or repeated data.
    """
    parts = registry.parts(given.files)
    buckets = given.plain_bytes // BUCKET_BYTES
    bucket_bits = min(MAX_BUCKET_BITS, max(2, buckets.bit_length()))
    job = runners.make_pipeline(options)
    with progress.directory(generation.work_dir, is_local=runners.is_local(options)) as parts_dir:
        pipeline.build(
            job,
            config=config,
            reader=given.reader,
            parts=parts,
            bucket_bits=bucket_bits,
            partitions=frequencies.num_partitions(given.plain_bytes),
            dataset_dir=generation.directory,
            work_dir=generation.work_dir,
            progress_dir=parts_dir,
        )
        file_systems.carry(job, beam_arguments)
        stages = progress.stages(
            parts_dir=parts_dir,
            num_parts=len(parts),
            work_dir=generation.work_dir,
            num_buckets=1 << bucket_bits,
            has_subwords=config.text.subwords is not None,
            dataset_dir=generation.directory,
        )
        with local_progress.watch(stages):
            result = runners.run(job, options)
    results = finish.Results.model_validate_json(
        places.read_bytes(places.join(generation.work_dir, finish.RESULTS))
    )
    _check_complete(results, num_parts=len(parts))
    return result, results


def _check_complete(results: finish.Results, *, num_parts: int) -> None:
    """Raises RuntimeError unless every part, document, label and token is accounted for."""
    counts = results.counts
    problems = []
    if results.parts != tuple(range(num_parts)):
        problems.append(f"received {len(results.parts)} parts of the input, expected {num_parts}")
    if counts.unaccounted():
        problems.append(
            f"of {counts.read:,} documents {counts.unaccounted():,} are neither written nor "
            "duplicates nor rejected nor dropped"
        )
    for kind, number in results.missing.items():
        change = "lost" if number > 0 else "too many"
        problems.append(f"{abs(number):,} {kind} {change}")
    if problems:
        raise RuntimeError(
            "the runner lost or repeated data, so nothing is published: " + "; ".join(problems)
        )


def _check_usable(results: finish.Results, config: Config, rejects: str) -> None:
    """Raises UserError if too much is rejected, or nothing is left to train with."""
    counts = results.counts
    rejected = sum(counts.rejected.values())
    if not counts.read:
        raise UserError("the input holds no documents; expected at least one")
    if counts.rejected.get(UNREADABLE):
        raise UserError(
            f"{counts.rejected[UNREADABLE]:,} input files cannot be read to their end, "
            f"such as {_example(rejects, UNREADABLE)}"
        )
    blank = counts.rejected.get(BLANK_LINE, 0)
    if rejected - blank > config.data.max_reject_fraction * (counts.read - blank):
        reasons = [
            f"  {count:,} x {reason}, such as {_example(rejects, reason)}"
            for reason, count in counts.rejected.items()
        ]
        raise UserError(
            f"{rejected:,} of {counts.read:,} documents are rejected, more than "
            f"data.max_reject_fraction = {config.data.max_reject_fraction:g} allows:\n"
            + "\n".join(reasons)
        )
    if not results.label_counts.occurrences_kept:
        raise UserError(
            f"none of {counts.read - rejected:,} documents has a label that is kept; "
            "check labels.min_count and the label field of `data`"
        )
    if results.splits["train"].examples and not results.vocabulary_size:
        raise UserError(
            "the vocabulary is empty: none of the tokens is in "
            f"{config.vocabulary.min_documents_of_token} of the "
            f"{results.splits['train'].examples:,} train documents; expected tokens to learn from. "
            "Set vocabulary.min_document_count lower or, where the text has no spaces between "
            "words, text.tokenizer: character, with vocabulary.ngrams: 2"
        )
    if not results.splits["train"].examples:
        raise UserError(
            f"the train split is empty: {counts.written:,} documents are too few for `splits`, or "
            "none of them is for training"
        )


def _example(rejects: str, reason: str) -> str:
    with places.open_local(rejects) as stream:
        reject = next(row for row in map(json.loads, stream) if row["reason"] == reason)
    return f"{reject['source']}, row {reject['row']}: {reject['detail']}"


def warnings(config: Config, results: finish.Results, result: PipelineResult) -> Iterator[str]:
    """What the config names and the data does not have, and what looks wrong: a line each."""
    with contextlib.suppress(NotImplementedError):  # the runner keeps no counters
        may_be_rows = document_counters.values(result).get("may_be_rows", 0)
        if may_be_rows:
            yield delimited.explain_may_be_rows(may_be_rows, "data.quote_character: null")
    for key, unused in results.unused_label_names.items():
        more = ", ..." * (unused.count > len(unused.first))
        are = "name occurs" if unused.count == 1 else "names occur"
        yield (
            f"{key}: {unused.count:,} {are} on no document: "
            f"{', '.join(map(repr, unused.first))}{more}"
        )
    for field in results.empty_metadata_fields:
        yield f"data.metadata_fields: {field!r} is empty in every document"
    if isinstance(config.splits, FileSplits):
        for split in ("validation", "test"):
            if getattr(config.splits, split) and not results.splits[split].examples:
                yield f"splits.{split}: its files hold no document that is kept"
    num_documents = results.splits["train"].examples
    for script, (tokens, characters, of_it) in zip(UNSPACED, results.unspaced, strict=True):
        is_much = of_it and of_it >= MIN_SHARE_OF_UNSPACED * num_documents
        if is_much and characters / tokens > script.max_mean_length:
            yield (
                f"the tokens of text in {script.names}, which {of_it:,} of {num_documents:,} train "
                f"documents have, have {characters / tokens:.1f} characters on average, expected "
                f"at most {script.max_mean_length:g} if they are words: the text has no spaces "
                f"between words. Set {script.settings}"
            )


def summary(manifest: Manifest) -> str:
    """What the dataset holds, in a few lines."""
    counts, labels = manifest.counts, manifest.label_counts
    dropped = f"{counts.near_duplicates:,} near-duplicates dropped, "
    lines = [
        f"read {counts.read:,} documents: {counts.written:,} written, "
        f"{counts.duplicates:,} duplicates merged, {dropped if counts.near_duplicates else ''}"
        f"{sum(counts.rejected.values()):,} rejected, "
        f"{counts.dropped_without_labels:,} dropped without labels"
    ]
    if counts.duplicates_with_other_labels:
        lines.append(
            f"  duplicates of texts whose documents have different labels: "
            f"{counts.duplicates_with_other_labels:,}"
        )
    lines += [f"  rejected {count:,} x {reason}" for reason, count in counts.rejected.items()]
    left_out = {
        "renamed by alias": labels.aliased,
        "dropped by labels.deny": labels.denied,
        "not in labels.allow": labels.not_allowed,
        "of labels below min_count or beyond top_k": labels.occurrences - labels.occurrences_kept,
    }
    lines += [f"  label occurrences {what}: {count:,}" for what, count in left_out.items() if count]
    splits = ", ".join(
        f"{name} {split.examples:,} in {len(split.shards)} shards"
        for name, split in manifest.splits.items()
    )
    subwords = manifest.analyzer.subwords
    of_subwords = "" if subwords is None else f" of {len(subwords):,} subwords"
    lines.append(
        f"{splits}; {manifest.num_labels:,} labels, "
        f"{manifest.vocabulary_size:,} tokens{of_subwords}"
    )
    return "\n".join(lines)
