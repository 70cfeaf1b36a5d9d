"""tconv.torch: the functions and modules of PyTorch, with tconv's arithmetic."""

import copy
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cases
import oracle
import tconv

pytestmark = [
    pytest.mark.torch,
    # PyTorch's forward mode uses what PyTorch deprecates.
    pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning"),
]

torch = pytest.importorskip("torch")
tconv_torch = pytest.importorskip("tconv.torch")
functional = torch.nn.functional

GEOMETRIES = [
    ((2, 4, 5), (4, 3, 4), {"stride": 2, "padding": 1}),
    ((2, 2, 3), (2, 1, 2), {"stride": 1, "dilation": 3, "output_padding": 2, "groups": 2}),
    ((1, 4, 3, 2), (4, 1, 2, 3), {"stride": (3, 1), "padding": (0, 1), "groups": 2}),
    ((2, 2, 3, 3), (2, 2, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
    ((2, 3, 3), (2, 2, 2, 2), {"stride": 2}),
    ((1, 2, 2, 1, 2), (2, 2, 2, 1, 2), {"stride": (1, 2, 2), "dilation": (2, 1, 1)}),
    ((0, 2, 3), (2, 2, 3), {}),
]


def ours(x, weight, bias=None, **call):
    return getattr(tconv_torch, f"transposed_conv{weight.ndim - 2}d")(x, weight, bias, **call)


def theirs(x, weight, bias=None, **call):
    return getattr(functional, f"conv_transpose{weight.ndim - 2}d")(x, weight, bias, **call)


def tensors(x, weight, call, dtype, seed=0):
    """Return random x, weight and bias that want gradients."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (x, weight, (weight[1] * call.get("groups", 1),))
    return [
        torch.randn(shape, dtype=dtype, generator=generator).requires_grad_() for shape in shapes
    ]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64", "complex64"])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("side", [False, True], ids=["main stream", "another stream"])
def test_cuda_tensors_give_the_answers_and_gradients_of_cpu_tensors(dtype, order, side):
    shapes = (2, 16, 5, 6), (16, 24, 4, 4), (24,), (2, 24, 10, 12)
    generator = torch.Generator().manual_seed(0)
    whole = [torch.randint(-2, 3, n, generator=generator).to(getattr(torch, dtype)) for n in shapes]

    def computed(device):
        x, weight, bias, grad = (tensor.to(device) for tensor in whole)
        leaves = [x.to(memory_format=order), weight, bias]
        for leaf in leaves:
            leaf.requires_grad_()
        y = ours(*leaves, stride=2, padding=1)
        y.backward(grad)
        assert y.device == x.device
        return [tensor.detach().cpu() for tensor in (y, *(leaf.grad for leaf in leaves))]

    with torch.cuda.stream(torch.cuda.Stream() if side else None):
        there = computed("cuda")
    for here, back in zip(computed("cpu"), there, strict=True):
        assert torch.equal(here, back)


def test_importing_tconv_does_not_import_torch():
    code = "import sys, tconv; print('torch' in sys.modules)"
    path = str(Path(tconv.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": path}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("case", cases.random_cases(120, seed=73), ids=str)
def test_integers_give_exactly_the_numpy_functions_answers(cpu, case, rng):
    for dtype in cases.DTYPES:
        arrays = [array for array in case.integers(dtype, rng) if array is not None]
        y = ours(*map(as_tensor, arrays), **case.call)
        np.testing.assert_array_equal(
            as_float(y),
            oracle.comparable(cpu(*arrays, **case.call)),
            strict=dtype.name != "bfloat16",
        )


def as_tensor(array):
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view("i2")).view(torch.bfloat16)
    return torch.from_numpy(array)


def as_float(tensor):
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


@pytest.mark.parametrize("name", ["float64", "complex128"])
@pytest.mark.parametrize(("x", "weight", "call"), GEOMETRIES, ids=str)
def test_values_and_gradients_are_pytorchs(x, weight, call, name):
    arrays = tensors(x, weight, call, getattr(torch, name))
    y, expected = ours(*arrays, **call), theirs(*arrays, **call)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    upstream = torch.randn(y.shape, dtype=y.dtype)
    grads = torch.autograd.grad(y, arrays, upstream)
    for grad, other in zip(grads, torch.autograd.grad(expected, arrays, upstream), strict=True):
        torch.testing.assert_close(grad, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["float64", "complex128"])
@pytest.mark.parametrize(("x", "weight", "call"), GEOMETRIES, ids=str)
def test_gradcheck_and_gradgradcheck_pass(x, weight, call, name):
    arrays = tensors(x, weight, call, getattr(torch, name))

    def function(*arrays):
        return ours(*arrays, **call)

    assert torch.autograd.gradcheck(function, arrays, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(function, arrays)


@pytest.mark.parametrize("argument", range(3), ids=["x", "weight", "bias"])
@pytest.mark.parametrize("order", [1, 2])
def test_jacobians_of_all_orders_and_modes_are_pytorchs(argument, order):
    arrays = tensors((1, 2, 2), (2, 1, 2), {"groups": 2}, torch.float64)
    arrays = [array.detach() for array in arrays]

    def cubed(function):
        """Return what is not linear in any argument, and uses two arguments in one another."""

        def cube(*arrays):
            x, weight, bias = arrays
            y = function(x, weight, bias, stride=2, groups=2)
            return function(y, weight * x.sum(), bias * x.mean(), groups=2).pow(2).sum(-1)

        return cube

    for modes in itertools.product((torch.func.jacfwd, torch.func.jacrev), repeat=order):
        jacobian, expected = cubed(ours), cubed(theirs)
        for mode in modes:
            jacobian, expected = mode(jacobian, argument), mode(expected, argument)
        torch.testing.assert_close(jacobian(*arrays), expected(*arrays), rtol=1e-9, atol=1e-9)


def test_forward_mode_asks_for_no_more_than_the_tangents_that_there_are():
    """Infinity times the zeros that stand for no tangent would be NaN."""
    x, weight, bias = (a.detach() for a in tensors((1, 2, 3), (2, 2, 2), {}, torch.float64))
    x[0, 0, 0] = torch.inf
    _, tangent = torch.func.jvp(lambda x: ours(x, weight, bias), (x,), (torch.ones_like(x),))
    assert tangent.isfinite().all()
    weight[0, 0, 0] = torch.inf
    _, tangent = torch.func.jvp(lambda bias: ours(x, weight, bias), (bias,), (bias,))
    assert torch.equal(tangent, bias[:, None].expand(1, 2, 4))


def test_a_tangent_is_differentiable_backwards():
    forward_ad = torch.autograd.forward_ad
    results = []
    for function in (ours, theirs):
        arrays = tensors((1, 2, 3), (2, 2, 2), {}, torch.float64)
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(arrays[0], torch.ones_like(arrays[0]))
            y = forward_ad.unpack_dual(function(dual, *arrays[1:])).tangent
        results.append((y, *torch.autograd.grad(y.square().sum(), arrays[1:2])))
    torch.testing.assert_close(*results)


def test_vmap_takes_any_argument_along_any_axis():
    x, weight, bias = (a.detach() for a in tensors((2, 4, 3), (4, 2, 2), {}, torch.float64))
    for axes in ((0, None, None), (None, -1, None), (2, None, 0), (1, 0, 0)):
        arrays = [
            array if axis is None else torch.stack([array, 2 * array, -array], axis)
            for array, axis in zip((x, weight, bias), axes, strict=True)
        ]
        y, expected = (torch.vmap(f, axes)(*arrays) for f in (ours, theirs))
        torch.testing.assert_close(y, expected)


class Cut(torch.autograd.Function):
    """The identity, without a gradient."""

    @staticmethod
    def forward(_ctx, x):
        return x.clone()

    @staticmethod
    def backward(_ctx, _grad):
        return None


def test_no_gradient_upstream_is_none_downstream():
    arrays = tensors((1, 2, 3), (2, 2, 2), {}, torch.float64)
    with torch.autograd.forward_ad.dual_level():
        Cut.apply(ours(*arrays)).sum().backward()
    assert [array.grad for array in arrays] == [None] * 3


def test_an_operation_by_itself_refuses_a_tangent_rather_than_lose_it():
    x, weight, _ = (a.detach() for a in tensors((1, 2, 3), (2, 2, 2), {}, torch.float64))

    def operation(x):
        return torch.ops.tconv.transposed_conv(x, weight, None, [1], [0], [1], 1, [4])

    assert torch.equal(operation(x), ours(x, weight))
    for wanted in (False, True):
        weight.requires_grad_(wanted)
        with pytest.raises(NotImplementedError, match=r"forward-mode .* nor through torch\.ops\."):
            torch.func.jvp(operation, (x,), (x,))


@pytest.mark.parametrize("memory", ["contiguous_format", "channels_last"])
@pytest.mark.parametrize("batch", [0, 2])
def test_opcheck_passes_for_all_three_operations(memory, batch):
    operations, checks = torch.ops.tconv, torch.library.opcheck
    x, weight, bias = tensors((batch, 4, 3, 4), (4, 2, 3, 2), {"groups": 2}, torch.float32)
    with torch.no_grad():
        x = x.to(memory_format=getattr(torch, memory))
        y = ours(x, weight, bias, stride=(2, 1), padding=1, dilation=(1, 2), groups=2)
    x, y = x.requires_grad_(), y.requires_grad_()
    window = [2, 1], [1, 1], [1, 2], 2
    for operation, arrays, size in (
        (operations.transposed_conv, (x, weight, bias), y.shape[2:]),
        (operations.conv, (y, weight), x.shape[2:]),
        (operations.weight_gradient, (x, y), weight.shape[2:]),
    ):
        results = checks(operation.default, (*arrays, *window, list(size)))
        assert set(results.values()) == {"SUCCESS"}


def samples(name, dtype, *, requires_grad):
    pytest.importorskip("expecttest", reason="PyTorch's samples need it")
    from torch.testing._internal.common_methods_invocations import op_db

    (info,) = [info for info in op_db if info.name == f"nn.functional.{name}"]
    yield from info.sample_inputs("cpu", dtype, requires_grad=requires_grad)


TOLERANCE = {
    "float16": 2e-3, "bfloat16": 2e-2, "float32": 2e-5, "float64": 1e-13,
    "complex64": 2e-5, "complex128": 1e-13,
}  # fmt: skip
"""Relative to the largest element: sums of hundreds of terms, rounded in the type of the sample."""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", TOLERANCE)
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_pytorchs_own_samples_pass_forward_and_backward(ndim, name):
    """Against PyTorch in double precision: its own half types are rounded after every product."""
    dtype = getattr(torch, name)
    double = torch.complex128 if dtype.is_complex else torch.float64

    def close(result, expected):
        assert result.dtype == dtype
        atol = TOLERANCE[name] * float(expected.detach().abs().max())
        torch.testing.assert_close(result.to(double), expected, rtol=0, atol=atol)

    count = 0
    for sample in samples(f"conv_transpose{ndim}d", dtype, requires_grad=True):
        names = ("weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
        call = dict(zip(names, sample.args, strict=False)) | sample.kwargs
        weight, bias = call.pop("weight"), call.pop("bias", None)
        arrays = [a for a in (sample.input, weight, bias) if a is not None]
        wide = [a.detach().to(double).requires_grad_() for a in arrays]
        y, expected = ours(*arrays, **call), theirs(*wide, **call)
        close(y, expected)
        upstream = torch.randn_like(y)
        grads = torch.autograd.grad(y, arrays, upstream)
        others = torch.autograd.grad(expected, wide, upstream.to(double))
        for grad, other in zip(grads, others, strict=True):
            close(grad, other)
        count += 1
    assert count >= 5


def test_frozen_arrays_get_no_gradient():
    for wanted in range(3):
        arrays = tensors((1, 2, 3), (2, 2, 2), {}, torch.float64)
        for index, array in enumerate(arrays):
            array.requires_grad_(index == wanted)
        ours(*arrays).sum().backward()
        assert [array.grad is not None for array in arrays] == [i == wanted for i in range(3)]


def test_conjugated_and_negated_views_are_resolved():
    x, weight, bias = tensors((1, 2, 3), (2, 2, 2), {}, torch.complex128)
    x, weight = x.detach().conj(), weight.detach().conj()
    assert x.is_conj()
    torch.testing.assert_close(ours(x, weight, bias), theirs(x, weight, bias))
    negative = x.imag
    assert negative.is_neg()
    real = weight.real.contiguous()
    torch.testing.assert_close(ours(negative, real), theirs(negative, real))


def test_the_cpu_reads_and_gives_tensors_without_a_copy(monkeypatch):
    seen = []
    from tconv import _cpu

    def spy(x, weight, bias, geometry, **_):
        y = _cpu_transposed_conv(x, weight, bias, geometry)
        seen.extend(a.__array_interface__["data"][0] for a in (x, weight, bias, y))
        return y

    _cpu_transposed_conv = _cpu.transposed_conv
    monkeypatch.setattr(_cpu, "transposed_conv", spy)
    for dtype in (torch.float32, torch.bfloat16):
        seen.clear()
        x, weight, bias = (a.detach() for a in tensors((1, 2, 3), (2, 2, 2), {}, dtype))
        y = ours(x, weight, bias)
        assert seen == [a.data_ptr() for a in (x, weight, bias, y)]


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_a_channels_last_tensor_gives_a_channels_last_tensor(ndim):
    x = torch.randn(2, *[4] * ndim, 3).movedim(-1, 1)
    assert ours(x, torch.randn(3, 5, *[2] * ndim)).movedim(1, -1).is_contiguous()


def test_errors_are_those_of_the_numpy_functions_with_pytorchs_names():
    x, weight, _ = (a.detach() for a in tensors((1, 2, 3), (2, 2, 2), {}, torch.float32))
    for error, message, call in (
        (TypeError, "x must be a PyTorch tensor, not list", lambda: ours([1], weight)),
        (TypeError, "bias must be a PyTorch tensor, not float", lambda: ours(x, weight, 1.0)),
        (TypeError, "x is float32 but weight is float64; convert one of them",
         lambda: ours(x, weight.double())),
        (TypeError, "x is bool; convert it to one of float16, bfloat16, float32, float64, "
                    "complex64, complex128, int32, int64", lambda: ours(x.bool(), weight.bool())),
        (ValueError, "x is on cpu but weight is on meta; move one of them",
         lambda: ours(x, weight.to("meta"))),
        (ValueError, "weight has 2 input channels (axis 0) but x has 1 (axis 1)",
         lambda: ours(x[:, :1], weight)),
    ):  # fmt: skip
        with pytest.raises(error) as raised:
            call()
        assert str(raised.value) == message


def test_bfloat16_without_ml_dtypes_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    x, weight, _ = tensors((1, 2, 3), (2, 2, 2), {}, torch.bfloat16)
    with pytest.raises(ImportError, match=r"pip install 'tconv\[bfloat16\]'"):
        ours(x, weight)


MODULES = [
    ("ConvTranspose1d", (2, 4, 6), (4, 6, 4), {"stride": 2, "padding": 1, "groups": 2}),
    ("ConvTranspose2d", (2, 4, 6, 5), (4, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
    ("ConvTranspose2d", (2, 4, 6, 5), (4, 3, (3, 2)), {"dilation": (2, 1), "bias": False}),
    ("ConvTranspose3d", (1, 2, 3, 4, 2), (2, 3, 2), {"stride": (1, 2, 2)}),
]


@pytest.mark.parametrize(("name", "shape", "arguments", "options"), MODULES, ids=str)
def test_modules_have_pytorchs_arguments_state_and_initial_values(name, shape, arguments, options):
    torch.manual_seed(3)
    module = getattr(tconv_torch, name)(*arguments, **options)
    torch.manual_seed(3)
    peer = getattr(torch.nn, name)(*arguments, **options)
    assert repr(module) == repr(peer)
    assert module.state_dict().keys() == peer.state_dict().keys()
    for key, value in peer.state_dict().items():
        assert torch.equal(module.state_dict()[key], value)
    x = torch.randn(shape)
    torch.testing.assert_close(module(x), peer(x))
    peer.load_state_dict(module.state_dict(), strict=True)


@pytest.mark.parametrize("wanted", [(11, 10), (2, 3, 11, 10)])
def test_modules_take_an_output_size(wanted):
    module = tconv_torch.ConvTranspose2d(4, 3, 3, stride=2, padding=1, output_padding=1)
    x = torch.randn(2, 4, 6, 5)
    peer = torch.nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1, output_padding=1)
    peer.load_state_dict(module.state_dict())
    assert module(x, output_size=wanted).shape == (2, 3, 11, 10)
    torch.testing.assert_close(module(x, output_size=wanted), peer(x, output_size=wanted))


@pytest.mark.parametrize("wanted", [(12,), (2, 3, 12, 12), (3, 9, 9, 12, 12), ()])
def test_modules_refuse_an_output_size_that_is_not_one_of_the_output(wanted):
    module = tconv_torch.ConvTranspose2d(2, 3, 3)
    with pytest.raises(ValueError, match=f"output_size has {len(wanted)} value"):
        module(torch.randn(2, 10, 10), output_size=wanted)
    assert module(torch.randn(2, 10, 10), output_size=(3, 12, 12)).shape == (3, 12, 12)


@pytest.mark.parametrize("padding", ["same", "same_lower", "valid"])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_modules_take_the_paddings_of_the_functions(ndim, padding):
    module = getattr(tconv_torch, f"ConvTranspose{ndim}d")(4, 3, 4, stride=3, padding=padding)
    x = torch.randn(2, 4, *[5] * ndim)
    expected = ours(x, module.weight, module.bias, stride=3, padding=padding)
    assert torch.equal(module(x), expected)


class Decoder(torch.nn.Module):
    """Two transposed convolutions, one of them deep inside, and one of a class of its own."""

    def __init__(self):
        super().__init__()
        self.up = torch.nn.ConvTranspose2d(3, 4, 4, stride=2, padding=1)
        self.more = torch.nn.Sequential(
            torch.nn.Conv2d(4, 4, 3), torch.nn.ReLU(), torch.nn.ConvTranspose2d(4, 2, 2)
        )
        self.own = Own(2, 2, 1)

    def forward(self, x):
        return self.own(self.more(self.up(x)))


class Own(torch.nn.ConvTranspose2d):
    def forward(self, x):
        return 2 * super().forward(x)


def test_replace_swaps_modules_in_place_and_keeps_their_parameters_and_hooks():
    model, calls = Decoder(), []
    model.up.register_forward_hook(lambda *_: calls.append("up"))
    parameters, x = list(model.parameters()), torch.randn(1, 3, 5, 5)
    before = model(x)
    assert tconv_torch.replace(model) is model
    assert type(model.up) is tconv_torch.ConvTranspose2d
    assert type(model.more[2]) is tconv_torch.ConvTranspose2d
    assert type(model.more[0]) is torch.nn.Conv2d
    assert type(model.own) is Own
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    torch.testing.assert_close(model(x), before)
    assert calls == ["up", "up"]


def test_replace_takes_a_single_module():
    module = torch.nn.ConvTranspose1d(2, 2, 3)
    assert type(tconv_torch.replace(module)) is tconv_torch.ConvTranspose1d


@pytest.mark.parametrize("name", ["weight_norm", "spectral_norm"])
def test_replace_keeps_parametrizations(name):
    module = getattr(torch.nn.utils.parametrizations, name)(torch.nn.ConvTranspose1d(2, 2, 3))
    module.eval()
    other, x, names = copy.deepcopy(module), torch.randn(1, 2, 4), list(module.state_dict())
    expected = module(x)
    tconv_torch.replace(module)
    assert isinstance(module, tconv_torch.ConvTranspose1d)
    assert not isinstance(other, tconv_torch.ConvTranspose1d)
    for same in (module, copy.deepcopy(module), tconv_torch.replace(other)):
        torch.testing.assert_close(same(x), expected)
        assert list(same.state_dict()) == names
    torch.nn.utils.parametrize.remove_parametrizations(module, "weight")
    assert type(module) is tconv_torch.ConvTranspose1d
    torch.testing.assert_close(module(x), expected)
    own = torch.nn.utils.parametrizations.weight_norm(Own(2, 2, 1))
    assert not isinstance(tconv_torch.replace(own), tconv_torch.ConvTranspose2d)


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = tconv_torch.replace(Decoder())
    torch.compiler.reset()
    yield model
    torch.compiler.reset()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_model_compiles_whole_with_its_gradients(model, backend, dynamic):
    compiled = torch.compile(model, backend=backend, fullgraph=True, dynamic=dynamic)
    for batch, size in ((2, 5), (3, 6)):
        x = torch.randn(batch, 3, size, 5, requires_grad=True)
        eager, other = model(x), compiled(x)
        torch.testing.assert_close(other, eager)
        inputs = [x, *model.parameters()]
        grads = torch.autograd.grad(other.square().sum(), inputs)
        for grad, expected in zip(
            grads, torch.autograd.grad(eager.square().sum(), inputs), strict=True
        ):
            torch.testing.assert_close(grad, expected)


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("frozen", [False, True])
def test_forward_mode_does_not_compile_and_is_right_all_the_same(model, backend, frozen):
    model.requires_grad_(not frozen)
    x = torch.randn(1, 3, 5, 5)
    _, expected = torch.func.jvp(model, (x,), (x,))

    def tangent(x):
        return torch.func.jvp(model, (x,), (x,))[1]

    with pytest.raises(torch._dynamo.exc.Unsupported, match="forward-mode differentiation goes"):
        torch.compile(tangent, backend=backend, fullgraph=True)(x)
    torch.testing.assert_close(torch.compile(tangent, backend=backend)(x), expected)


@pytest.mark.parametrize("strict", [False, True])
def test_a_model_exports_with_a_batch_and_a_height_that_are_open(model, strict):
    x = torch.randn(2, 3, 8, 6)
    open_axes = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC}
    program = torch.export.export(model, (x,), dynamic_shapes=(open_axes,), strict=strict)
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert "tconv.transposed_conv.default" in called
    other = torch.randn(5, 3, 11, 6)
    torch.testing.assert_close(program.module()(other), model(other))


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_autocast_computes_in_the_half_type_and_keeps_parameters_in_float32(model, name):
    dtype = getattr(torch, name)
    x = torch.randn(2, 3, 5, 5)
    with torch.autocast("cpu", dtype=dtype):
        y = model.up(x)
    assert y.dtype == dtype
    half = [array.to(dtype) for array in (x, model.up.weight, model.up.bias)]
    assert torch.equal(y, ours(*half, stride=2, padding=1))
    y.sum().backward()
    assert {p.grad.dtype for p in model.up.parameters()} == {torch.float32}


def test_autocast_leaves_float64_alone():
    x, weight, _ = tensors((1, 2, 3), (2, 2, 2), {}, torch.float64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ours(x, weight).dtype == torch.float64


PLAIN = [case for case in cases.random_cases(70, seed=74) if 0 not in case.weight]


@pytest.mark.parametrize("case", PLAIN, ids=str)
def test_the_public_adjoint_is_pytorchs_convolution(case, rng):
    call = {name: case.call[name] for name in ("stride", "dilation", "groups")}
    kernel_size = case.weight[2:]
    x = rng.integers(-8, 9, (2, case.weight[1] * call["groups"], *range(7, 7 + len(kernel_size))))
    weight = rng.integers(-8, 9, case.weight)
    call["padding"] = int(np.max(np.subtract(kernel_size, 1) * call["dilation"]) // 2 + 1)
    y = getattr(tconv, f"conv{len(kernel_size)}d")(x.astype("f8"), weight.astype("f8"), **call)
    peer = getattr(functional, f"conv{len(kernel_size)}d")
    expected = peer(torch.from_numpy(x).double(), torch.from_numpy(weight).double(), **call)
    np.testing.assert_array_equal(y, expected.numpy())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_model_compiles_with_the_default_backend(model):
    compiled = torch.compile(model, fullgraph=True)
    x = torch.randn(2, 3, 5, 5)
    y = compiled(x)
    torch.testing.assert_close(y, model(x))
    y.sum().backward()
    assert model.up.weight.grad is not None
