"""Arguments in, ``Geometry`` out: the only place that says no to a user.

Reads nothing of an array but its ``shape`` and ``dtype``, so it serves every array library alike.
Each message names the argument, what it is and what it must be.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

from ._geometry import Geometry, full_size

FLOATS = ("float16", "bfloat16", "float32", "float64")
COMPLEX = ("complex64", "complex128")
INTEGERS = ("int32", "int64")
DTYPES = (*FLOATS, *COMPLEX, *INTEGERS)
ACTIVATIONS = ("relu", "leaky_relu", "sigmoid", "tanh", "gelu", "silu")
PRECISIONS = ("ieee", "tf32", "tf32x3")
PADDINGS = ("valid", "same", "same_upper", "same_lower")

LARGEST = 2**63 - 1


class Window(NamedTuple):
    """What a call says of its geometry besides the shapes of its arrays, spelled out for each axis.

    ``padding`` is a (begin, end) pair for each axis, or a name.
    """

    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...] | str
    output_padding: tuple[int, ...]
    output_size: tuple[int, ...] | None
    dilation: tuple[int, ...]
    groups: int


def window(
    ndim: int,
    *,
    stride: Any,
    padding: Any,
    output_padding: Any,
    output_size: Any,
    dilation: Any,
    groups: Any,
) -> Window:
    """Return the window that these arguments spell, or raise the error that explains them."""
    stride = _ints("stride", stride, ndim, least=1)
    dilation = _ints("dilation", dilation, ndim, least=1)
    groups = _int("groups", groups, least=1)
    extra = _ints("output_padding", output_padding, ndim, least=0)
    padding = _padding(padding, ndim)
    if isinstance(padding, str):
        if output_size is not None or any(extra):
            given = "output_padding" if output_size is None else "output_size"
            raise ValueError(f"padding={padding!r} fixes the output size; leave out {given}")
        return Window(stride, padding, extra, None, dilation, groups)
    for axis in range(ndim):
        if extra[axis] >= max(stride[axis], dilation[axis]):
            raise ValueError(
                f"output_padding={extra[axis]} must be less than stride={stride[axis]} "
                f"or dilation={dilation[axis]} (spatial axis {axis})"
            )
    if output_size is not None:
        if any(extra):
            raise ValueError(
                f"output_size={output_size} replaces output_padding={output_padding}; leave one out"
            )
        output_size = _ints("output_size", output_size, ndim, least=1)
    return Window(stride, padding, extra, output_size, dilation, groups)


def geometry(ndim: int, x: Any, weight: Any, bias: Any, **spelling: Any) -> Geometry:
    """Return the geometry of one call, or raise the error that explains it."""
    axes(ndim, x, weight)
    bias_shape = None if bias is None else tuple(bias.shape)
    return laid(
        window(ndim, **spelling), tuple(x.shape), tuple(weight.shape), bias_shape, x.dtype.itemsize
    )


def axes(ndim: int, x: Any, weight: Any) -> None:
    """Raise unless x and weight have as many axes as a transposed convolution of ndim takes."""
    _x_axes(ndim, len(x.shape))
    _weight_axes(ndim, len(weight.shape), "C, M // groups")


def laid(
    window: Window,
    x_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    bias_shape: tuple[int, ...] | None,
    itemsize: int,
) -> Geometry:
    """Return the geometry of a window on arrays of these shapes, whose axes are enough."""
    ndim, groups = len(window.stride), window.groups
    batch, in_channels, in_size, kernel_size = _sizes_of(ndim, x_shape, weight_shape)
    if weight_shape[0] != in_channels:
        raise ValueError(
            f"weight has {weight_shape[0]} input channels (axis 0) "
            f"but x has {in_channels} (axis {len(x_shape) - ndim - 1})"
        )
    if in_channels % groups:
        raise ValueError(f"x has {in_channels} channels, which groups={groups} does not divide")
    out_channels = _out_channels(weight_shape, bias_shape, groups)
    pad_begin, out_size = _out_window(in_size, kernel_size, window)
    result = Geometry(
        batch, groups, in_channels, out_channels, in_size, kernel_size, window.stride,
        window.dilation, pad_begin, out_size,
    )  # fmt: skip
    _addressable(result.out_shape, itemsize)
    return result


def _out_channels(
    weight_shape: tuple[int, ...], bias_shape: tuple[int, ...] | None, groups: int
) -> int:
    out_channels = weight_shape[1] * groups
    if bias_shape is not None and bias_shape != (out_channels,):
        raise ValueError(
            f"bias has shape {bias_shape} but must be ({out_channels},): "
            f"weight has {weight_shape[1]} output channels (axis 1) for each of groups={groups}"
        )
    return out_channels


def layer(ndim: int, weight: Any, bias: Any, **spelling: Any) -> Window:
    """Return the window of a layer, or raise the error that can be told before there is an x."""
    _weight_axes(ndim, len(weight.shape), "C, M // groups")
    result = window(ndim, output_size=None, **spelling)
    _sizes("weight", tuple(weight.shape[2:]), 2)
    if weight.shape[0] % result.groups:
        raise ValueError(
            f"weight has {weight.shape[0]} input channels (axis 0), "
            f"which groups={result.groups} does not divide"
        )
    _out_channels(tuple(weight.shape), None if bias is None else tuple(bias.shape), result.groups)
    return result


def resized(spelt: Window, output_size: Any) -> Window:
    """Return a window with this output size instead of its output padding."""
    spelling = {**spelt._asdict(), "output_padding": 0, "output_size": output_size}
    return window(len(spelt.stride), **spelling)


def conv_geometry(
    ndim: int,
    x: Any,
    weight: Any,
    bias: Any,
    *,
    stride: Any,
    padding: Any,
    output_size: Any,
    dilation: Any,
    groups: Any,
) -> Geometry:
    """Return the geometry of the transposed convolution that this convolution is the adjoint of."""
    _x_axes(ndim, len(x.shape))
    _weight_axes(ndim, len(weight.shape), "M, C // groups")
    batch, channels, size, kernel_size = _sizes_of(ndim, tuple(x.shape), tuple(weight.shape))
    stride = _ints("stride", stride, ndim, least=1)
    dilation = _ints("dilation", dilation, ndim, least=1)
    groups = _int("groups", groups, least=1)
    if weight.shape[0] % groups:
        raise ValueError(
            f"weight has {weight.shape[0]} output channels (axis 0), "
            f"which groups={groups} does not divide"
        )
    if weight.shape[1] * groups != channels:
        raise ValueError(
            f"weight has {weight.shape[1]} input channels (axis 1) for each of groups={groups} "
            f"but x has {channels} (axis {len(x.shape) - ndim - 1})"
        )
    if bias is not None and tuple(bias.shape) != (weight.shape[0],):
        raise ValueError(
            f"bias has shape {tuple(bias.shape)} but must be ({weight.shape[0]},): "
            f"weight has {weight.shape[0]} output channels (axis 0)"
        )
    pad_begin, out_size = _conv_window(size, kernel_size, stride, dilation, padding, output_size)
    result = Geometry(
        batch, groups, weight.shape[0], channels, out_size, kernel_size, stride, dilation,
        pad_begin, size,
    )  # fmt: skip
    _addressable(result.x_shape, x.dtype.itemsize)
    return result


def _x_axes(ndim: int, count: int) -> None:
    if count not in (ndim + 1, ndim + 2):
        raise ValueError(
            f"x has {_count(count, 'axis')} but needs {ndim + 2}, (N, C, {_axes(ndim)}), "
            f"or {ndim + 1}, (C, {_axes(ndim)})"
        )


def _weight_axes(ndim: int, count: int, channels: str) -> None:
    if count != ndim + 2:
        raise ValueError(
            f"weight has {_count(count, 'axis')} but needs {ndim + 2}, ({channels}, {_axes(ndim)})"
        )


def _sizes_of(
    ndim: int, x_shape: tuple[int, ...], weight_shape: tuple[int, ...]
) -> tuple[int, int, tuple[int, ...], tuple[int, ...]]:
    """Return the batch, the channels and the spatial size of x, and the size of the kernel."""
    size, kernel_size = x_shape[-ndim:], weight_shape[2:]
    _sizes("x", size, len(x_shape) - ndim)
    _sizes("weight", kernel_size, 2)
    return 1 if len(x_shape) == ndim + 1 else x_shape[0], x_shape[-ndim - 1], size, kernel_size


def _addressable(shape: tuple[int, ...], itemsize: int) -> None:
    # NumPy refuses such axes even where another one is empty.
    size = prod([max(1, n) for n in shape]) * itemsize
    if size > LARGEST:
        raise ValueError(
            f"the output would have shape {shape} and {size} bytes, "
            f"more than the {LARGEST} that can be addressed"
        )


def _out_window(
    in_size: tuple[int, ...], kernel_size: tuple[int, ...], window: Window
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return where the output begins on the full result, and how long it is, along every axis."""
    stride, pads, extra, wanted, dilation, _ = window
    full = tuple(map(full_size, in_size, kernel_size, stride, dilation))
    if isinstance(pads, str):
        return _named_window(in_size, full, stride, pads)

    begin = tuple(pad[0] for pad in pads)
    out = tuple(n - sum(pad) + more for n, pad, more in zip(full, pads, extra, strict=True))
    longest = out
    if wanted is not None:
        longest = tuple(n + max(s, d) - 1 for n, s, d in zip(out, stride, dilation, strict=True))
    for axis in range(len(in_size)):
        if longest[axis] < 1:
            pad = pads[axis][0] if pads[axis][0] == pads[axis][1] else pads[axis]
            raise ValueError(
                f"padding={pad} leaves an output of length {longest[axis]} along spatial axis "
                f"{axis}: without padding it is {longest[axis] + sum(pads[axis])} long"
            )
        if wanted is not None and not out[axis] <= wanted[axis] <= longest[axis]:
            raise ValueError(
                f"output_size={wanted[axis]} must be from {max(1, out[axis])} to "
                f"{longest[axis]} (spatial axis {axis})"
            )
    return begin, out if wanted is None else wanted


