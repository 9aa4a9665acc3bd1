"""The benchmark of training steps on GPUs counts and measures what it says, here on CPUs."""

import pytest
import tensorflow as tf

from scripts import benchmark_gpu
from scripts.step_costs import counting
from trainer.data.dataset import open_dataset


def profilers_flops(function) -> int:
    """The floating-point operations of a graph as TensorFlow's profiler counts them."""
    builder = tf.compat.v1.profiler.ProfileOptionBuilder
    options = builder(builder.float_operation()).with_empty_output().build()
    graph = tf.function(function).get_concrete_function().graph
    return tf.compat.v1.profiler.profile(graph, cmd="op", options=options).total_float_ops


def test_operations_are_counted_as_by_the_profiler_of_tensorflow():
    x, kernel = tf.ones([4, 10, 8]), tf.ones([3, 8, 6])
    weights, matrix = tf.ones([6, 5]), tf.ones([4, 5, 7])

    def layers():
        hidden = tf.nn.relu(tf.nn.conv1d(x, kernel, 1, "SAME"))
        return tf.reduce_max(hidden, axis=1) @ weights, tf.matmul(x[:, :, :5], matrix)

    with counting() as costs:
        layers()
    assert costs.flops == pytest.approx(profilers_flops(layers), rel=0.05)
    assert costs.flops_of["Conv2D"] == 2 * 4 * 10 * 6 * 3 * 8
    assert costs.flops_of["BatchMatMulV2"] == 2 * 4 * 10 * 7 * 5


def test_rows_that_are_looked_up_count_and_not_their_table():
    table = tf.Variable(tf.zeros([1000, 4]))
    with counting() as costs:
        tf.gather(table, [1, 2])
    assert costs.bytes == 2 * 2 * 4 * 4 + 2 * 4  # rows read and written, indices


def test_a_device_is_busy_while_any_of_its_streams_has_a_kernel():
    space = benchmark_gpu.xplane_pb2.XSpace()
    plane = space.planes.add(name="/device:GPU:0")
    for name, events in {
        "Stream #13(Compute)": [(0, 5), (20, 5)],
        "Stream #14(MemcpyH2D)": [(3, 4)],
        "Steps": [(0, 100)],
    }.items():
        line = plane.lines.add(name=name, timestamp_ns=7)
        for start, duration in events:
            line.events.add(offset_ps=start * 10**12, duration_ps=duration * 10**12)
    space.planes.add(name="/host:CPU").lines.add(name="Stream")
    assert benchmark_gpu.device_seconds(space) == {"/device:GPU:0": pytest.approx(7 + 5)}


def test_xla_takes_padded_batches_and_gives_what_the_model_gives():
    class Model:
        weight = tf.Variable(tf.random.stateless_normal([9], seed=[0, 1]))
        trainable_variables = (weight,)

        def __call__(self, tokens, training):
            assert training
            return tf.reduce_sum(tf.gather(self.weight, tokens), axis=1)

    ragged = tf.ragged.constant([[3, 4], [5]], tf.int64)
    (batch,) = benchmark_gpu.padded([{"tokens": ragged, "mask": 1}])
    assert (batch["mask"], batch["tokens"].shape) == (1, [2, benchmark_gpu.PADDED_TO])
    model = Model()
    padding = benchmark_gpu.PADDED_TO - tf.constant([2.0, 1.0])
    expected = model(ragged, True) + model.weight[0] * padding
    logits = benchmark_gpu.CompiledModel(model)(batch["tokens"], training=True)
    assert logits.numpy() == pytest.approx(expected.numpy(), abs=1e-5)


def test_a_step_is_measured_beside_what_it_needs_and_reported(small_dataset, monkeypatch, tmp_path):
    monkeypatch.chdir(small_dataset)
    case = {"model": "bow", "precision": "float32", "replicas": 1}
    config = benchmark_gpu.case_config("small.yaml", batch_size=4, **case)
    costs = benchmark_gpu.count_step(config)
    dataset, dim = open_dataset(config), config.model.embedding_dim
    rows = costs["sparse_gradient_bytes"] / (dim * 4 + 8)
    assert rows == int(rows) and 1 < rows <= len(dataset.vocabulary) + 2
    assert costs["dense_gradient_bytes"] == 4 * (dim + 1) * dataset.num_labels
    assert costs["all_dense_gradient_bytes"] == costs["dense_gradient_bytes"] + 4 * dim * (
        len(dataset.vocabulary) + 2
    )

    measured = benchmark_gpu.measure_step(config, xla=False, steps=2, traces=tmp_path)
    peaks = {"flops_per_second": 2 * costs["flops"], "bytes_per_second": 4 * costs["bytes"]}
    case = benchmark_gpu.with_roofline(case | {"xla": False} | costs | measured | peaks)
    assert (case["roofline_seconds"], case["bound_by"]) == (0.5, "compute")
    failed = case | {"xla": True, "error": "no kernel of Where for XLA_GPU_JIT"}
    page = benchmark_gpu.report(
        {
            "device": "a CPU",
            "documents": "few documents",
            "batch_size": 4,
            "peaks": {"float32": peaks},
            "cases": [case, {**case, "replicas": 3}, failed],
        }
    )
    cells = [line.split(" | ") for line in page.splitlines() if line.startswith("| bow")]
    assert cells[0][:4] == ["| bow", "float32", "1", f"{measured['step_seconds'] * 1e3:.1f}"]
    assert cells[0][12].startswith("500.0, compute")
    assert cells[2][:4] == ["| bow, XLA", "float32", "1", failed["error"]]
    # A replica of three gets the rows of two others, and four thirds of what is summed in a ring.
    sparse, dense = costs["sparse_gradient_bytes"], costs["dense_gradient_bytes"]
    sizes = (sparse + dense, costs["all_dense_gradient_bytes"], 2 * sparse + 4 / 3 * dense)
    assert cells[4][:5] == ["| bow", "3", *(f"{size / 1e6:.2f}" for size in sizes)]


def test_what_xla_cannot_compile_is_said_in_a_few_words():
    text = """Traceback (most recent call last):
  File "x.py", line 1, in <module>
tensorflow.python.framework.errors_impl.InvalidArgumentError: Graph execution error:
Detected unsupported operations: UniqueWithCounts (No registered 'UniqueWithCounts' OpKernel for \
XLA_GPU_JIT devices compatible with node x)"""
    assert benchmark_gpu.short_error(text) == "no kernel of UniqueWithCounts for XLA_GPU_JIT"
    assert benchmark_gpu.short_error("a\nOSError: no disk\nb") == "OSError: no disk"
