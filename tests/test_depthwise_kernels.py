"""The depthwise kernels compute the definition, and have the bits of the gather kernel.

As in `test_kernels`, each is driven by name through the public verbs.
"""

import numpy as np
import pytest

import cases
import oracle
import standin
from standin import Recorder, Standin, refuses
from test_kernels import RANDOM, channels_last, packed, strided

SUITED = [
    *cases.SMALL_GROUPS,
    *filter(cases.has_small_groups, cases.NAMED),
    *list(filter(cases.has_small_groups, RANDOM))[:60],
]


def in_turn(number, case, kernel="depthwise"):
    """Return a dtype; float32, which every case suits, where a thread cannot hold that many."""
    dtype = cases.DTYPES[number % len(cases.DTYPES)]
    x, weight, _ = case.integers(dtype, np.random.default_rng(0))
    refused = refuses(Recorder().verbs(kernel), x, weight, **case.call)
    return np.dtype("f4") if refused else dtype


SUITED = [pytest.param(case, in_turn(n, case), id=str(case)) for n, case in enumerate(SUITED)]
"""Each in one dtype, by turns: every window is a kernel of its own."""
OWN = len(cases.SMALL_GROUPS)
SOME = SUITED[:OWN] + SUITED[OWN::5]

SINGLE = [*cases.SINGLE_CHANNELS, *filter(cases.has_single_channels, RANDOM)]
SINGLE = [
    pytest.param(case, in_turn(n, case, "depthwise_channels_last"), id=str(case))
    for n, case in enumerate(SINGLE)
    if len(case.x) == len(case.weight)
]
FEW = len(cases.SINGLE_CHANNELS)
CENTERNET = cases.SINGLE_CHANNELS[2]


@pytest.fixture(scope="session")
def compiled():
    """Compile in a few units what most tests need, instead of one by one."""
    standin.skip_without_compiler()
    recorder = Recorder()
    for kernel, params in (("depthwise", SOME), ("depthwise_channels_last", SINGLE[:FEW])):
        for case, dtype in (param.values for param in params):
            x, weight, bias = case.integers(dtype, np.random.default_rng(0))
            recorder.verbs("gather")(x, weight, bias, **case.call)
            for one in (x, channels_last(x)) if len(case.x) == len(case.weight) else (x,):
                recorder.verbs(kernel)(one, weight, bias, **case.call)
    Standin().prepare(recorder.launched)


# --- small groups -------------------------------------------------------------------------------


@pytest.mark.parametrize(("case", "dtype"), SOME)
def test_small_groups_are_exact_on_integers_and_have_the_bits_of_gather_on_reals(
    case, dtype, device, rng
):
    assert_small_groups_are_right(case, dtype, device, rng)


@pytest.mark.slow
@pytest.mark.parametrize(("case", "dtype"), [param for param in SUITED if param not in SOME])
def test_small_groups_in_many_windows(case, dtype, device, rng):
    assert_small_groups_are_right(case, dtype, device, rng)


def assert_small_groups_are_right(case, dtype, device, rng):
    depthwise = device.verbs("depthwise")
    x, weight, bias = case.integers(dtype, rng)
    answer = oracle.transposed_conv(x, weight, bias, **case.call)
    oracle.assert_exact(depthwise(x, weight, bias, **case.call), answer, dtype)
    if len(case.x) == len(case.weight):
        y = depthwise(channels_last(x), weight, bias, **case.call)
        oracle.assert_exact(y, answer, dtype)
    if dtype.kind != "i":
        x, weight, bias = case.reals(dtype, rng)
        y = depthwise(x, weight, bias, **case.call)
        assert y.tobytes() == device.verbs("gather")(x, weight, bias, **case.call).tobytes()


@pytest.mark.parametrize(
    ("case", "dtype"), [param for param in SOME if param.values[1].kind == "f"]
)
def test_nan_and_infinity_leak_to_no_other_output_of_small_groups(case, dtype, device, rng):
    for place in ("x", "weight"):
        for intruder in (np.nan, np.inf, -np.inf):
            ones = {"x": np.ones(case.x, dtype), "weight": np.ones(case.weight, dtype)}
            ones[place].flat[rng.integers(ones[place].size)] = intruder
            y = device.verbs("depthwise")(**ones, **case.call).astype(float)
            np.testing.assert_array_equal(y, oracle.transposed_conv(**ones, **case.call))


