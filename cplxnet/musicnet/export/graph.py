"""An ONNX graph of real numbers, node by node, and how complex values lie in it.

A complex value of shape (B, C, L) is a real tensor (B, 2C, L) whose channels are the real and the imaginary part of
each in turn; one of shape (B, N) is (B, 2N), pair by pair. So ReLU or pooling acts on both parts at once.
The batch axis is dynamic throughout. Operators are those of the standard domain, opset 20.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 20  # the first whose DFT takes its axis as an input; onnxruntime 1.17 and later
IR_VERSION = 9  # what that opset came with: older runtimes refuse files with a newer one


class Value(NamedTuple):
    """A tensor of the graph: its name, and its shape without the batch, counted in complex numbers if `cplx`."""

    name: str
    shape: tuple[int, ...]
    cplx: bool


class Graph:
    """Collects nodes and constants; names are made here."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self._count = 0

    def input(self, name: str, *shape: int) -> str:
        """A float32 input (batch, *shape)."""
        self.inputs.append(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])
        )
        return name

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Append an operator with one output; returns the output's name."""
        name = self._name(kind.lower())
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, value: Any, dtype: type = np.float32, *, like: str = "constant") -> str:
        """A constant tensor; returns its name."""
        name = self._name(like)
        self.constants.append(numpy_helper.from_array(np.array(value, dtype, order="C"), name))
        return name

    def weight(self, value: np.ndarray, *, pairs: bool = False) -> str:
        """A constant float32 tensor, stored by what is not zero where that is smaller.

        pairs: the last axis of 2 goes together, as one complex weight. Indices are int32, scattered into zeros when a
        session starts (runtimes fold constants), so that running costs nothing.
        """
        width = 2 if pairs else 1
        rows = np.asarray(value, np.float32).reshape(-1, width)
        kept = np.flatnonzero(rows.any(1))
        if len(kept) * (width + 1) >= rows.size or rows.size < 1024:
            return self.constant(value, like="weight")
        zeros = self.node("ConstantOfShape", self.constant(rows.shape, np.int64))
        places = self.node(
            "Cast", self.constant(kept[:, None], np.int32, like="indices"), to=TensorProto.INT64
        )
        filled = self.node("ScatterND", zeros, places, self.constant(rows[kept], like="weight"))
        return self.node("Reshape", filled, self.constant(value.shape, np.int64))

    def reshape(self, name: str, *shape: int) -> str:
        """`name` as (batch, *shape)."""
        return self.node("Reshape", name, self.constant((-1, *shape), np.int64, like="shape"))

    def pairs(self, value: Value) -> str:
        """A complex value with an axis of its own for (real, imaginary), the second after the channels' or the last."""
        first, *rest = value.shape
        return self.reshape(value.name, first, 2, *rest)

    def part(self, value: Value, index: int) -> str:
        """The real (0) or imaginary (1) part of a complex value, of its shape."""
        return self.node(
            "Gather", self.pairs(value), self.constant(index, np.int64, like="part"), axis=2
        )

    def model(
        self, output: str, shape: tuple[int, ...], metadata: dict[str, str]
    ) -> onnx.ModelProto:
        """The finished model, checked; its output is renamed `logits` (batch, *shape)."""
        last = self.node("Identity", output)
        self.nodes[-1].output[0] = "logits"
        self.nodes[-1].name = last
        result = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", *shape])
        graph = helper.make_graph(self.nodes, "cplxnet", self.inputs, [result], self.constants)
        made = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="cplxnet",
        )
        helper.set_model_props(made, metadata)
        onnx.checker.check_model(made, full_check=True)
        return made

    def _name(self, stem: str) -> str:
        self._count += 1
        return f"{stem}_{self._count}"
