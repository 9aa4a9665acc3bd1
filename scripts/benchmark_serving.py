#!/usr/bin/env python3
"""Size, load time, batch throughput and latency of exported models, each in its own process.

The texts are synthetic: 256 of 100 words, from the vocabulary of the dataset that the first model
was trained on, whose path is in the model's config. `--texts FILE` sends the lines of a file
instead. The model is called in Python, without a server. Other work on the machine changes the
figures, those of CPU time ("cpu") the least: leave it idle.

  python scripts/benchmark_serving.py out/docstrings/model out/docstrings/model/1
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from beam_jobs.contract import manifest as manifests  # noqa: E402
from beam_jobs.contract import saved_model  # noqa: E402
from beam_jobs.contract.command_line import run_main  # noqa: E402
from beam_jobs.contract.config import CONFIG_FILE, load_config  # noqa: E402
from beam_jobs.contract.quiet import import_tensorflow_quietly  # noqa: E402


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "models", metavar="MODEL", nargs="+", help="what `multihot-export` has written"
    )
    parser.add_argument("--texts", metavar="FILE", help="texts to send, one per line")
    parser.add_argument(
        "--requests", type=int, default=1000, help="requests of one document (default %(default)s)"
    )
    parser.add_argument(
        "--batches", type=int, default=50, help="batches of all texts (default %(default)s)"
    )
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    import_tensorflow_quietly()
    if arguments.measure:
        _measure(arguments)
    elif arguments.texts:
        _compare(arguments)
    else:
        with tempfile.TemporaryDirectory() as directory:
            arguments.texts = f"{directory}/texts.txt"
            _write_synthetic_texts(arguments.models[0], arguments.texts)
            _compare(arguments)


def _write_synthetic_texts(model: str, path: str) -> None:
    from trainer.serving.synthetic_texts import synthetic_texts

    config = load_config(Path(saved_model.find_version(model), saved_model.EXTRA, CONFIG_FILE))
    dataset_dir = Path(config.output.dataset_dir)
    vocabulary = manifests.load_vocabulary(manifests.load(dataset_dir), dataset_dir)
    Path(path).write_text("\n".join(synthetic_texts(vocabulary)), encoding="utf-8")


def _measure(arguments: argparse.Namespace) -> None:
    """Prints the speed of one model as JSON."""
    import dataclasses

    from trainer.serving.benchmark import measure

    (model,) = arguments.models
    texts = Path(arguments.texts).read_text(encoding="utf-8").splitlines()
    speed = measure(model, texts, requests=arguments.requests, batches=arguments.batches)
    print(json.dumps(dataclasses.asdict(speed)))


def _compare(arguments: argparse.Namespace) -> None:
    print(
        f"{'MB':>8} {'load s':>7} {'cpu s':>6} {'documents/s':>12} "
        f"{'p50 ms':>7} {'p95 ms':>7} {'p99 ms':>7} {'cpu ms':>7}  model"
    )
    for model in arguments.models:
        command = [sys.executable, __file__, model, "--measure", "--texts", arguments.texts]
        command += ["--requests", str(arguments.requests), "--batches", str(arguments.batches)]
        result = subprocess.run(
            command, env=os.environ, stdout=subprocess.PIPE, text=True, check=False
        )
        if result.returncode:
            sys.exit(result.returncode)
        speed = json.loads(result.stdout)
        latencies = " ".join(f"{speed['latency_ms'][q]:>7.2f}" for q in ("50", "95", "99"))
        print(
            f"{speed['bytes'] / 1e6:>8.1f} {speed['load_seconds']:>7.2f} "
            f"{speed['load_cpu_seconds']:>6.2f} {speed['documents_per_second']:>12,.0f} "
            f"{latencies} {speed['request_cpu_ms']:>7.2f}  {model}",
            flush=True,
        )


if __name__ == "__main__":
    run_main(main)