@pytest.mark.parametrize("dtype", [np.dtype("f4"), np.dtype("f2")], ids=str)
def test_rows_that_end_within_a_vector_are_read_and_written_to_their_end_alone(dtype, device, rng):
    case = cases.Case("", "", (2, 3, 5, 29), (3, 1, 4, 4), {"stride": 2, "groups": 3})
    x, weight, bias = case.integers(dtype, rng)
    around, into = np.full((2, 3, 5, 32), 99, dtype), np.full((2, 3, 12, 64), 99, dtype)
    around[..., :29] = x
    answer = oracle.transposed_conv(x, weight, bias, **case.call)
    device.verbs("depthwise")(around[..., :29], weight, bias, out=into[..., :60], **case.call)
    oracle.assert_exact(into[..., :60], answer, dtype)
    assert (into[..., 60:] == 99).all()


# --- single channels, nearest in memory ---------------------------------------------------------


@pytest.mark.parametrize(("case", "dtype"), SINGLE[:FEW])
def test_single_channels_are_exact_on_integers_and_have_the_bits_of_gather_on_reals(
    case, dtype, device, rng
):
    assert_single_channels_are_right(case, dtype, device, rng)


@pytest.mark.slow
@pytest.mark.parametrize(("case", "dtype"), SINGLE[FEW:])
def test_single_channels_in_many_windows(case, dtype, device, rng):
    assert_single_channels_are_right(case, dtype, device, rng)


def assert_single_channels_are_right(case, dtype, device, rng):
    single = device.verbs("depthwise_channels_last")
    x, weight, bias = case.integers(dtype, rng)
    answer = oracle.transposed_conv(x, weight, bias, **case.call)
    for one in (x, channels_last(x)):
        oracle.assert_exact(single(one, weight, bias, **case.call), answer, dtype)
    oracle.assert_exact(single(one, packed(weight), bias, **case.call), answer, dtype)
    if dtype.kind != "i":
        x, weight, bias = case.reals(dtype, rng)
        y = single(channels_last(x), weight, bias, **case.call)
        assert y.tobytes() == device.verbs("gather")(x, weight, bias, **case.call).tobytes()


@pytest.mark.parametrize(
    ("case", "dtype"), [param for param in SINGLE[:FEW] if param.values[1].kind == "f"]
)
def test_nan_and_infinity_leak_to_no_other_output_of_single_channels(case, dtype, device, rng):
    single = device.verbs("depthwise_channels_last")
    for place in ("x", "weight"):
        for intruder in (np.nan, np.inf, -np.inf):
            x, weight = np.ones(case.x, dtype), np.ones(case.weight, dtype)
            array = {"x": x, "weight": weight}[place]
            array.flat[rng.integers(array.size)] = intruder
            y = single(channels_last(x), weight, **case.call).astype(float)
            np.testing.assert_array_equal(y, oracle.transposed_conv(x, weight, **case.call))


@pytest.mark.parametrize(("first", "vector"), [(0, 4), (4, 4), (2, 2), (1, 1)])
def test_some_channels_of_wider_arrays_are_read_and_written_and_no_others(
    first, vector, device, rng
):
    x, weight, bias = CENTERNET.integers(np.dtype("f4"), rng)
    answer = oracle.transposed_conv(x, weight, bias, **CENTERNET.call)
    wide = 16 if vector == 4 else 14 if vector == 2 else 13
    around, into = (np.full((*n.shape[:1], *n.shape[2:], wide), 99, "f4") for n in (x, answer))
    mine = (..., slice(first, first + 8))
    around[mine] = np.moveaxis(x, 1, -1)
    single = device.verbs("depthwise_channels_last")
    out = np.moveaxis(into[mine], -1, 1)
    single(np.moveaxis(around[mine], -1, 1), weight, bias, out=out, **CENTERNET.call)
    oracle.assert_exact(out, answer, x.dtype)
    out[...] = 99
    assert (into == 99).all()
    if isinstance(device, Standin):
        assert device.launched[-1]["X_VECTOR"] == vector


def test_single_channels_may_lie_in_memory_in_any_way(device, rng):
    case = cases.SINGLE_CHANNELS[-2]
    single = device.verbs("depthwise_channels_last")
    x, weight, bias = case.integers(np.dtype("f4"), rng)
    answer = oracle.transposed_conv(x, weight, bias, **case.call)
    for operands in zip(strided(x, rng), strided(weight, rng), strided(bias, rng), strict=True):
        oracle.assert_exact(single(*operands, **case.call), answer, x.dtype)


def test_an_activation_of_single_channels_follows_the_bias(device, rng):
    x, weight, bias = CENTERNET.reals(np.dtype("f4"), rng)
    call = {"activation": "silu", **CENTERNET.call}
    y = device.verbs("depthwise_channels_last")(channels_last(x), weight, bias, **call)
    assert y.tobytes() == device.verbs("gather")(x, weight, bias, **call).tobytes()
