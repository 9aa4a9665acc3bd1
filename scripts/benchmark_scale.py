#!/usr/bin/env python3
"""Processor time, memory and disk against the number of documents, and of labels.

  documents  preprocessing, one epoch of training with its validation, evaluation and bulk
             prediction of arXiv's papers and of documents that are made of them
  labels     preprocessing, training and evaluation of pieces of 50 words whose labels are pairs of
             neighbouring words; with `bow`, and from 10,000 labels on with `bow_tree`
  workers    preprocessing and bulk prediction with one worker and with two, each with a core of its
             own, which nothing else should use
  gradients  operations, bytes and gradients of a step of `bow` for several numbers of documents a
             step (`scripts/benchmark_gpu.py` counts them), on the fewest documents or those of a
             dataset that is there (`--config`)

Each stage is a process of its own with one worker. Figures go to a JSON file after each stage, and
what is in it already is not measured again: so a run that was stopped goes on. `plot` draws the
file; `scripts/predict_scale.py` fits the cost model to it.

  python scripts/benchmark_scale.py documents labels gradients plot --arxiv data/arxiv \\
      --results scale.json
  python scripts/benchmark_scale.py workers --arxiv data/arxiv --results workers.json
  python scripts/benchmark_scale.py documents --arxiv data/arxiv --documents 2000 4000 \\
      --results scale.json
"""

import argparse
import gzip
import json
import math
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from beam_jobs.contract import manifest as manifests  # noqa: E402
from beam_jobs.contract.atomic import write_atomically  # noqa: E402
from beam_jobs.contract.command_line import run_main  # noqa: E402
from beam_jobs.contract.errors import UserError  # noqa: E402
from scripts.made_documents import mixed_documents, write_with_pairs  # noqa: E402
from scripts.measured_process import measure  # noqa: E402

DOCUMENTS_A_FILE = 5_000
STAGES = ("preprocess", "train", "evaluate", "predict")
BATCH_SIZES = (256, 1024, 4096)
FEW_LABELS = 10_000  # below, a label tree saves nothing and is not measured
CONFIG = """\
name: made
data: {{source: jsonl, inputs: {inputs}, id_field: id, {fields}}}
labels: {{min_count: 2}}
model: {{name: {model}}}
loss: {{name: squared_hinge}}
train: {{epochs: 1, patience: null, run_dir: run}}
evaluate: {{bootstrap_replicates: 0}}
export: {{model_dir: model}}
output: {{dataset_dir: dataset}}
"""
PAPERS = "text_fields: [title, abstract], labels_field: categories"
PIECES = "text_fields: [text], labels_field: labels"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = ["documents", "labels", "workers", "gradients", "plot"]
    parser.add_argument("what", nargs="+", choices=what, help="what is measured or drawn")
    parser.add_argument("--results", type=Path, required=True, metavar="FILE", help="JSON")
    parser.add_argument("--arxiv", metavar="DIR", help="the abstracts, JSONL.gz")
    parser.add_argument(
        "--documents",
        type=int,
        nargs="+",
        default=[25_000, 50_000, 100_000, 200_000, 1_000_000],
        help="default: 25,000 to 1,000,000",
    )
    parser.add_argument(
        "--labels",
        type=int,
        nargs="+",
        default=[100, 1_000, 10_000, 100_000],
        help="default: 100 to 100,000",
    )
    parser.add_argument(
        "--documents-of-labels",
        type=int,
        default=50_000,
        help="documents with each number of labels (default %(default)s)",
    )
    parser.add_argument(
        "--documents-of-workers",
        type=int,
        default=500_000,
        help="documents that one worker and two are measured on (default %(default)s)",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="of a dataset, for `gradients`")
    parser.add_argument(
        "--stages",
        nargs="+",
        choices=STAGES,
        default=list(STAGES),
        help="of `documents`, each of which needs those before it; default: all",
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=1,
        help="times that each stage of `documents` is measured: the least counts (%(default)s)",
    )
    parser.add_argument("--work", type=Path, metavar="DIR", help="for files (default: /tmp)")
    parser.add_argument(
        "--plots", type=Path, default=Path("."), metavar="DIR", help="where SVG files go"
    )
    return parser


