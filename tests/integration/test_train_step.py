import keras
import numpy as np
import pytest
import tensorflow as tf

from beam_jobs.contract.sections.loss import WeightedBceConfig
from beam_jobs.contract.sections.network_models import BowConfig, CnnConfig, TransformerConfig
from beam_jobs.contract.sections.optimizer import OptimizerConfig
from trainer.experiment import computing_in
from trainer.losses import losses
from trainer.losses.sampled_negatives import LabelSampler
from trainer.models import VocabularyStatistics, build_model
from trainer.runs.checkpoints import Checkpoints, RunState
from trainer.training.optimizers import build_optimizer
from trainer.training.train_step import make_train_steps

NUM_LABELS, BATCH_SIZE, VOCABULARY = 5, 12, 30
MODELS = {
    "bow": BowConfig(embedding_dim=6, wide=True),
    "cnn": CnnConfig(name="cnn", embedding_dim=6, filters=4, dropout=0.0),
    "transformer": TransformerConfig(
        name="transformer", embedding_dim=8, layers=1, heads=2, feed_forward_dim=8, dropout=0.2
    ),
    "still_transformer": TransformerConfig(
        name="transformer", embedding_dim=8, layers=1, heads=2, feed_forward_dim=8, dropout=0.0
    ),
}


class Run:
    """A model that is trained on the same made batches, the last documents of which are padding."""

    def __init__(
        self,
        model="bow",
        *,
        accumulate_steps=1,
        precision="float32",
        num_sampled=None,
        is_learned=None,
        **optimizer,
    ):
        self.strategy = (
            tf.distribute.get_strategy()
            if tf.distribute.has_strategy()
            else tf.distribute.OneDeviceStrategy("/cpu:0")
        )
        keras.utils.set_random_seed(0)
        statistics = VocabularyStatistics(
            size=VOCABULARY, document_counts=np.arange(VOCABULARY, 0, -1), num_documents=100
        )
        with self.strategy.scope(), computing_in(precision):
            bias = np.zeros(NUM_LABELS, np.float32)
            self.model = build_model(
                MODELS[model],
                vocabulary=statistics,
                num_labels=NUM_LABELS,
                output_bias=bias,
                seed=0,
            )
        with self.strategy.scope():
            self.optimizer = build_optimizer(
                OptimizerConfig(**optimizer),
                total_steps=8,
                epoch_steps=4,
                scales_loss=precision == "float16",
            )
            self.optimizer.build(self.model.trainable_variables)
        loss = losses.build_loss(
            WeightedBceConfig(), positives=np.arange(NUM_LABELS), num_documents=100
        )
        self.steps = make_train_steps(
            self.strategy,
            self.model,
            self.optimizer,
            loss=loss,
            num_labels=NUM_LABELS,
            global_batch_size=BATCH_SIZE,
            accumulate_steps=accumulate_steps,
            sampler=num_sampled
            and LabelSampler(np.arange(NUM_LABELS), num_sampled=num_sampled, seed=0),
            is_learned=is_learned,
        )

    def train(self, steps, *, first=0):
        per_replica = BATCH_SIZE // self.strategy.num_replicas_in_sync

        def dataset(_):
            examples = tf.data.Dataset.from_generator(
                lambda: (self._document(i) for i in range(first * BATCH_SIZE, 1_000_000)),
                output_signature={
                    "tokens": tf.TensorSpec([None], tf.int64),
                    "labels": tf.TensorSpec([None], tf.int64),
                    "weights": tf.TensorSpec([], tf.float32),
                    "mask": tf.TensorSpec([], tf.float32),
                },
            )
            batches = examples.ragged_batch(per_replica, drop_remainder=True)
            return batches.apply(
                tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
            )

        return self.steps(
            iter(self.strategy.distribute_datasets_from_function(dataset)), tf.constant(steps)
        ).numpy()

    @staticmethod
    def _document(i):
        random = np.random.default_rng(i)
        real = i % BATCH_SIZE < BATCH_SIZE - 2
        return {
            "tokens": random.integers(1, VOCABULARY + 2, random.integers(0, 9))
            if real
            else np.zeros(0, np.int64),
            "labels": np.flatnonzero(random.random(NUM_LABELS) < 0.3)
            if real
            else np.zeros(0, np.int64),
            "weights": random.random() if real else 0.0,
            "mask": float(real),
        }

    @property
    def variables(self):
        return {
            f"{i} {v.name}": v.numpy()
            for i, v in enumerate([*self.model.variables, *self.optimizer.variables])
        }


