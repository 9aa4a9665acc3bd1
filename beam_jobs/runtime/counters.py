"""Beam metrics of a job: documents by what becomes of them, named as in the manifest, while the runner works on them."""

from apache_beam.metrics import Metrics, MetricsFilter
from apache_beam.runners.runner import PipelineResult

DOCUMENTS = "multihot.documents"


def count(**documents: int) -> None:
    """Adds to the counters of documents; to be called within a DoFn."""
    for name, number in documents.items():
        Metrics.counter(DOCUMENTS, name).inc(number)


def values(result: PipelineResult, namespace: str) -> dict[str, int]:
    """The counters of a namespace, summed over steps. A runner that tries a bundle again may count it twice.

    Raises:
      NotImplementedError: the runner keeps no counters.
    """
    sums: dict[str, int] = {}
    for counter in result.metrics().query(MetricsFilter().with_namespace(namespace))["counters"]:
        number = counter.committed if counter.committed is not None else counter.attempted
        sums[counter.key.metric.name] = sums.get(counter.key.metric.name, 0) + (number or 0)
    return sums
