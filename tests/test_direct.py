"""The kernels for few output channels compute the definition, in either order of memory.

As in `test_kernels`, it is driven by name through the public verbs.
"""

from itertools import cycle

import numpy as np
import pytest

import cases
import oracle
import standin
from standin import Recorder, Standin, refuses
from tconv.gpu import launch
from tconv.gpu.families import direct, direct_channels_last
from test_kernels import RANDOM, channels_last, packed, strided

HEAD = cases.FEW_OUTPUTS[0]
VECTORS = cases.FEW_OUTPUTS[-3]
KERNELS = {
    "direct": (direct, "WEIGHT_BYTES", 1024),
    "direct_channels_last": (direct_channels_last, "INPUT_BYTES", 0),
}
"""By name, and with which limit even small layers have several blocks of channels."""


def lying(kernel, x, weight):
    """Return x as the kernel is made for it."""
    last = kernel == "direct_channels_last" and x.ndim == weight.ndim
    return channels_last(x) if last else x


def fits(kernel, case, dtype):
    """Tell whether a thread can hold the window."""
    arrays = case.integers(dtype, np.random.default_rng(0))
    refused = refuses(Recorder().verbs(kernel), *arrays, **case.call)
    return not refused and 0 not in (*case.x, *case.weight)


SUITED = {
    kernel: [
        pytest.param(kernel, case, dtype, id=f"{kernel}-{case}")
        for case, dtype in zip([*cases.FEW_OUTPUTS, *RANDOM], cycle(cases.DTYPES), strict=False)
        if fits(kernel, case, dtype)
    ]
    for kernel in KERNELS
}
"""Each in one dtype, by turns: every window is a kernel of its own."""
SOME = [param for params in SUITED.values() for param in params[:40]]
MANY = [param for params in SUITED.values() for param in params[40:90]]


@pytest.fixture(scope="session")
def compiled():
    """Compile in a few units what most tests need, instead of one by one."""
    standin.skip_without_compiler()
    recorder = Recorder()
    with pytest.MonkeyPatch.context() as patch:
        for limited in (True, False):
            for module, limit, value in KERNELS.values():
                patch.setattr(module, limit, value if limited else getattr(module, limit))
            launch._recalled.cache_clear()
            for kernel, case, dtype in (param.values for param in SOME):
                x, weight, bias = case.integers(dtype, np.random.default_rng(0))
                recorder.verbs(kernel)(lying(kernel, x, weight), weight, bias, **case.call)
            patch.undo()
    launch._recalled.cache_clear()
    Standin().prepare(recorder.launched)


@pytest.fixture(params=[True, False], ids=["several blocks of channels", "one"])
def verbs(request, device, monkeypatch):
    """The verbs by kernel, with some or all channels in shared memory at a time."""
    for module, limit, value in KERNELS.values():
        if request.param:
            monkeypatch.setattr(module, limit, value)
    launch._recalled.cache_clear()
    yield device.verbs
    launch._recalled.cache_clear()


@pytest.mark.parametrize(("kernel", "case", "dtype"), SOME)
def test_few_outputs_are_exact_on_integers_and_within_the_bound_on_reals(
    kernel, case, dtype, verbs, rng
):
    assert_few_outputs_are_right(kernel, case, dtype, verbs, rng)


@pytest.mark.slow
@pytest.mark.parametrize(("kernel", "case", "dtype"), MANY)
def test_few_outputs_in_many_windows(kernel, case, dtype, device, rng):
    assert_few_outputs_are_right(kernel, case, dtype, device.verbs, rng)


def assert_few_outputs_are_right(kernel, case, dtype, verbs, rng):
    conv = verbs(kernel)
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
        y = conv(lying(kernel, x, weight), weight, bias, **case.call)
        oracle.assert_within(y, answer, limit)


@pytest.mark.parametrize(
    ("kernel", "case", "dtype"), [param for param in SOME if param.values[2].kind == "f"]
)
def test_nan_and_infinity_leak_to_no_other_output(kernel, case, dtype, device, rng):
    for place in ("x", "weight"):
        for intruder in (np.nan, np.inf, -np.inf):
            ones = {"x": np.ones(case.x, dtype), "weight": np.ones(case.weight, dtype)}
            ones[place].flat[rng.integers(ones[place].size)] = intruder
            given = ones | {"x": lying(kernel, ones["x"], ones["weight"])}
            y = device.verbs(kernel)(**given, **case.call).astype(float)
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


@pytest.mark.parametrize("kernel", KERNELS)
def test_inputs_may_lie_in_memory_in_any_way(kernel, device, rng):
    for case in (HEAD, VECTORS):
        x, weight, bias = case.integers(np.dtype("f4"), rng)
        answer = oracle.transposed_conv(x, weight, bias, **case.call)
        for operands in zip(strided(x, rng), strided(weight, rng), strided(bias, rng), strict=True):
            oracle.assert_exact(device.verbs(kernel)(*operands, **case.call), answer, x.dtype)


@pytest.mark.parametrize("kernel", [*KERNELS, "depthwise"])
def test_a_row_of_a_single_input_may_be_said_to_step_as_far_as_one_likes(kernel, device, rng):
    case = cases.Case("", "", (2, 3, 5, 1), (3, 2, 4, 4), {"stride": 2, "padding": 1})
    x, weight, bias = case.integers(np.dtype("f4"), rng)
    answer = oracle.transposed_conv(x, weight, bias, **case.call)
    around = np.full((2, 3, 5, 7), 99, "f4")
    around[..., :1] = x
    alone = around[..., ::7]
    assert alone.strides[-1] == 7 * alone.itemsize
    oracle.assert_exact(device.verbs(kernel)(alone, weight, bias, **case.call), answer, x.dtype)


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_item_has_the_same_bits_in_any_batch(kernel, verbs, rng):
    x, weight, bias = VECTORS.reals(np.dtype("f4"), rng)
    many = np.concatenate([x[:2], rng.standard_normal((9, *x.shape[1:])).astype("f4")])
    together = verbs(kernel)(lying(kernel, many, weight), weight, bias, **VECTORS.call)
    alone = verbs(kernel)(lying(kernel, x[1:2], weight), weight, bias, **VECTORS.call)
    assert alone.tobytes() == together[1:2].tobytes()


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_activation_follows_the_bias(kernel, device, rng):
    x, weight, bias = HEAD.reals(np.dtype("f4"), rng)
    call = {"activation": "silu", **HEAD.call}
    answer = oracle.transposed_conv(x, weight, bias, **call)
    limit = oracle.bound(x, weight, bias, **call)
    y = device.verbs(kernel)(lying(kernel, x, weight), weight, bias, **call)
    oracle.assert_within(y, answer, limit)


def test_channels_next_to_those_of_a_slice_are_neither_summed_nor_written(device, rng):
    x, weight, bias = VECTORS.integers(np.dtype("f4"), rng)
    answer = oracle.transposed_conv(x, weight, bias, **VECTORS.call)
    around = np.full((3, 5, 7, 48), 99, "f4")  # finite: what is not would be mended
    around[..., 4:44] = x.transpose(0, 2, 3, 1)
    into = np.full((*answer.shape[:1], *answer.shape[2:], 12), 77, "f4")
    kernel = device.verbs("direct_channels_last")
    inside = into[..., 4:8].transpose(0, 3, 1, 2)
    kernel(around[..., 4:44].transpose(0, 3, 1, 2), weight, bias, out=inside, **VECTORS.call)
    oracle.assert_exact(inside, answer, x.dtype)
    assert (into[..., :4] == 77).all()
    assert (into[..., 8:] == 77).all()
