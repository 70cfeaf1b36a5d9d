"""Every bad argument is named, with both numbers, before any work: the whole messages."""

from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import tconv


@dataclass(frozen=True)
class Bad:
    """An invalid call and the message it must raise; shapes stand for arrays of float32."""

    message: str
    call: dict[str, Any] = field(default_factory=dict)
    x: Any = (1, 4, 5, 6)
    weight: Any = (4, 6, 3, 3)
    bias: Any = None
    ndim: int = 2
    error: type[Exception] = ValueError

    def arguments(self):
        arrays = (a if a is None else as_array(a) for a in (self.x, self.weight, self.bias))
        call = dict(self.call)
        if isinstance(call.get("out"), tuple):
            call["out"] = np.full(call["out"], 7, "f4")
        return arrays, call


def as_array(value):
    """Return an array of this shape that takes no memory, whatever the shape."""
    is_shape = isinstance(value, tuple) and all(isinstance(n, int) for n in value)
    return np.broadcast_to(np.float32(1), value) if is_shape else value


def numpy(shape, dtype):
    return np.zeros(shape, dtype)


class Odd:
    """An object that is no array."""


def read_only(shape):
    array = np.zeros(shape, "f4")
    array.flags.writeable = False
    return array


def overlapping_itself(shape):
    return np.lib.stride_tricks.as_strided(np.zeros(shape[-1], "f4"), shape, [0, 0, 0, 4])


HUGE = 2**63
SHARED = np.zeros((1, 4, 7, 8), "f4")
ACTIVATIONS = "relu, leaky_relu, sigmoid, tanh, gelu, silu"
DTYPES = "float16, bfloat16, float32, float64, complex64, complex128, int32, int64"
PADDINGS = "valid, same, same_upper, same_lower"

NOT_ARRAYS = [
    Bad(f"{name} must be a NumPy or CuPy array, not {kind}", error=TypeError, **{name: value})
    for name in ("x", "weight")
    for value, kind in [
        ([[1.0]], "list"),
        (3, "int"),
        (np.float32(3), "float32"),
        ("photo.png", "str"),
        (memoryview(b"abc"), "memoryview"),
        (Odd(), "Odd"),
        (np.ma.zeros((1, 4, 5, 6)), "MaskedArray"),
    ]
] + [
    Bad("x must be a NumPy or CuPy array, not NoneType", x=None, error=TypeError),
    Bad("weight must be a NumPy or CuPy array, not NoneType", weight=None, error=TypeError),
    Bad("bias must be a NumPy or CuPy array, not list", bias=[0.0] * 6, error=TypeError),
    Bad("bias must be a NumPy or CuPy array, not float", bias=0.5, error=TypeError),
    Bad("bias must be a NumPy or CuPy array, not bool", bias=True, error=TypeError),
    Bad("out must be a NumPy or CuPy array, not str", {"out": "x"}, error=TypeError),
    Bad("out must be a NumPy or CuPy array, not MaskedArray",
        {"out": np.ma.zeros((1, 6, 7, 8), "f4")}, error=TypeError),
]  # fmt: skip

DTYPE = [
    *(
        Bad(f"x is {name}; convert it to one of {DTYPES}",
            x=numpy((1, 4, 5, 6), dtype), weight=numpy((4, 6, 3, 3), dtype), error=TypeError)
        for name, dtype in [
            ("bool", bool), ("int8", "i1"), ("int16", "i2"), ("uint8", "u1"), ("uint32", "u4"),
            ("uint64", "u8"), ("object", object), ("str32", "U1"), ("bytes8", "S1"),
            ("datetime64[s]", "M8[s]"), ("timedelta64[s]", "m8[s]"), ("void32", "i2,i2"),
            ("float8_e4m3fn", ml_dtypes.float8_e4m3fn), ("int4", ml_dtypes.int4),
            (np.dtype(np.longdouble).name, np.longdouble),
        ]
    ),
    Bad(f"weight is uint8; convert it to one of {DTYPES}",
        weight=numpy((4, 6, 3, 3), "u1"), error=TypeError),
    Bad("x is float32 but weight is float64; convert one of them",
        weight=numpy((4, 6, 3, 3), "f8"), error=TypeError),
    Bad("x is bfloat16 but weight is float32; convert one of them",
        x=numpy((1, 4, 5, 6), ml_dtypes.bfloat16), error=TypeError),
    Bad("x is float32 but bias is float64; convert one of them",
        bias=numpy(6, "f8"), error=TypeError),
    Bad("x is complex64 but bias is float32; convert one of them",
        x=numpy((1, 4, 5, 6), "c8"), weight=numpy((4, 6, 3, 3), "c8"), bias=(6,), error=TypeError),
    Bad("x is float32 but weight is complex64; convert one of them",
        weight=numpy((4, 6, 3, 3), "c8"), error=TypeError),
    Bad("x is int64 but weight is int32; convert one of them",
        x=numpy((1, 4, 5, 6), "i8"), weight=numpy((4, 6, 3, 3), "i4"), error=TypeError),
    Bad("x is float32 but out is float16; convert one of them",
        {"out": numpy((1, 6, 7, 8), "f2")}, error=TypeError),
]  # fmt: skip