def _named_window(
    in_size: tuple[int, ...], full: tuple[int, ...], stride: tuple[int, ...], padding: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if padding == "valid":
        # A kernel shorter than the stride leaves the rest of the last stride, as TensorFlow does.
        sizes = zip(in_size, full, stride, strict=True)
        return (0,) * len(in_size), tuple(max(n, i * s) for i, n, s in sizes)
    out = tuple(i * s for i, s in zip(in_size, stride, strict=True))
    # What is missing (negative) is appended at the end.
    total = tuple(max(0, n - o) for n, o in zip(full, out, strict=True))
    upper = padding != "same_lower"
    return tuple(t // 2 if upper else (t + 1) // 2 for t in total), out


def _conv_window(
    size: tuple[int, ...],
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    padding: Any,
    output_size: Any,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the padding at the beginning, and the size of a convolution, along every axis."""
    ndim = len(size)
    pads = _padding(padding, ndim)
    if isinstance(pads, str):
        if output_size is not None:
            raise ValueError(f"padding={pads!r} fixes the output size; leave out output_size")
        pads = _named_pads(size, kernel_size, stride, dilation, pads)
    steps = []
    for axis, pad in enumerate(pads):
        covered = full_size(1, kernel_size[axis], stride[axis], dilation[axis])
        room = size[axis] + sum(pad) - covered
        if room < 0:
            raise ValueError(
                f"x has length {size[axis]} along spatial axis {axis} and {sum(pad)} of padding, "
                f"together less than the {covered} that the kernel covers"
            )
        steps.append(divmod(room, stride[axis]))
    out = tuple(whole + 1 for whole, _ in steps)
    if output_size is not None:
        wanted = _ints("output_size", output_size, ndim, least=1)
        for axis, (whole, rest) in enumerate(steps):
            # What is left out is the output_padding of the transposed convolution.
            spare = max(stride[axis], dilation[axis]) - 1 - rest
            least, most = max(1, whole + 1 - spare // stride[axis]), whole + 1
            if not least <= wanted[axis] <= most:
                raise ValueError(
                    f"output_size={wanted[axis]} must be from {least} to {most} "
                    f"(spatial axis {axis})"
                )
        out = wanted
    return tuple(pad[0] for pad in pads), out


def _named_pads(
    size: tuple[int, ...],
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    padding: str,
) -> tuple[tuple[int, int], ...]:
    """Return the padding of a convolution: for "same" so that it gives ``ceil(size / stride)``."""
    if padding == "valid":
        return ((0, 0),) * len(size)
    out = (-(-n // s) for n, s in zip(size, stride, strict=True))
    full = map(full_size, out, kernel_size, stride, dilation)
    total = (max(0, f - n) for f, n in zip(full, size, strict=True))
    pads = ((t // 2, t - t // 2) for t in total)
    return tuple(pad[::-1] if padding == "same_lower" else pad for pad in pads)


def _padding(padding: Any, ndim: int) -> tuple[tuple[int, int], ...] | str:
    """Return padding as a ``(begin, end)`` pair for each axis, or its name."""
    if isinstance(padding, str):
        if padding not in PADDINGS:
            raise ValueError(f"padding={padding!r} is not one of {', '.join(PADDINGS)}")
        return str(padding)
    values = None if type(padding) is int else _sequence(padding)
    if values is not None and any(_sequence(value) is not None for value in values):
        if len(values) != ndim:
            raise ValueError(
                f"padding has {_count(len(values), 'pair')} but needs {ndim}, one per spatial axis"
            )
        pairs = []
        for axis, value in enumerate(values):
            pair = _sequence(value)
            if pair is None or len(pair) != 2:
                raise ValueError(f"padding[{axis}]={value!r} must be a (begin, end) pair")
            pairs.append((_int("padding", pair[0]), _int("padding", pair[1])))
        return tuple(pairs)
    hint = "; a (begin, end) pair is written ((begin, end),)" if ndim == 1 else ""
    return tuple((pad, pad) for pad in _ints("padding", padding, ndim, least=0, hint=hint))


def _ints(name: str, value: Any, ndim: int, *, least: int, hint: str = "") -> tuple[int, ...]:
    """Return one int per axis from an int for all of them or one for each."""
    if type(value) is int and least <= value <= LARGEST:  # by far the commonest, at once
        return (value,) * ndim
    values = _sequence(value)
    if values is None:
        return (_int(name, value, least=least),) * ndim
    if len(values) != ndim:
        raise ValueError(
            f"{name} has {_count(len(values), 'value')} but needs {ndim}, "
            f"one per spatial axis{hint}"
        )
    return tuple(_int(name, item, least=least) for item in values)


def _int(name: str, value: Any, *, least: int | None = None) -> int:
    # bool is an int to Python; stride=True is a mistake all the same.
    if isinstance(value, bool):
        raise TypeError(f"{name}={value!r} is a bool; it must be an int")
    try:
        number = operator.index(value)
    except TypeError:
        kind = type(value).__name__
        raise TypeError(f"{name}={value!r} is of type {kind}; it must be an int") from None
    if least is not None and number < least:
        raise ValueError(f"{name}={number} must be at least {least}")
    if abs(number) > LARGEST:
        raise ValueError(f"{name}={number} is beyond {LARGEST}, the largest 64-bit integer")
    return number


def _sequence(value: Any) -> tuple[Any, ...] | None:
    """Return the items of a sequence or of an array; None for anything else."""
    if isinstance(value, (str, bytes, bytearray, memoryview)):
        return None
    is_array = bool(getattr(value, "shape", ()))
    return tuple(value) if is_array or isinstance(value, Sequence) else None


def _sizes(name: str, sizes: tuple[int, ...], first_axis: int) -> None:
    for axis, size in enumerate(sizes, first_axis):
        if size < 1:
            raise ValueError(f"{name} has length {size} along axis {axis}; it must be at least 1")


def kinds(kinds: dict[str, str | None], arrays: dict[str, Any]) -> str:
    """Return the one array library that all arguments come from."""
    first, library = next(iter(kinds.items()))
    for name, kind in kinds.items():
        if kind is None:
            typename = type(arrays[name]).__name__
            raise TypeError(f"{name} must be a NumPy or CuPy array, not {typename}")
        if kind != library:
            raise TypeError(
                f"{first} is a {library} array but {name} is a {kind} array; convert one"
            )
    return str(library)


def numpy_only(kind: str, module: str) -> None:
    """Raise unless the arrays are NumPy's."""
    if kind != "NumPy":
        raise TypeError(f"{module} computes on NumPy arrays but x is a {kind} array; pass x.get()")


def devices(devices: dict[str, str]) -> None:
    """Raise unless all arrays are where the first is."""
    first, home = next(iter(devices.items()))
    for name, device in devices.items():
        if device != home:
            raise ValueError(f"{first} is on {home} but {name} is on {device}; move one of them")


def instances(kind: type, what: str, arrays: dict[str, Any]) -> None:
    """Raise unless all arrays are of one type, which is `what` in words."""
    for name, array in arrays.items():
        if not isinstance(array, kind):
            raise TypeError(f"{name} must be {what}, not {type(array).__name__}")


def dtypes(arrays: dict[str, Any]) -> None:
    """Raise unless all arrays have one and the same supported dtype."""
    dtype_names({name: dtype_name(array.dtype) for name, array in arrays.items()})


@lru_cache(maxsize=256)
def dtype_name(dtype: Any) -> str:
    """Return the name of a dtype, which NumPy puts together anew each time."""
    return str(dtype.name)


def dtype_names(names: dict[str, str]) -> None:
    """Raise unless all dtypes are supported and the same; they are given by name."""
    first, wanted = next(iter(names.items()))
    for name, dtype in names.items():
        if dtype not in DTYPES:
            raise TypeError(f"{name} is {dtype}; convert it to one of {', '.join(DTYPES)}")
        if dtype != wanted:
            raise TypeError(f"{first} is {wanted} but {name} is {dtype}; convert one of them")


def chosen_dtype(dtype: Any, name: str, known: tuple[str, ...] = DTYPES) -> None:
    """Raise unless the argument dtype, which NumPy calls by this name, is one of those known."""
    if dtype is None or name not in known:  # to NumPy, None is float64
        raise TypeError(f"dtype={dtype!r} is not one of {', '.join(known)}")


def activation(name: Any, array: Any) -> None:
    """Raise unless ``name`` is an activation for the dtype of the arrays."""
    if name is None:
        return
    if not isinstance(name, str):
        raise TypeError(f"activation={name!r} must be None or a string")
    if name not in ACTIVATIONS:
        raise ValueError(f"activation={name!r} is not one of {', '.join(ACTIVATIONS)}")
    dtype = dtype_name(array.dtype)
    if dtype in COMPLEX:
        raise TypeError(f"activation={name!r} is not defined for {dtype}; leave it out")
    if dtype in INTEGERS and name != "relu":
        raise TypeError(f"activation={name!r} is not defined for {dtype}; only 'relu' is")


def precision(name: Any, array: Any) -> None:
    """Raise unless ``name`` is a precision for the dtype of the arrays."""
    if name is None:
        return
    if not isinstance(name, str):
        raise TypeError(f"precision={name!r} must be None or a string")
    if name not in PRECISIONS:
        raise ValueError(f"precision={name!r} is not one of {', '.join(PRECISIONS)}")
    dtype = dtype_name(array.dtype)
    if name != "ieee" and dtype != "float32":
        raise TypeError(f"precision={name!r} is for float32, not {dtype}")


def choice(name: str, value: Any, known: tuple[str, ...]) -> None:
    """Raise unless a value is one of these names."""
    if value not in known:
        raise ValueError(f"{name}={value!r} is not one of {', '.join(known)}")


def out(out: Any, shape: tuple[int, ...], *, writeable: bool, overlaps: str | None) -> None:
    """Raise unless ``out`` can take the result: its shape, and memory of its own to write to."""
    if tuple(out.shape) != shape:
        raise ValueError(f"out has shape {tuple(out.shape)} but the result has {shape}")
    if not writeable:
        raise ValueError("out is read-only; it must be writeable")
    if overlaps == "itself":
        raise ValueError(
            "out has elements that overlap one another; each must have memory of its own"
        )
    if overlaps is not None:
        raise ValueError(f"out shares memory with {overlaps}; it must have memory of its own")


def grad_output(grad_output: Any, shape: tuple[int, ...]) -> None:
    """Raise unless the gradient has the shape of the output that it belongs to."""
    if tuple(grad_output.shape) != shape:
        raise ValueError(
            f"grad_output has shape {tuple(grad_output.shape)} but the output has {shape}"
        )


def output_mask(mask: Any) -> tuple[bool, bool, bool]:
    """Return which gradients are wanted: of x, weight and bias."""
    values = _sequence(mask)
    bools = ("bool", "bool_")  # Python's and NumPy's
    if values is None or len(values) != 3 or not all(type(v).__name__ in bools for v in values):
        raise TypeError(f"output_mask={mask!r} must be three bools, for x, weight and bias")
    of_x, of_weight, of_bias = map(bool, values)
    return of_x, of_weight, of_bias


def shape(name: str, value: Any) -> tuple[int, ...]:
    """Return the shape of an array, which may be empty."""
    values = _sequence(value)
    if values is None:
        kind = type(value).__name__
        raise TypeError(f"{name}={value!r} is of type {kind}; it must be a sequence of ints")
    return tuple(_int(name, item, least=0) for item in values)


def weight_shape(value: Any) -> tuple[int, ...]:
    """Return the shape of a weight that one of the verbs takes."""
    result = shape("weight_shape", value)
    if not 3 <= len(result) <= 5:
        raise ValueError(
            f"weight_shape={value} has {_count(len(result), 'axis')} but needs 3 to 5, "
            f"(C, M // groups, *kernel_size)"
        )
    _sizes("weight_shape", result[2:], 2)
    return result


def phases_alike(
    shape: Any, stride: Any, groups: Any
) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Return the shape of a weight whose phases can all be alike, its stride and its groups."""
    shape = weight_shape(shape)
    stride = _ints("stride", stride, len(shape) - 2, least=1)
    groups = _int("groups", groups, least=1)
    if shape[0] % groups:
        raise ValueError(
            f"weight_shape has {shape[0]} channels (axis 0), which groups={groups} does not divide"
        )
    for axis, (k, s) in enumerate(zip(shape[2:], stride, strict=True), 2):
        if k % s:
            raise ValueError(
                f"weight_shape has length {k} along axis {axis}, which stride={s} does not divide"
            )
    return shape, stride, groups


def channels(channels: Any, groups: Any) -> tuple[int, int]:
    """Return a number of channels and of the groups that they form."""
    channels, groups = _int("channels", channels, least=0), _int("groups", groups, least=1)
    if channels % groups:
        raise ValueError(f"channels={channels} is a number that groups={groups} does not divide")
    return channels, groups


def sizes(name: str, value: Any) -> tuple[int, ...]:
    """Return the sizes along any number of axes, of which an int is one."""
    values = _sequence(value)
    if values == ():
        raise ValueError(f"{name}={value!r} has 0 axes but needs at least 1")
    return tuple(_int(name, item, least=1) for item in ([value] if values is None else values))


def per_axis(name: str, value: Any, ndim: int) -> tuple[int, ...]:
    """Return one size per axis from an int for all of them or one for each."""
    return _ints(name, value, ndim, least=1)


def _axes(ndim: int) -> str:
    return ", ".join(("D", "H", "W")[-ndim:])


def _count(number: int, noun: str) -> str:
    plural = noun[:-2] + "es" if noun.endswith("axis") else noun + "s"
    return f"{number} {noun if number == 1 else plural}"
