"""One call: arrange the arguments, choose a kernel, launch it.

Nothing here names CuPy: a `Device` allocates memory and gives kernels, so the same lines launch
the same sources on a machine without a GPU.

A call like one before finds its choice and its parameters at hand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from itertools import accumulate
from threading import get_ident
from typing import Any, NamedTuple, Protocol

import numpy as np

from .. import _check, _memory
from .._geometry import Geometry
from .call import TYPES, Call, Operation, Strides, contiguous
from .choice import Boxes, Choice, Specialisation, Tile
from .params import boxes_params, params, splits_params, transposition_params
from .select import select
from .tensor_map import TensorMap


class Kernel(Protocol):
    """A compiled kernel, ready to launch."""

    def __call__(
        self, grid: tuple[int], block: tuple[int], args: tuple[Any, ...], *, shared_mem: int
    ) -> None:
        """Launch on the current stream."""


class Device(Protocol):
    """Where arrays are and kernels run."""

    @property
    def capability(self) -> int:
        """The compute capability as two digits, 80 for 8.0."""

    @property
    def multiprocessors(self) -> int:
        """How many blocks run at once at least."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Return a new array with arbitrary contents."""

    def upload(self, array: Any) -> Any:
        """Return a copy of a NumPy array; it is there, for every stream, when this returns."""

    @property
    def stream(self) -> int:
        """The handle of the current stream."""

    def address(self, array: Any) -> int:
        """Return where an array's first element lies."""

    def bytes_of(self, array: Any) -> Any:
        """Return a view of an array's bytes, with one more axis."""

    def placed(self, array: Any, memory: Any, offset: int) -> Any:
        """Return an array like another whose first element lies at this byte of the memory."""

    def tensor_maps(self, tensor_maps: tuple[TensorMap, ...], address: int) -> Any:
        """Return tensor maps of one array, as a kernel takes them."""

    def kernel(self, specialisation: Specialisation) -> Kernel:
        """Return a kernel; each is compiled and loaded once."""


ROOM = 256
"""Bytes: every copy of an argument begins at a multiple, as any kernel wants it."""

Workspace = Callable[[int], Any]
"""Gives so many bytes of memory for what one pass of a choice leaves to the next."""


class Prepared(NamedTuple):
    """All of a call that does not depend on where its arrays lie; alignments are in bytes."""

    choice: Choice
    params: tuple[np.ndarray[Any, np.dtype[Any]], ...]
    transpositions: tuple[np.ndarray[Any, np.dtype[Any]], ...]
    x_alignment: int
    weight_alignment: int
    bias_alignment: int
    out_alignment: int


def transposed_conv(
    x: Any,
    weight: Any,
    bias: Any,
    geometry: Geometry,
    *,
    activation: str | None,
    precision: str | None,
    out: Any,
    device: Device,
    workspace: Workspace | None = None,
    kernel: str | None = None,
    tile: Tile | None = None,
) -> Any:
    """Compute on one device; ``kernel`` and ``tile`` force a choice.

    A `workspace` gives the memory that a choice of two passes needs; else it is allocated.
    """
    return _compute(
        "transposed_conv", x, weight, bias, geometry, activation, precision, out, device,
        workspace, kernel, tile,
    )  # fmt: skip


def conv(
    y: Any,
    weight: Any,
    geometry: Geometry,
    *,
    bias: Any,
    out: Any,
    device: Device,
    kernel: str | None = None,
    tile: Tile | None = None,
) -> Any:
    """Compute the adjoint of the transposed convolution of a geometry."""
    return _compute(
        "conv", y, weight, bias, geometry, None, None, out, device, None, kernel, tile
    )


def _compute(
    operation: Operation,
    x: Any,
    weight: Any,
    bias: Any,
    geometry: Geometry,
    activation: str | None,
    precision: str | None,
    out: Any,
    device: Device,
    workspace: Workspace | None,
    kernel: str | None,
    tile: Tile | None,
) -> Any:
    shape = geometry.x_shape if operation == "conv" else geometry.out_shape
    if out is None:
        out = _memory.empty(x, shape, device.empty)
    if 0 in shape:
        return out
    lies = x.strides, weight.strides, None if bias is None else bias.strides, out.strides
    plan = _recalled(
        operation, geometry, _check.dtype_name(out.dtype), lies, activation, precision,
        device.capability, kernel, tile,
    )  # fmt: skip
    result = out
    if plan is None:
        x, weight, bias = (
            None if array is None else _regular(array, device)[0] for array in (x, weight, bias)
        )
        if _strides(out) is None:
            result = device.empty(out.shape, out.dtype)
        _compute(
            operation, x, weight, bias, geometry, activation, precision, result, device,
            workspace, kernel, tile,
        )  # fmt: skip
    else:
        if device.address(out) % plan.out_alignment:
            result = _like(out, plan.out_alignment, device)
        arguments = (
            _aligned(x, plan.x_alignment, device),
            _aligned(weight, plan.weight_alignment, device),
            _NULL if bias is None else _aligned(bias, plan.bias_alignment, device),
            result,
        )
        launch(plan, arguments, device, workspace)
    if result is not out:
        device.bytes_of(out)[...] = device.bytes_of(result)
    return out


