"""Workers that exchange gradients have those of all documents, and all the same."""

import json
import threading

import numpy as np
import pytest
import tensorflow as tf
from pydantic import TypeAdapter

from beam_jobs.contract.sections.model import ModelConfig
from tests.small_models import SMALL, VOCABULARY
from trainer.distribution.variables import gather_rows
from trainer.models import build_model
from trainer.models.weighted_sums import recorded_gradients
from trainer.training import exchange as exchange_module
from trainer.training.exchange import GradientExchange

# The second worker's documents have no token that the model knows, or more than the first one's.
DOCUMENTS = [[[2, 3, 2, 6], [4]], [[], [5, 1, 6, 6, 6, 2]], [[], []]]
WIDE = {"embedding_dim": 8, "wide": True}
FEW_ROWS = {"embedding_dim": 8, "bigram_buckets": 8, "bigram_dim": 4}


def gradients_of(model, documents):
    tokens = tf.ragged.constant(documents, tf.int64, 1, row_splits_dtype=tf.int64)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(model(tokens, training=True) - 1))
    return tape.gradient(loss, model.trainable_variables), loss


class Exchanged:
    """What the workers, which are threads that trace one graph in turns, give each other."""

    def __init__(self, workers: int):
        self.workers, self.turn, self.given = workers, threading.Condition(), {}
        self.own = threading.local()

    def collectives(self, workers: int) -> "Exchanged":
        """In place of `trainer.distribution.collectives.Collectives`."""
        assert workers == self.workers
        self.own.place, self.sent_bytes = 0, tf.constant(0.0)
        return self

    def gather(self, values: tf.Tensor) -> tf.Tensor:
        given = self.given.setdefault(self.own.place, {})
        given[self.own.worker], self.own.place = values, self.own.place + 1
        self.turn.notify_all()
        assert self.turn.wait_for(lambda: len(given) == self.workers, timeout=60)
        return tf.stack([given[worker] for worker in range(self.workers)])

    def gather_padded(self, values: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        missing = [[0, size + 3 - tf.shape(values)[0]], *[[0, 0]] * (values.shape.rank - 1)]
        return self.gather(tf.pad(values, missing))

    def sum(self, values: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(self.gather(values), axis=0)


def exchanged(model, documents_of_worker, monkeypatch):
    """What each of some workers has as sums."""
    exchange = Exchanged(len(documents_of_worker))
    monkeypatch.setattr(exchange_module, "Collectives", exchange.collectives)
    shapes = [variable.shape for variable in model.trainable_variables]

    def work(worker, graph, results):
        exchange.own.worker = worker
        documents = documents_of_worker[worker]
        with graph.as_default(), exchange.turn:
            with recorded_gradients() as sums:
                gradients, loss = gradients_of(model, documents)
            own = GradientExchange(exchange.workers, documents=len(documents))
            results[worker] = own.sum(gradients, sums, loss[None], shapes=shapes)

    @tf.function(autograph=False)
    def step():
        results, graph = {}, tf.compat.v1.get_default_graph()
        threads = [
            threading.Thread(target=work, args=(worker, graph, results))
            for worker in range(exchange.workers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [results[worker] for worker in range(exchange.workers)]

    return step()


@pytest.mark.parametrize(
    ("name", "options", "second"),
    [("bow", WIDE, 1), ("bow", FEW_ROWS, 2), ("cnn", SMALL["cnn"], 1)],
)
def test_the_gradients_of_all_workers_are_those_of_all_documents(
    name, options, second, monkeypatch
):
    values = {"name": name} | options | {"dropout": 0.0}
    model = build_model(
        TypeAdapter(ModelConfig).validate_json(json.dumps(values)),
        vocabulary=VOCABULARY,
        num_labels=3,
        output_bias=np.zeros(3, np.float32),
        seed=0,
    )
    documents = [DOCUMENTS[0], DOCUMENTS[second]]
    first, other = exchanged(model, documents, monkeypatch)
    expected, loss = tf.function(gradients_of)(model, sum(documents, []))
    np.testing.assert_allclose(first[1], [loss], rtol=1e-5)
    for ours, theirs, one in zip(first[0], other[0], expected, strict=True):
        ours, theirs, one = map(tf.convert_to_tensor, (ours, theirs, one))
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_allclose(ours, one, rtol=1e-4, atol=1e-6)


def test_rows_of_a_variable_with_replicas_are_gathered_without_a_copy_of_it():
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        table = tf.Variable(np.arange(6, dtype=np.float32).reshape(3, 2))

    @tf.function
    def gather():
        return strategy.run(lambda: gather_rows(table, tf.constant([2, 0])))

    for rows in strategy.experimental_local_results(gather()):
        np.testing.assert_array_equal(rows, [[4, 5], [0, 1]])
    operations = [op.type for op in gather.get_concrete_function().graph.get_operations()]
    assert "ResourceGather" in operations and "ReadVariableOp" not in operations
