#!/usr/bin/env python3
"""A training step of each architecture on 1 to N GPUs, against what the device could do.

Of each model, precision and number of replicas it measures, in a process of its own:

  step       the step alone, on batches in memory; with XLA too (`--xla`), on batches that are
             padded to one length: its shapes are static then
  training   the step on batches from shards, and the share of the time that it waits for them
  busy       the share of the time that the device computes in training: the union of the intervals
             of its kernels, as TensorFlow's profiler has them. A CPU: processor time by that of
             its cores
  memory     the device's peak. A CPU: of the process, all that the benchmark itself has included
  roofline   the time that the step's operations and bytes need at the device's peaks, which a
             product of matrices and a copy measure on it; as a share of the step's time. Bytes are
             those of each operation by itself: what fuses them (XLA) can be faster
  gradients  bytes that a replica gives to the others, as they are (rows of embeddings) and if they
             were dense

Documents are made (150 words, see `made_dataset.py`), or those of `--config`. The batch size
is that of one replica. `--logical-devices` divides a CPU, to try the benchmark out.

  python scripts/benchmark_gpu.py --output out/gpu
  python scripts/benchmark_gpu.py --output out/gpu --models bow transformer --precisions bfloat16
  python scripts/benchmark_gpu.py --output out/gpu --logical-devices 2 --quick
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import tensorflow as tf  # noqa: E402
from tensorflow.tsl.profiler.protobuf import xplane_pb2  # noqa: E402

from beam_jobs.contract.config import Config, load_config  # noqa: E402
from scripts.made_dataset import WORDS, make_dataset  # noqa: E402
from scripts.step_costs import counting, record_gradients  # noqa: E402
from scripts.training_speed import Training  # noqa: E402

MODELS = ("bow", "mlp", "cnn", "lstm", "cnn_lwan", "transformer")
PADDED_TO = 32  # a padded batch's length is a multiple of this
PEAK_SECONDS = 0.5  # that each peak is measured for


# --- one step ----------------------------------------------------------------------------


class CompiledModel:
    """A model whose calls, and their gradients, XLA compiles; it takes padded token ids.

    Padding counts as tokens: a step takes as long as if all documents were as long as the longest.

    Args:
      model: it takes ragged ids.
    """

    def __init__(self, model):
        self.trainable_variables = model.trainable_variables
        self._call = tf.function(
            lambda ids: model(tf.RaggedTensor.from_tensor(ids), training=True), jit_compile=True
        )

    def __call__(self, ids: tf.Tensor, training: bool) -> tf.Tensor:
        """Logits float32 [batch, labels] of token ids int64 [batch, length]."""
        return self._call(ids)


def padded(batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Batches of ragged token ids -> the same, padded to one length, int64 [batch, length]."""
    longest = max(int(tf.reduce_max(batch["tokens"].row_lengths())) for batch in batches)
    length = max(1, -(-longest // PADDED_TO)) * PADDED_TO
    return [
        batch | {"tokens": batch["tokens"].to_tensor(shape=[batch["tokens"].shape[0], length])}
        for batch in batches
    ]


def count_step(config: Config) -> dict[str, int]:
    """What a step of one replica costs; the config's batch size is that of the replica."""
    training = Training(config)
    batches = training.from_memory()
    with counting() as costs:
        record_gradients(training.optimizer, costs)
        training.run(batches, 1)
    sparse = [gradient for gradient in costs.gradients if gradient.is_sparse]
    return {
        "flops": costs.flops,
        "bytes": costs.bytes,
        "sparse_gradient_bytes": sum(one.bytes for one in sparse),
        "dense_gradient_bytes": sum(one.bytes for one in costs.gradients if not one.is_sparse),
        "all_dense_gradient_bytes": sum(one.dense_bytes for one in costs.gradients),
    }


def measure_step(config: Config, *, xla: bool, steps: int, traces: Path) -> dict[str, Any]:
    """The figures of one case, see the top.

    Args:
      config: it says the replicas and the batch of all of them.
      xla: the model is compiled, and training from shards not measured.
      steps: that are timed.
      traces: where the profiler writes.
    """
    training = Training(config, CompiledModel) if xla else Training(config)
    replicas = training.experiment.strategy.num_replicas_in_sync
    on_gpu = bool(tf.config.list_physical_devices("GPU"))
    kept = training.kept_batches()
    alone = training.speed(training.from_memory(padded(kept) if xla else kept), steps)
    result = {"replicas": replicas, "step_seconds": alone.seconds / steps}
    if not xla:
        iterator = iter(training.batches(0))
        whole = training.speed(iterator, steps)
        result["training_seconds"] = whole.seconds / steps
        result["input_wait"] = max(0.0, 1 - alone.seconds / whole.seconds)
        result["busy"] = _busy_share(training, iterator, steps, traces, on_gpu=on_gpu)
    result["documents_per_second"] = config.train.batch_size * steps / alone.seconds
    if on_gpu:
        peaks = [
            tf.config.experimental.get_memory_info(f"GPU:{i}")["peak"] for i in range(replicas)
        ]
        result["memory_bytes"] = max(peaks)
    else:
        result["memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return result


def _busy_share(training: Training, iterator, steps: int, traces: Path, *, on_gpu: bool) -> float:
    """The share of the time of some steps that the devices compute."""
    if not on_gpu:
        speed = training.speed(iterator, steps)
        return speed.core_seconds / speed.seconds / len(os.sched_getaffinity(0))
    started = time.monotonic()
    tf.profiler.experimental.start(str(traces))
    training.run(iterator, steps)
    seconds = time.monotonic() - started
    tf.profiler.experimental.stop()
    busy = [
        device_seconds(xplane_pb2.XSpace.FromString(path.read_bytes()))
        for path in traces.rglob("*.xplane.pb")
    ]
    devices = [seconds for of_file in busy for seconds in of_file.values()]
    return sum(devices) / max(len(devices), 1) / seconds


def device_seconds(space: xplane_pb2.XSpace) -> dict[str, float]:
    """By GPU of a profile, the seconds in which at least one of its streams had a kernel."""
    return {
        plane.name: union_seconds(
            (line.timestamp_ns * 1000 + event.offset_ps, event.duration_ps)
            for line in plane.lines
            if line.name.startswith("Stream")
            for event in line.events
        )
        for plane in space.planes
        if plane.name.startswith("/device:GPU")
    }


def union_seconds(intervals: Iterable[tuple[int, int]]) -> float:
    """Seconds that are in one of the intervals (start, duration) of picoseconds, or in several."""
    total = end = 0
    for start, duration in sorted(intervals):
        total += max(0, start + duration - max(start, end))
        end = max(end, start + duration)
    return total / 1e12


# --- the device --------------------------------------------------------------------------


def measure_peaks(precision: str, *, size: int, megabytes: int) -> dict[str, float]:
    """Operations a second of a product of matrices [size, size], and bytes a second of a copy."""
    with tf.device("/gpu:0" if tf.config.list_physical_devices("GPU") else "/cpu:0"):
        matrix = tf.cast(tf.eye(size), precision)
        vector = tf.zeros([megabytes << 18])

    @tf.function
    def multiply(times):
        product = matrix
        for _ in tf.range(times):
            product = tf.matmul(product, matrix)
        return tf.reduce_sum(product[0])

    @tf.function
    def copy(times):
        values = vector
        for _ in tf.range(times):
            values = values + 1.0
        return values[0]

    return {
        "flops_per_second": 2 * size**3 * _rate(multiply),
        "bytes_per_second": 2 * (megabytes << 20) * _rate(copy),
    }


def _rate(function) -> float:
    """How often a second the body of a loop runs."""
    function(tf.constant(1)).numpy()
    times = 1
    while True:
        started = time.monotonic()
        function(tf.constant(times)).numpy()
        seconds = time.monotonic() - started
        if seconds > PEAK_SECONDS:
            return times / seconds
        times *= 2


# --- the report --------------------------------------------------------------------------


def with_roofline(case: dict[str, Any]) -> dict[str, Any]:
    """The case with the time that its operations and bytes need, and its share of the step's."""
    compute = case["flops"] / case["flops_per_second"]
    memory = case["bytes"] / case["bytes_per_second"]
    return case | {
        "roofline_seconds": max(compute, memory),
        "bound_by": "compute" if compute > memory else "memory",
        "roofline_share": max(compute, memory) / case["step_seconds"],
    }


def report(results: dict[str, Any]) -> str:
    """The results as a page of Markdown."""
    lines = [
        f"# Training steps on {results['device']}",
        "",
        f"{results['documents']}; {results['batch_size']} documents a step and replica.",
        "",
        "| precision | operations a second (product of matrices) | bytes a second (copy) |",
        "|---|---|---|",
    ]
    for precision, peaks in results["peaks"].items():
        lines.append(
            f"| {precision} | {peaks['flops_per_second'] / 1e12:.3f} T "
            f"| {peaks['bytes_per_second'] / 1e9:.1f} G |"
        )
    lines += [
        "",
        "| model | precision | replicas | step, ms | documents/s | of one replica's, times "
        "| training, ms | waits for input | busy | memory, MB | operations, G | bytes, M "
        "| roofline, ms | of the step |",
        f"|{'---|' * 14}",
    ]
    for case in results["cases"]:
        if "error" in case:
            lines.append(
                f"| {_name(case)} | {case['precision']} | {case['replicas']} "
                f"| {case['error']} |{' |' * 10}"
            )
            continue
        cells = [
            _name(case),
            case["precision"],
            str(case["replicas"]),
            f"{case['step_seconds'] * 1e3:.1f}",
            f"{case['documents_per_second']:,.0f}",
            f"{case['speedup']:.2f}" if case.get("speedup") else "",
            f"{case['training_seconds'] * 1e3:.1f}" if "training_seconds" in case else "",
            f"{case['input_wait']:.0%}" if "input_wait" in case else "",
            f"{case['busy']:.0%}" if "busy" in case else "",
            f"{case['memory_bytes'] / 1e6:,.0f}",
            f"{case['flops'] / 1e9:.2f}",
            f"{case['bytes'] / 1e6:,.0f}",
            f"{case['roofline_seconds'] * 1e3:.1f}, {case['bound_by']}",
            f"{case['roofline_share']:.0%}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *_gradient_table(results["cases"]), ""]
    return "\n".join(lines)


def _gradient_table(cases: list[dict[str, Any]]) -> list[str]:
    """What a replica gives and gets in a step: rows are gathered, dense gradients reduced."""
    lines = [
        "| model | replicas | gradients of a replica, MB | if dense, MB | a replica gets, MB "
        "| if dense, MB |",
        f"|{'---|' * 6}",
    ]
    for case in cases:
        if "error" in case or case["xla"] or case["precision"] != "float32":
            continue
        others, replicas = case["replicas"] - 1, case["replicas"]
        rows, dense, as_dense = (
            case[key] / 1e6
            for key in ("sparse_gradient_bytes", "dense_gradient_bytes", "all_dense_gradient_bytes")
        )
        # Each replica gets the rows of all others; in a ring it gets twice its share of what is
        # summed (Patarasuk and Yuan 2009).
        gets = others * rows + 2 * others / replicas * dense
        lines.append(
            f"| {case['model']} | {replicas} | {rows + dense:.2f} | {as_dense:.2f} "
            f"| {gets:.2f} | {2 * others / replicas * as_dense:.2f} |"
        )
    return lines


def _name(case: dict[str, Any]) -> str:
    return f"{case['model']}, XLA" if case["xla"] else case["model"]


# --- the whole ---------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="for report.md and report.json")
    parser.add_argument("--config", type=Path, metavar="FILE", help="of a dataset that is there")
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="default: %(default)s")
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--replicas", type=int, nargs="+", help="default: 1, 2, 4 to all devices")
    parser.add_argument("--batch-size", type=int, default=1024, help="of a replica (%(default)s)")
    parser.add_argument("--steps", type=int, default=64, help="that are timed (%(default)s)")
    parser.add_argument("--no-xla", action="store_true", help="do not try XLA")
    parser.add_argument("--logical-devices", type=int, metavar="N", help="divide a CPU in N")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: a trial of the benchmark itself"
    )
    parser.add_argument("--task", help=argparse.SUPPRESS)  # what the benchmark starts itself with
    arguments = parser.parse_args()
    if arguments.task:
        print(json.dumps(_run_task(**json.loads(arguments.task))))
        return
    if not arguments.output:
        parser.error("expected --output DIR")
    if arguments.quick:
        arguments.batch_size, arguments.steps = 32, 4
    arguments.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        results = _measure_all(arguments, Path(directory))
    (arguments.output / "report.json").write_text(json.dumps(results, indent=1) + "\n")
    (arguments.output / "report.md").write_text(report(results))
    print(report(results))


def _measure_all(arguments: argparse.Namespace, directory: Path) -> dict[str, Any]:
    devices = arguments.logical_devices or len(tf.config.list_physical_devices("GPU"))
    if not devices:
        sys.exit("error: no GPU was found; expected one, or --logical-devices N to try it on a CPU")
    counts = arguments.replicas or sorted({1 << i for i in range(devices.bit_length())} | {devices})
    config, documents = arguments.config, f"the documents of {arguments.config}"
    if config is None:
        number = arguments.batch_size * max(counts) * (2 * arguments.steps + 8)
        config = make_dataset(directory / "made", number)
        documents = f"{number:,} made documents of {WORDS} words"
    sizes = {"size": 256, "megabytes": 128} if arguments.quick else {"size": 4096, "megabytes": 512}
    common = {"cpus": arguments.logical_devices or 0}
    device = _start({"what": "device", **common})
    peaks = {
        precision: _start({"what": "peaks", "precision": precision, **sizes, **common})
        for precision in arguments.precisions
    }
    cases = []
    for model in arguments.models:
        for precision in arguments.precisions:
            of_model = {"config": str(config), "model": model, "precision": precision, **common}
            of_model["batch_size"] = arguments.batch_size
            costs = _start({"what": "count", **of_model}, on_cpu=True)
            for replicas in counts:
                for xla in (False, True):
                    if xla and (arguments.no_xla or replicas > 1):
                        continue
                    case = {"model": model, "precision": precision, "replicas": replicas}
                    case |= {"xla": xla, **costs, **peaks[precision]}
                    task = {"what": "step", **of_model, "replicas": replicas, "xla": xla}
                    case |= _start(task | {"steps": arguments.steps})
                    cases.append(case if "error" in case else with_roofline(case))
                    print(json.dumps(cases[-1]), file=sys.stderr, flush=True)
    return {
        **device,
        "documents": documents,
        "batch_size": arguments.batch_size,
        "peaks": peaks,
        "cases": _with_speedups(cases),
    }


def _with_speedups(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cases, those of several replicas with their speed beside that of one."""
    alone = {
        (case["model"], case["precision"]): case["documents_per_second"]
        for case in cases
        if case["replicas"] == 1 and not case["xla"] and "error" not in case
    }
    return [
        case | {"speedup": case["documents_per_second"] / alone[case["model"], case["precision"]]}
        if "error" not in case and (case["model"], case["precision"]) in alone
        else case
        for case in cases
    ]


def _start(task: dict[str, Any], *, on_cpu: bool = False) -> dict[str, Any]:
    """What a task gives in a process of its own; `error` is its last line if it fails."""
    environment = os.environ | ({"CUDA_VISIBLE_DEVICES": "-1"} if on_cpu else {})
    ended = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), "--task", json.dumps(task)],
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode == 0:
        return json.loads(ended.stdout.splitlines()[-1])
    if task["what"] != "step":
        sys.exit(ended.stderr)
    return {"error": short_error(ended.stderr)}


def short_error(text: str) -> str:
    """What is wrong, in one cell of a table, from a traceback."""
    if missing := re.search(r"No registered '(\w+)' OpKernel for (\w+)", text):
        return f"no kernel of {missing[1]} for {missing[2]}"
    errors = [line for line in text.splitlines() if re.match(r"[\w.]+(Error|Exception)\b", line)]
    return (errors or text.splitlines() or ["it ended without a message"])[-1][:160]


def _run_task(what: str, *, cpus: int, **options: Any) -> dict[str, Any]:
    if cpus:
        tf.config.set_visible_devices([], "GPU")
    if what == "device":
        gpus = tf.config.list_physical_devices("GPU")
        name = (
            tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
            if gpus
            else f"{cpus} logical devices of a CPU of {len(os.sched_getaffinity(0))} cores"
        )
        return {"device": name, "tensorflow": tf.__version__}
    if what == "peaks":
        return measure_peaks(**options)
    config = case_config(**{key: options.pop(key) for key in CASE if key in options})
    if what == "count":
        return count_step(config)
    with tempfile.TemporaryDirectory() as traces:
        return measure_step(config, traces=Path(traces), **options)


CASE = ("config", "model", "precision", "batch_size", "replicas")


def case_config(
    config: str, *, model: str, precision: str, batch_size: int, replicas: int = 1
) -> Config:
    """The config of a dataset, with the model, precision and replicas of a case."""
    strategy = "mirrored" if replicas > 1 else "one_device"
    settings = {
        "model.name": model,
        "train.precision": precision,
        "train.batch_size": batch_size * replicas,
        "train.strategy": strategy,
        "train.replicas": replicas if replicas > 1 else None,
    }
    overrides = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    return load_config(config, overrides=overrides)


if __name__ == "__main__":
    main()
