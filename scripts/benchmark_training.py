#!/usr/bin/env python3
"""Measures the speed and the memory of training.

It makes datasets of Zipf-distributed words in a temporary directory, the same in every run, and
prints

  input      the input pipeline alone
  models     of each model: a step alone, training from shards, and the share of the time that it
             waits for input
  peers      bow beside `fit` of a plain Keras model and beside fastText
             (`pip install '.[bench]'`), on the same documents
  replicas   two mirrored replicas and two worker processes beside one device
  memory     the peak memory of the train command with 1, 4 and 16 times the documents
  labels     the peak memory of the train command with 200,000 labels and sampled negatives

  python scripts/benchmark_training.py
  python scripts/benchmark_training.py --quick input models
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from ruamel.yaml import YAML  # noqa: E402

from beam_jobs.contract.config import config_from_dict  # noqa: E402
from scripts.made_dataset import (  # noqa: E402
    BATCH_SIZE,
    LABELS,
    VOCABULARY,
    WORDS,
    make_dataset,
    make_documents,
)
from scripts.training_speed import Speed, Training, clock  # noqa: E402
from trainer.data.dataset import open_dataset  # noqa: E402
from trainer.data.input_pipeline import make_vectorizer, train_batches  # noqa: E402
from trainer.data.shards import plan_split  # noqa: E402

DIM = 128
# Options of each model, beside its defaults.
MODELS = {
    "bow": {},
    "bow with bigrams": {"name": "bow", "bigram_buckets": 200_000},
    "mlp": {},
    "cnn": {},
    "lstm": {},
    "cnn_lwan": {},
    "bow_lwan": {"bigram_buckets": 200_000},
    "transformer": {},
}


def measure_command(*arguments: str) -> int:
    """Peak resident MB of the largest process of a trainer's command, which must succeed."""
    code = (
        "import resource, subprocess, sys\n"
        "status = subprocess.call(sys.argv[1:], stdout=sys.stderr)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
        "sys.exit(status)\n"
    )
    trainer = [sys.executable, "-m", "trainer.task"]
    command = [sys.executable, "-c", code, *trainer, *map(str, arguments)]

    result = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        sys.exit(result.stderr)
    return int(result.stdout) // 1024


def documents_per_second(run_dir: Path) -> int:
    """The speed of the last epoch, without its validation."""
    return json.loads((run_dir / "history.json").read_text())[-1]["documents_per_second"]


# --- what is measured ------------------------------------------------------------------------


def measure_input(root: Path, count: int, steps: int) -> None:
    config = _load(make_dataset(root, count))
    dataset = open_dataset(config)
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    vectorizer = make_vectorizer(dataset.vocabulary)

    plan = plan_split(dataset, "train", num_workers=1, global_batch_size=BATCH_SIZE)
    options = {"plan": plan, "global_batch_size": BATCH_SIZE, "shuffle_buffer": 10_000, "seed": 0}
    iterator = iter(train_batches(dataset, vectorizer, strategy, epoch=0, **options))

    # A loop in the graph, as in training: a call from Python for each batch takes a tenth of the
    # time.
    @tf.function
    def consume(steps):
        for _ in tf.range(steps):
            next(iterator)

    consume(tf.constant(2))  # fills the shuffle buffer
    speed = clock(steps * BATCH_SIZE, lambda: consume(tf.constant(steps)))
    print(f"  {speed} (target 40,000/core s)", flush=True)


