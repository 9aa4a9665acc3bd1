"""Trains a Keras model of one's own on a dataset: `python own_keras.py DATASET_DIR`."""

import sys

import keras

import multihot

dataset = multihot.Dataset(sys.argv[1])
words = keras.layers.TextVectorization(
    standardize=None, vocabulary=dataset.vocabulary, output_mode="multi_hot"
)
labels = keras.layers.Dense(len(dataset.label_names), activation="sigmoid")
model = keras.Sequential([words, labels])
model.compile("adam", "binary_crossentropy", metrics=[keras.metrics.AUC(multi_label=True)])
model.fit(
    dataset.tf_data("train", batch_size=32, shuffle_seed=0),
    validation_data=dataset.tf_data("validation"),
    epochs=2,
    shuffle=False,  # tf_data has done it
    verbose=2,
)
