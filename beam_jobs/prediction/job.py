"""The bulk prediction job: each part of the input -> a file of predictions, in its order."""

import collections
import contextlib
import dataclasses
import functools
import itertools
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from beam_jobs.contract import places, saved_model
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import FileInfo, ShardInfo, dump_json
from beam_jobs.contract.progress import ProgressLine
from beam_jobs.contract.quiet import import_tensorflow_quietly
from beam_jobs.contract.saved_model import SavedModel
from beam_jobs.contract.sections.data import DataConfig, LinesData
from beam_jobs.contract.validation import Section
from beam_jobs.prediction.output_files import (
    PREDICTIONS,
    Format,
    OutputFile,
    json_line,
    open_writer,
)
from beam_jobs.runtime import (
    engines,
    file_systems,
    generations,
    local_progress,
    runners,
    write_errors,
)
from beam_jobs.runtime.generations import Generation
from beam_jobs.sources import delimited, registry
from beam_jobs.sources.batches import batches
from beam_jobs.sources.documents import BLANK_LINE, UNREADABLE, Document, Reject
from beam_jobs.sources.input_files import InputFile
from beam_jobs.sources.registry import Reader

_RESULT = re.compile(r"part-\d+\.json")  # the file of a part that is done
_READERS = 8  # of results at a time
_POLL_SECONDS = 5.0  # for progress, of a store
SUMMARY = "predictions.json"  # written last: its presence means that the predictions are complete


class PartResult(Section):
    """What became of one part of the input; its file in the work directory says it is done."""

    read: int
    rejected: dict[str, int]
    may_be_rows: int = 0
    predictions: ShardInfo
    rejects: ShardInfo | None

    def files(self) -> list[ShardInfo]:
        """What the part has written."""
        return [self.predictions] if self.rejects is None else [self.predictions, self.rejects]


# --- the job -------------------------------------------------------------------------------


def score_files(
    data_for: Callable[[Sequence[str]], DataConfig | LinesData],
    *,
    model: str,
    output: str,
    output_format: Format,
    signature: str,
    overwrite: bool,
    beam_arguments: Sequence[str],
) -> None:
    """Scores every document of the input and publishes the predictions, whole or not at all.

    Args:
      data_for: the model's text fields -> the source of the documents.
      model: an exported model's directory; every worker must reach it.
      output: the place of the predictions: `predictions.json`, and a folder with the files that it
        names; every worker must reach it.
      output_format: of the files of predictions.
      signature: `decide`: the labels that reach their thresholds; `serving_default`: the best ones,
        as many as the export says.
      overwrite: replace predictions that are there.
      beam_arguments: of the runner.

    Raises:
      UserError: the model, the input or the output is wrong, or too much is rejected.
      RuntimeError: the runner lost or repeated documents; nothing is published.
    """
    started = time.monotonic()
    try:
        places.check(output)
    except ValueError as error:
        raise UserError(f"--output: received {output!r}; {error}") from None
    engines.check_access(beam_arguments)
    file_systems.configure(beam_arguments)
    if _named_files(output) is None:
        _check_output(output, overwrite=overwrite)
    import_tensorflow_quietly()
    model_dir = model if places.is_remote(model) else os.path.abspath(model)
    loaded = process_model(model_dir)
    data = data_for(loaded.text_fields)
    _check_texts(data, loaded)
    reader = registry.make_reader(data)
    files = reader.files()
    parts = registry.parts(files)
    options = runners.pipeline_options(beam_arguments, sum(file.bytes for file in files))
    of_files = [file.path for file in files]
    engines.check_places(options, {"--output": [output], "--model": [model], "--input": of_files})
    print(
        f"scoring {len(files):,} files, {sum(file.bytes for file in files) / 1e6:,.1f} MB, on "
        f"{runners.describe(options)}",
        flush=True,
    )
    name = generations.name_of(
        loaded.origin()["saved_model_fingerprint"],
        signature,
        output_format,
        data.model_dump_json(),
        registry.input_hash(files),
    )
    if not overwrite and _is_complete(output, name):
        generations.remove_lock_of_killed_run(output)
        print(
            f"{output} is complete: the same model and input made it (--overwrite makes it again)"
        )
        return
    _check_output(output, overwrite=overwrite)
    with (
        write_errors.told(output, what="--output", quiet=runners.is_local(options)),
        generations.writing(
            output, name, live=lambda: _live_generation(output), what="--output"
        ) as generation,
    ):
        score = ScorePart(
            reader,
            model_dir,
            signature,
            output_format,
            generation.directory,
            generation.work_dir,
            len(parts),
        )
        results = _score_parts(parts, score, options, beam_arguments)
        _check_accounted(results, num_parts=len(parts))
        _check_usable(results, data, generation)
        named = [generation.named(info) for result in results for info in result.files()]
        summary = _summary(results, loaded, signature=signature, files=named)
        generation.commit(SUMMARY, dump_json(summary), named, replaced=_files_at_the_place(output))
    _print_summary(summary)
    print(f"wrote {output} in {time.monotonic() - started:.1f} s")


