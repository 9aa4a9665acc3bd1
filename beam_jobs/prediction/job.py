"""The bulk prediction job: each part of the input -> a file of predictions, in its order."""

import contextlib
import dataclasses
import functools
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_jobs.contract import places
from beam_jobs.contract.errors import UserError
from beam_jobs.contract.manifest import dump_json
from beam_jobs.contract.progress import ProgressLine
from beam_jobs.contract.quiet import import_tensorflow_quietly
from beam_jobs.contract.saved_model import SavedModel
from beam_jobs.contract.sections.data import DataConfig, LinesData
from beam_jobs.prediction import published, results
from beam_jobs.prediction.output_files import Format
from beam_jobs.prediction.results import PartResult
from beam_jobs.prediction.score_part import ScorePart, process_model
from beam_jobs.runtime import (
    engines,
    file_systems,
    generations,
    local_progress,
    runners,
    write_errors,
)
from beam_jobs.sources import delimited, registry
from beam_jobs.sources.input_files import InputFile
from beam_jobs.sources.registry import Reader

_RESULT = re.compile(r"part-\d+\.json")  # the file of a part that is done
_READERS = 8  # of results at a time
_POLL_SECONDS = 5.0  # for progress, of a store


@dataclasses.dataclass(frozen=True)
class _Work:
    """What is scored, by what, and how the predictions are written.

    Attributes:
      model: the exported model, and where it is.
      signature, output_format: as in `score_files`.
      data: the source of the documents; its reader, and the files that it reads.
    """

    model: SavedModel
    model_dir: str
    signature: str
    output_format: Format
    data: DataConfig | LinesData
    reader: Reader
    files: Sequence[InputFile]

    @functools.cached_property
    def name(self) -> str:
        """Of the predictions' generation: it follows from all that decides their bytes."""
        return generations.name_of(
            self.model.origin()["saved_model_fingerprint"],
            self.signature,
            self.output_format,
            self.data.model_dump_json(),
            registry.input_hash(self.files),
        )


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
    _check_output(output, overwrite=overwrite, beam_arguments=beam_arguments)
    work = _prepare(data_for, model=model, signature=signature, output_format=output_format)
    options = runners.pipeline_options(beam_arguments, sum(file.bytes for file in work.files))
    of_files = [file.path for file in work.files]
    engines.check_places(options, {"--output": [output], "--model": [model], "--input": of_files})
    print(
        f"scoring {len(work.files):,} files, {sum(file.bytes for file in work.files) / 1e6:,.1f} "
        f"MB, on {runners.describe(options)}",
        flush=True,
    )
    if not overwrite and published.is_complete(output, work.name):
        generations.remove_what_a_killed_run_left(output, published.named_files(output) or ())
        print(
            f"{output} is complete: the same model and input made it (--overwrite makes it again)"
        )
        return
    published.check_output(output, overwrite=overwrite)
    summary = _publish(work, output, options, beam_arguments)
    _print_summary(summary)
    print(f"wrote {output} in {time.monotonic() - started:.1f} s")


def _check_output(output: str, *, overwrite: bool, beam_arguments: Sequence[str]) -> None:
    """Raises UserError if predictions cannot be written there, before the model is loaded."""
    try:
        places.check(output)
    except ValueError as error:
        raise UserError(f"--output: received {output!r}; {error}") from None
    engines.check_access(beam_arguments)
    file_systems.configure(beam_arguments)
    # Predictions that are there may be those that are asked for.
    if published.named_files(output) is None:
        published.check_output(output, overwrite=overwrite)


def _prepare(
    data_for: Callable[[Sequence[str]], DataConfig | LinesData],
    *,
    model: str,
    signature: str,
    output_format: Format,
) -> _Work:
    """Loads the model and lists the input.

    Raises:
      UserError: there is no model or no input, or they do not fit.
    """
    import_tensorflow_quietly()
    model_dir = model if places.is_remote(model) else os.path.abspath(model)
    loaded = process_model(model_dir)
    data = data_for(loaded.text_fields)
    _check_texts(data, loaded)
    reader = registry.make_reader(data)
    return _Work(loaded, model_dir, signature, output_format, data, reader, reader.files())


def _check_texts(data: DataConfig, model: SavedModel) -> None:
    """Raises UserError unless the documents have as many texts as the model takes."""
    num_texts = len(data.record_spec.text_fields)
    if num_texts != len(model.text_fields):
        raise UserError(
            f"--input: its documents have {num_texts} texts, and the model takes "
            f"{len(model.text_fields)}: {', '.join(model.text_fields)}; name the fields with "
            "--text-field"
        )


def _publish(
    work: _Work, output: str, options: PipelineOptions, beam_arguments: Sequence[str]
) -> dict[str, Any]:
    """Scores the documents and writes the predictions, whole or not at all.

    Returns:
      The summary, as it is written.

    Raises:
      UserError: too much is rejected.
      RuntimeError: the runner lost or repeated documents.
    """
    parts = registry.parts(work.files)
    with (
        write_errors.told(output, what="--output", quiet=runners.is_local(options)),
        generations.writing(
            output, work.name, live=lambda: published.live_generation(output), what="--output"
        ) as generation,
    ):
        score = ScorePart(
            work.reader,
            work.model_dir,
            work.signature,
            work.output_format,
            generation.directory,
            generation.work_dir,
            len(parts),
        )
        of_parts = _score_parts(parts, score, options, beam_arguments)
        results.check_accounted(of_parts, num_parts=len(parts))
        results.check_usable(of_parts, work.data, generation)
        named = [generation.named(info) for result in of_parts for info in result.files()]
        summary = results.summary(of_parts, work.model, signature=work.signature, files=named)
        generation.commit(
            published.SUMMARY,
            dump_json(summary),
            named,
            replaced=published.files_at_the_place(output),
        )
    return summary


def _score_parts(
    parts: Sequence[Sequence[InputFile]],
    score: ScorePart,
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