SHAPE = [
    Bad("x has 0 axes but needs 4, (N, C, H, W), or 3, (C, H, W)", x=()),
    Bad("x has 1 axis but needs 4, (N, C, H, W), or 3, (C, H, W)", x=(5,)),
    Bad("x has 2 axes but needs 4, (N, C, H, W), or 3, (C, H, W)", x=(5, 6)),
    Bad("x has 5 axes but needs 4, (N, C, H, W), or 3, (C, H, W)", x=(1, 1, 4, 5, 6)),
    Bad("x has 1 axis but needs 3, (N, C, W), or 2, (C, W)", x=(5,), weight=(4, 6, 3), ndim=1),
    Bad("x has 4 axes but needs 3, (N, C, W), or 2, (C, W)", weight=(4, 6, 3), ndim=1),
    Bad("x has 6 axes but needs 5, (N, C, D, H, W), or 4, (C, D, H, W)",
        x=(1, 1, 1, 4, 5, 6), weight=(4, 6, 3, 3, 3), ndim=3),
    Bad("x has 3 axes but needs 5, (N, C, D, H, W), or 4, (C, D, H, W)",
        x=(4, 5, 6), weight=(4, 6, 3, 3, 3), ndim=3),
    Bad("weight has 3 axes but needs 4, (C, M // groups, H, W)", weight=(4, 6, 3)),
    Bad("weight has 5 axes but needs 4, (C, M // groups, H, W)", weight=(4, 6, 3, 3, 3)),
    Bad("weight has 2 axes but needs 3, (C, M // groups, W)",
        x=(1, 4, 5), weight=(6, 3), ndim=1),
    Bad("weight has 4 axes but needs 5, (C, M // groups, D, H, W)",
        x=(1, 4, 5, 5, 5), weight=(4, 6, 3, 3), ndim=3),
    Bad("x has length 0 along axis 2; it must be at least 1", x=(1, 4, 0, 6)),
    Bad("x has length 0 along axis 3; it must be at least 1", x=(1, 4, 5, 0)),
    Bad("x has length 0 along axis 1; it must be at least 1", x=(4, 0, 6)),
    Bad("x has length 0 along axis 2; it must be at least 1", x=(4, 5, 0)),
    Bad("weight has length 0 along axis 2; it must be at least 1", weight=(4, 6, 0, 3)),
    Bad("weight has length 0 along axis 3; it must be at least 1", weight=(4, 6, 3, 0)),
    Bad("weight has 6 input channels (axis 0) but x has 4 (axis 1)", weight=(6, 4, 3, 3)),
    Bad("weight has 6 input channels (axis 0) but x has 4 (axis 0)",
        x=(4, 5, 6), weight=(6, 4, 3, 3)),
    Bad("weight has 0 input channels (axis 0) but x has 4 (axis 1)", weight=(0, 6, 3, 3)),
    Bad("weight has 2 input channels (axis 0) but x has 4 (axis 1)",
        {"groups": 2}, weight=(2, 6, 3, 3)),
    Bad("x has 4 channels, which groups=3 does not divide", {"groups": 3}),
    Bad("x has 4 channels, which groups=8 does not divide", {"groups": 8}),
    Bad("bias has shape (4,) but must be (6,): "
        "weight has 6 output channels (axis 1) for each of groups=1", bias=(4,)),
    Bad("bias has shape (6,) but must be (12,): "
        "weight has 6 output channels (axis 1) for each of groups=2", {"groups": 2}, bias=(6,)),
    Bad("bias has shape (1, 6) but must be (6,): "
        "weight has 6 output channels (axis 1) for each of groups=1", bias=(1, 6)),
    Bad("bias has shape () but must be (6,): "
        "weight has 6 output channels (axis 1) for each of groups=1", bias=()),
]  # fmt: skip

