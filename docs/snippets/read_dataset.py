"""Reads batches of a dataset with TensorFlow: `python read_dataset.py DATASET_DIR`."""

import sys

import multihot

dataset = multihot.Dataset(sys.argv[1])  # raises UserError unless it is complete
names = dataset.label_names
for texts, label_ids in dataset.tf_data("train", labels="ids", batch_size=4).take(1):
    for text, ids in zip(texts.numpy(), label_ids.to_list(), strict=True):
        print(text.decode()[:60], [names[i] for i in ids])
