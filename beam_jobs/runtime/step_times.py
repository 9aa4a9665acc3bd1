"""What each step of the job costs: the time spent in its code, summed over all workers."""

import time
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.runners.runner import PipelineResult

from beam_jobs.runtime import document_counters

_NAMESPACE = "multihot.cost_us"


class Timed(beam.DoFn):
    """Another DoFn, with a Beam counter of the microseconds spent in it.

    Args:
      step: the counter's name; several DoFns may share one.
      do_fn: the other.
    """

    def __init__(self, step: str, do_fn: beam.DoFn):
        self._step = step
        self._do_fn = do_fn
        self._setup_ns = 0

    def get_type_hints(self):
        return self._do_fn.get_type_hints()

    def infer_output_type(self, input_type):
        return self._do_fn.infer_output_type(input_type)

    def setup(self):
        started = time.perf_counter_ns()
        self._do_fn.setup()
        self._setup_ns = (
            time.perf_counter_ns() - started
        )  # counted with the first element: only bundles have metrics

    def start_bundle(self):
        self._do_fn.start_bundle()

    def process(self, element, *sides):
        return self._timed(self._do_fn.process(element, *sides))

    def finish_bundle(self):
        return self._timed(self._do_fn.finish_bundle())

    def teardown(self):
        self._do_fn.teardown()

    def _timed(self, results: Iterable[Any] | None) -> Iterator[Any]:
        spent, self._setup_ns = self._setup_ns, 0
        iterator = iter(results or ())
        while True:
            started = time.perf_counter_ns()
            result = next(iterator, _END)
            spent += time.perf_counter_ns() - started
            if result is _END:
                break
            yield result  # what is done with it is another step's time
        Metrics.counter(_NAMESPACE, self._step).inc(spent // 1000)


_END = object()


def report(result: PipelineResult) -> str | None:
    """One line with the seconds of each step, the most expensive first; None where the runner keeps no counters."""
    try:
        seconds = {
            step: spent / 1e6
            for step, spent in document_counters.values(result, _NAMESPACE).items()
        }
    except NotImplementedError:
        return None
    steps = ", ".join(
        f"{step} {spent:,.1f} s"
        for step, spent in sorted(seconds.items(), key=lambda item: -item[1])
    )
    return f"time in each step, all workers together: {steps}" if steps else None