def test_documents_teach_nothing_of_labels_that_are_not_learned():
    is_learned = np.array([True, True, False, True, True])
    run = Run("cnn", is_learned=is_learned, name="adam")
    last = [v for v in run.model.trainable_variables if v.path.startswith("logits/")]
    before = [variable.numpy() for variable in last]
    run.train(2)
    for variable, values in zip(last, before, strict=True):
        changed = (variable.numpy() != values).reshape(NUM_LABELS, -1).any(axis=1)
        assert (changed == is_learned).all()
    assert len(last) == 2


# --- accumulation --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("bow", {"name": "lazy_adam"}),
        ("bow", {"name": "row_adagrad"}),
        ("bow", {"name": "adam"}),
        ("cnn", {"clip_norm": 0.1, "average_epochs": 0.5}),
    ],
)
def test_passes_that_are_summed_give_the_step_of_the_whole_batch(model, options):
    whole, parts = Run(model, **options), Run(model, accumulate_steps=4, **options)
    start = parts.variables
    np.testing.assert_allclose(whole.train(3), parts.train(3), rtol=1e-5)
    for name, value in whole.variables.items():
        np.testing.assert_allclose(parts.variables[name], value, rtol=1e-3, atol=2e-5, err_msg=name)
    assert (
        sum(not np.array_equal(value, start[name]) for name, value in parts.variables.items())
        > len(start) / 2
    )


def test_passes_run_one_after_the_other():
    """Otherwise they would need as much memory as the whole batch.

    Each pass's reading of the embeddings waits for the pass before.
    """
    run = Run("cnn", accumulate_steps=3)
    iterator = iter(run.strategy.distribute_datasets_from_function(lambda _: _batches()))
    graph = run.steps.get_concrete_function(iterator, tf.constant(1)).graph
    body = next(f for name, f in graph._functions.items() if "while_body" in str(name))
    nodes = {node.name: node for node in body.cached_definition.node_def}
    reads = sorted(
        (
            name
            for name, node in nodes.items()
            if node.op == "ResourceGather" or node.op == "GatherV2"
        ),
        key=list(nodes).index,
    )
    lookups = [name for name in reads if "table" in name]
    assert len(lookups) == 3

    def reaches(name, target, seen):
        if name == target:
            return True
        if name in seen or name not in nodes:
            return False
        seen.add(name)
        return any(
            reaches(source.lstrip("^").partition(":")[0], target, seen)
            for source in nodes[name].input
        )

    assert reaches(lookups[1], lookups[0], set()) and reaches(lookups[2], lookups[1], set())


def _batches():
    documents = [Run._document(i) for i in range(BATCH_SIZE)]
    batch = {
        key: tf.ragged.constant([d[key].tolist() for d in documents], dtype=tf.int64)
        for key in ("tokens", "labels")
    }
    batch |= {
        key: tf.constant([d[key] for d in documents], tf.float32) for key in ("weights", "mask")
    }
    dataset = tf.data.Dataset.from_tensors(batch).repeat()
    return dataset.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))


def test_with_many_draws_a_sampled_step_is_nearly_the_whole_one_and_with_few_it_is_not():
    losses_of = {n: Run("cnn", num_sampled=n).train(4)[:, 0] for n in (None, 2, 1000)}
    np.testing.assert_allclose(losses_of[1000], losses_of[None], rtol=1e-3)
    assert not np.allclose(losses_of[2], losses_of[None], rtol=1e-2)


