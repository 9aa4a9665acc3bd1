"""Datasets of words and labels from Zipf distributions, the same in every run."""

import json
from pathlib import Path

import numpy as np
import tensorflow as tf

from beam_jobs.contract import manifest as manifests
from beam_jobs.contract.config import config_from_dict, config_hash
from beam_jobs.contract.records import RecordSpec
from beam_jobs.contract.word_lists import resolve

WORDS, VOCABULARY, LABELS, BATCH_SIZE = 150, 50_000, 54, 256
SHARDS = 16


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
