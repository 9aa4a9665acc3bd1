"""Reads batches of a dataset with TensorFlow: `python read_dataset.py DATASET_DIR`."""

import sys
from pathlib import Path

import tensorflow as tf

from beam_jobs.contract import manifest

directory = Path(sys.argv[1])
dataset = manifest.load(directory)  # raises UserError unless the dataset is complete
names = [row["name"] for row in manifest.load_labels(dataset, directory)]
shards = [str(directory / shard.file) for shard in dataset.splits["train"].shards]
records = tf.data.TFRecordDataset(
    shards
)  # compression_type="GZIP" where output.compression is gzip
for batch in records.batch(4).map(dataset.record_spec.parse_batch).take(1):
    for key, labels in zip(batch["id"].numpy(), batch["labels"].to_list(), strict=True):
        print(key.decode(), [names[label] for label in labels])
