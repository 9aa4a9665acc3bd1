"""Calls an exported model; it needs tensorflow and tensorflow-text, nothing of multihot."""

import sys

import tensorflow as tf
import tensorflow_text  # noqa: F401  its ops are in the analyzer

model = tf.saved_model.load(sys.argv[1])  # such as out/own_csv/model/1
answer = model.signatures["serving_default"](tf.constant(["I was charged twice"]))
for label, score in zip(answer["labels"][0].numpy(), answer["scores"][0].numpy(), strict=True):
    print(f"{score:.3f} {label.decode()}")