def measure_models(root: Path, count: int, steps: int) -> None:
    path = make_dataset(root, count)
    print(f"  {'model':<18} {'step alone':<28} {'training':<28} waits on input", flush=True)
    for label, options in MODELS.items():
        training = Training(
            _load(path, model={"name": label.split()[0], "embedding_dim": DIM} | options)
        )
        num_steps = steps if label.startswith(("bow", "mlp")) else max(4, steps // 16)
        alone = training.speed(training.from_memory(), num_steps)
        whole = training.speed(iter(training.batches(0)), num_steps)

        print(
            f"  {label:<18} {alone!s:<28} {whole!s:<28} "
            f"{max(0.0, 1 - whole.rate / alone.rate):.0%}",
            flush=True,
        )


def measure_peers(root: Path, count: int, steps: int) -> None:
    path, speeds = make_dataset(root, count), {}
    for optimizer, batch_size in (
        ("lazy_adam", BATCH_SIZE),
        ("row_adagrad", BATCH_SIZE),
        ("row_adagrad", 4 * BATCH_SIZE),
    ):
        name = f"bow, {optimizer}, batches of {batch_size:,}"
        speeds[name] = batch_size, _in_new_process(_bow, path, optimizer, batch_size, steps)
        print(f"  {name:<36} {speeds[name][1]}", flush=True)
    # fastText has no batches: it updates after each document.
    for peer_name, measure, target, batch_sizes in (
        ("Keras fit", _keras_fit, 4, {BATCH_SIZE}),
        ("fastText", _fasttext, 0.8, {BATCH_SIZE, 4 * BATCH_SIZE}),
    ):
        try:
            peer = _in_new_process(measure, path)
        except ImportError as error:
            print(
                f"  {peer_name:<36} skipped: {error}; install it by `pip install '.[bench]'`",
                flush=True,
            )
            continue
        print(f"  {peer_name:<36} {peer}", flush=True)
        for name, (batch_size, bow) in speeds.items():
            if batch_size in batch_sizes:
                print(
                    f"    {name:<34} {bow.rate / peer.rate:.2f} times as fast by wall time, "
                    f"{bow.rate_of_core / peer.rate_of_core:.2f} by core time (target {target})",
                    flush=True,
                )


def _in_new_process(measure: Callable[..., Speed], *arguments) -> Speed:
    """Measures in a new process, so that no other program's threads, memory or settings matter."""
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, *arguments).result()


def _bow(path: Path, optimizer: str, batch_size: int, steps: int) -> Speed:
    sections = {"model": {"name": "bow", "embedding_dim": DIM}, "optimizer": {"name": optimizer}}
    training = Training(
        _load(
            path, **sections, train={"run_dir": str(path.parent / "run"), "batch_size": batch_size}
        )
    )
    # The first two batches are not measured; padding after the last document would be no work.
    return training.speed(iter(training.batches(0)), (steps + 2) * BATCH_SIZE // batch_size - 2)


def _train_documents(path: Path) -> tuple[np.ndarray, list[np.ndarray]]:
    shards = open_dataset(_load(path)).manifest.splits["train"].shards
    parts = [
        make_documents(shard.examples, labels=LABELS, seed=i) for i, shard in enumerate(shards)
    ]
    return np.concatenate([tokens for tokens, _ in parts]), [own for _, ids in parts for own in ids]


def _keras_fit(path: Path) -> Speed:
    """The speed of a plain model from its second to its fifth epoch.

    It takes arrays from memory: nothing is read, split or looked up.
    """
    tokens, ids = _train_documents(path)
    targets = np.zeros((len(ids), LABELS), np.float32)
    for row, own in zip(targets, ids, strict=True):
        row[own] = 1
    layers = [
        keras.layers.Embedding(VOCABULARY + 2, DIM),
        keras.layers.GlobalAveragePooling1D(),
        keras.layers.Dense(LABELS),
    ]
    model = keras.Sequential(layers)
    model.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True))
    few = min(len(ids), 16 * BATCH_SIZE)
    model.fit(tokens[:few] + 2, targets[:few], batch_size=BATCH_SIZE, epochs=1, verbose=0)
    return clock(
        4 * few,
        lambda: model.fit(
            tokens[:few] + 2, targets[:few], batch_size=BATCH_SIZE, epochs=4, verbose=0
        ),
    )