def main(argv: list[str]) -> None:
    parser = _parser()
    arguments = parser.parse_args(argv)
    is_made = {"documents", "labels", "workers"}
    if arguments.config is None:
        is_made.add("gradients")
    if not arguments.arxiv and is_made & set(arguments.what):
        parser.error("expected --arxiv DIR, which documents are made of")
    results = Results(arguments.results)
    with tempfile.TemporaryDirectory(dir=arguments.work) as directory:
        if "documents" in arguments.what:
            measure_documents(arguments, results, Path(directory))
        if "labels" in arguments.what:
            measure_labels(arguments, results, Path(directory))
        if "workers" in arguments.what:
            measure_workers(arguments, results, Path(directory))
        if "gradients" in arguments.what:
            measure_gradients(arguments, results, Path(directory))
    if "plot" in arguments.what:
        draw(results.rows, arguments.plots)


class Results:
    """The measured figures, kept in a file.

    Attributes:
      rows: a dict for each stage of each measurement.
    """

    def __init__(self, path: Path):
        self._path, self.rows = path, []
        if path.exists():
            self.rows = json.loads(path.read_text(encoding="utf-8"))["rows"]

    def has(self, times: int = 1, **key: Any) -> bool:
        """Whether so many rows with these values are there."""
        return sum(key.items() <= row.items() for row in self.rows) >= times

    def add(self, row: dict[str, Any]) -> None:
        """Adds a row, prints it, and writes the file."""
        self.rows.append(row)
        print(json.dumps(row), flush=True)
        machine = {"cores": os.cpu_count(), "python": platform.python_version()}
        lines = ",\n".join(json.dumps(one) for one in self.rows)
        content = f'{{"machine": {json.dumps(machine)},\n"rows": [\n{lines}\n]}}\n'
        write_atomically(self._path, content.encode())


# --- measuring -------------------------------------------------------------------------


def measure_documents(arguments: argparse.Namespace, results: Results, directory: Path) -> None:
    """The stages on each number of documents; the fewer are the first of the more."""
    stages = arguments.stages
    key = {"kind": "documents", "times": arguments.repeats}
    sizes = [
        size
        for size in sorted(arguments.documents)
        if not all(results.has(**key, documents=size, stage=stage) for stage in stages)
    ]
    if not sizes:
        return
    inputs = directory / "inputs"
    inputs.mkdir()
    facts = _write_papers(inputs, arguments.arxiv, sizes)
    for size in sizes:
        place = _place_of_papers(directory / f"documents-{size}", facts[size].pop("paths"))
        row = {"kind": "documents", "documents": size, "model": "bow", **facts[size]}
        while not all(results.has(**key, documents=size, stage=stage) for stage in stages):
            _run_stages(place, stages, row, results, times=arguments.repeats)
        shutil.rmtree(place)


def measure_labels(arguments: argparse.Namespace, results: Results, directory: Path) -> None:
    """The stages on each number of labels, with as many documents."""
    documents, stages = arguments.documents_of_labels, ("preprocess", "train", "evaluate")
    for wanted in sorted(arguments.labels):
        for model in ("bow", *(["bow_tree"] if wanted >= FEW_LABELS else [])):
            key = {"kind": "labels", "documents": documents, "wanted": wanted, "model": model}
            if all(results.has(**key, stage=stage) for stage in stages):
                continue
            place = directory / f"labels-{wanted}-{model}"
            place.mkdir()
            write_with_pairs(
                place, arguments.arxiv, documents=documents, labels=wanted, each=8, files=4
            )
            inputs = json.dumps(sorted(path.name for path in place.glob("*.gz")))
            (place / "config.yaml").write_text(
                CONFIG.format(inputs=inputs, fields=PIECES, model=model), encoding="utf-8"
            )
            _run_stages(place, stages, key, results)
            shutil.rmtree(place)


