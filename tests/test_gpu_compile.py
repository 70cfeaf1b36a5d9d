"""NVRTC compiles every kernel for every architecture, without a GPU; cubins are cached on disk."""

import random
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

import cases
from tconv import gpu
from tconv._geometry import Geometry
from tconv.gpu.call import Call, Strides
from tconv.gpu.planning import lying
from tconv.gpu.select import select
from tconv.gpu.source import source

pytestmark = pytest.mark.nvrtc

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)


@pytest.fixture
def compile():
    from tconv.gpu import compile

    return compile


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TCONV_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def text():
    return source(gpu.plan((1, 1, 5), (1, 1, 3)).choice.specialisation)


def test_the_architecture_is_the_newest_that_the_device_runs(compile):
    names = {75: "sm_75", 80: "sm_80", 86: "sm_86", 89: "sm_89", 90: "sm_90a", 100: "sm_100"}
    for capability, name in names.items():
        assert compile.architecture(capability) == name
    with pytest.raises(RuntimeError, match=r"cannot compile for compute capability 1\.3; install"):
        compile.architecture(13)


def test_a_cubin_is_compiled_once(compile, cache, text, monkeypatch):
    path = compile.cubin(text, "sm_80")
    assert path.parent == cache
    assert path.read_bytes().startswith(b"\x7fELF")
    monkeypatch.setattr(compile, "compiled", None)
    assert compile.cubin(text, "sm_80") == path


def test_a_cubin_is_whole(compile, text):
    cubin, _ = compile.compiled(text, "sm_80")
    # Where an ELF file's tables of segments and of sections begin, and their entries.
    segments, sections = struct.unpack_from("<QQ", cubin, 32)
    sizes = struct.unpack_from("<HHHH", cubin, 54)
    assert segments + sizes[0] * sizes[1] <= len(cubin)
    assert sections + sizes[2] * sizes[3] <= len(cubin)


def test_other_sources_and_architectures_have_other_cubins(compile, cache, text):
    paths = {
        compile.cubin(t, arch) for t in (text, text + "\n// more\n") for arch in ("sm_80", "sm_90a")
    }
    assert len(paths) == len(list(cache.iterdir())) == 4


@pytest.mark.parametrize("damage", [b"", b"\x7fELF, but no more"], ids=["empty", "cut off"])
def test_a_damaged_cubin_is_built_anew(compile, cache, text, damage):  # noqa: ARG001
    path = compile.cubin(text, "sm_80")
    whole = path.read_bytes()
    path.write_bytes(damage)
    assert compile.cubin(text, "sm_80").read_bytes() == whole


def test_many_at_once_leave_one_whole_cubin(compile, cache, text):
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(lambda _: compile.cubin(text, "sm_80"), range(8)))
    assert len(paths) == len(list(cache.iterdir())) == 1


def test_a_cache_that_cannot_be_written_is_no_obstacle(compile, tmp_path, monkeypatch, text):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("TCONV_CACHE_DIR", str(blocked / "cache"))
    assert compile.cubin(text, "sm_80").exists()


def test_a_source_that_does_not_compile_is_an_error_with_the_compilers_words(compile):
    with pytest.raises(RuntimeError, match=r"(?s)^NVRTC refuses a kernel for sm_80:.*not_a_type"):
        compile.compiled("not_a_type x;", "sm_80")


DEVICE = SimpleNamespace(compute_capability="86", attributes={"MultiProcessorCount": 82})


@pytest.mark.usefixtures("cache")
def test_a_device_compiles_and_loads_each_kernel_once(compile, monkeypatch):
    cupy = pytest.importorskip("cupy")
    loaded = []

    class RawModule:
        def __init__(self, *, path):
            assert Path(path).read_bytes().startswith(b"\x7fELF")
            loaded.append(self)

        def get_function(self, name):
            return name, object()

    monkeypatch.setattr(cupy, "RawModule", RawModule)
    monkeypatch.setattr(cupy.cuda, "Device", lambda _: DEVICE)
    device = compile.CudaDevice(0)
    assert device.capability == 86
    assert device.multiprocessors == 82
    specialisation = gpu.plan((1, 1, 5), (1, 1, 3)).choice.specialisation
    with ThreadPoolExecutor(4) as pool:
        kernels = set(pool.map(device.kernel, [specialisation] * 8))
    assert len(kernels) == len(loaded) == 1
    assert kernels.pop()[0] == specialisation.kernel


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["complex64", "complex128", "int32", "int64"])
@pytest.mark.parametrize("channels", [1, 64])
def test_the_other_dtypes_compile_for_every_architecture_without_a_spill(compile, dtype, channels):
    for capability in ARCHITECTURES:
        plan = gpu.plan((1, channels, 5, 5), (channels, channels, 3, 3), dtype, stride=2,
                        capability=capability)  # fmt: skip
        text = source(plan.choice.specialisation)
        name = compile.architecture(capability)
        _, log = compile.compiled(text, name, "--ptxas-options=-v")
        assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in log
        assert "warning" not in log


