"""What a worker of bulk prediction does: one part of the input -> a file of predictions."""

import collections
import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from beam_jobs.contract import places, saved_model
from beam_jobs.contract.quiet import import_tensorflow_quietly
from beam_jobs.contract.saved_model import SavedModel
from beam_jobs.prediction.output_files import (
    PREDICTIONS,
    Format,
    OutputFile,
    json_line,
    open_writer,
)
from beam_jobs.prediction.results import PartResult
from beam_jobs.sources.batches import batches
from beam_jobs.sources.documents import Document, Reject
from beam_jobs.sources.input_files import InputFile
from beam_jobs.sources.registry import Reader


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