def _check_texts(data: DataConfig, model: SavedModel) -> None:
    """Raises UserError unless the documents have as many texts as the model takes."""
    num_texts = len(data.record_spec.text_fields)
    if num_texts != len(model.text_fields):
        raise UserError(
            f"--input: its documents have {num_texts} texts, and the model takes "
            f"{len(model.text_fields)}: {', '.join(model.text_fields)}; name the fields with "
            "--text-field"
        )


def _score_parts(
    parts: Sequence[Sequence[InputFile]],
    score: "ScorePart",
    options: PipelineOptions,
    beam_arguments: Sequence[str],
) -> list[PartResult]:
    """Runs the job; the results of its parts, in their order."""
    pipeline = runners.make_pipeline(options)
    _ = (
        pipeline
        | "Parts" >> beam.Create(list(enumerate(parts)))
        | "SpreadParts" >> beam.Reshuffle()
        | "ScoreParts" >> beam.ParDo(score)
    )
    file_systems.carry(pipeline, beam_arguments)
    with _progress(score.work_dir, len(parts)):
        runners.run(pipeline, options)
    found = sorted(filter(_RESULT.fullmatch, places.list_files(score.work_dir)))
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(lambda name: _result(score.work_dir, name), found))


def _result(work_dir: str, name: str) -> PartResult:
    return PartResult.model_validate_json(places.read_bytes(places.join(work_dir, name)))


def _print_summary(summary: Mapping[str, Any]) -> None:
    print(
        f"read {summary['read']:,} documents: {summary['written']:,} scored, "
        f"{sum(summary['rejected'].values()):,} rejected"
    )
    for reason, count in summary["rejected"].items():
        print(f"  rejected {count:,} x {reason}")
    if "may_be_rows" in summary:
        setting = "--quote-character ''"
        print(f"warning: {delimited.explain_may_be_rows(summary['may_be_rows'], setting)}")


def _check_output(output: str, *, overwrite: bool) -> None:
    """Raises UserError where there is something that may not be replaced."""
    if _named_files(output) is not None:
        if not overwrite:
            raise UserError(f"--output: {output} holds predictions; --overwrite replaces them")
    elif not generations.is_empty(output):
        # Not even --overwrite replaces what no run of ours has written.
        raise UserError(
            f"--output: {output} is there and holds no predictions; expected a new or empty "
            "directory"
        )


def _published(output: str) -> list[FileInfo] | None:
    """The files that the summary names; None: there is none; empty: it is damaged."""
    try:
        files = json.loads(places.read_bytes(places.join(output, SUMMARY)))["files"]
        fields = FileInfo.model_fields
        return [FileInfo.model_validate({name: info[name] for name in fields}) for info in files]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError, KeyError, RecursionError):
        return []


def _named_files(output: str) -> list[str] | None:
    """The paths of `_published`."""
    files = _published(output)
    return None if files is None else [info.file for info in files]


def _is_complete(output: str, name: str) -> bool:
    """Whether predictions of this name are there, and all of their files in their sizes."""
    sizes = {info.file: info.bytes for info in _published(output) or ()}
    generation = next(map(generations.generation_of, sizes), None)
    if not generation or generation.partition("-")[0] != name:
        return False
    found = places.list_files(places.join(output, generation))
    return all(
        file.partition("/")[2] in found and found[file.partition("/")[2]].size == size
        for file, size in sizes.items()
    )


def _live_generation(output: str) -> str | None:
    return next(map(generations.generation_of, _named_files(output) or ()), None)


def _files_at_the_place(output: str) -> list[str]:
    """The files of predictions that lie beside their summary, as versions before wrote them."""
    return [file for file in _named_files(output) or () if not generations.generation_of(file)]