NUMBERS = [
    Bad("stride=0 must be at least 1", {"stride": 0}),
    Bad("stride=-2 must be at least 1", {"stride": -2}),
    Bad("stride=0 must be at least 1", {"stride": (1, 0)}),
    Bad("dilation=0 must be at least 1", {"dilation": 0}),
    Bad("dilation=-1 must be at least 1", {"dilation": (2, -1)}),
    Bad("groups=0 must be at least 1", {"groups": 0}),
    Bad("groups=-1 must be at least 1", {"groups": -1}),
    Bad("padding=-1 must be at least 0", {"padding": -1}),
    Bad("padding=-1 must be at least 0", {"padding": (0, -1)}),
    Bad("output_padding=-1 must be at least 0", {"output_padding": -1}),
    Bad("output_size=0 must be at least 1", {"output_size": 0}),
    Bad("output_size=-8 must be at least 1", {"output_size": (7, -8)}),
    *(
        Bad(f"{name}={value!r} is of type {kind}; it must be an int", {name: value},
            error=TypeError)
        for name in ("stride", "padding", "dilation", "output_padding", "output_size", "groups")
        for value, kind in [(2.0, "float"), (Odd, "type")]
    ),
    Bad("stride='2' is of type str; it must be an int", {"stride": "2"}, error=TypeError),
    Bad("stride=None is of type NoneType; it must be an int", {"stride": None}, error=TypeError),
    Bad("padding=None is of type NoneType; it must be an int", {"padding": None}, error=TypeError),
    Bad("padding=b'same' is of type bytes; it must be an int", {"padding": b"same"},
        error=TypeError),
    Bad("stride=bytearray(b'22') is of type bytearray; it must be an int",
        {"stride": bytearray(b"22")}, error=TypeError),
    Bad("stride=1.5 is of type float; it must be an int", {"stride": (2, 1.5)}, error=TypeError),
    Bad("padding='1' is of type str; it must be an int", {"padding": (1, "1")}, error=TypeError),
    Bad("padding=0.5 is of type float; it must be an int", {"padding": ((1, 0.5), (1, 1))},
        error=TypeError),
    Bad("dilation={1, 2} is of type set; it must be an int", {"dilation": {1, 2}},
        error=TypeError),
    Bad("groups=(1,) is of type tuple; it must be an int", {"groups": (1,)}, error=TypeError),
    Bad("groups=[1, 1] is of type list; it must be an int", {"groups": [1, 1]}, error=TypeError),
    *(
        Bad(f"{name}=True is a bool; it must be an int", {name: True}, error=TypeError)
        for name in ("stride", "padding", "dilation", "output_padding", "output_size", "groups")
    ),
    Bad("stride=False is a bool; it must be an int", {"stride": (1, False)}, error=TypeError),
    Bad("padding=True is a bool; it must be an int", {"padding": ((0, True), (0, 0))},
        error=TypeError),
    Bad("stride has 1 value but needs 2, one per spatial axis", {"stride": (2,)}),
    Bad("stride has 3 values but needs 2, one per spatial axis", {"stride": (2, 2, 2)}),
    Bad("stride has 0 values but needs 2, one per spatial axis", {"stride": ()}),
    Bad("stride has 4 values but needs 2, one per spatial axis", {"stride": np.ones(4, int)}),
    Bad("dilation has 3 values but needs 2, one per spatial axis", {"dilation": [1, 1, 1]}),
    Bad("output_padding has 1 value but needs 2, one per spatial axis", {"output_padding": [0]}),
    Bad("output_size has 4 values but needs 2, one per spatial axis",
        {"output_size": (1, 6, 7, 8)}),
    Bad("stride has 2 values but needs 1, one per spatial axis",
        {"stride": (2, 2)}, x=(1, 4, 5), weight=(4, 6, 3), ndim=1),
    Bad("stride has 2 values but needs 3, one per spatial axis",
        {"stride": (2, 2)}, x=(1, 4, 5, 5, 5), weight=(4, 6, 3, 3, 3), ndim=3),
    Bad(f"stride={HUGE} is beyond {HUGE - 1}, the largest 64-bit integer", {"stride": HUGE}),
    Bad(f"padding={HUGE} is beyond {HUGE - 1}, the largest 64-bit integer", {"padding": HUGE}),
    Bad(f"padding={-HUGE} is beyond {HUGE - 1}, the largest 64-bit integer",
        {"padding": ((0, 0), (0, -HUGE))}),
]  # fmt: skip

