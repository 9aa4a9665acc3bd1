"""How large and how fast an exported model is."""

import dataclasses
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

from beam_jobs.contract import saved_model
from trainer.serving.warmup import BATCH_DOCUMENTS, WORDS, fields_of, read_texts

_WARM_REQUESTS = 20


@dataclasses.dataclass(frozen=True)
class Speed:
    """What `measure` found.

    Attributes:
      bytes: size of all files.
      load_seconds: from the call of tf.saved_model.load to the answer to the first request.
      documents_per_second: in batches of 256, the median.
      latency_ms: by percentile 50, 95 and 99, of requests with one document, one after the other.
    """

    bytes: int
    load_seconds: float
    documents_per_second: float
    latency_ms: dict[int, float]


def measure(model_dir: str, *, requests: int = 200, batches: int = 20) -> Speed:
    """Measures a model with made-up texts of 100 words, called in this process: what a server adds is not in it.

    Raises:
      UserError: there is no such model.
    """
    path = saved_model.find_version(model_dir)
    texts = read_texts(path)
    started = time.perf_counter()
    model = saved_model.load(path)
    predict = model.module.signatures["serving_default"]
    columns = {
        field: tf.constant(values) for field, values in fields_of(texts, model.text_fields).items()
    }
    predict(**{field: values[:1] for field, values in columns.items()})
    load_seconds = time.perf_counter() - started
    singles = [
        {field: values[i : i + 1] for field, values in columns.items()} for i in range(len(texts))
    ]
    latencies = [
        _seconds(predict, singles[i % len(singles)]) for i in range(_WARM_REQUESTS + requests)
    ][_WARM_REQUESTS:]
    _seconds(predict, columns)
    batch_seconds = [_seconds(predict, columns) for _ in range(batches)]
    return Speed(
        bytes=sum(file.stat().st_size for file in Path(path).rglob("*") if file.is_file()),
        load_seconds=load_seconds,
        documents_per_second=len(texts) / float(np.median(batch_seconds)),
        latency_ms={q: 1000 * float(np.percentile(latencies, q)) for q in (50, 95, 99)},
    )


def describe(model_dir: str | Path) -> str:
    """What `measure` finds, in words."""
    found = measure(str(model_dir))
    latencies = ", ".join(f"p{q} {ms:.1f} ms" for q, ms in found.latency_ms.items())
    return (
        f"  {found.bytes / 1e6:,.1f} MB, loads in {found.load_seconds:.1f} s; documents of {WORDS} words: {found.documents_per_second:,.0f} a second "
        f"in batches of {BATCH_DOCUMENTS}; one a request: {latencies}"
    )


def _seconds(predict, columns: dict[str, tf.Tensor]) -> float:
    started = time.perf_counter()
    predict(**columns)["scores"].numpy()
    return time.perf_counter() - started
