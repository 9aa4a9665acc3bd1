#!/usr/bin/env python3
"""What many documents, workers and GPUs take, from what `benchmark_scale.py` measured on few.

Each stage takes a start, and time in proportion to its documents: both are fitted to all measured
sizes but two, on which the fit is checked: the two largest, or those of `--checked`. The rest is
arithmetic on that, on what a step's gradients weigh, and on rates that are given. It prints the
tables of `docs/scale.md`.

  python scripts/predict_scale.py docs/experiments/scale.json
  python scripts/predict_scale.py docs/experiments/scale.json --documents 3e8 --workers 4 32
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from beam_jobs.contract.command_line import run_main  # noqa: E402
from beam_jobs.contract.errors import UserError  # noqa: E402
from scripts.scale.cost_model import fits, step_of, train_share  # noqa: E402
from scripts.scale.tables import (  # noqa: E402
    coefficients,
    exchange_table,
    gpu_table,
    labels_table,
    measured_table,
    sizes_table,
    stages_table,
)


def tables(results: dict[str, Any], arguments: argparse.Namespace) -> list[str]:
    """All tables; the arguments are those of `make_parser`.

    Raises:
      UserError: the results lack steps or sizes.
    """
    all_fits = fits(results, arguments.checked)
    documents, workers = arguments.documents, [1, *arguments.workers]
    gradients = [row for row in results["rows"] if row["kind"] == "gradients"]
    if "train" not in all_fits or not gradients:
        raise UserError(
            "expected figures of `train` and `gradients`: measure them with benchmark_scale.py"
        )
    largest = max(gradients, key=lambda row: row["batch_size"])
    share = train_share(results)
    of_train = dataclasses.replace(
        all_fits["train"], per_document=all_fits["train"].per_document / share
    )
    fastest = max(arguments.networks) * 1e9 / 8
    slowdowns = [
        step_of(of_train, largest, workers=count, bytes_per_second=fastest).slowdown
        for count in workers
    ]
    gpu = {"bytes_per_second": arguments.gpu_terabytes * 1e12, "share": arguments.roofline_share}
    return [
        measured_table(results),
        labels_table(results),
        coefficients(all_fits),
        stages_table(all_fits, documents, workers, slowdowns),
        sizes_table(results, documents),
        exchange_table(of_train, gradients, arguments.workers, arguments.networks),
        gpu_table(largest, documents, arguments.gpus, train_share=share, **gpu),
    ]


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="what `benchmark_scale.py` wrote")
    parser.add_argument(
        "--checked",
        type=int,
        nargs="+",
        default=[],
        help="sizes that the fit is checked on (default: the two largest)",
    )
    lists = {
        "documents": (float, [1e6, 1e8, 1e9], "documents"),
        "workers": (int, [2, 16, 64, 256], "workers of one core, beside one"),
        "networks": (float, [1, 10], "Gbit/s between workers"),
        "gpus": (int, [1, 8, 64], "GPUs"),
    }
    for name, (kind, default, what) in lists.items():
        shown = " ".join(f"{value:g}" for value in default)
        help_text = f"{what} (default: {shown})"
        parser.add_argument(f"--{name}", type=kind, nargs="+", default=default, help=help_text)
    parser.add_argument(
        "--gpu-terabytes",
        type=float,
        default=2.0,
        help="that a GPU's memory moves a second; `benchmark_gpu.py` measures it (%(default)s)",
    )
    parser.add_argument(
        "--roofline-share",
        type=float,
        default=0.25,
        help="of a step's time; `benchmark_gpu.py` measures it (%(default)s)",
    )
    return parser


def main(argv: list[str]) -> None:
    arguments = make_parser().parse_args(argv)
    results = json.loads(arguments.results.read_text(encoding="utf-8"))
    print("\n\n".join(tables(results, arguments)))


if __name__ == "__main__":
    run_main(main)