WINDOW = [
    Bad("padding has 3 values but needs 2, one per spatial axis", {"padding": (1, 1, 1)}),
    Bad("padding has 2 values but needs 1, one per spatial axis; a (begin, end) pair is written "
        "((begin, end),)", {"padding": (1, 2)}, x=(1, 4, 5), weight=(4, 6, 3), ndim=1),
    Bad("padding has 1 pair but needs 2, one per spatial axis", {"padding": ((1, 2),)}),
    Bad("padding has 3 pairs but needs 2, one per spatial axis",
        {"padding": ((1, 2), (1, 2), (1, 2))}),
    Bad("padding has 2 pairs but needs 1, one per spatial axis",
        {"padding": ((1, 2), (1, 2))}, x=(1, 4, 5), weight=(4, 6, 3), ndim=1),
    Bad("padding[0]=1 must be a (begin, end) pair", {"padding": (1, (2, 3))}),
    Bad("padding[1]=3 must be a (begin, end) pair", {"padding": ((1, 2), 3)}),
    Bad("padding[1]=(3,) must be a (begin, end) pair", {"padding": ((1, 2), (3,))}),
    Bad("padding[0]=(1, 2, 3) must be a (begin, end) pair", {"padding": ((1, 2, 3), (1, 2))}),
    Bad(f"padding='full' is not one of {PADDINGS}", {"padding": "full"}),
    Bad(f"padding='SAME' is not one of {PADDINGS}", {"padding": "SAME"}),
    Bad(f"padding='' is not one of {PADDINGS}", {"padding": ""}),
    Bad(f"padding='full' is not one of {PADDINGS}", {"padding": "full", "output_size": 8}),
    Bad("padding='same' fixes the output size; leave out output_padding",
        {"padding": "same", "stride": 2, "output_padding": 1}),
    Bad("padding='valid' fixes the output size; leave out output_size",
        {"padding": "valid", "output_size": (7, 8)}),
    Bad("padding=4 leaves an output of length -1 along spatial axis 0: without padding it is 7 "
        "long", {"padding": 4}),
    Bad("padding=4 leaves an output of length 0 along spatial axis 1: without padding it is 8 "
        "long", {"padding": (0, 4)}),
    Bad("padding=(3, 5) leaves an output of length 0 along spatial axis 1: without padding it is "
        "8 long", {"padding": ((0, 0), (3, 5))}),
    Bad("padding=(10, -3) leaves an output of length 0 along spatial axis 0: without padding it "
        "is 7 long", {"padding": ((10, -3), (0, 0))}),
    Bad("padding=7 leaves an output of length -2 along spatial axis 0: without padding it is 12 "
        "long", {"padding": 7, "stride": 2, "output_padding": 1}),
    Bad("padding=7 leaves an output of length -2 along spatial axis 0: without padding it is 12 "
        "long", {"padding": 7, "stride": 2, "output_size": 1}),
    Bad("output_padding=1 must be less than stride=1 or dilation=1 (spatial axis 0)",
        {"output_padding": 1}),
    Bad("output_padding=2 must be less than stride=2 or dilation=1 (spatial axis 1)",
        {"output_padding": (0, 2), "stride": 2}),
    Bad("output_padding=3 must be less than stride=2 or dilation=3 (spatial axis 0)",
        {"output_padding": 3, "stride": 2, "dilation": 3}),
    Bad("output_padding=1 must be less than stride=1 or dilation=1 (spatial axis 0)",
        {"output_padding": 1, "output_size": 8}),
    Bad("output_size=12 replaces output_padding=1; leave one out",
        {"output_padding": 1, "output_size": 12, "stride": 2}),
    Bad("output_size=10 must be from 11 to 12 (spatial axis 0)", {"stride": 2, "output_size": 10}),
    Bad("output_size=15 must be from 13 to 14 (spatial axis 1)",
        {"stride": 2, "output_size": (12, 15)}),
    Bad("output_size=8 must be from 7 to 7 (spatial axis 0)", {"output_size": 8}),
    Bad("output_size=4 must be from 1 to 2 (spatial axis 0)",
        {"stride": 4, "padding": ((10, 10), (0, 0)), "output_size": (4, 23)}),
    Bad(f"the output would have shape (1, 6, {2**62 * 4 + 3}, 8) and {(2**62 * 4 + 3) * 192} "
        f"bytes, more than the {HUGE - 1} that can be addressed", {"stride": (2**62, 1)}),
    Bad(f"the output would have shape (1, 6, {2**62 + 7}, 8) and {(2**62 + 7) * 192} "
        f"bytes, more than the {HUGE - 1} that can be addressed",
        {"padding": ((-(2**62), 0), (0, 0))}),
    Bad(f"the output would have shape (0, 6, 7, {2**62 * 5 + 3}) and {(2**62 * 5 + 3) * 168} "
        f"bytes, more than the {HUGE - 1} that can be addressed",
        {"stride": (1, 2**62)}, x=(0, 4, 5, 6)),
]  # fmt: skip