@pytest.mark.slow
@pytest.mark.parametrize(
    ("window", "stride", "dtype", "activation"),
    [
        ((12,), 2, "float16", "gelu"),
        ((4, 4), 2, "float64", "silu"),
        ((4, 4), 2, "complex128", None),
        ((16, 16), 8, "int64", "relu"),
        ((7, 7), 1, "float32", None),  # weights are read in each round
        ((3, 3, 3), 2, "bfloat16", "tanh"),
    ],
)
def test_single_channels_compile_for_every_architecture_without_a_spill(
    compile, window, stride, dtype, activation
):
    shape = (1, 64, *(9 for _ in window))
    for capability in ARCHITECTURES:
        plan = gpu.plan(
            shape, (64, 1, *window), dtype, stride=stride, padding=1, groups=64,
            activation=activation, channels_last=True, capability=capability,
        )  # fmt: skip
        specialisation = plan.choice.specialisation
        assert specialisation.kernel == "depthwise_channels_last"
        name = compile.architecture(capability)
        _, log = compile.compiled(source(specialisation), name, "--ptxas-options=-v")
        assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in log
        assert "warning" not in log


EVERY = ("gather", "gemm", "direct", "direct_channels_last", "depthwise", "depthwise_channels_last")


@pytest.mark.slow
@pytest.mark.parametrize("capability", ARCHITECTURES)
@pytest.mark.parametrize("kernel", EVERY)
def test_every_kernel_compiles_with_wide_offsets_without_a_spill(compile, kernel, capability):
    single, last = kernel.startswith("depthwise"), kernel.endswith("channels_last")
    order = (0, 2, 3, 1) if last else (0, 1, 2, 3)
    groups, out_channels = (16, 16) if single else (1, 4 if kernel.startswith("direct") else 64)
    g = Geometry(
        batch=2, groups=groups, in_channels=16, out_channels=out_channels, in_size=(9, 9),
        kernel_size=(4, 4), stride=(2, 2), dilation=(1, 1), pad_begin=(1, 1), out_size=(18, 18),
    )  # fmt: skip
    for dtype, operation, shapes in (
        ("float32", "transposed_conv", (g.x_shape, g.out_shape)),
        ("float16", "conv", (g.out_shape, g.x_shape)),
    ):
        x, out = ((2**32, *lying(shape, *order)[1:]) for shape in shapes)
        strides = Strides(x, lying(g.weight_shape, 0, 1, 2, 3), 1, out)
        call = Call(g, dtype, strides, None, None, capability, operation)
        specialisation = select(call, kernel=kernel).specialisation
        assert (specialisation.kernel, specialisation.index_bits) == (kernel, 64)
        name = compile.architecture(capability)
        _, log = compile.compiled(source(specialisation), name, "--ptxas-options=-v")
        assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in log
        assert "warning" not in log


KERNEL_SIZES = {1: (2, 5, 16, 25, 33, 61, 64, 255), 2: (1, 2, 3, 4, 7, 11, 16), 3: (1, 2, 3, 5)}


def any_call(seed):
    """Return a call that nobody has thought of."""
    choose = random.Random(seed).choice
    ndim = choose((1, 2, 3))
    groups, per_group = choose((1, 2, 16)), (1, 2, 3, 5, 8, 21, 64)
    in_channels, out_channels = (groups * choose(per_group) for _ in "io")
    kernel_size = tuple(choose(KERNEL_SIZES[ndim]) for _ in range(ndim))
    stride, dilation = (tuple(choose((1, 1, 2, 3, 8)) for _ in range(ndim)) for _ in "sd")
    geometry = Geometry(
        batch=2, groups=groups, in_channels=in_channels, out_channels=out_channels,
        in_size=(9,) * ndim, kernel_size=kernel_size, stride=stride, dilation=dilation,
        pad_begin=tuple(choose(range(k)) for k in kernel_size), out_size=(choose((30, 64)),) * ndim,
    )  # fmt: skip
    axes = range(2, ndim + 2)
    order = choose(((0, 1, *axes), (0, *axes, 1)))
    operation = choose(("transposed_conv", "transposed_conv", "conv", "weight_gradient"))
    read, written = geometry.x_shape, geometry.out_shape
    if operation == "conv":
        read, written = written, read
    strides = Strides(
        x=lying(read, *order),
        weight=lying(geometry.weight_shape, *choose(((0, 1, *axes), (*axes, 0, 1)))),
        bias=1,
        out=lying(written, *order),
    )
    dtype, capability = choose(cases.DTYPES).name, choose((75, 80, 90, 100, 120))
    return Call(geometry, dtype, strides, None, None, capability, operation)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(50, 110, 10))
def test_whatever_is_chosen_compiles(compile, first):
    for seed in range(first, first + 10):
        call = any_call(seed)
        for specialisation, _ in select(call).passes:
            name = compile.architecture(call.capability)
            cubin, log = compile.compiled(source(specialisation), name)
            assert cubin.startswith(b"\x7fELF"), (call, log)