def _fasttext(path: Path) -> Speed:
    """The speed of three epochs on all cores.

    It is that of four less that of one, since both first read the file and count words.
    """
    import fasttext

    tokens, ids = _train_documents(path)
    text = path.parent / "fasttext.txt"
    with open(text, "w", encoding="utf-8") as stream:
        for row, own in zip(tokens, ids, strict=True):
            stream.write(
                " ".join([*(f"__label__{i}" for i in own), *(f"w{token}" for token in row)]) + "\n"
            )
    options = {
        "dim": DIM,
        "loss": "ova",
        "thread": os.cpu_count(),
        "lr": 0.1,
        "minCount": 1,
        "bucket": 0,
        "verbose": 0,
    }
    one, four = (
        clock(0, lambda n=n: fasttext.train_supervised(str(text), epoch=n, **options))
        for n in (1, 4)
    )
    return Speed(3 * len(ids), four.seconds - one.seconds, four.core_seconds - one.core_seconds)


def measure_replicas(root: Path, count: int, steps: int) -> None:
    launcher = [sys.executable, ROOT / "scripts/launch_workers.py", "--workers", "2", "--"]
    variants = {
        "one device": ([sys.executable, "-m", "trainer.task"], ()),
        "two replicas": (
            [sys.executable, "-m", "trainer.task"],
            ("train.strategy=mirrored", "train.replicas=2"),
        ),
        "two workers": (launcher, ()),
    }
    path, rates = make_dataset(root, count), {}
    for name, (command, settings) in variants.items():
        run_dir = root / name.replace(" ", "_")
        settings = ("train.epochs=2", f"train.run_dir={run_dir}", *settings)
        arguments = [
            "train",
            "--config",
            path,
            *(part for setting in settings for part in ("--set", setting)),
        ]
        result = subprocess.run(
            [*map(str, command), *map(str, arguments)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            sys.exit(result.stdout + result.stderr)
        rates[name] = documents_per_second(run_dir)
        print(
            f"  {name:<14} {rates[name]:>9,} documents/s, {rates[name] / rates['one device']:.2f} "
            "times one device",
            flush=True,
        )


def measure_memory(root: Path, count: int, steps: int) -> None:
    for factor in (1, 4, 16):
        part = root / f"x{factor}"
        path = make_dataset(part, factor * count, train={"epochs": 1})
        peak = measure_command("train", "--config", path)
        print(
            f"  {factor * count:>9,} documents: {peak:,} MB, "
            f"{documents_per_second(part / 'run'):,} documents/s",
            flush=True,
        )


def measure_labels(root: Path, count: int, steps: int) -> None:
    labels = 200_000
    options = {
        "loss": {"negatives": "sampled"},
        "evaluate": {"batch_size": 64},
        "train": {"epochs": 1},
    }
    path = make_dataset(root, count, labels=labels, **options)
    peak = measure_command("train", "--config", path)
    print(
        f"  {labels:,} labels: {peak:,} MB (target 4,096), {documents_per_second(root / 'run'):,} "
        "documents/s",
        flush=True,
    )


def _load(path: Path, **sections):
    return config_from_dict(
        YAML(typ="safe", pure=True).load(path.read_text()) | sections, what="benchmark"
    )


# What is measured, and on how many documents.
MEASURES = {
    "input": (measure_input, 60_000),
    "models": (measure_models, 20_000),
    "peers": (measure_peers, 60_000),
    "replicas": (measure_replicas, 60_000),
    "memory": (measure_memory, 20_000),
    "labels": (measure_labels, 20_000),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "what", nargs="*", choices=[*MEASURES, []], help="what to measure; default: all"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="on a sixteenth of the documents: a trial of the script itself",
    )
    arguments = parser.parse_args()
    for name in arguments.what or MEASURES:
        measure, count = MEASURES[name]
        count = count // 16 if arguments.quick else count
        print(f"{name}: {count:,} documents of {WORDS} words", flush=True)
        with tempfile.TemporaryDirectory() as place:
            measure(Path(place), count, steps=min(128, count // BATCH_SIZE - 2))


if __name__ == "__main__":
    main()
