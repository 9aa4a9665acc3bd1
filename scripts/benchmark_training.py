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
import dataclasses
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from ruamel.yaml import YAML  # noqa: E402

from beam_jobs.contract import manifest as manifests  # noqa: E402
from beam_jobs.contract.config import config_from_dict, config_hash  # noqa: E402
from beam_jobs.contract.records import RecordSpec  # noqa: E402
from beam_jobs.contract.word_lists import resolve  # noqa: E402
from trainer.data.dataset import open_dataset  # noqa: E402
from trainer.data.input_pipeline import make_vectorizer, train_batches  # noqa: E402
from trainer.data.shards import plan_split  # noqa: E402
from trainer.experiment import assemble  # noqa: E402
from trainer.losses import losses  # noqa: E402
from trainer.training.optimizers import build_optimizer  # noqa: E402
from trainer.training.train_step import make_train_steps  # noqa: E402

WORDS, VOCABULARY, LABELS, DIM, BATCH_SIZE = 150, 50_000, 54, 128, 256
SHARDS = 16
KEPT_STEPS = 8  # whose batches a step alone is measured on
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


# --- synthetic data ----------------------------------------------------------------------------


def make_documents(
    count: int, *, labels: int, seed: int = 0
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Token ids int32 [count, WORDS] and label ids, both from Zipf distributions.

    Each label adds a word of its own to its documents.
    """
    random = np.random.default_rng(seed)
    tokens = (random.zipf(1.2, (count, WORDS)) - 1) % VOCABULARY
    ids = [np.unique((random.zipf(1.3, 3) - 1) % labels) for _ in range(count)]
    for row, own in zip(tokens, ids, strict=True):
        row[: len(own)] = VOCABULARY - 1 - own % (VOCABULARY // 2)
    return tokens.astype(np.int32), ids


def make_dataset(
    root: Path, count: int, *, labels: int = LABELS, validation: int = 500, **sections
) -> Path:
    """Writes a dataset directory and a config under `root`; returns the config's path."""
    train = {
        "run_dir": str(root / "run"),
        "epochs": 2,
        "patience": None,
        "batch_size": BATCH_SIZE,
    } | sections.pop("train", {})
    output = {"dataset_dir": str(root / "dataset"), "shards": SHARDS}
    values = {
        "name": "made",
        "data": {"source": "jsonl", "inputs": ["none.jsonl"]},
        "output": output,
        "train": train,
    } | sections
    config = config_from_dict(values, what="benchmark")
    (root / "dataset").mkdir(parents=True)
    spec, counts = RecordSpec(), np.zeros(VOCABULARY, np.int64)
    positives = {split: np.zeros(labels, np.int64) for split in manifests.SPLITS}
    splits = {}
    for seed, (split, examples) in enumerate(
        {"train": count, "validation": validation, "test": 0}.items()
    ):
        shards = []
        for index in range(SHARDS):
            size = examples // SHARDS + (index < examples % SHARDS)
            name = manifests.shard_name("made", split, index, SHARDS)
            with tf.io.TFRecordWriter(str(root / "dataset" / name)) as writer:
                # Shard by shard, so that large datasets need no more memory than small ones.
                tokens, ids = make_documents(size, labels=labels, seed=1000 * seed + index)
                for i in range(size):
                    text = " ".join(f"w{token}" for token in tokens[i]).encode()
                    writer.write(
                        spec.encode(
                            {
                                "id": f"{split}-{index}-{i}".encode(),
                                "text": text,
                                "labels": ids[i].tolist(),
                                "weight": 1.0,
                            }
                        )
                    )
                    positives[split][ids[i]] += 1
                    if split == "train":
                        counts[np.unique(tokens[i])] += 1
            shards.append(
                manifests.ShardInfo(
                    **manifests.file_info(root / "dataset", name).model_dump(), examples=size
                )
            )
        splits[split] = manifests.SplitInfo(
            examples=examples, shards=tuple(shards), token_length_quantiles={"0.5": WORDS}
        )
    return _publish(root, config, splits, positives, counts)


def _publish(root: Path, config, splits, positives, counts) -> Path:
    directory, labels = root / "dataset", len(positives["train"])
    rows = [
        {"name": f"label{i}", "positives": {split: int(positives[split][i]) for split in splits}}
        for i in range(labels)
    ]
    (directory / manifests.LABELS).write_text(json.dumps(rows))
    (directory / manifests.VOCABULARY).write_text("".join(f"w{i}\n" for i in range(VOCABULARY)))
    np.save(directory / manifests.DOCUMENT_COUNTS, counts)
    (directory / manifests.REJECTS).write_text("")
    written = sum(info.examples for info in splits.values())
    info = {
        key: manifests.file_info(directory, getattr(manifests, key.upper()))
        for key in ("labels", "vocabulary", "document_counts", "rejects")
    }
    manifest = manifests.Manifest(
        format_version=manifests.FORMAT_VERSION,
        name="made",
        config=config.dataset_config(),
        config_hash=config_hash(config.dataset_config()),
        input_hash="made",
        analyzer=resolve(config.text),
        splits=splits,
        counts=manifests.Counts(
            read=written,
            rejected={},
            duplicates=0,
            dropped_without_labels=0,
            written=written,
            written_without_labels=0,
        ),
        num_labels=labels,
        vocabulary_size=VOCABULARY,
        **info,
    )
    manifests.write(manifest, directory)
    (root / "made.yaml").write_text(config.to_yaml())
    return root / "made.yaml"


# --- measuring -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Speed:
    """Documents per second of wall time, and of the processor time of all cores.

    The latter varies less if other programs use the machine.
    """

    documents: int
    seconds: float
    core_seconds: float

    @property
    def rate(self) -> float:
        return self.documents / max(self.seconds, 1e-9)

    @property
    def rate_of_core(self) -> float:
        return self.documents / max(self.core_seconds, 1e-9)

    def __str__(self) -> str:
        return f"{self.rate:>9,.0f}/s {self.rate_of_core:>9,.0f}/core s"


def clock(documents: int, work: Callable[[], Any]) -> Speed:
    """The speed of `work`, which handles so many documents."""
    started, core_started = time.monotonic(), _core_seconds()
    work()
    return Speed(documents, time.monotonic() - started, _core_seconds() - core_started)


def _core_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Training:
    """A model and its step, on the dataset of a config.

    Args:
      config: it names the dataset.
      changed: what the step uses in place of the model, made of it.
    """

    def __init__(self, config, changed: Callable[[Any], Any] = lambda model: model):
        self.experiment = assemble(config, for_training=True)
        experiment, train = self.experiment, config.train
        self.plan = plan_split(
            experiment.dataset, "train", num_workers=1, global_batch_size=train.batch_size
        )
        with experiment.strategy.scope():
            self.optimizer = build_optimizer(config.optimizer, epoch_steps=self.plan.steps)
            self.optimizer.build(experiment.model.trainable_variables)
        loss = losses.build_loss(config.loss, **experiment.loss_statistics)
        sizes = {"num_labels": experiment.dataset.num_labels, "global_batch_size": train.batch_size}
        self._steps = make_train_steps(
            experiment.strategy,
            changed(experiment.model),
            self.optimizer,
            loss=loss,
            **sizes,
        )

    def batches(self, epoch: int):
        train = self.experiment.config.train
        options = {
            "global_batch_size": train.batch_size,
            "shuffle_buffer": train.shuffle_buffer,
            "seed": 0,
        }
        return train_batches(
            self.experiment.dataset,
            self.experiment.vectorizer,
            self.experiment.strategy,
            plan=self.plan,
            epoch=epoch,
            **options,
        )

    def speed(self, iterator, steps: int) -> Speed:
        """The speed of some steps, after two that compile the function and fill the buffers."""
        self.run(iterator, 2)
        return clock(
            steps * self.experiment.config.train.batch_size, lambda: self.run(iterator, steps)
        )

    def run(self, iterator, steps: int) -> None:
        """Trains some steps."""
        self._steps(iterator, tf.constant(steps)).numpy()

    def kept_batches(self) -> list[Any]:
        """The batches of the first steps, those of all replicas one by one."""
        strategy = self.experiment.strategy
        replicas = range(strategy.num_replicas_in_sync)
        return [
            {key: strategy.experimental_local_results(value)[i] for key, value in batch.items()}
            for batch, _ in zip(self.batches(0), range(KEPT_STEPS), strict=False)
            for i in replicas
        ]

    def from_memory(self, kept: list[Any] | None = None):
        """An iterator that repeats batches from memory: those that are given, or the first."""
        kept = kept or self.kept_batches()
        dataset = tf.data.Dataset.from_tensors(kept[0])
        for batch in kept[1:]:
            dataset = dataset.concatenate(tf.data.Dataset.from_tensors(batch))
        dataset = (
            dataset.cache()
            .repeat()
            .apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
        )
        return iter(self.experiment.strategy.distribute_datasets_from_function(lambda _: dataset))


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
