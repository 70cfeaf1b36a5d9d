"""Who takes part: tconv, its reference, and the frameworks that are installed.

Each is made for one layer and says how to run it; what it cannot run, it refuses with a sentence.
All allocate their output on every call, and none converts anything inside the timed call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np

import tconv

from .suite import Array, Layer, as_dtype

TCONV, REFERENCE, PYTORCH, ONNX_RUNTIME = "tconv", "reference", "PyTorch", "ONNX Runtime"


Arrays = tuple[Array, ...]


class Refusal(Exception):
    """Why a library cannot run a layer."""


@dataclass(frozen=True)
class Contender:
    """One library on one layer."""

    run: Callable[[], Any]
    as_numpy: Callable[[Any], Array] = np.asarray
    answer_in_poison: Callable[[], tuple[Array, ...]] | None = None
    """Its answer in an array that was full of NaN, so that no output can stay unwritten."""

    def answer(self) -> tuple[Array, ...]:
        """Run once, and return the outputs as NumPy arrays: one, or three gradients."""
        try:
            result = self.run()
            results = result if isinstance(result, tuple) else (result,)
            return tuple(map(self.as_numpy, results))
        except Exception as error:  # libraries raise what they like
            raise Refusal(first_line(error)) from error


Factory = Callable[[Layer, Arrays, int], Contender]
"""``(layer, arrays, threads) -> Contender``, or a `Refusal` is raised."""


def ours(layer: Layer, arrays: Arrays, threads: int) -> Contender:  # noqa: ARG001
    """Return tconv's own verb; its threads are set for the whole process."""
    return _verb_of(tconv, layer, arrays)


def reference(layer: Layer, arrays: Arrays, threads: int) -> Contender:  # noqa: ARG001
    """Return the definition: zero insertion and SciPy's correlation, on one thread."""
    return _verb_of(tconv.reference, layer, arrays)


def _verb_of(module: Any, layer: Layer, arrays: Arrays) -> Contender:
    verb = partial(getattr(module, f"transposed_conv{layer.ndim}d"), *arrays, **layer.arguments)

    def answer_in_poison() -> tuple[Array, ...]:
        out = np.full(layer.geometry.out_shape, np.nan, arrays[0].dtype)
        return (np.asarray(verb(out=out)),)

    return Contender(verb, answer_in_poison=answer_in_poison)


def our_gradients(layer: Layer, arrays: Arrays, threads: int) -> Contender:  # noqa: ARG001
    """Return tconv's gradients of x, weight and bias."""
    verb = getattr(tconv, f"transposed_conv{layer.ndim}d_backward")
    return Contender(partial(verb, *arrays, **layer.arguments))


def pytorch(layer: Layer, arrays: Arrays, threads: int) -> Contender:
    """Return `torch.nn.functional.conv_transposeNd`, on tensors in the same memory."""
    return _pytorch(layer, arrays, threads, gradients=False)


def pytorch_gradients(layer: Layer, arrays: Arrays, threads: int) -> Contender:
    """Return what PyTorch's autograd calls for the three gradients, on the same memory."""
    return _pytorch(layer, arrays, threads, gradients=True)


def _pytorch(layer: Layer, arrays: Arrays, threads: int, *, gradients: bool) -> Contender:
    import torch

    torch.set_num_threads(threads)
    tensors = map(tensor, arrays)
    return Contender(partial(torch_call(layer, gradients=gradients), *tensors), from_tensor)


def torch_call(layer: Layer, *, gradients: bool) -> Callable[..., Any]:
    """Return PyTorch's function of a layer's tensors, wherever they are."""
    import torch

    if gradients:
        function = partial(
            torch.ops.aten.convolution_backward,
            bias_sizes=[layer.out_channels],
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            transposed=True,
            output_padding=layer.output_padding,
            groups=layer.groups,
            output_mask=[True, True, True],
        )
    else:
        verb = getattr(torch.nn.functional, f"conv_transpose{layer.ndim}d")
        function = partial(verb, **layer.arguments)

    def call(*tensors: Any) -> Any:
        with torch.inference_mode():
            return function(*tensors)

    return call


def tensor(array: Array) -> Any:
    """Return a tensor on the memory of an array."""
    import torch

    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def from_tensor(tensor: Any) -> Array:
    """Return an array on the memory of a tensor."""
    import torch

    if tensor.dtype == torch.bfloat16:
        return np.asarray(tensor.view(torch.int16).numpy()).view(as_dtype("bfloat16"))
    return np.asarray(tensor.numpy())


def onnx_runtime(layer: Layer, arrays: Arrays, threads: int) -> Contender:
    """Return an ONNX Runtime session of one ConvTranspose node, its weight being a constant."""
    import onnxruntime

    x, weight = arrays
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            _model(layer, weight), options, providers=["CPUExecutionProvider"]
        )
        feed = {"x": onnxruntime.OrtValue.ortvalue_from_numpy(x)}
    except Exception as error:
        raise Refusal(first_line(error)) from error
    return Contender(
        lambda: session.run_with_ort_values(["y"], feed)[0], lambda result: result.numpy()
    )


def _model(layer: Layer, weight: Array) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    elements = helper.np_dtype_to_tensor_dtype(weight.dtype)
    node = helper.make_node(
        "ConvTranspose",
        ["x", "weight"],
        ["y"],
        strides=layer.stride,
        pads=layer.padding * 2,
        output_padding=layer.output_padding,
        dilations=layer.dilation,
        group=layer.groups,
    )
    graph = helper.make_graph(
        [node],
        layer.name,
        [helper.make_tensor_value_info("x", elements, layer.geometry.x_shape)],
        [helper.make_tensor_value_info("y", elements, layer.geometry.out_shape)],
        [numpy_helper.from_array(weight, "weight")],
    )
    # An old form of the file, which every ONNX Runtime of these years can read.
    opset = helper.make_opsetid("", 11 if elements != TensorProto.BFLOAT16 else 22)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    return bytes(model.SerializeToString())


PEERS: dict[str, Factory] = {
    PYTORCH: pytorch,
    ONNX_RUNTIME: onnx_runtime,
}

GRADIENT_PEERS: dict[str, Factory] = {PYTORCH: pytorch_gradients}

_PACKAGES = {PYTORCH: ("torch",), ONNX_RUNTIME: ("onnxruntime", "onnx")}


def missing_packages(peer: str) -> list[str]:
    """Return the packages that a peer needs and that are not installed."""
    return [name for name in _PACKAGES[peer] if find_spec(name) is None]


def peer_version(peer: str) -> str:
    """Return the version of an installed peer."""
    return version(_PACKAGES[peer][0])


def first_line(error: BaseException) -> str:
    """Return what an error says, in one line."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