def parameter_gradients(
    x: Any,
    y: Any,
    geometry: Geometry,
    *,
    weight: bool = True,
    bias: bool = True,
    device: Device,
    kernel: str | None = None,
    tile: Tile | None = None,
) -> tuple[Any, Any]:
    """Return the gradients of weight and bias that are wanted, where `y` is that of the output."""
    grad_weight = device.empty(geometry.weight_shape, x.dtype) if weight else None
    grad_bias = device.empty((geometry.out_channels,), x.dtype) if bias else None
    if not geometry.out_channels:
        return grad_weight, grad_bias
    x, x_strides = _regular(x, device)
    y, y_strides = _regular(y, device)
    call = Call(
        geometry,
        _check.dtype_name(x.dtype),
        Strides(x_strides, contiguous(geometry.weight_shape), 1, y_strides),
        capability=device.capability,
        operation="weight_gradient",
        wanted=(weight, bias),
    )
    plan = _kept(call, kernel, tile)
    arguments = (
        _aligned(x, plan.x_alignment, device),
        _aligned(y, plan.out_alignment, device),
        _NULL if grad_weight is None else grad_weight,
        _NULL if grad_bias is None else grad_bias,
    )
    launch(plan, arguments, device, None)
    return grad_weight, grad_bias


def packed(weight: Any, device: Device) -> Any:
    """Return a copy of a NumPy array on the device that has m nearest in memory, then c."""
    taps = range(2, weight.ndim)
    there = device.upload(np.ascontiguousarray(weight.transpose(*taps, 0, 1)))
    return there.transpose(weight.ndim - 2, weight.ndim - 1, *range(weight.ndim - 2))