def _totals(results: Sequence[PartResult]) -> tuple[int, int, collections.Counter[str]]:
    """Documents read, those scored, and the others by the reason of their reject."""
    rejected: collections.Counter[str] = collections.Counter()
    for result in results:
        rejected.update(result.rejected)
    read = sum(result.read for result in results)
    return read, sum(result.predictions.examples for result in results), rejected


def _check_accounted(results: Sequence[PartResult], *, num_parts: int) -> None:
    """Raises RuntimeError unless every part is done, and every document scored or rejected."""
    read, written, rejected = _totals(results)
    if len(results) != num_parts or read != written + rejected.total():
        raise RuntimeError(
            f"the runner lost or repeated data, so nothing is published: {len(results)} of "
            f"{num_parts} parts are done, and of {read:,} documents {written:,} are scored and "
            f"{rejected.total():,} rejected"
        )


def _check_usable(
    results: Sequence[PartResult], data: DataConfig | LinesData, generation: Generation
) -> None:
    """Raises UserError if a file cannot be read to its end, too much is rejected, or all is."""
    read, written, rejected = _totals(results)
    if not read:
        raise UserError("--input: the files hold no documents; expected at least one")
    if rejected[UNREADABLE]:
        raise UserError(
            f"--input: {rejected[UNREADABLE]:,} files cannot be read to their end, such as "
            f"{_examples(results, generation)[UNREADABLE]}; nothing is published"
        )
    blank = rejected[BLANK_LINE]
    is_too_much = rejected.total() - blank > data.max_reject_fraction * (read - blank)
    if is_too_much or not written:
        examples = _examples(results, generation)
        reasons = "".join(
            f"\n  {count:,} x {reason}, such as {examples[reason]}"
            for reason, count in rejected.most_common()
        )
        limit = (
            f"more than --max-reject-fraction {data.max_reject_fraction:g} allows, so nothing is "
            "published; raise it only for documents that you can do without"
        )
        raise UserError(
            f"{rejected.total():,} of {read:,} documents are rejected, "
            f"{limit if is_too_much and written else 'so there is nothing to publish'}:{reasons}"
        )


def _examples(results: Sequence[PartResult], generation: Generation) -> dict[str, str]:
    """By the reason of rejects, the first of them."""
    examples: dict[str, str] = {}
    for info in (result.rejects for result in results if result.rejects):
        with places.open_local(places.join(generation.directory, info.file)) as stream:
            for reject in map(json.loads, stream):
                examples.setdefault(
                    reject["reason"], f"{reject['source']}, row {reject['row']}: {reject['detail']}"
                )
    return examples


def _summary(
    results: Sequence[PartResult],
    model: SavedModel,
    *,
    signature: str,
    files: Sequence[ShardInfo],
) -> dict[str, Any]:
    """What the output holds."""
    read, written, rejected = _totals(results)
    origin = model.origin()
    may_be_rows = sum(result.may_be_rows for result in results)
    return {
        "model": model.path,
        "saved_model_fingerprint": origin["saved_model_fingerprint"],
        "signature": signature,
        "read": read,
        "written": written,
        "rejected": dict(sorted(rejected.items(), key=lambda item: (-item[1], item[0]))),
        "files": [info.model_dump() for info in files],
    } | ({"may_be_rows": may_be_rows} if may_be_rows else {})


def _progress(work_dir: str, num_parts: int) -> contextlib.AbstractContextManager[None]:
    """Shows, while it is entered, how much is scored."""
    started = time.monotonic()

    def watch(done: threading.Event) -> None:
        seen: dict[str, int] = {}
        seconds = _POLL_SECONDS if places.is_remote(work_dir) else local_progress.POLL_SECONDS
        with ProgressLine("scoring") as line:
            while not done.wait(seconds):
                for name in filter(_RESULT.fullmatch, places.list_files(work_dir)):
                    if name not in seen:
                        seen[name] = _result(work_dir, name).read
                read = sum(seen.values())
                rate = read / (time.monotonic() - started)
                line.update(
                    len(seen),
                    num_parts,
                    f"{len(seen)}/{num_parts} parts, {read:,} documents, {rate:,.0f} documents/s",
                )

    return local_progress.run_in_background(watch)


# --- on the workers ------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def process_model(model_dir: str) -> SavedModel:
    """The model, loaded once per process, whatever the number of DoFns."""
    import_tensorflow_quietly()
    import tensorflow as tf

    with contextlib.suppress(RuntimeError):  # TensorFlow runs already
        # How a sum is divided among threads decides its last bits. The analyzer, which takes most
        # of the time, uses more threads all the same.
        tf.config.threading.set_intra_op_parallelism_threads(1)
    return saved_model.load(model_dir)


