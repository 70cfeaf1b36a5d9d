"""Transposed convolution for PyTorch tensors: functions, modules, and a swap for whole models.

Computes on the tensors' own memory: on the CPU through NumPy, on CUDA devices through CuPy and on
PyTorch's current stream.  The operations are registered with ``torch.library`` and differentiable
to any order, so ``torch.compile``, ``torch.export`` and autocast treat them as PyTorch's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.utils import parametrize

from . import _check, _dispatch
from ._api import Ints, Padding
from ._geometry import Geometry

__all__ = [
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "replace",
    "transposed_conv1d",
    "transposed_conv2d",
    "transposed_conv3d",
]

Model = TypeVar("Model", bound=nn.Module)


def transposed_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Ints = 1,
    padding: Padding = 0,
    output_padding: Ints = 0,
    output_size: Ints | None = None,
    dilation: Ints = 1,
    groups: int = 1,
) -> Tensor:
    """Compute `tconv.transposed_conv1d` on tensors, differentiably.

    Under autocast the tensors are converted first, as for PyTorch's own convolutions.

    Examples
    --------
    >>> import torch
    >>> from tconv.torch import transposed_conv1d
    >>> x = torch.tensor([[[1.0, 10.0, 100.0]]], requires_grad=True)
    >>> y = transposed_conv1d(x, torch.tensor([[[1.0, 2.0, 3.0]]]), stride=2)
    >>> y.tolist()
    [[[1.0, 2.0, 13.0, 20.0, 130.0, 200.0, 300.0]]]
    >>> y.sum().backward()
    >>> x.grad.tolist()
    [[[6.0, 6.0, 6.0]]]
    """
    return _apply(
        1, x, weight, bias, stride, padding, output_padding, output_size, dilation, groups
    )


def transposed_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Ints = 1,
    padding: Padding = 0,
    output_padding: Ints = 0,
    output_size: Ints | None = None,
    dilation: Ints = 1,
    groups: int = 1,
) -> Tensor:
    """Compute `tconv.transposed_conv2d` on tensors, as `transposed_conv1d` does."""
    return _apply(
        2, x, weight, bias, stride, padding, output_padding, output_size, dilation, groups
    )


def transposed_conv3d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Ints = 1,
    padding: Padding = 0,
    output_padding: Ints = 0,
    output_size: Ints | None = None,
    dilation: Ints = 1,
    groups: int = 1,
) -> Tensor:
    """Compute `tconv.transposed_conv3d` on tensors, as `transposed_conv1d` does."""
    return _apply(
        3, x, weight, bias, stride, padding, output_padding, output_size, dilation, groups
    )


class _ConvTranspose(nn.Module):
    """What the modules have in common."""

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """Upsample; ``output_size`` replaces the module's ``output_padding``."""
        ndim = len(self.kernel_size)
        if output_size is not None and len(output_size) == input.ndim:
            # PyTorch takes the whole shape too.
            output_size = output_size[-ndim:]
        padding = self.padding
        if str in map(type, padding):
            # PyTorch, which knows numbers only, took "same" for a sequence.
            padding = "".join(padding)
        return _apply(
            ndim,
            input,
            self.weight,
            self.bias,
            self.stride,
            padding,
            self.output_padding if output_size is None else 0,
            output_size,
            self.dilation,
            self.groups,
        )


class ConvTranspose1d(_ConvTranspose, nn.ConvTranspose1d):
    """`torch.nn.ConvTranspose1d` computed by tconv: its arguments, state and initial values."""


