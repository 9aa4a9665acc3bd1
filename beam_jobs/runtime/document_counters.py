"""Beam counters of the documents read, rejected, merged, dropped and written, by the names that
the manifest gives them. They can be watched while a runner works.
"""

from apache_beam.metrics import Metrics, MetricsFilter
from apache_beam.runners.runner import PipelineResult

NAMESPACE = "multihot.documents"


def increment(**documents: int) -> None:
    """Adds to counters of documents; to be called within a DoFn."""
    for name, number in documents.items():
        Metrics.counter(NAMESPACE, name).inc(number)


def values(result: PipelineResult, namespace: str = NAMESPACE) -> dict[str, int]:
    """The counters of a namespace, summed over steps.

    A runner that retries a bundle may count it twice.

    Raises:
      NotImplementedError: the runner keeps no counters.
    """
    sums: dict[str, int] = {}
    for counter in result.metrics().query(MetricsFilter().with_namespace(namespace))["counters"]:
        number = counter.committed if counter.committed is not None else counter.attempted
        sums[counter.key.metric.name] = sums.get(counter.key.metric.name, 0) + (number or 0)
    return sums