def measure_workers(arguments: argparse.Namespace, results: Results, directory: Path) -> None:
    """Preprocessing and bulk prediction, by the number of workers, each with a core of its own."""
    size, cores = arguments.documents_of_workers, sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise UserError(f"workers: received {len(cores)} core, expected 2, one for each worker")
    counted = [{"kind": "workers", "documents": size, "workers": number} for number in (1, 2)]
    if all(results.has(**row, stage="predict") for row in counted):
        return
    inputs = directory / "inputs-of-workers"
    inputs.mkdir()
    paths = _write_papers(inputs, arguments.arxiv, [size])[size]["paths"]
    for row in counted:
        place = _place_of_papers(directory / f"workers-{row['workers']}", paths)
        os.sched_setaffinity(0, cores[: row["workers"]])  # of the commands, too
        try:
            _run_stages(place, STAGES, {**row, "model": "bow"}, results, workers=row["workers"])
        finally:
            os.sched_setaffinity(0, cores)
        shutil.rmtree(place)


def measure_gradients(arguments: argparse.Namespace, results: Results, directory: Path) -> None:
    """What a step costs, and the bytes of its gradients, by the number of its documents."""
    batch_sizes = [
        size for size in BATCH_SIZES if not results.has(kind="gradients", batch_size=size)
    ]
    if not batch_sizes:
        return
    config = arguments.config
    if config is None:
        paths = _write_papers(directory, arguments.arxiv, [min(arguments.documents)])
        inputs = json.dumps(paths[min(arguments.documents)]["paths"])
        config = directory / "config.yaml"
        config.write_text(
            CONFIG.format(inputs=inputs, fields=PAPERS, model="bow"), encoding="utf-8"
        )
        measure(["-m", "beam_jobs.preprocess", "--config", str(config)], directory)
    for batch_size in batch_sizes:
        task = {"what": "count", "config": str(config), "cpus": 1, "batch_size": batch_size}
        task |= {"model": "bow", "precision": "float32"}
        script = str(ROOT / "scripts/benchmark_gpu.py")
        counted = measure([script, "--task", json.dumps(task)], directory).printed.splitlines()[-1]
        results.add({"kind": "gradients", "batch_size": batch_size, **json.loads(counted)})