class ConvTranspose2d(_ConvTranspose, nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` computed by tconv: its arguments, state and initial values."""


class ConvTranspose3d(_ConvTranspose, nn.ConvTranspose3d):
    """`torch.nn.ConvTranspose3d` computed by tconv: its arguments, state and initial values."""


_MODULES: dict[type[nn.Module], type[nn.Module]] = {
    nn.ConvTranspose1d: ConvTranspose1d,
    nn.ConvTranspose2d: ConvTranspose2d,
    nn.ConvTranspose3d: ConvTranspose3d,
}


def replace(model: Model) -> Model:
    """Let tconv compute every ``nn.ConvTranspose1d/2d/3d`` of a model, in place, and return it.

    The modules stay the same objects, with their parameters, hooks, names and parametrizations
    (weight norm, say); optimisers and checkpoints notice nothing.  Subclasses, whose ``forward``
    may differ, are left alone.

    Examples
    --------
    >>> from torch import nn
    >>> import tconv.torch
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 3, 3))
    >>> type(tconv.torch.replace(model)[1])
    <class 'tconv.torch.ConvTranspose2d'>
    """
    for module in model.modules():
        own = type(module)
        plain = parametrize.type_before_parametrizations(module)
        if plain in _MODULES:
            new = _MODULES[plain]
            if own is not plain:
                # PyTorch made a subclass that computes the parameters; a copy of the module may
                # have the same one.
                new = type(own.__name__, (new,), dict(vars(own)))
            module.__class__ = new
    return model


def _apply(
    ndim: int,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Ints,
    padding: Padding,
    output_padding: Ints,
    output_size: Ints | None,
    dilation: Ints,
    groups: int,
) -> Tensor:
    arrays = {"x": x, "weight": weight} | ({} if bias is None else {"bias": bias})
    _check.instances(Tensor, "a PyTorch tensor", arrays)
    _check.devices({name: str(t.device) for name, t in arrays.items()})
    arrays = {name: _autocast(t) for name, t in arrays.items()}
    _check.dtype_names({name: str(t.dtype).removeprefix("torch.") for name, t in arrays.items()})
    x, weight, bias = arrays["x"], arrays["weight"], arrays.get("bias")
    g = _check.geometry(
        ndim,
        x,
        weight,
        bias,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        output_size=output_size,
        dilation=dilation,
        groups=groups,
    )
    batched = x.ndim == ndim + 2
    y: Tensor = _transposed_conv(
        x if batched else x[None],
        weight,
        bias,
        g.stride,
        g.pad_begin,
        g.dilation,
        g.groups,
        g.out_size,
    )
    return y if batched else y[0]


def _autocast(tensor: Tensor) -> Tensor:
    """Convert what autocast converts: real floating-point numbers but float64."""
    device = tensor.device.type
    narrow = tensor.is_floating_point() and tensor.dtype != torch.float64
    if narrow and torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return tensor.to(torch.get_autocast_dtype(device))
    return tensor


# The operations, on batches.  The gradients of each are made of the other two, so all orders exist.

_WINDOW = "SymInt[] stride, SymInt[] pad_begin, SymInt[] dilation, SymInt groups"


@torch.library.custom_op(
    "tconv::transposed_conv",
    mutates_args=(),
    schema=f"(Tensor x, Tensor weight, Tensor? bias, {_WINDOW}, SymInt[] out_size) -> Tensor",
)
def _transposed_conv_op(x: Tensor, weight: Tensor, bias: Tensor | None, *window: Any) -> Tensor:
    y_shape = _y_shape(x, weight, window)
    with _arrays(x) as (kind, array):
        compute = _dispatch.own_library(kind)
        bias_array = None if bias is None else array(bias)
        geometry = _geometry(x.shape, weight.shape, y_shape, window)
        return _tensor(compute(array(x), array(weight), bias_array, geometry), x)


@torch.library.custom_op(
    "tconv::conv",
    mutates_args=(),
    schema=f"(Tensor y, Tensor weight, {_WINDOW}, SymInt[] in_size) -> Tensor",
)
def _conv_op(y: Tensor, weight: Tensor, *window: Any) -> Tensor:
    geometry = _geometry(_x_shape(y, weight, window), weight.shape, y.shape, window)
    with _arrays(y) as (kind, array):
        compute = _dispatch.own_gradients(kind).conv
        return _tensor(compute(array(y), array(weight), geometry), y)


@torch.library.custom_op(
    "tconv::weight_gradient",
    mutates_args=(),
    schema=f"(Tensor x, Tensor y, {_WINDOW}, SymInt[] kernel_size) -> Tensor",
)
def _weight_gradient_op(x: Tensor, y: Tensor, *window: Any) -> Tensor:
    geometry = _geometry(x.shape, _weight_shape(x, y, window), y.shape, window)
    with _arrays(x) as (kind, array):
        compute = _dispatch.own_gradients(kind).parameters
        return _tensor(compute(array(x), array(y), geometry, bias=False)[0], x)


@_transposed_conv_op.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, *window: Any) -> Tensor:  # noqa: ARG001
    return _empty_like(x, _y_shape(x, weight, window))


@_conv_op.register_fake
def _(y: Tensor, weight: Tensor, *window: Any) -> Tensor:
    return _empty_like(y, _x_shape(y, weight, window))


@_weight_gradient_op.register_fake
def _(x: Tensor, y: Tensor, *window: Any) -> Tensor:
    return x.new_empty(_weight_shape(x, y, window))


def _y_shape(x: Tensor, weight: Tensor, window: tuple[Any, ...]) -> tuple[int, ...]:
    *_, groups, out_size = window
    return (x.shape[0], weight.shape[1] * groups, *out_size)


def _x_shape(y: Tensor, weight: Tensor, window: tuple[Any, ...]) -> tuple[int, ...]:
    return (y.shape[0], weight.shape[0], *window[-1])


def _weight_shape(x: Tensor, y: Tensor, window: tuple[Any, ...]) -> tuple[int, ...]:
    *_, groups, kernel_size = window
    return (x.shape[1], y.shape[1] // groups, *kernel_size)


def _geometry(
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    y_shape: Sequence[int],
    window: tuple[Any, ...],
) -> Geometry:
    stride, pad_begin, dilation, groups, _ = window
    return Geometry(
        batch=x_shape[0],
        groups=groups,
        in_channels=x_shape[1],
        out_channels=y_shape[1],
        in_size=tuple(x_shape[2:]),
        kernel_size=tuple(weight_shape[2:]),
        stride=tuple(stride),
        dilation=tuple(dilation),
        pad_begin=tuple(pad_begin),
        out_size=tuple(y_shape[2:]),
    )


# Autograd.  torch.library knows neither forward mode nor torch.func; a Function does, but
# torch.compile takes none that has a forward mode.


def _differentiable(operation: Any, backward: Callable[..., Any]) -> Callable[..., Tensor]:
    """Return an operation, linear in each of its tensors, with its derivatives in both modes."""
    operation.register_autograd(backward, setup_context=_save_unless_forward)

    class Differentiable(torch.autograd.Function):
        forward = staticmethod(operation)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
            _save(ctx, inputs, output)
            ctx.save_for_forward(*inputs[:2])
            ctx.rest = [None if isinstance(value, Tensor) else value for value in inputs[2:]]
            ctx.shape = output.shape
            ctx.set_materialize_grads(False)

        @staticmethod
        def backward(ctx: Any, grad: Tensor | None) -> Any:
            return (None,) * len(ctx.needs_input_grad) if grad is None else backward(ctx, grad)

        @staticmethod
        def jvp(ctx: Any, *tangents: Any) -> Any:
            first, second = (forward_ad.unpack_dual(tensor).primal for tensor in ctx.saved_tensors)
            of_first, of_second, of_bias, *_ = tangents
            terms = []
            # PyTorch turns forward mode off in here, which would lose derivatives of derivatives.
            with forward_ad._set_fwd_grad_enabled(True):
                if of_first is not None:
                    terms.append(apply(of_first, second, *ctx.rest))
                if of_second is not None:
                    terms.append(apply(first, of_second, *ctx.rest))
                if of_bias is not None:
                    terms.append(of_bias.reshape(-1, *[1] * len(ctx.shape[2:])).expand(ctx.shape))
                return sum(terms[1:], start=terms[0])

        @staticmethod
        def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Tensor, int]:
            def item(i: int) -> list[Any]:
                pairs = zip(inputs, in_dims, strict=True)
                return [x.select(dim, i) if isinstance(dim, int) else x for x, dim in pairs]

            return torch.stack([apply(*item(i)) for i in range(info.batch_size)]), 0

    def apply(*inputs: Any) -> Any:
        if torch.compiler.is_compiling():
            _refuse_forward_mode()
        elif forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active():
            return Differentiable.apply(*inputs)
        return operation(*inputs)

    return apply


def _refuse_forward_mode() -> None:
    """Raise where an operation would lose a tangent without a word."""
    if forward_ad._current_level >= 0:
        raise NotImplementedError(
            "forward-mode differentiation goes through the functions and modules of tconv.torch, "
            "not through compiled or exported ones, nor through torch.ops.tconv"
        )


def _save_unless_forward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _refuse_forward_mode()
    _save(ctx, inputs, output)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    ctx.save_for_backward(*inputs[:2])
    ctx.window = inputs[-5:-1]


def _transposed_conv_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    of_x, of_weight, of_bias, *rest = ctx.needs_input_grad
    return (
        _conv(grad, weight.conj(), *ctx.window, x.shape[2:]) if of_x else None,
        _weight_gradient(x.conj(), grad, *ctx.window, weight.shape[2:]) if of_weight else None,
        grad.sum((0, *range(2, grad.ndim))) if of_bias else None,
        *[None] * len(rest),
    )


def _conv_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    y, weight = ctx.saved_tensors
    of_y, of_weight, *rest = ctx.needs_input_grad
    return (
        _transposed_conv(grad, weight.conj(), None, *ctx.window, y.shape[2:]) if of_y else None,
        _weight_gradient(grad, y.conj(), *ctx.window, weight.shape[2:]) if of_weight else None,
        *[None] * len(rest),
    )


def _weight_gradient_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, y = ctx.saved_tensors
    of_x, of_y, *rest = ctx.needs_input_grad
    return (
        _conv(y.conj(), grad, *ctx.window, x.shape[2:]) if of_x else None,
        _transposed_conv(x.conj(), grad, None, *ctx.window, y.shape[2:]) if of_y else None,
        *[None] * len(rest),
    )


_transposed_conv = _differentiable(_transposed_conv_op, _transposed_conv_backward)
_conv = _differentiable(_conv_op, _conv_backward)
_weight_gradient = _differentiable(_weight_gradient_op, _weight_gradient_backward)


# Tensors and arrays share their memory.


@contextmanager
def _arrays(tensor: Tensor) -> Iterator[tuple[str, Callable[[Tensor], Any]]]:
    """Give the array library for a tensor's device, and what makes arrays of tensors there."""
    if torch._C._is_fwd_grad_enabled():  # A Function turns it off.
        _refuse_forward_mode()
    if tensor.device.type == "cpu":
        yield _dispatch.NUMPY, _numpy
    elif tensor.device.type == "cuda":
        from .gpu import exchange

        stream = torch.cuda.current_stream(tensor.device).cuda_stream
        with exchange.current(tensor.device.index, stream):
            yield (
                _dispatch.CUPY,
                lambda t: exchange.array(_plain(t), bfloat16=t.dtype == torch.bfloat16),
            )
    else:
        raise ValueError(f"x is on {tensor.device}; tconv computes on cpu and cuda")


def _numpy(tensor: Tensor) -> Any:
    array = _plain(tensor).numpy()
    return array.view(_bfloat16()) if tensor.dtype == torch.bfloat16 else array


def _tensor(array: Any, like: Tensor) -> Tensor:
    """Return an array as a tensor of the dtype of `like`."""
    if like.dtype == torch.bfloat16:
        array = array.view("int16")
    tensor = torch.from_numpy(array) if like.device.type == "cpu" else torch.from_dlpack(array)
    return tensor.view(like.dtype)


def _plain(tensor: Tensor) -> Tensor:
    """Return a tensor that an array can stand for: nothing lazy, bfloat16 as its bits."""
    tensor = tensor.detach().resolve_conj().resolve_neg()
    return tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor


def _bfloat16() -> Any:
    try:
        from ml_dtypes import bfloat16
    except ImportError:
        raise ImportError(
            "bfloat16 tensors need ml_dtypes; pip install 'tconv[bfloat16]'"
        ) from None
    return bfloat16


def _empty_like(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return a new tensor of `shape` in the memory order of `tensor`."""
    order = list(range(len(shape)))
    if tensor.movedim(1, -1).is_contiguous() and not tensor.is_contiguous():
        order.append(order.pop(1))
    return torch.empty_permuted(shape, order, dtype=tensor.dtype, device=tensor.device)