OPTIONS = [
    Bad(f"activation='swish' is not one of {ACTIVATIONS}", {"activation": "swish"}),
    Bad(f"activation='ReLU' is not one of {ACTIVATIONS}", {"activation": "ReLU"}),
    Bad("activation=<class 'int'> must be None or a string", {"activation": int}, error=TypeError),
    Bad("activation=False must be None or a string", {"activation": False}, error=TypeError),
    Bad("activation='relu' is not defined for complex64; leave it out", {"activation": "relu"},
        x=numpy((1, 4, 5, 6), "c8"), weight=numpy((4, 6, 3, 3), "c8"), error=TypeError),
    Bad("activation='gelu' is not defined for complex128; leave it out", {"activation": "gelu"},
        x=numpy((1, 4, 5, 6), "c16"), weight=numpy((4, 6, 3, 3), "c16"), error=TypeError),
    Bad("activation='tanh' is not defined for int32; only 'relu' is", {"activation": "tanh"},
        x=numpy((1, 4, 5, 6), "i4"), weight=numpy((4, 6, 3, 3), "i4"), error=TypeError),
    Bad("activation='leaky_relu' is not defined for int64; only 'relu' is",
        {"activation": "leaky_relu"},
        x=numpy((1, 4, 5, 6), "i8"), weight=numpy((4, 6, 3, 3), "i8"), error=TypeError),
    Bad("precision='high' is not one of ieee, tf32, tf32x3", {"precision": "high"}),
    Bad("precision=32 must be None or a string", {"precision": 32}, error=TypeError),
    Bad("precision='tf32' is for float32, not float64", {"precision": "tf32"},
        x=numpy((1, 4, 5, 6), "f8"), weight=numpy((4, 6, 3, 3), "f8"), error=TypeError),
    Bad("precision='tf32x3' is for float32, not float16", {"precision": "tf32x3"},
        x=numpy((1, 4, 5, 6), "f2"), weight=numpy((4, 6, 3, 3), "f2"), error=TypeError),
]  # fmt: skip

OUT = [
    Bad("out has shape (1, 6, 7, 7) but the result has (1, 6, 7, 8)", {"out": (1, 6, 7, 7)}),
    Bad("out has shape (6, 7, 8) but the result has (1, 6, 7, 8)", {"out": (6, 7, 8)}),
    Bad("out has shape (1, 6, 7, 8) but the result has (6, 7, 8)",
        {"out": (1, 6, 7, 8)}, x=(4, 5, 6)),
    Bad("out has shape (336,) but the result has (1, 6, 7, 8)", {"out": (336,)}),
    Bad("out is read-only; it must be writeable", {"out": read_only((1, 6, 7, 8))}),
    Bad("out has elements that overlap one another; each must have memory of its own",
        {"out": overlapping_itself((1, 6, 7, 8))}),
    Bad("out shares memory with x; it must have memory of its own",
        {"out": SHARED}, x=SHARED, weight=(4, 4, 1, 1)),
    Bad("out shares memory with x; it must have memory of its own",
        {"out": SHARED[:, :, :5, :6]}, x=SHARED[:, :, 2:, 2:], weight=(4, 4, 1, 1)),
    Bad("out shares memory with weight; it must have memory of its own",
        {"out": SHARED[:1, :1, :1, :1]}, x=(1, 1, 1, 1), weight=SHARED[:1, :1, :1, :1]),
    Bad("out shares memory with bias; it must have memory of its own",
        {"out": SHARED}, weight=(4, 4, 3, 3), bias=SHARED[0, :, 0, 0]),
]  # fmt: skip

