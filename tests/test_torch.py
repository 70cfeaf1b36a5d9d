"""The same call, the same answer as PyTorch on the CPU."""

import numpy as np
import pytest

import cases
import oracle

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def functional():
    return pytest.importorskip("torch").nn.functional


def as_pytorch(case):
    """Return the arguments as PyTorch spells them, or None where it cannot say the same."""
    ndim = len(case.weight) - 2
    in_size = case.x[-ndim:]
    stride, dilation, begin, size = oracle.window(
        in_size, case.weight[2:], **{k: v for k, v in case.call.items() if k != "groups"}
    )
    full = oracle.full_sizes(in_size, case.weight[2:], stride, dilation)
    extra = [n - f + 2 * b for n, f, b in zip(size, full, begin, strict=True)]
    bounds = zip(extra, stride, dilation, begin, strict=True)
    if 0 in case.x or any(e < 0 or e >= max(s, d) or b < 0 for e, s, d, b in bounds):
        return None
    return {
        "stride": stride, "dilation": dilation, "padding": begin, "output_padding": extra,
        "groups": case.call.get("groups", 1),
    }  # fmt: skip


SWEEP = [case for case in cases.random_cases(900, seed=8) if as_pytorch(case) is not None]


def peer(functional, case, *arrays):
    from torch import from_numpy

    verb = getattr(functional, f"conv_transpose{len(case.weight) - 2}d")
    tensors = (None if array is None else from_numpy(array) for array in arrays)
    return verb(*tensors, **as_pytorch(case)).numpy()


def test_the_sweep_is_large_enough():
    assert len(SWEEP) >= 300


@pytest.mark.parametrize("case", SWEEP, ids=str)
def test_integers_give_the_same_elements(conv, functional, case, rng):
    for dtype in (np.dtype("f4"), np.dtype("f8"), np.dtype("c16")):
        x, weight, bias = case.integers(dtype, rng)
        y = conv(x, weight, bias, **case.call)
        np.testing.assert_array_equal(y, peer(functional, case, x, weight, bias))


@pytest.mark.parametrize("case", SWEEP[:150], ids=str)
@pytest.mark.parametrize("dtype", [np.dtype("f4"), np.dtype("f8"), np.dtype("c8")], ids=str)
def test_reals_lie_within_both_bounds(cpu, functional, case, dtype, rng):
    x, weight, bias = case.reals(dtype, rng)
    theirs = peer(functional, case, x, weight, bias)
    bound = oracle.bound(x, weight, bias, **case.call)
    oracle.assert_within(cpu(x, weight, bias, **case.call), oracle.wide(theirs), 2 * bound)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "sigmoid", "tanh", "gelu", "silu"])
def test_activations_are_those_of_the_same_name_there_on_nan_and_infinity_too(
    conv, functional, name
):
    from torch import from_numpy

    values = np.array([-np.inf, np.inf, np.nan, -0.0, 0, 1e-30, *np.linspace(-30, 30, 101)])
    y = conv(values.reshape(1, 1, -1), np.ones((1, 1, 1)), activation=name)[0, 0]
    theirs = getattr(functional, name)(from_numpy(values)).numpy()
    np.testing.assert_allclose(y, theirs, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(
    ("x", "weight", "call"),
    [
        ((1, 1, 3), (1, 1, 3), {"padding": 3}),
        ((1, 1, 3), (1, 1, 3), {"stride": 2, "output_padding": 2}),
        ((1, 1, 3), (1, 1, 3), {"stride": 2, "dilation": 3, "output_padding": 3}),
        ((1, 4, 3), (4, 1, 3), {"groups": 3}),
        ((1, 2, 3), (3, 1, 3), {}),
        ((1, 1, 3), (1, 1, 3), {"stride": 0}),
        ((1, 1, 3), (1, 1, 3), {"dilation": 0}),
        ((1, 1, 0), (1, 1, 3), {}),
        ((1, 1, 3), (1, 1, 0), {}),
    ],
)
def test_what_is_an_error_there_is_an_error_here(conv, functional, x, weight, call):
    from torch import from_numpy

    x, weight = np.zeros(x), np.zeros(weight)
    with pytest.raises(RuntimeError):
        functional.conv_transpose1d(from_numpy(x), from_numpy(weight), **call)
    with pytest.raises(ValueError):  # noqa: PT011  (messages are the matter of test_errors.py)
        conv(x, weight, **call)
