"""What a training step costs, whatever the device: its operations, its memory traffic, and the
gradients that replicas exchange.

A graph over ragged batches does not know its shapes, which TensorFlow's profiler needs in order to
count. So one step is run eagerly, and each of its operations is counted when it has run."""

import collections
import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.python.framework import op_callbacks

# Operations that give another view of their input, or the input itself: nothing is moved.
_VIEWS = {
    "EnsureShape",
    "ExpandDims",
    "Identity",
    "IdentityN",
    "ReadVariableOp",
    "Reshape",
    "Shape",
    "ShapeN",
    "Size",
    "Squeeze",
    "StopGradient",
    "VariableShape",
}
# Operations that read as much as they give, not all of their first input.
_LOOKUPS = {"Gather", "GatherV2", "GatherNd", "ResourceGather", "Slice", "StridedSlice", "Unpack"}
# Operations that move numbers and compute none.
_MOVES = (
    _VIEWS
    | _LOOKUPS
    | {
        "Cast",
        "ConcatV2",
        "Fill",
        "OnesLike",
        "Pack",
        "Pad",
        "PadV2",
        "Select",
        "SelectV2",
        "Split",
        "SplitV",
        "Tile",
        "Transpose",
        "ZerosLike",
    }
)
# Reads and writes of a variable's rows for each row of an update, beside the update itself.
_ROW_UPDATES = {
    "ResourceScatterAdd": 2,
    "ResourceScatterSub": 2,
    "ResourceScatterUpdate": 1,
    "AssignAddVariableOp": 2,
    "AssignSubVariableOp": 2,
    "AssignVariableOp": 1,
}


class Gradient(NamedTuple):
    """What a replica gives to the others for one variable.

    Attributes:
      name: the variable's.
      bytes: of the gradient as it is; of a sparse one its rows and their indices.
      dense_bytes: of one that has all rows.
      is_sparse: whether it is tf.IndexedSlices.
    """

    name: str
    bytes: int
    dense_bytes: int
    is_sparse: bool


@dataclasses.dataclass
class StepCosts:
    """Sums over the operations of a step.

    Attributes:
      flops: floating-point operations; a multiplication and an addition are two.
      bytes: read and written, operation by operation: what fuses operations needs fewer.
      flops_of, bytes_of: the same by kind of operation.
      gradients: of each variable that has one.
    """

    flops: int = 0
    bytes: int = 0
    flops_of: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    bytes_of: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    gradients: list[Gradient] = dataclasses.field(default_factory=list)


@contextlib.contextmanager
def counting() -> Iterator[StepCosts]:
    """Counts what runs eagerly in this thread while it is entered; functions run eagerly too."""
    costs, cells = StepCosts(), []

    def count(op_type, inputs, attrs, outputs, op_name=None, graph=None) -> None:
        if graph is not None:
            return
        op_type = tf.compat.as_str(op_type)
        attributes = dict(zip(attrs[::2], attrs[1::2], strict=True)) if attrs else {}
        if op_type == "SparseTensorToCSRSparseMatrix":
            cells[:] = [inputs[1].shape[0]]  # a matrix itself does not say how many it has
        if op_type == "SparseMatrixMatMul":
            flops = 2 * cells[0] * outputs[0].shape[-1]
        else:
            flops = _flops(op_type, inputs, attributes, outputs)
        moved = _bytes(op_type, inputs, outputs)
        costs.flops += flops
        costs.bytes += moved
        costs.flops_of[op_type] += flops
        costs.bytes_of[op_type] += moved

    eagerly = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    op_callbacks.add_op_callback(count)
    try:
        yield costs
    finally:
        op_callbacks.remove_op_callback(count)
        tf.config.run_functions_eagerly(eagerly)


def record_gradients(optimizer: Any, costs: StepCosts) -> None:
    """Lets an optimizer note the gradients that it is given in the costs of the step."""
    apply = optimizer.apply

    def noting(gradients: Sequence[Any], variables: Sequence[Any]) -> Any:
        costs.gradients = [
            Gradient(
                variable.path,
                _gradient_bytes(gradient),
                math.prod(variable.shape) * tf.as_dtype(variable.dtype).size,
                isinstance(gradient, tf.IndexedSlices),
            )
            for gradient, variable in zip(gradients, variables, strict=True)
            if gradient is not None
        ]
        return apply(gradients, variables)

    optimizer.apply = noting


def _gradient_bytes(gradient: tf.Tensor | tf.IndexedSlices) -> int:
    if isinstance(gradient, tf.IndexedSlices):
        return _size(gradient.values) + _size(gradient.indices)
    return _size(gradient)


def _size(tensor: Any) -> int:
    """Bytes of a tensor; 0 for handles and strings, whose size it does not say."""
    if tensor.dtype in (tf.resource, tf.variant, tf.string):
        return 0
    return _elements(tensor) * tensor.dtype.size


def _elements(tensor: Any) -> int:
    return math.prod(tensor.shape.as_list())


def _bytes(op_type: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    if op_type in _VIEWS:
        return 0
    written = sum(map(_size, outputs))
    if op_type in _LOOKUPS:
        return 2 * written + sum(_size(tensor) for tensor in inputs[1:])
    read = sum(map(_size, inputs))
    return written + read + _ROW_UPDATES.get(op_type, 0) * (_size(inputs[-1]) if inputs else 0)


def _flops(op_type: str, inputs: Sequence[Any], attributes: dict, outputs: Sequence[Any]) -> int:
    if op_type in _MOVES or not outputs:
        # An update that adds is one operation a number.
        return _elements(inputs[-1]) if _ROW_UPDATES.get(op_type) == 2 else 0
    if op_type in ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"):
        transposed = attributes.get("transpose_a") or attributes.get("adj_x")
        inner = inputs[0].shape[-2 if transposed else -1]
        return 2 * inner * _elements(outputs[0])
    if op_type == "Einsum":
        return 2 * _einsum_products(attributes["equation"], inputs)
    if op_type == "Conv2D":
        return 2 * _elements(outputs[0]) * math.prod(inputs[1].shape[:3])
    if op_type == "Conv2DBackpropInput":  # of the filter and of the output's gradient
        return 2 * _elements(inputs[2]) * math.prod(inputs[1].shape[:3])
    if op_type == "Conv2DBackpropFilter":
        return 2 * _elements(inputs[2]) * math.prod(outputs[0].shape[:3])
    if op_type in ("Sum", "Max", "Mean", "Prod", "Min", "UnsortedSegmentSum", "BiasAddGrad"):
        return _elements(inputs[0]) if inputs[0].dtype.is_floating else 0
    floating = [tensor for tensor in outputs if tensor.dtype.is_floating]
    return sum(map(_elements, floating))


def _einsum_products(equation: str | bytes, inputs: Sequence[Any]) -> int:
    """The product of the sizes of all dimensions that an equation names."""
    sizes = {}
    for names, tensor in zip(
        tf.compat.as_str(equation).partition("->")[0].split(","), inputs, strict=True
    ):
        sizes |= dict(zip(names, tensor.shape.as_list(), strict=True))
    return math.prod(sizes.values())
