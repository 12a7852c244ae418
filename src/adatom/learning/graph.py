"""The networks as ONNX graphs, which ONNX Runtime computes on the processor.

ONNX Runtime is imported in a tenth of the time of torch, and computes as fast or faster;
torch trains them, and runs them on a GPU (docs/decisions/0032-networks-without-torch.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from adatom.core.arrays import Image
from adatom.learning.ensemble import NetworkWeights
from adatom.learning.layout import CONTEXT, FOLD

_OPSET, _IR = 17, 8  # of ONNX: old enough for every runtime that is pinned, see constraints.txt
_NORM_EPS = 1e-5  # of batch normalisation: torch's default
_STRIP_ROWS = 32  # rows of the trunk's map per step of the heads: fits the caches
_HALO = 1  # rows that the 3 x 3 kernels of the heads see beyond a strip


@dataclass(frozen=True, slots=True, eq=False)
class Runner:
    """Compute the members' probabilities on the processor.

    Parameters
    ----------
    networks
        Trunk, heads, and number of heads of each network, ready to run.
    classes
        Number of probability maps of each member.
    """

    networks: tuple[tuple[onnxruntime.InferenceSession, onnxruntime.InferenceSession, int], ...]
    classes: int

    @classmethod
    def of(cls, networks: Sequence[NetworkWeights], threads: int) -> Runner:
        """Prepare the networks for a number of threads."""
        made = tuple(
            (_session(trunk_graph(n), threads), _session(heads_graph(n), threads), n.heads)
            for n in networks
        )
        return cls(made, networks[0].classes)

    def __call__(self, image: Image) -> NDArray[np.float32]:
        """Compute probabilities, shape (member, class, row, col), of a normalised image.

        The heads run on strips of rows, because the hidden maps of a whole frame exceed the caches
        and need more memory than all the rest.
        """
        rows, cols = image.shape
        members = sum(heads for *_, heads in self.networks)
        out = np.empty((members, self.classes, rows, cols), dtype=np.float32)
        first = 0
        for trunk, head, heads in self.networks:
            own = out[first : first + heads]
            first += heads
            (features,) = trunk.run(None, {"image": image[None, None]})
            for low in range(0, rows // FOLD, _STRIP_ROWS):
                high = min(low + _STRIP_ROWS, rows // FOLD)
                strip = np.ascontiguousarray(features[:, :, low : high + 2 * _HALO])
                (maps,) = head.run(None, {"features": strip})
                own[:, :, low * FOLD : high * FOLD] = maps.reshape(heads, self.classes, -1, cols)
            del features  # it is as large as all that the next trunk keeps at a time
        return out


def _session(model: ModelProto, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that wait in a loop would take the cores of what runs beside the networks.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = False  # an arena keeps the memory of the largest frame
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def trunk_graph(network: NetworkWeights) -> ModelProto:
    """Make the graph of a trunk: ``image`` (1, 1, row, col) to ``features``.

    The features have one row of zeros more above and below, for the kernels of the heads.
    """
    g = _Graph(network.tensors)
    one = g.blocks("image", "trunk.down1", 2)
    two = g.blocks(g.pooled(one), "trunk.down2", 2)
    three = g.block(g.pooled(two), "trunk.bottom")
    for k in range(CONTEXT):
        three = g.add("Add", three, g.blocks(three, f"trunk.context.{k}", 2))
    two = g.blocks(
        g.add("Add", two, g.grown(g.convolution(three, "trunk.narrow2"))), "trunk.up2", 2
    )
    one = g.blocks(g.add("Add", one, g.grown(g.convolution(two, "trunk.narrow1"))), "trunk.up1", 2)
    pads = g.constant(np.array([0, 0, _HALO, 0, 0, 0, _HALO, 0], dtype=np.int64))
    g.add("Pad", one, pads, into="features")
    return g.model("image", (1, 1, "rows", "cols"), "features", network.width)


def heads_graph(network: NetworkWeights) -> ModelProto:
    """Make the graph of the heads: a strip of ``features`` to ``maps``, the probabilities."""
    g = _Graph(network.tensors)
    hidden = g.block("features", "hidden", rows_padded=False)
    maps = g.add("Sigmoid", g.convolution(hidden, "out", groups=network.heads))
    g.add("DepthToSpace", maps, into="maps", blocksize=FOLD, mode="CRD")
    shape = (1, network.width, "rows", "cols")
    return g.model("features", shape, "maps", network.heads * network.classes)


class _Graph:
    """Nodes and weights of a graph in the making; batch normalisation is folded into kernels."""

    def __init__(self, tensors: Mapping[str, NDArray[np.float32]]) -> None:
        self._tensors = tensors
        self._nodes: list[NodeProto] = []
        self._constants: list[TensorProto] = []

    def constant(self, value: NDArray[np.generic]) -> str:
        name = f"constant{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, kind: str, *inputs: str, into: str = "", **options: Any) -> str:
        out = into or f"map{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [out], **options))
        return out

    def convolution(self, x: str, name: str, groups: int = 1) -> str:
        weight, bias = (self._tensors[f"{name}.{part}"] for part in ("weight", "bias"))
        return self._convolved(x, weight, bias, 1, (0, 0), groups)

    def blocks(self, x: str, name: str, count: int) -> str:
        for k in range(count):
            x = self.block(x, f"{name}.{k}")
        return x

    def block(self, x: str, name: str, *, rows_padded: bool = True) -> str:
        """Convolution, batch normalisation and ReLU."""
        kernel = self._tensors[f"{name}.0.weight"]
        gain, shift, mean, variance = (
            self._tensors[f"{name}.1.{part}"].astype(np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gain / np.sqrt(variance + _NORM_EPS)
        weight = (kernel * scale[:, None, None, None]).astype(np.float32)
        bias = (shift - mean * scale).astype(np.float32)
        stride = FOLD if kernel.shape[2] == 3 * FOLD else 1
        pad = (kernel.shape[2] - stride) // 2
        pads = (pad if rows_padded else 0, pad)
        return self.add("Relu", self._convolved(x, weight, bias, stride, pads, 1))

    def _convolved(
        self,
        x: str,
        weight: NDArray[np.float32],
        bias: NDArray[np.float32],
        stride: int,
        pads: tuple[int, int],
        groups: int,
    ) -> str:
        return self.add(
            "Conv", x, self.constant(weight), self.constant(bias), group=groups,
            kernel_shape=list(weight.shape[2:]), strides=[stride, stride], pads=[*pads, *pads],
        )  # fmt: skip

    def pooled(self, x: str) -> str:
        return self.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])

    def grown(self, x: str) -> str:
        scales = self.constant(np.array([1, 1, 2, 2], dtype=np.float32))
        mode = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        return self.add("Resize", x, "", scales, **mode)

    def model(
        self, given: str, shape: tuple[int | str, ...], made: str, channels: int
    ) -> ModelProto:
        out = (1, channels, "rows_out", "cols_out")
        graph = helper.make_graph(
            self._nodes, "adatom",
            [helper.make_tensor_value_info(given, TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(made, TensorProto.FLOAT, out)], self._constants,
        )  # fmt: skip
        opset = helper.make_opsetid("", _OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=_IR)