def _write_papers(inputs: Path, arxiv: str, sizes: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Writes files that each size is a whole number of; returns what is known of each size."""
    in_file = min(DOCUMENTS_A_FILE, math.gcd(*sizes))
    facts, words, paths = {}, set(), []
    text_bytes = input_bytes = written = 0
    rows = mixed_documents(arxiv)
    while written < max(sizes):
        path = inputs / f"documents-{len(paths):05d}.jsonl.gz"
        with gzip.open(path, "wt", encoding="utf-8", compresslevel=1) as stream:
            for row in _first(rows, min(in_file, max(sizes) - written)):
                stream.write(json.dumps(row) + "\n")
                text = f"{row['title']} {row['abstract']}"
                text_bytes += len(text.encode())
                words.update(text.lower().split())
                written += 1
        paths.append(str(path))
        input_bytes += path.stat().st_size
        if written in sizes:
            facts[written] = {
                "paths": list(paths),
                "text_bytes": text_bytes,
                "input_bytes": input_bytes,
                "distinct_words": len(words),
            }
    return facts


def _place_of_papers(place: Path, paths: Sequence[str]) -> Path:
    """A new directory with the config of a dataset of these files."""
    place.mkdir()
    content = CONFIG.format(inputs=json.dumps(paths), fields=PAPERS, model="bow")
    (place / "config.yaml").write_text(content, encoding="utf-8")
    return place


def _first(rows: Iterator[dict[str, Any]], number: int) -> Iterator[dict[str, Any]]:
    for _ in range(number):
        yield next(rows)


def _run_stages(
    place: Path,
    stages: Sequence[str],
    row: dict,
    results: Results,
    *,
    times: int = 1,
    workers: int = 1,
) -> None:
    """Runs the stages anew; those that are not in the results so many times are added to them.

    The Beam jobs have so many workers; training and evaluation have one.
    """
    for old in ("dataset", "run", "model", "predicted"):
        shutil.rmtree(place / old, ignore_errors=True)
    trainer = ["-m", "trainer.task"]
    beam = ["--", "--direct_running_mode=multi_processing", f"--direct_num_workers={workers}"]
    config = ["--config", "config.yaml"]
    commands = {
        "preprocess": ["-m", "beam_jobs.preprocess", *config, *beam],
        "train": [*trainer, "train", *config],
        "evaluate": [*trainer, "evaluate", *config],
        "predict": ["-m", "beam_jobs.predict", *config, "--model", "model", "--output", "predicted"]
        + beam,
    }
    for stage in stages:
        if stage == "predict":
            measure([*trainer, "export", *config], place)
        measured = measure(commands[stage], place, watched=place)
        manifest = manifests.read(place / "dataset")
        key = {**row, "labels": manifest.num_labels, "stage": stage}
        if results.has(times, **key):
            continue
        results.add(
            {
                **key,
                "processor_seconds": round(measured.processor_seconds, 2),
                "seconds": round(measured.seconds, 2),
                "peak_mb": round(measured.peak_mb, 1),
                "peak_disk_mb": round(measured.peak_disk_mb, 1),
                "output_bytes": _bytes_of(place / "dataset"),
                "train_documents": manifest.splits["train"].examples,
                "vocabulary": manifest.vocabulary_size,
                **_seconds_of_steps(measured.printed),
            }
        )


def _seconds_of_steps(printed: str) -> dict[str, dict[str, float]]:
    """What a job says of the time in its steps."""
    for line in printed.splitlines():
        if line.startswith("time in each step"):
            steps = re.findall(r"([\w ]+) ([\d.]+) s", line.partition(":")[2])
            return {"seconds_of_steps": {name.strip(): float(time) for name, time in steps}}
    return {}


def _bytes_of(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def least_disturbed(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the rows of one stage, size and model, the one that took the least processor time.

    Other work on a machine adds to that time, by caches that it fills, and takes nothing from it.
    """
    best: dict[tuple, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row["processor_seconds"]):
        size = row["documents"] if row["kind"] == "documents" else row["wanted"]
        best.setdefault((row["kind"], row["stage"], row["model"], size), row)
    return list(best.values())


# --- plots -----------------------------------------------------------------------------


def draw(rows: list[dict[str, Any]], directory: Path) -> None:
    """Writes `scale_documents.svg` and `scale_labels.svg`: time and memory, a line a stage."""
    for kind, axis in (("documents", "documents"), ("labels", "labels")):
        lines: dict[str, list[dict]] = {}
        own = least_disturbed([row for row in rows if row["kind"] == kind])
        for row in sorted(own, key=lambda row: row[axis]):
            name = row["stage"] if kind == "documents" else f"{row['stage']}, {row['model']}"
            lines.setdefault(name, []).append(row)
        if kind == "labels":  # documents are made into a dataset in the same way for both models
            lines.pop("preprocess, bow_tree", None)
        if lines:
            _draw(lines, axis, directory / f"scale_{kind}.svg")


def _draw(lines: dict[str, list[dict]], axis: str, path: Path) -> None:
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    from trainer.report.plots import SERIES, STYLE

    marks = ("o", "s", "^", "D", "v", "P", "X")
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": "scale"}):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        seconds, memory = figure.subplots(1, 2)
        for number, (name, rows) in enumerate(lines.items()):
            style = {
                "label": name,
                "marker": marks[number % len(marks)],
                "color": SERIES[number % len(SERIES)],
                "linestyle": "-" if number < len(SERIES) else "--",
            }
            sizes = [row[axis] for row in rows]
            seconds.plot(sizes, [row["processor_seconds"] for row in rows], **style)
            memory.plot(sizes, [row["peak_mb"] for row in rows], **style)
        seconds.set(ylabel="processor seconds")
        memory.set(ylabel="peak memory, MB")
        for axes in (seconds, memory):
            axes.set(xlabel=axis)
            if axis == "labels":  # time is in proportion to documents, and not to labels
                axes.set(xscale="log")
                axes.xaxis.set_minor_formatter(NullFormatter())
            else:
                axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.set_ylim(bottom=0)
            for side in (axes.xaxis, axes.yaxis):
                side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        seconds.legend()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
    print(f"wrote {path}")


if __name__ == "__main__":
    run_main(main)