# --- precision -----------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("model", ["cnn", "still_transformer"])
def test_mixed_precision_computes_in_less_and_keeps_weights_and_losses_in_float32(model, precision):
    full, mixed = (
        Run(model, learning_rate=1e-3),
        Run(model, precision=precision, learning_rate=1e-3),
    )
    assert {v.dtype for v in mixed.model.trainable_variables} == {"float32"}
    losses_of_full, losses_of_mixed = full.train(4)[:, 0], mixed.train(4)[:, 0]
    np.testing.assert_allclose(losses_of_mixed, losses_of_full, rtol=0.03)
    assert not np.array_equal(losses_of_mixed, losses_of_full)
    tokens = tf.RaggedTensor.from_row_lengths(tf.constant([3, 4, 5], tf.int64), [3])
    assert mixed.model(tokens).dtype == tf.float32


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_the_gradient_of_embeddings_stays_sparse_in_mixed_precision(precision):
    run = Run("bow", precision=precision)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(
            run.model(tf.RaggedTensor.from_row_lengths(tf.constant([3, 4, 5], tf.int64), [3]))
        )
    gradients = tape.gradient(loss, run.model.trainable_variables)
    assert (
        sum(isinstance(gradient, tf.IndexedSlices) for gradient in gradients) == 2
    )  # the table and the wide part


def test_a_policy_of_precision_ends_with_the_model():
    before = keras.config.dtype_policy().name
    with pytest.raises(RuntimeError), computing_in("float16"):
        raise RuntimeError
    assert keras.config.dtype_policy().name == before


# --- resuming ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"model": "transformer", "accumulate_steps": 3},
        {
            "model": "transformer",
            "precision": "float16",
            "schedule": "cosine",
            "accumulate_steps": 2,
        },
        {"model": "cnn", "precision": "bfloat16", "schedule": "plateau", "warmup_fraction": 0.5},
        {
            "model": "bow",
            "name": "row_adagrad",
            "clip_norm": 0.1,
            "average_epochs": 0.5,
            "precision": "float16",
        },
        {"model": "transformer", "num_sampled": 2, "accumulate_steps": 2},
    ],
)
def test_restored_in_the_middle_every_combination_goes_on_with_the_same_bits(tmp_path, options):
    whole = Run(**options)
    if options.get("schedule") == "plateau":
        whole.optimizer.rate_factor.assign(0.25)
    whole.train(4)
    Checkpoints(tmp_path, whole.model, whole.optimizer, strategy=whole.strategy).save(
        RunState(step=4)
    )
    whole.train(4, first=4)
    resumed = Run(**options)
    assert (
        Checkpoints(tmp_path, resumed.model, resumed.optimizer, strategy=resumed.strategy)
        .restore_latest()
        .step
        == 4
    )
    resumed.train(4, first=4)
    for name, value in whole.variables.items():
        np.testing.assert_array_equal(resumed.variables[name], value, err_msg=name)
    if options.get("schedule") == "plateau":
        assert resumed.optimizer.rate_factor.numpy() == np.float32(0.25)


# --- several replicas ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "options", "tolerance"),
    [
        ("bow", {"accumulate_steps": 2, "name": "adam"}, 1e-3),
        ("cnn", {"accumulate_steps": 3, "clip_norm": 0.1, "schedule": "plateau"}, 1e-3),
        ("cnn", {"accumulate_steps": 2, "precision": "float16", "average_epochs": 0.5}, 1e-2),
        ("bow", {"num_sampled": 2, "name": "row_adagrad"}, 1e-3),
    ],
)
def test_two_replicas_take_the_steps_of_one_device(model, options, tolerance):
    one = Run(model, **options)
    one.train(3)
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        two = Run(model, **options)
    two.train(3)
    for name, value in one.variables.items():
        np.testing.assert_allclose(
            two.variables[name], value, rtol=tolerance, atol=1e-4, err_msg=name
        )
