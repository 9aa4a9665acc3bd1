"""The time spent in the code of each step of a job, summed over all workers."""

import time
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.runners.runner import PipelineResult

from beam_jobs.runtime import document_counters

_NAMESPACE = "multihot.cost_us"


class TimedDoFn(beam.DoFn):
    """Wraps another DoFn and counts the microseconds spent in it in a Beam counter.

    Args:
      step: the counter's name; several DoFns may share one.
      do_fn: the other DoFn.
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
        # Counted with the first element: metrics exist only within bundles.
        self._setup_ns = time.perf_counter_ns() - started

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
            yield result  # the time until the next one is asked for belongs to other steps
        Metrics.counter(_NAMESPACE, self._step).inc(spent // 1000)


_END = object()


def format_report(result: PipelineResult) -> str | None:
    """One line with the seconds of each step, longest first; None if the runner has no counters."""
    try:
        microseconds = document_counters.values(result, _NAMESPACE)
    except NotImplementedError:
        return None
    if not microseconds:
        return None
    longest_first = sorted(microseconds.items(), key=lambda item: -item[1])
    steps = ", ".join(f"{step} {spent / 1e6:,.1f} s" for step, spent in longest_first)
    return f"time in each step, all workers together: {steps}"