@dataclasses.dataclass
class ScorePart(beam.DoFn):
    """(part number, files) -> a file of predictions, one of rejects if any, and a `PartResult`.

    A part's rows are scored in batches that follow from the rows alone, and written in their order:
    so neither the number of workers nor their order changes a byte.

    Attributes:
      reader: the source.
      model_dir: the exported model.
      signature: `decide` or `serving_default`.
      output_format: of the predictions.
      directory: where predictions and rejects go; see `beam_jobs.contract.places`.
      work_dir: where the results go.
      num_parts: all parts of the input; file names tell it.
    """

    reader: Reader
    model_dir: str
    signature: str
    output_format: Format
    directory: str
    work_dir: str
    num_parts: int

    def setup(self):
        self._model = process_model(self.model_dir)

    def process(self, part: tuple[int, Sequence[InputFile]]) -> None:
        number, files = part
        rejected: collections.Counter[str] = collections.Counter()
        marked: list[str] = []
        names = [
            f"{what}-{number:05d}-of-{self.num_parts:05d}.{extension}"
            for what, extension in (("predictions", self.output_format), ("rejects", "jsonl"))
        ]
        with contextlib.ExitStack() as stack:
            predictions, rejects = (
                OutputFile(stack.enter_context(places.create(places.join(self.directory, name))))
                for name in names
            )
            with open_writer(predictions, self.output_format) as write_table:
                rows = _marking(itertools.chain.from_iterable(map(self.reader.read, files)), marked)
                for table, some_rejects in _pipelined(self._scored, batches(rows)):
                    write_table(table)
                    predictions.examples += table.num_rows
                    for reject in some_rejects:
                        rejected[reject.reason] += 1
                        rejects.write(json_line(dataclasses.asdict(reject)))
                        rejects.examples += 1
        result = PartResult(
            read=predictions.examples + rejects.examples,
            rejected=rejected,
            may_be_rows=len(marked),
            predictions=predictions.info(names[0]),
            rejects=rejects.info(names[1]) if rejects.examples else None,
        )
        places.write(
            places.join(self.work_dir, f"part-{number:06d}.json"), result.model_dump_json()
        )

    def _scored(self, rows: Sequence[Document | Reject]) -> tuple[pa.Table, list[Reject]]:
        """(PREDICTIONS of the documents among the rows, the rejects)."""
        import tensorflow as tf

        documents = [row for row in rows if isinstance(row, Document)]
        rejects = [row for row in rows if isinstance(row, Reject)]
        if not documents:
            return PREDICTIONS.empty_table(), rejects
        columns = zip(*(document.texts for document in documents), strict=True)
        texts = {
            field: tf.constant([text.encode("utf-8", "surrogatepass") for text in column])
            for field, column in zip(self._model.text_fields, columns, strict=True)
        }
        answer = {
            key: value.numpy()
            for key, value in self._model.module.signatures[self.signature](**texts).items()
        }
        num_documents, width = answer["labels"].shape
        counts = answer.get("counts", np.full(num_documents, width, np.int32))
        is_real = np.arange(width) < counts[:, None]
        offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
        table = pa.table(
            [
                pa.array(
                    [document.id.encode("utf-8", "replace").decode() for document in documents],
                    pa.string(),
                ),
                pa.ListArray.from_arrays(offsets, pa.array(answer["labels"][is_real], pa.string())),
                pa.ListArray.from_arrays(
                    offsets, pa.array(answer["scores"][is_real], pa.float32())
                ),
            ],
            schema=PREDICTIONS,
        )
        return table, rejects


def _marking(rows: Iterable[Document | Reject], marked: list[str]) -> Iterator[Document | Reject]:
    """The rows; the ids of those that `may_be_rows` are added to `marked`."""
    for row in rows:
        if isinstance(row, Document) and row.may_be_rows:
            marked.append(row.id)
        yield row


def _pipelined(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """`function` of each item, in order, one item at a time in a second thread.

    While it works on an item, the next one is made and the result before is used.
    """
    with ThreadPoolExecutor(1) as executor:
        previous = None
        for item in items:
            current = executor.submit(function, item)
            if previous is not None:
                yield previous.result()
            previous = current
        if previous is not None:
            yield previous.result()
