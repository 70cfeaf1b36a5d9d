"""The kernel for few output channels computes the definition.

As in `test_kernels`, it is driven by name through the public verbs.
"""

from itertools import cycle

import numpy as np
import pytest

import cases
import oracle
import standin
from standin import Recorder, Standin
from tconv.gpu import launch
from tconv.gpu.families import direct
from test_kernels import RANDOM, channels_last, packed, strided

HEAD = cases.FEW_OUTPUTS[0]
NARROW = 1024
"""Bytes of weights at a time, so that even small layers have several blocks of channels."""


def fits(case, dtype):
    """Tell whether a thread can hold the window."""
    try:
        Recorder().verbs("direct")(*case.integers(dtype, np.random.default_rng(0)), **case.call)
    except ValueError:
        return False
    return 0 not in (*case.x, *case.weight)


SUITED = [
    pytest.param(case, dtype, id=str(case))
    for case, dtype in zip([*cases.FEW_OUTPUTS, *RANDOM], cycle(cases.DTYPES), strict=False)
    if fits(case, dtype)
]
"""Each in one dtype, by turns: every window is a kernel of its own."""
SOME, MANY = SUITED[:40], SUITED[40:160]


@pytest.fixture(scope="session")
def compiled():
    """Compile in a few units what most tests need, instead of one by one."""
    standin.skip_without_compiler()
    recorder = Recorder()
    with pytest.MonkeyPatch.context() as patch:
        for budget in (NARROW, direct.WEIGHT_BYTES):
            patch.setattr(direct, "WEIGHT_BYTES", budget)
            launch._recalled.cache_clear()
            for case, dtype in (param.values for param in SOME):
                x, weight, bias = case.integers(dtype, np.random.default_rng(0))
                recorder.verbs("direct")(x, weight, bias, **case.call)
    launch._recalled.cache_clear()
    Standin().prepare(recorder.launched)


@pytest.fixture(params=[NARROW, direct.WEIGHT_BYTES], ids=["several blocks of channels", "one"])
def verbs(request, device, monkeypatch):
    """The verbs, computed by the kernel with some or all channels' weights at a time."""
    monkeypatch.setattr(direct, "WEIGHT_BYTES", request.param)
    launch._recalled.cache_clear()
    yield device.verbs("direct")
    launch._recalled.cache_clear()


@pytest.mark.parametrize(("case", "dtype"), SOME)
def test_few_outputs_are_exact_on_integers_and_within_the_bound_on_reals(case, dtype, verbs, rng):
    assert_few_outputs_are_right(case, dtype, verbs, rng)


@pytest.mark.slow
@pytest.mark.parametrize(("case", "dtype"), MANY)
def test_few_outputs_in_many_windows(case, dtype, device, rng):
    assert_few_outputs_are_right(case, dtype, device.verbs("direct"), rng)


def assert_few_outputs_are_right(case, dtype, conv, rng):
    x, weight, bias = case.integers(dtype, rng)
    answer = oracle.transposed_conv(x, weight, bias, **case.call)
    oracle.assert_exact(conv(x, weight, bias, **case.call), answer, dtype)
    oracle.assert_exact(conv(x, packed(weight), bias, **case.call), answer, dtype)
    if len(case.x) == len(case.weight):
        oracle.assert_exact(conv(channels_last(x), weight, bias, **case.call), answer, dtype)
    if dtype.kind != "i":
        x, weight, bias = case.reals(dtype, rng)
        answer = oracle.transposed_conv(x, weight, bias, **case.call)
        limit = oracle.bound(x, weight, bias, **case.call)
        oracle.assert_within(conv(x, weight, bias, **case.call), answer, limit)


@pytest.mark.parametrize(
    ("case", "dtype"), [param for param in SOME if param.values[1].kind == "f"]
)
def test_nan_and_infinity_leak_to_no_other_output(case, dtype, device, rng):
    for place in ("x", "weight"):
        for intruder in (np.nan, np.inf, -np.inf):
            ones = {"x": np.ones(case.x, dtype), "weight": np.ones(case.weight, dtype)}
            ones[place].flat[rng.integers(ones[place].size)] = intruder
            y = device.verbs("direct")(**ones, **case.call).astype(float)
            np.testing.assert_array_equal(y, oracle.transposed_conv(**ones, **case.call))


@pytest.mark.parametrize("dtype", [np.dtype("f4"), np.dtype("f2")], ids=str)
def test_rows_that_end_within_a_vector_are_read_and_written_to_their_end_alone(dtype, device, rng):
    case = cases.Case("", "", (2, 3, 5, 29), (3, 2, 4, 4), {"stride": 2})
    x, weight, bias = case.integers(dtype, rng)
    around, into = np.full((2, 3, 5, 32), 99, dtype), np.full((2, 2, 12, 64), 99, dtype)
    around[..., :29] = x
    answer = oracle.transposed_conv(x, weight, bias, **case.call)
    device.verbs("direct")(around[..., :29], weight, bias, out=into[..., :60], **case.call)
    oracle.assert_exact(into[..., :60], answer, dtype)
    assert (into[..., 60:] == 99).all()


def test_inputs_may_lie_in_memory_in_any_way(device, rng):
    for case in (HEAD, cases.FEW_OUTPUTS[-1]):
        x, weight, bias = case.integers(np.dtype("f4"), rng)
        answer = oracle.transposed_conv(x, weight, bias, **case.call)
        for operands in zip(strided(x, rng), strided(weight, rng), strided(bias, rng), strict=True):
            oracle.assert_exact(device.verbs("direct")(*operands, **case.call), answer, x.dtype)


def test_an_item_has_the_same_bits_in_any_batch(verbs, rng):
    x, weight, bias = HEAD.reals(np.dtype("f4"), rng)
    many = np.concatenate([x, rng.standard_normal((9, *x.shape[1:])).astype("f4")])
    together = verbs(many, weight, bias, **HEAD.call)
    alone = verbs(x[1:], weight, bias, **HEAD.call)
    assert alone.tobytes() == together[1:2].tobytes()


def test_an_activation_follows_the_bias(device, rng):
    x, weight, bias = HEAD.reals(np.dtype("f4"), rng)
    call = {"activation": "silu", **HEAD.call}
    answer = oracle.transposed_conv(x, weight, bias, **call)
    limit = oracle.bound(x, weight, bias, **call)
    oracle.assert_within(device.verbs("direct")(x, weight, bias, **call), answer, limit)


@pytest.mark.parametrize("place", ["x", "weight", "bias", "out"])
def test_offsets_beyond_2_to_the_31_elements(place, device):
    big = np.zeros(2**31 + 1, np.float16)[: 2**31 + 1 : 2**30]
    arrays = {name: np.empty(3, np.float16) for name in ("x", "weight", "bias", "out")}
    arrays[place] = big
    x, weight, bias, out = arrays.values()
    x[...], weight[...], bias[...] = (2, 3, 4), (3, 4, 5), (4, 5, 6)
    x, weight, out = x.reshape(1, 3, 1), weight.reshape(3, 1, 1), out.reshape(1, 3, 1)
    device.verbs("direct")(x, weight, bias, groups=3, out=out)
    assert out.ravel().tolist() == [10, 17, 26]