class Workspaces:
    """Memory that stays, one for each stream and thread, so that none waits for another."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._kept: dict[tuple[int, ...], Any] = {}

    def __call__(self, size: int) -> Any:
        """Return at least so many bytes; the same memory each time."""
        size = 1 << (size - 1).bit_length()
        key = (self._device.stream, get_ident(), size)
        if key not in self._kept:
            self._kept[key] = self._device.empty((size,), np.uint8)
        return self._kept[key]


# The same few calls come again and again.
@lru_cache(maxsize=4096)
def _recalled(
    operation: Operation,
    geometry: Geometry,
    dtype: str,
    lies: tuple[tuple[int, ...] | None, ...],
    activation: str | None,
    precision: str | None,
    capability: int,
    kernel: str | None,
    tile: Tile | None,
) -> Prepared | None:
    """Prepare a call on x, weight, bias and out that lie in memory with these strides in bytes.

    None if some are no whole numbers of elements.
    """
    read, written = geometry.x_shape, geometry.out_shape
    if operation == "conv":
        read, written = written, read
    shapes = read, geometry.weight_shape, written[1:2], written
    x, weight, bias, out = (
        (0,) if steps is None else _elements(shape, steps, TYPES[dtype].element_bytes)
        for shape, steps in zip(shapes, lies, strict=True)
    )
    if x is None or weight is None or bias is None or out is None:
        return None
    strides = Strides(x, weight, bias[0], out)
    call = Call(geometry, dtype, strides, activation, precision, capability, operation)
    return prepared(call, kernel, tile)


def prepared(call: Call, kernel: str | None = None, tile: Tile | None = None) -> Prepared:
    """Choose, and work out the parameters."""
    choice = select(call, kernel=kernel, tile=tile)
    if choice.strides is not None:
        call = replace(call, strides=choice.strides)
    itemsize = call.type.element_bytes
    vectors = dict(choice.specialisation.constants)
    alignments = [
        int(vectors.get(f"{name}_VECTOR", 1)) * itemsize for name in ("X", "WEIGHT", "OUT")
    ]
    for transposition in choice.transpositions:
        alignments[transposition.argument] = itemsize
    x, weight, out = alignments
    structs = [params(choice, call)]
    if choice.splits is not None:
        structs.append(splits_params(choice.splits, choice.specialisation.index_bits))
    if choice.boxes is not None:
        structs.append(boxes_params(choice.boxes, choice, call))
    of_copies = tuple(map(transposition_params, choice.transpositions))
    return Prepared(choice, tuple(structs), of_copies, x, weight, itemsize, out)


_kept = lru_cache(maxsize=4096)(prepared)


def launch(
    plan: Prepared, arguments: tuple[Any, ...], device: Device, workspace: Workspace | None
) -> None:
    """Launch all passes; with a workspace after the arrays where the choice wants one."""
    choice = plan.choice
    allocate = workspace or (lambda size: device.empty((size,), np.uint8))
    if choice.transpositions:
        arguments = _transposed(plan, arguments, device, allocate)
    if choice.workspace_bytes:
        arguments = (*arguments, allocate(choice.workspace_bytes))
    elif choice.splits is not None:
        arguments = (*arguments, _NULL)
    boxes = choice.boxes
    maps = () if boxes is None else _maps(boxes, arguments, device)
    arguments = (*arguments, *plan.params, *maps)
    blocks = choice.blocks
    if boxes is not None:
        cluster = int(choice.specialisation["CLUSTER"])
        blocks = min(blocks, max(1, device.multiprocessors // cluster) * cluster)
    _run(choice.specialisation, blocks, arguments, device)
    if choice.second is not None:
        _run(*choice.second, arguments, device)


def _run(
    specialisation: Specialisation, blocks: int, arguments: tuple[Any, ...], device: Device
) -> None:
    kernel = device.kernel(specialisation)
    if blocks:
        kernel(
            (blocks,), (specialisation.threads,), arguments, shared_mem=specialisation.shared_bytes
        )


def _transposed(
    plan: Prepared, arguments: tuple[Any, ...], device: Device, workspace: Workspace
) -> tuple[Any, ...]:
    """Return the arguments with copies, in one piece of memory, in place of some."""
    transpositions = plan.choice.transpositions
    ends = list(accumulate(-(-t.nbytes // ROOM) * ROOM for t in transpositions))
    memory = workspace(ends[-1])
    result = list(arguments)
    for one, begin, struct in zip(transpositions, [0, *ends], plan.transpositions, strict=False):
        copy = memory[begin : begin + one.nbytes]
        _run(one.specialisation, one.blocks, (arguments[one.argument], copy, struct), device)
        result[one.argument] = copy
    return tuple(result)


def _maps(boxes: Boxes, arguments: tuple[Any, ...], device: Device) -> tuple[Any, ...]:
    """Return the tensor maps of x, weight and out, the first for the last if there are none."""
    x, weight, out = (device.address(arguments[i]) for i in (0, 1, 3))
    loads = device.tensor_maps((boxes.x,), x)
    stores = device.tensor_maps(boxes.out, out) if boxes.out else loads
    return loads, device.tensor_maps((boxes.weight,), weight), stores


_NULL = np.uint64(0)


def _elements(
    shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int
) -> tuple[int, ...] | None:
    """Return strides in elements, or None if they are no whole numbers of them.

    An axis of one element has no stride that matters.
    """
    steps = [0 if n == 1 else step for n, step in zip(shape, strides, strict=True)]
    if any(step % itemsize for step in steps):
        return None
    return tuple(step // itemsize for step in steps)


def _strides(array: Any) -> tuple[int, ...] | None:
    return _elements(array.shape, array.strides, array.dtype.itemsize)


def _regular(array: Any, device: Device) -> tuple[Any, tuple[int, ...]]:
    """Return an array and its strides in elements; a copy if they are no whole numbers of them."""
    strides = _strides(array)
    if strides is not None:
        return array, strides
    copy = device.empty(array.shape, array.dtype)
    device.bytes_of(copy)[...] = device.bytes_of(array)
    return _regular(copy, device)


def _aligned(array: Any, alignment: int, device: Device) -> Any:
    """Return an array that begins at a multiple of so many bytes, with the strides it had.

    The strides are kept because the choice was made for them.
    """
    if device.address(array) % alignment == 0:
        return array
    copy = _like(array, alignment, device)
    device.bytes_of(copy)[...] = device.bytes_of(array)
    return copy


def _like(array: Any, alignment: int, device: Device) -> Any:
    """Return memory for an array with the strides of another, beginning at a multiple of bytes."""
    spans = [(n - 1) * step for n, step in zip(array.shape, array.strides, strict=True)]
    before = -sum(span for span in spans if span < 0)
    after = sum(span for span in spans if span > 0) + array.dtype.itemsize
    memory = device.empty((before + after + alignment,), np.uint8)
    offset = before + -(device.address(memory) + before) % alignment
    return device.placed(array, memory, offset)
