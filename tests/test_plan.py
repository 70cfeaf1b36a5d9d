"""What `tconv.gpu.plan` says: which kernel would run, why, and how long it takes at least."""

import tomllib
from importlib.resources import files

import ml_dtypes
import numpy as np
import pytest

import tconv
from pretended import on_device
from tconv import gpu
from tconv.gpu import launch
from test_gpu import plan


def test_a_plan_says_what_would_run_and_why():
    text = str(plan("unet-top"))
    assert text.startswith("gemm on float32, compute capability 8.0\n")
    assert "because     100% of the products in the gemm kernel's tiles are wanted" in text
    assert "tile        128 rows (n, q) x 128 columns (phase, m), 8 channels a step" in text
    assert "grid        8192 blocks of 128 threads" in text
    assert "asynchronous copies, 32-bit offsets" in text
    assert "work        3.44e+10 FLOP, at least 8.05e+08 bytes" in text


FLOORS = [
    (table, dtype, precision, table[f"floor_{name}_us"])
    for table in tomllib.loads((files("tconv.commands") / "suite.toml").read_text("utf-8"))["layer"]
    for name, dtype, precision in [
        ("bf16", "bfloat16", None), ("tf32", "float32", "tf32"), ("fp32", "float32", None),
    ]
    if f"floor_{name}_us" in table
]  # fmt: skip


@pytest.mark.parametrize(
    ("table", "dtype", "precision", "microseconds"),
    FLOORS, ids=[f"{table['name']}-{precision or dtype}" for table, dtype, precision, _ in FLOORS],
)  # fmt: skip
def test_a_plan_knows_the_floors_of_the_suite(table, dtype, precision, microseconds):
    p = plan(table["name"], dtype, precision=precision, device="H200")
    assert p.floor.seconds * 1e6 == pytest.approx(microseconds, rel=0.01, abs=0.05)