CALLS = [*NOT_ARRAYS, *DTYPE, *SHAPE, *NUMBERS, *WINDOW, *OPTIONS, *OUT]


def run(module, bad, **extra):
    arrays, call = bad.arguments()
    with pytest.raises(bad.error) as error:
        getattr(module, f"transposed_conv{bad.ndim}d")(*arrays, **{**extra, **call})
    # A TypeError where a ValueError belongs would pass as its parent otherwise.
    assert type(error.value) is bad.error
    assert str(error.value) == bad.message
    return call.get("out")


def test_there_are_a_hundred_and_more():
    assert len({(bad.message, str(bad.call), str(bad.x), bad.ndim) for bad in CALLS}) >= 150


@pytest.mark.parametrize("bad", CALLS, ids=lambda bad: bad.message)
@pytest.mark.parametrize("module", [tconv, tconv.gpu, tconv.reference], ids=lambda m: m.__name__)
def test_the_message_says_what_is_wrong_before_any_work(module, bad, monkeypatch):
    def work(*args, **kwargs):
        raise AssertionError(f"{args} {kwargs}")

    monkeypatch.setattr("tconv._cpu.transposed_conv", work)
    monkeypatch.setattr("tconv.reference.transposed_conv", work)
    out = run(module, bad)
    if isinstance(out, np.ndarray):
        assert np.isin(out, [0, 7]).all()


@pytest.mark.parametrize("bad", [*SHAPE, *NUMBERS, *WINDOW], ids=lambda bad: bad.message)
def test_out_is_untouched_by_a_call_that_fails(bad):
    out = np.full((1, 6, 7, 8), 7, "f4")
    run(tconv, bad, out=out)
    assert (out == 7).all()


def test_errors_come_at_once_however_large_the_arrays():
    x = np.broadcast_to(np.float32(1), (2**20, 4, 2**19, 2**19))
    with pytest.raises(ValueError, match=r"^weight has 6 input channels"):
        tconv.transposed_conv2d(x, np.ones((6, 1, 1, 1), "f4"))


@pytest.mark.parametrize("name", ["x", "weight"])
def test_arrays_may_be_given_by_name_and_must_be_given(name):
    arrays = {"x": np.ones((1, 1, 1)), "weight": np.ones((1, 1, 1))}
    assert tconv.transposed_conv1d(**arrays).tolist() == [[[1]]]
    del arrays[name]
    with pytest.raises(TypeError, match=f"missing 1 required positional argument: '{name}'"):
        tconv.transposed_conv1d(**arrays)


def test_all_but_the_arrays_are_keywords():
    one = np.ones((1, 1, 1))
    with pytest.raises(TypeError, match="takes from 2 to 3 positional arguments but 4 were given"):
        tconv.transposed_conv1d(one, one, None, 2)
    with pytest.raises(TypeError, match="unexpected keyword argument 'strides'"):
        tconv.transposed_conv1d(one, one, strides=2)


def test_a_matrix_is_refused_because_it_cannot_have_a_batch():
    with pytest.warns(PendingDeprecationWarning):
        x = np.matrix([[1.0, 2.0]])
    with pytest.raises(TypeError, match=r"^x must be a NumPy or CuPy array, not matrix$"):
        tconv.transposed_conv1d(x, np.ones((1, 1, 1)))


def test_memory_is_no_sequence_of_numbers():
    with pytest.raises(TypeError, match=r"^stride=<memory at \w+> is of type memoryview; it must"):
        tconv.transposed_conv1d(np.ones((1, 1, 1)), np.ones((1, 1, 1)), stride=memoryview(b"2"))


def test_an_output_beyond_memory_is_a_memory_error_not_a_crash():
    with pytest.raises(MemoryError):
        tconv.transposed_conv1d(np.ones((1, 1, 2)), np.ones((1, 1, 1)), stride=2**59)
