"""Laws that hold for every geometry; exact, because they are tried on integers."""

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import cases
import oracle
import tconv

seeds = st.integers(0, 2**32 - 1)


def conv(x, weight, bias=None, **call):
    return getattr(tconv, f"transposed_conv{weight.ndim - 2}d")(x, weight, bias, **call)


def arrays(case, seed, dtype="i8"):
    return case.integers(np.dtype(dtype), np.random.default_rng(seed))


def batched(case):
    return len(case.x) == len(case.weight)


@given(cases.calls(), seeds)
@settings(max_examples=300)
def test_the_result_is_the_definition(case, seed):
    for dtype in cases.DTYPES:
        x, weight, bias = arrays(case, seed, dtype)
        answer = oracle.transposed_conv(x, weight, bias, **case.call)
        oracle.assert_exact(conv(x, weight, bias, **case.call), answer, dtype)


@given(cases.calls(), seeds)
def test_the_inner_product_with_any_y_is_that_of_x_with_the_adjoint(case, seed):
    assume(batched(case))
    x, weight, _ = arrays(case, seed)
    result = conv(x, weight, **case.call)
    y = np.random.default_rng(seed + 1).integers(-8, 9, result.shape)
    pulled_back = oracle.adjoint(y, weight, x.shape[2:], **case.call)
    assert pulled_back.shape == x.shape
    assert np.vdot(result, y) == np.vdot(x, pulled_back)


@given(cases.calls(), seeds)
def test_it_is_linear_in_x_and_in_weight(case, seed):
    x, weight, _ = arrays(case, seed)
    u, v, _ = arrays(case, seed + 1)
    np.testing.assert_array_equal(
        conv(x + 3 * u, weight, **case.call),
        conv(x, weight, **case.call) + 3 * conv(u, weight, **case.call),
    )
    np.testing.assert_array_equal(
        conv(x, weight + 3 * v, **case.call),
        conv(x, weight, **case.call) + 3 * conv(x, v, **case.call),
    )


@given(cases.calls(), seeds)
def test_the_items_of_a_batch_are_independent(case, seed):
    assume(batched(case))
    x, weight, bias = arrays(case, seed)
    together = conv(x, weight, bias, **case.call)
    for item, result in zip(x, together, strict=True):
        np.testing.assert_array_equal(conv(item, weight, bias, **case.call), result)


@given(cases.calls(), seeds)
def test_groups_are_calls_on_blocks_of_channels(case, seed):
    x, weight, _ = arrays(case, seed)
    call = dict(case.call)
    groups = call.pop("groups")
    blocks = zip(np.split(x, groups, axis=-weight.ndim + 1), np.split(weight, groups), strict=True)
    apart = [conv(*block, **call) for block in blocks]
    together = np.concatenate(apart, axis=-weight.ndim + 1)
    np.testing.assert_array_equal(conv(x, weight, **case.call), together)


@given(cases.calls(), seeds)
def test_mirrored_input_and_kernel_give_the_mirrored_result(case, seed):
    x, weight, _ = arrays(case, seed)
    ndim = weight.ndim - 2
    call = {key: case.call[key] for key in ("stride", "dilation", "groups")}
    spatial = tuple(range(-ndim, 0))
    np.testing.assert_array_equal(
        conv(np.flip(x, spatial), np.flip(weight, spatial), **call),
        np.flip(conv(x, weight, **call), spatial),
    )


@given(cases.calls(), seeds, st.randoms())
def test_exchanged_axes_give_the_result_with_axes_exchanged(case, seed, random):
    x, weight, bias = arrays(case, seed)
    ndim = weight.ndim - 2
    order = random.sample(range(ndim), ndim)

    def moved(array):
        spatial = [array.ndim - ndim + axis for axis in order]
        return array.transpose(*range(array.ndim - ndim), *spatial)

    def reordered(value):
        return tuple(value[axis] for axis in order) if isinstance(value, tuple) else value

    call = {key: reordered(value) for key, value in case.call.items()}
    np.testing.assert_array_equal(
        conv(moved(x), moved(weight), bias, **call), moved(conv(x, weight, bias, **case.call))
    )


@given(cases.calls(ndim=1), seeds)
def test_axes_of_one_change_nothing(case, seed):
    """A 1-D call is the 2-D and the 3-D call with axes of length 1."""
    x, weight, bias = arrays(case, seed)
    call = dict(case.call)
    for key in ("stride", "dilation", "padding", "output_padding", "output_size"):
        if key in call and not isinstance(call[key], str):
            value = call[key] if isinstance(call[key], tuple) else (call[key],)
            plain = 1 if key in ("stride", "dilation", "output_size") else 0
            neutral = (0, 0) if isinstance(value[0], tuple) else plain
            call[key] = (neutral, neutral, *value)
    deep = conv(x[..., None, None, :], weight[..., None, None, :], bias, **call)
    np.testing.assert_array_equal(deep[..., 0, 0, :], conv(x, weight, bias, **case.call))


@given(cases.calls(), seeds)
def test_padding_crops_what_the_full_result_has(case, seed):
    x, weight, bias = arrays(case, seed)
    ndim = weight.ndim - 2
    window = {key: value for key, value in case.call.items() if key != "groups"}
    _, _, begin, size = oracle.window(x.shape[-ndim:], weight.shape[2:], **window)
    call = {key: case.call[key] for key in ("stride", "dilation", "groups")}
    full = conv(x, weight, bias, **call)
    result = conv(x, weight, bias, **case.call)
    assert result.shape[-ndim:] == size
    ends = zip(begin, size, full.shape[-ndim:], strict=True)
    inside = [slice(max(b, 0), max(min(b + n, f), 0)) for b, n, f in ends]
    ours = [
        slice(max(s.start - b, 0), max(s.stop - b, 0)) for s, b in zip(inside, begin, strict=True)
    ]
    np.testing.assert_array_equal(result[..., *ours], full[..., *inside])