def test_the_floor_is_the_larger_of_arithmetic_and_memory():
    device = gpu.Ceilings("slow", 80, copy=1e9, half=8e9, tf32=6e9, single=1e9, double=5e8)
    # 2 x 3 inputs, 3 x 4 taps for each, 4 x 8 outputs
    floors = {
        (dtype, precision): gpu.plan(
            (1, 2, 3), (2, 4, 3), dtype, precision=precision, stride=3, device=device
        ).floor
        for dtype, precision in [
            ("float16", None), ("bfloat16", None), ("float32", None), ("float32", "ieee"),
            ("float32", "tf32"), ("float32", "tf32x3"), ("float64", None), ("complex64", None),
            ("complex128", None), ("int32", None), ("int64", None),
        ]
    }  # fmt: skip
    elements, products = 6 + 24 + 36, 72
    nanoseconds = {call: tuple(round(t * 1e9) for t in floor) for call, floor in floors.items()}
    assert nanoseconds == {
        ("float16", None): (2 * products // 8, 2 * elements),
        ("bfloat16", None): (2 * products // 8, 2 * elements),
        ("float32", None): (2 * products, 4 * elements),
        ("float32", "ieee"): (2 * products, 4 * elements),
        ("float32", "tf32"): (2 * products // 6, 4 * elements),
        ("float32", "tf32x3"): (2 * products // 2, 4 * elements),
        ("float64", None): (4 * products, 8 * elements),
        ("complex64", None): (8 * products, 8 * elements),
        ("complex128", None): (16 * products, 16 * elements),
        ("int32", None): (0, 4 * elements),
        ("int64", None): (0, 8 * elements),
    }
    for floor in floors.values():
        assert floor.seconds == max(floor)


def test_a_plan_has_the_numbers_that_it_prints():
    p = plan("unet-top", device="H200")
    assert p.flops == 2 * 8 * 128 * 64 * 512 * 512
    assert p.nbytes == 4 * (8 * 128 * 256 * 256 + 128 * 64 * 4 + 8 * 64 * 512 * 512)
    assert f"tile        {p.tile.rows} rows (n, q) x {p.tile.columns} columns" in str(p)
    assert f"grid        {p.blocks} blocks of " in str(p)
    assert "floor       573 us of arithmetic, 187 us of memory traffic on NVIDIA H200" in str(p)
    assert plan("bigvgan-depthwise").tile is None


def test_a_plan_says_which_device_it_assumes(monkeypatch):
    monkeypatch.setattr("tconv.gpu.planning._current", lambda: None)
    shapes = (1, 4, 9), (4, 8, 4)
    assert "on an assumed NVIDIA A100-SXM4-80GB" in str(gpu.plan(*shapes))
    assert "on an assumed NVIDIA H200" in str(gpu.plan(*shapes, capability=90))
    unknown = gpu.plan(*shapes, capability=75)
    assert unknown.floor is None
    assert "floor       not known; say on which device: H200, H100, A100" in str(unknown)


def test_a_plan_is_for_the_current_device_unless_another_is_asked_for(monkeypatch):
    shapes = (1, 4, 9), (4, 8, 4)
    monkeypatch.setattr("tconv.gpu.planning._current", lambda: ("NVIDIA H200", 90))
    for p in (gpu.plan(*shapes), gpu.plan(*shapes, capability=90)):
        assert (p.capability, p.ceilings.device, p.assumed) == (90, "NVIDIA H200", False)
    asked = gpu.plan(*shapes, device="A100")
    assert (asked.capability, asked.ceilings.device, asked.assumed) == (
        80, "NVIDIA A100-SXM4-80GB", False,
    )  # fmt: skip
    assert gpu.plan(*shapes, capability=80).assumed
    monkeypatch.setattr("tconv.gpu.planning._current", lambda: ("NVIDIA H200 NVL", 90))
    assert gpu.plan(*shapes).floor is None


def test_a_plan_says_what_becomes_of_the_precision_asked_for():
    for precision in ("tf32", "tf32x3"):
        text = str(plan("unet-top", precision=precision))
        assert f"precision   {precision}, as asked for" in text
        text = str(plan("fcn8s-depthwise", precision=precision))
        assert f"precision   float32, more exact than the {precision} asked for" in text
    assert "precision   " not in str(plan("unet-top", precision="ieee"))


def test_a_plan_takes_any_dtype_spelling_memory_order_and_device():
    for dtype in ("bfloat16", ml_dtypes.bfloat16, np.dtype(ml_dtypes.bfloat16)):
        p = gpu.plan((1, 64, 9), (64, 64, 4), dtype, channels_last=True, capability=75)
        assert p.choice.specialisation.dtype == "bfloat16"
        assert p.choice.specialisation["X_CHANNELS_LAST"]
        assert str(p).startswith("gemm on bfloat16, compute capability 7.5\n")


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    ("x", "weight"),
    [((1, 9, 3, 4), (9, 5, 2, 2)), ((2, 1, 3, 4), (1, 8, 4, 4)), ((2, 9, 1, 1), (9, 5, 2, 2))],
    ids=["several", "one channel", "one place"],
)
def test_a_plan_is_what_a_call_does_on_arrays_in_that_order(x, weight, channels_last, with_gpu):
    order = (0, 2, 3, 1) if channels_last else (0, 1, 2, 3)
    lying = np.zeros([x[axis] for axis in order], "f4").transpose(np.argsort(order))
    tconv.transposed_conv2d(on_device(lying), on_device(np.zeros(weight, "f4")), stride=2)
    p = gpu.plan(x, weight, stride=2, channels_last=channels_last, device="A100")
    assert with_gpu[3].launched == [s for s, _ in p.choice.passes]


def test_a_plan_takes_a_packed_weight_as_a_layer_has_it(with_gpu, monkeypatch):
    asked = []
    monkeypatch.setattr("tconv.gpu.planning.select", lambda call: asked.append(call.strides.weight))
    for shape in ((4, 6, 5), (4, 6, 3, 2), (4, 6, 3, 2, 5)):
        weight = np.zeros(shape, "f4")
        with on_device(weight).device:
            there = launch.packed(weight, with_gpu[3])
        gpu.plan((1, 4, *shape[2:]), shape, packed=True, device="A100")
        assert asked[-1] == tuple(step // 4 for step in there.strides)


def test_a_plan_refuses_what_the_verbs_refuse():
    with pytest.raises(ValueError, match=r"^weight has 3 input channels"):
        gpu.plan((1, 4, 9), (3, 8, 4))
    with pytest.raises(TypeError, match=r"^precision='tf32' is for float32, not float64$"):
        gpu.plan((1, 4, 9), (4, 8, 4), "float64", precision="tf32")
    with pytest.raises(TypeError, match=r"^dtype=<class 'bool'> is not one of float16, "):
        gpu.plan((1, 4, 9), (4, 8, 4), bool)
    with pytest.raises(TypeError, match=r"^dtype=None is not one of float16, "):
        gpu.plan((1, 4, 9), (4, 8, 4), None)
    with pytest.raises(ValueError, match=r"^device='V100' is not one of H200, H100, A100$"):
        gpu.plan((1, 4, 9), (4, 8, 4), device="V100")


@pytest.mark.parametrize(
    ("error", "message", "shapes"),
    [
        (TypeError, "x_shape=9.0 is of type float; it must be an int", ((1, 4, 9.0), (4, 8, 4))),
        (TypeError, "x_shape=True is a bool; it must be an int", ((True, 4, 9), (4, 8, 4))),
        (ValueError, "x_shape=-1 must be at least 0", ((-1, 4, 9), (4, 8, 4))),
        (TypeError, "x_shape=8 is of type int; it must be a sequence of ints", (8, (4, 8, 4))),
        (TypeError, "x_shape='abc' is of type str; it must be a sequence of ints",
         ("abc", (4, 8, 4))),
        (TypeError, "weight_shape=4.0 is of type float; it must be an int",
         ((1, 4, 9), (4, 8, 4.0))),
        (ValueError, "weight_shape=(4, 8) has 2 axes but needs 3 to 5, "
                     "(C, M // groups, *kernel_size)", ((1, 4), (4, 8))),
        (ValueError, "weight_shape=(4, 8, 2, 2, 2, 2) has 6 axes but needs 3 to 5, "
                     "(C, M // groups, *kernel_size)", ((1, 4, 9, 9, 9, 9), (4, 8, 2, 2, 2, 2))),
    ],
)  # fmt: skip
def test_a_plan_takes_the_shapes_of_arrays(error, message, shapes):
    with pytest.raises(error) as raised:
        gpu.plan(*shapes)
    assert str(raised.value) == message
