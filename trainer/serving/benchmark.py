"""How large and how fast an exported model is."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from beam_jobs.contract import places, saved_model
from trainer.serving.synthetic_texts import columns_of

_WARM_UP_REQUESTS = 20
_MAX_SECONDS = 1.0  # of the requests of a kind: large models answer fewer of them


@dataclasses.dataclass(frozen=True)
class Speed:
    """Size and speed of an exported model.

    Attributes:
      bytes: size of all files.
      load_seconds: from the call of tf.saved_model.load to the answer to the first request.
      load_cpu_seconds: the CPU time of the same; other work on the machine changes it less.
      documents_per_second: in batches of all sample documents, the median.
      latency_ms: of requests with one document, sent one after the other; percentile (50, 95, 99)
        -> milliseconds.
      request_cpu_ms: CPU time of a request with one document, the mean.
    """

    bytes: int
    load_seconds: float
    load_cpu_seconds: float
    documents_per_second: float
    latency_ms: dict[int, float]
    request_cpu_ms: float


def measure(
    model_dir: str,
    texts: Sequence[str],
    *,
    requests: int = 200,
    batches: int = 10,
) -> Speed:
    """Measures a model that is called in this process: a server would add to it.

    Args:
      model_dir: an exported model.
      texts: of documents; each is divided among the model's text fields.
      requests: of one document; fewer where they take more than 1 s.
      batches: of all sample documents; the same.

    Raises:
      UserError: there is no such model.
    """
    path = saved_model.find_version(model_dir)
    started, cpu_started = time.perf_counter(), time.process_time()
    model = saved_model.load(path)
    predict = model.module.signatures["serving_default"]
    columns = columns_of(texts, model.text_fields)
    batch = {field: tf.constant(values) for field, values in columns.items()}
    _seconds(predict, {field: values[:1] for field, values in batch.items()})
    load_seconds = time.perf_counter() - started
    load_cpu_seconds = time.process_time() - cpu_started

    documents = [
        {field: values[i : i + 1] for field, values in batch.items()} for i in range(len(texts))
    ]
    endless = itertools.cycle(documents)
    _seconds_of(predict, endless, _WARM_UP_REQUESTS)
    cpu_started = time.process_time()
    latencies = _seconds_of(predict, endless, requests)
    request_cpu_seconds = (time.process_time() - cpu_started) / len(latencies)
    same_batch = itertools.repeat(batch)
    _seconds_of(predict, same_batch, 1)
    batch_seconds = _seconds_of(predict, same_batch, batches)
    files = Path(places.local_directory(path)).rglob("*")
    return Speed(
        bytes=sum(file.stat().st_size for file in files if file.is_file()),
        load_seconds=load_seconds,
        load_cpu_seconds=load_cpu_seconds,
        documents_per_second=len(texts) / float(np.median(batch_seconds)),
        latency_ms={q: 1000 * float(np.percentile(latencies, q)) for q in (50, 95, 99)},
        request_cpu_ms=1000 * request_cpu_seconds,
    )


def describe(model_dir: str | Path, texts: Sequence[str]) -> str:
    """The results of `measure` as one line of text."""
    speed = measure(str(model_dir), texts)
    words = round(sum(len(text.split()) for text in texts) / len(texts))
    latencies = ", ".join(f"p{q} {ms:.1f} ms" for q, ms in speed.latency_ms.items())
    return (
        f"  {speed.bytes / 1e6:,.1f} MB, loads in {speed.load_seconds:.1f} s; "
        f"documents of {words} words: {speed.documents_per_second:,.0f} a second "
        f"in batches of {len(texts)}; one a request: {latencies}"
    )


def _seconds_of(
    predict: Callable[..., dict[str, tf.Tensor]],
    columns: Iterator[dict[str, tf.Tensor]],
    number: int,
) -> list[float]:
    """The seconds of each of `number` calls, or of those until the time is up."""
    started, seconds = time.perf_counter(), []
    while len(seconds) < number and (not seconds or time.perf_counter() - started < _MAX_SECONDS):
        seconds.append(_seconds(predict, next(columns)))
    return seconds


def _seconds(predict: Callable[..., dict[str, tf.Tensor]], columns: dict[str, tf.Tensor]) -> float:
    started = time.perf_counter()
    predict(**columns)["scores"].numpy()
    return time.perf_counter() - started
