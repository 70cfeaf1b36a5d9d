"""Break the sources on purpose, one small mistake at a time: the tests must notice every one.

Run ``python tests/mutants.py [--passed] [WORD]``, WORD choosing the mistakes whose file or reason
has it.  Each is made in a copy of the project, and the test files that should notice it are run
there.  Exit status 1 tells of a mistake that went unnoticed, or of one whose text is no longer in
the source.

Without any mistake the test files must pass; they are run first unless they are known to pass.
"""

from __future__ import annotations

import argparse
import compileall
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).parents[1]
SOURCES = "src/tconv/"
WORKERS = 2
SECONDS = 300
"""A mistake that hangs is noticed too."""
NO_TESTS = 5


@dataclass(frozen=True)
class Mutant:
    """One mistake: the text ``old``, which is in the file once, becomes ``new``."""

    reason: str
    file: str
    old: str
    new: str
    tests: str = "forward"

    def __str__(self):
        return f"{self.file}: {self.reason}"


GEOMETRY = [
    Mutant("full size forgets that n inputs have n - 1 steps", "_geometry.py",
           "return (in_size - 1) * stride +", "return in_size * stride +"),
    Mutant("full size forgets dilation", "_geometry.py",
           "(kernel_size - 1) * dilation + 1", "(kernel_size - 1) + 1"),
    Mutant("full size counts k taps as k steps", "_geometry.py",
           "(kernel_size - 1) * dilation + 1", "kernel_size * dilation + 1"),
    Mutant("x and weight channels exchanged", "_geometry.py",
           "return (self.in_channels, self.out_channels // self.groups,",
           "return (self.out_channels // self.groups, self.in_channels,", "geometry"),
    Mutant("weight shape forgets groups", "_geometry.py",
           "return (self.in_channels, self.out_channels // self.groups,",
           "return (self.in_channels, self.out_channels,", "geometry"),
    Mutant("phases of taps ignore dilation", "_geometry.py",
           "divmod(k * dilation, stride)", "divmod(k, stride)", "geometry forward"),
    Mutant("a phase window begins at the floor", "_geometry.py",
           "return -(-begin // stride), -(-(begin + self.out_size[axis]) // stride)",
           "return begin // stride, -(-(begin + self.out_size[axis]) // stride)",
           "geometry forward"),
    Mutant("a phase window ends one early", "_geometry.py",
           "return -(-begin // stride), -(-(begin + self.out_size[axis]) // stride)",
           "return -(-begin // stride), (begin + self.out_size[axis]) // stride",
           "geometry forward"),
    Mutant("a phase window ignores its phase", "_geometry.py",
           "self.pad_begin[axis] - r\n", "self.pad_begin[axis]\n", "geometry forward"),
    Mutant("tap windows ignore dilation", "_geometry.py",
           "self.pad_begin[axis] - k * self.dilation[axis]", "self.pad_begin[axis] - k",
           "geometry"),
    Mutant("tap windows begin before the input", "_geometry.py",
           "i_begin = max(0, -(-begin // stride))", "i_begin = -(-begin // stride)", "geometry"),
    Mutant("tap windows end beyond the input", "_geometry.py",
           "i_end = min(self.in_size[axis], ", "i_end = max(self.in_size[axis], ", "geometry"),
    Mutant("an empty tap window has a negative length", "_geometry.py",
           "return i_begin, max(i_begin, i_end)", "return i_begin, i_end", "geometry"),
    Mutant("products count the channels of all groups", "_geometry.py",
           "self.in_channels * (self.out_channels // self.groups)\n",
           "self.in_channels * self.out_channels\n", "geometry"),
    Mutant("products forget the batch", "_geometry.py",
           "return self.batch * channels * prod(pairs)", "return channels * prod(pairs)",
           "geometry"),
    Mutant("terms count the channels of all groups", "_geometry.py",
           "return self.in_channels // self.groups * prod(taps)",
           "return self.in_channels * prod(taps)", "geometry"),
    Mutant("terms count the fewest taps of a phase", "_geometry.py",
           "min(size, max(map(len, self.taps(axis).values())))",
           "min(size, min(map(len, self.taps(axis).values())))", "geometry"),
]  # fmt: skip

CHECK = [
    Mutant("output_padding ignored", "_check.py",
           "n - sum(pad) + more for", "n - sum(pad) for", "sizes"),
    Mutant("padding crops the beginning only", "_check.py",
           "n - sum(pad) + more for", "n - pad[0] + more for", "sizes"),
    Mutant("the window begins at the end's padding", "_check.py",
           "begin = tuple(pad[0] for pad in pads)\n    out =",
           "begin = tuple(pad[1] for pad in pads)\n    out =", "sizes"),
    Mutant("output_padding may equal stride", "_check.py",
           "if extra[axis] >= max(stride[axis], dilation[axis]):",
           "if extra[axis] > max(stride[axis], dilation[axis]):", "errors"),
    Mutant("output_padding limited by stride alone", "_check.py",
           "if extra[axis] >= max(stride[axis], dilation[axis]):",
           "if extra[axis] >= stride[axis]:", "sizes"),
    Mutant("output_size may be one too large", "_check.py",
           "longest = tuple(n + max(s, d) - 1 for", "longest = tuple(n + max(s, d) for", "errors"),
    Mutant("output_size ignored", "_check.py",
           "return begin, out if wanted is None else wanted", "return begin, out", "sizes"),
    Mutant("an empty output accepted", "_check.py",
           "if longest[axis] < 1:", "if longest[axis] < 0:", "errors"),
    Mutant("same crops the odd element from the beginning", "_check.py",
           'upper = padding != "same_lower"', 'upper = padding == "same_lower"', "sizes"),
    Mutant("same prepends what a short kernel leaves", "_check.py",
           "total = tuple(max(0, n - o) for n, o in zip(full, out, strict=True))",
           "total = tuple(n - o for n, o in zip(full, out, strict=True))", "sizes"),
    Mutant("valid ends with the last tap", "_check.py",
           "tuple(max(n, i * s) for i, n, s in sizes)", "tuple(n for i, n, s in sizes)", "sizes"),
    Mutant("negative padding accepted outside a pair", "_check.py",
           '_ints("padding", padding, ndim, least=0, hint=hint)',
           '_ints("padding", padding, ndim, least=-99, hint=hint)', "errors"),
    Mutant("negative pair refused", "_check.py",
           'pairs.append((_int("padding", pair[0]), _int("padding", pair[1])))',
           'pairs.append((_int("padding", pair[0], least=0), _int("padding", pair[1], least=0)))',
           "sizes"),
    Mutant("numbers below the least accepted by one", "_check.py",
           "if least is not None and number < least:",
           "if least is not None and number < least - 1:", "errors"),
    Mutant("bool taken for an int", "_check.py",
           "if isinstance(value, bool):", "if value is None:", "errors"),
    Mutant("bytes taken for numbers", "_check.py",
           "if isinstance(value, (str, bytes, bytearray, memoryview)):",
           "if isinstance(value, (str, bytes)):", "errors"),
    Mutant("too few numbers accepted", "_check.py",
           "    if len(values) != ndim:\n        raise ValueError(\n            f\"{name} has",
           "    if len(values) > ndim:\n        raise ValueError(\n            f\"{name} has",
           "errors"),
    Mutant("groups that do not divide accepted", "_check.py",
           "if in_channels % groups:", "if in_channels < groups:", "errors"),
    Mutant("bias of any length accepted", "_check.py",
           "if bias_shape is not None and bias_shape != (out_channels,):",
           "if bias_shape is not None and len(bias_shape) != 1:", "errors"),
    Mutant("output channels forget groups", "_check.py",
           "out_channels = weight_shape[1] * groups", "out_channels = weight_shape[1]"),
    Mutant("an output size limit off by one bit", "_check.py",
           "LARGEST = 2**63 - 1", "LARGEST = 2**64 - 1", "errors"),
    Mutant("mixed dtypes accepted", "_check.py",
           "        if dtype != wanted:\n", "        if dtype is None:\n", "errors"),
    Mutant("integers take any activation", "_check.py",
           'if dtype in INTEGERS and name != "relu":', 'if dtype in INTEGERS and name == "":',
           "errors"),
    Mutant("tf32 accepted for every dtype", "_check.py",
           'if name != "ieee" and dtype != "float32":', 'if name != "ieee" and dtype == "":',
           "errors"),
    Mutant("out of another shape accepted", "_check.py",
           "if tuple(out.shape) != shape:", "if len(out.shape) != len(shape):", "errors"),
    Mutant("read-only out accepted", "_check.py", "if not writeable:", "if writeable is None:",
           "errors"),
    Mutant("mixed array libraries accepted", "_check.py",
           "        if kind != library:", '        if kind == "":', "arrays"),
    Mutant("devices mixed", "_check.py", "if device != home:", 'if device == "":',
           "arrays"),
]  # fmt: skip

API = [
    Mutant("an unbatched result keeps its batch axis", "_api.py",
           "out=None, **options)[0]", "out=None, **options)"),
    Mutant("an unbatched out is not returned", "_api.py",
           "    compute(x[None], weight, bias, geometry, out=out[None], **options)\n    return out",
           "    return compute(x[None], weight, bias, geometry, out=out[None], **options)",
           "memory"),
    Mutant("out ignored", "_api.py",
           "(x, weight, bias, geometry, out=out,", "(x, weight, bias, geometry, out=None,",
           "memory"),
    Mutant("activation ignored", "_api.py",
           "            activation=activation,\n", "            activation=None,\n", "activation"),
    Mutant("bias skipped", "_api.py",
           "            weight,\n            bias,\n            fitted(",
           "            weight,\n            None,\n            fitted("),
    Mutant("stride and dilation exchanged", "_api.py",
           "            stride=stride,\n", "            stride=dilation,\n"),
    Mutant("bias may be of another dtype", "_api.py",
           'library({"x": x, "weight": weight}, bias=bias, out=out)',
           'library({"x": x, "weight": weight}, out=out)', "errors"),
    Mutant("out may overlap an input", "_api.py",
           "overlaps=_dispatch.overlapping(out, x=x, weight=weight, bias=bias),",
           "overlaps=None,", "errors"),
]  # fmt: skip

DISPATCH = [
    Mutant("CuPy arrays run on the CPU", "_dispatch.py",
           "    if kind == CUPY:\n        from . import gpu\n\n        return gpu.transposed_conv",
           "    if kind == '':\n        from . import gpu\n\n        return gpu.transposed_conv",
           "arrays"),
    Mutant("masked arrays accepted", "_dispatch.py",
           "(np.ma.MaskedArray, np.matrix)", "np.matrix", "errors"),
    Mutant("matrices accepted", "_dispatch.py",
           "(np.ma.MaskedArray, np.matrix)", "np.ma.MaskedArray", "errors"),
    Mutant("interleaved out refused", "_dispatch.py",
           "return np.shares_memory(a, b, max_work=most_work)", "return np.may_share_memory(a, b)",
           "memory"),
    Mutant("an out that overlaps itself accepted", "_dispatch.py",
           "        if size > 1 and stride < covered:", "        if size > 1 and stride < 0:",
           "errors"),
    Mutant("strides are covered one element short", "_dispatch.py",
           "covered += stride * (size - 1)", "covered += stride * size", "memory"),
    Mutant("importing recognises CuPy", "_dispatch.py",
           'getattr(sys.modules.get("cupy"), "ndarray", ())', '__import__("cupy").ndarray',
           "imports arrays"),
]  # fmt: skip

REFERENCE = [
    Mutant("the kernel is not flipped", "reference.py",
           "np.flip(\n        weight, tuple(range(2, 2 + g.ndim))\n    )", "weight"),
    Mutant("the channels are flipped too", "reference.py",
           "weight, tuple(range(2, 2 + g.ndim))", "weight, tuple(range(1, 2 + g.ndim))"),
    Mutant("zeros are inserted between stride + 1", "reference.py",
           "return slice(margin, margin + inner, stride)",
           "return slice(margin, margin + inner, max(1, stride - 1))"),
    Mutant("the margin forgets dilation", "reference.py",
           "margin = [d * (k - 1) for d, k in", "margin = [(k - 1) for d, k in"),
    Mutant("complex weights are conjugated", "reference.py",
           "flipped[group, m % out_channels].conj(),", "flipped[group, m % out_channels],"),
    Mutant("groups read the first channels", "reference.py",
           "first = m // out_channels * in_channels", "first = 0"),
    Mutant("correlation through the FFT", "reference.py",
           'out_channels].conj(),\n                mode="valid",\n                method="direct",',
           'out_channels].conj(),\n                mode="valid",\n                method="fft",'),
    Mutant("half types are summed as they are", "reference.py",
           "return array.astype(np.float32) if array.dtype.itemsize == 2 else array",
           "return array"),
    Mutant("the window begins at the full result", "reference.py",
           "first, last = max(begin, 0), min(begin + size, whole)",
           "first, last = 0, min(size, whole)", "sizes"),
    Mutant("bias skipped", "reference.py",
           "result += _widen(_native(bias)).reshape(-1, *[1] * g.ndim)\n    _activation",
           "pass\n    _activation"),
    Mutant("bias after the activation", "reference.py",
           "    _activation.apply(activation, result)\n    out[...] = result",
           "    out[...] = result\n    _activation.apply(activation, out)", "activation"),
    Mutant("warnings about NaN", "reference.py",
           '@np.errstate(all="ignore")  #', '@np.errstate(all="warn")  #'),
    Mutant("foreign byte order is not converted", "reference.py",
           'return array.astype(array.dtype.newbyteorder("="), copy=False)', "return array",
           "gradients"),
]  # fmt: skip

MEMORY = [
    Mutant("channels-last results are channels-first", "_memory.py",
           "if is_channels_last(x):", "if x is None:", "memory"),
    Mutant("every result is channels-last", "_memory.py",
           "if is_channels_last(x):", "if x is not None:", "memory"),
    Mutant("results keep foreign byte order", "_memory.py",
           'dtype = x.dtype.newbyteorder("=")', "dtype = x.dtype", "memory"),
    Mutant("axes of length 1 spoil contiguity", "_memory.py",
           "        if size != 1:\n", "        if size != 0:\n", "memory"),
    Mutant("the last spatial axis is taken for the channels", "_memory.py",
           "return array.transpose(0, last, *range(1, last))",
           "return array.transpose(0, *range(last, 0, -1))", "memory"),
]  # fmt: skip

ACTIVATION = [
    Mutant("relu is a step at one", "_activation.py",
           "np.maximum(a, 0, out=a)", "np.maximum(a, 1, out=a)", "activation"),
    Mutant("relu swallows NaN", "_activation.py",
           "np.maximum(a, 0, out=a)", "np.fmax(a, 0, out=a)", "activation"),
    Mutant("leaky_relu is steeper", "_activation.py",
           "LEAKY_SLOPE = 0.01", "LEAKY_SLOPE = 0.02", "activation"),
    Mutant("gelu by the sigmoid", "_activation.py",
           "np.multiply(a, ndtr(a), out=a)",
           "np.multiply(a, 1 / (1 + np.exp(-1.702 * a)), out=a)", "activation"),
    Mutant("silu without the factor", "_activation.py",
           "np.multiply(a, expit(a), out=a)", "expit(a, out=a)", "activation"),
    Mutant("tanh and sigmoid exchanged", "_activation.py",
           '"tanh": _tanh', '"tanh": _sigmoid', "activation"),
]  # fmt: skip

GPU = [
    Mutant("the fallback warns at every call", "gpu/__init__.py",
           "@cache\ndef _warn_once", "def _warn_once", "arrays"),
    Mutant("the fallback forgets the activation", "gpu/__init__.py",
           "geometry, activation=activation, precision=", "geometry, precision=", "arrays"),
    Mutant("no device taken for one", "gpu/__init__.py",
           "return None if count else", "return None if count is not None else", "arrays"),
]  # fmt: skip

LAYERS = [
    Mutant("a layer keeps the caller's weight itself", "_dispatch.py",
           "copy = np.array(array,", "copy = np.asarray(array,", "layer"),
    Mutant("a layer's weight can be written", "_dispatch.py",
           "copy.flags.writeable = False", "copy.flags.writeable = True", "layer"),
    Mutant("a layer forgets its bias", "layer.py",
           "None if bias is None else _dispatch.kept(bias)", "None", "layer"),
    Mutant("a layer has the output size it was made with", "layer.py",
           "window = _check.resized(window, output_size)", "output_size = None", "layer"),
    Mutant("threads place a layer's weights one after the other", "layer.py",
           "            if place not in self._placed:\n", "            if True:\n", "layer"),
    Mutant("all devices share one placing", "layer.py",
           "place = _dispatch.device(x)", "place = kind", "layer"),
    Mutant("the weight of a layer is packed with its channels exchanged", "gpu/launch.py",
           "weight.transpose(*taps, 0, 1)", "weight.transpose(*taps, 1, 0)", "layer"),
    Mutant("threads share a workspace", "gpu/launch.py",
           "self._device.stream, get_ident(), size", "self._device.stream, size", "layer"),
]  # fmt: skip

LAUNCH = [
    Mutant("vectors begin anywhere", "gpu/launch.py",
           "if device.address(array) % alignment == 0:", "if alignment:", "launch"),
    Mutant("a vector's alignment is that of an element", "gpu/launch.py",
           'vectors.get(f"{name}_VECTOR", 1)', 'vectors.get(f"{name}", 1)', "launch"),
    Mutant("the second pass is not launched", "gpu/launch.py",
           "_run(*choice.second, arguments, device)", "pass", "launch"),
    Mutant("copies made first lie in one place", "gpu/launch.py",
           "[0, *ends]", "[0, 0]", "hopper"),
    Mutant("a kernel reads what was copied, not the copy", "gpu/launch.py",
           "result[one.argument] = copy", "pass", "hopper"),
    Mutant("in a plan an axis of one element has a stride", "gpu/planning.py",
           "step if shape[axis] > 1 else 0", "step", "bench_gpu"),
    Mutant("what layers launch is not compiled before", "commands/bench/gpu.py",
           "for packed in (False, True)", "for packed in (False,)", "bench_gpu"),
    Mutant("who fails ends the run", "commands/bench/measure.py",
           "except Exception as error:", "except ZeroDivisionError as error:", "bench_gpu"),
    Mutant("arrays on a device lie wherever", "_dispatch.py",
           '"strides": array.strides,', '"strides": None,', "gpu_calls"),
    Mutant("every call is prepared anew", "gpu/launch.py",
           "@lru_cache(maxsize=4096)\ndef _recalled", "def _recalled", "launch"),
    Mutant("a floor adds what overlaps", "gpu/ceilings.py",
           "return max(self.arithmetic, self.memory)", "return self.arithmetic + self.memory",
           "plan"),
]  # fmt: skip

CPU = [
    Mutant("infinite weights multiply absent inputs", "_cpu/__init__.py",
           "not np.isfinite(weight).all()", "weight is None", "nonfinite"),
    Mutant("every block takes the first channels' bias", "_cpu/__init__.py",
           "sums[part.bias]", "sums[: part.geometry.out_channels]"),
    Mutant("half types are summed as they are", "_cpu/sums.py",
           "is_half = dtype.itemsize == 2", "is_half = dtype.itemsize == 1"),
    Mutant("bias skipped where taps overlap", "_cpu/overlap_add.py",
           "sums += bias.reshape(", "bias.reshape("),
    Mutant("bias skipped tap by tap", "_cpu/tap_by_tap.py",
           "sums += bias.reshape(", "bias.reshape(", "cpu_strategies"),
    Mutant("bias skipped with banded matrices", "_cpu/banded.py",
           "sums += bias.reshape(", "bias.reshape("),
    Mutant("infinite inputs meet zeros of banded matrices", "_cpu/banded.py",
           "or not np.isfinite(np.vdot(inputs, inputs))", "", "cpu_strategies"),
    Mutant("inputs of other parts lie in the margin", "_cpu/banded.py",
           "padded[...] = 0", "pass"),
    Mutant("other products lie beside the diagonals", "_cpu/banded.py",
           "kernels[...] = 0", "pass"),
    Mutant("windows begin an input late", "_cpu/banded.py",
           "first=pad // stride - reach,", "first=pad // stride - reach + 1,"),
    Mutant("phases that begin later are stored at the first place", "_cpu/banded.py",
           "begin = int(r < axis.crop)", "begin = 0"),
    Mutant("a thread may be left without a part", "_cpu/parts.py",
           "count = threads * -(-everything // (threads * elements))",
           "count = -(-everything // elements)", "cpu_strategies"),
    Mutant("inputs are counted, not what the kernel makes of them", "_cpu/parts.py",
           "prod(size + _reach(g, axis) for", "prod(size for", "cpu_memory"),
    Mutant("weights of a part are not counted", "_cpu/parts.py",
           "max(count, -(-prod(g.weight_shape) // LARGEST))", "max(count, 1)", "cpu_memory"),
    Mutant("activation before the bias as well", "_cpu/overlap_add.py",
           "        if bias is not None:\n",
           "        _activation.apply(activation, sums)\n        if bias is not None:\n",
           "activation"),
    Mutant("phases without taps start at one", "_cpu/overlap_add.py",
           "sums = np.zeros(", "sums = np.ones("),
    Mutant("phases without taps start at one, tap by tap", "_cpu/tap_by_tap.py",
           "        sums[...] = 0\n        return sums",
           "        sums[...] = 1\n        return sums", "cpu_strategies"),
    Mutant("products before the input are kept", "_cpu/overlap_add.py",
           "products[*positions, : axis.before] = 0", "pass", "nonfinite"),
    Mutant("products after the input are kept", "_cpu/overlap_add.py",
           "products[*positions, -axis.after :] = 0", "pass", "nonfinite"),
    Mutant("products come round the end of a row", "_cpu/overlap_add.py",
           "tap[*positions, edge] = 0", "pass"),
    Mutant("products come round the beginning of a row", "_cpu/overlap_add.py",
           "edge = slice(0, step) if step > 0 else slice(step, None)",
           "edge = slice(0, step) if step > 0 else slice(step + 1, None)"),
    Mutant("taps are shifted the other way", "_cpu/overlap_add.py",
           "offset = step * strides[number]", "offset = -step * strides[number]"),
    Mutant("the last position is not added", "_cpu/overlap_add.py",
           "positions - max(0, offset)\n", "positions - max(0, offset) - 1\n"),
    Mutant("only the last tap counts", "_cpu/tap_by_tap.py",
           "        sums += term", "        sums[...] = term", "cpu_strategies"),
    Mutant("the margin is not counted", "_cpu/tap_by_tap.py",
           "(run.begin - run.taps[0][1] + ahead) * stride",
           "(run.begin - run.taps[0][1]) * stride", "cpu_strategies"),
    Mutant("phases are counted from the full result", "_cpu/phases.py",
           "sorted((begin + o) % stride for", "sorted(o % stride for"),
    Mutant("the input is not extended at the end", "_cpu/phases.py",
           "max(0, before), max(0, after))", "max(0, before), 0)"),
    Mutant("the margin holds ones", "_cpu/arrange.py", "copy[...] = 0", "copy[...] = 1"),
    Mutant("results are stored without their padding", "_cpu/arrange.py",
           "run.begin * stride + run.first - pad", "run.begin * stride + run.first"),
    Mutant("stretches overlap", "_cpu/parts.py",
           "(i < longer)", "(i <= longer)", "doctests forward"),
    Mutant("a block misses its last input", "_cpu/parts.py",
           "(begin + o_end - 1) // stride + 1)", "(begin + o_end - 1) // stride)"),
    Mutant("a block misses its first input", "_cpu/parts.py",
           "-(-(begin + o_begin - reach) // stride)", "(begin + o_begin - reach) // stride + 1"),
    Mutant("blocks forget that their input begins later", "_cpu/parts.py",
           "pad_begin = begin + o_begin - i_begin * stride", "pad_begin = begin + o_begin"),
    Mutant("blocks that no input reaches get one", "_cpu/parts.py",
           "i_begin, i_end, pad_begin = 0, 1, o_begin - o_end",
           "i_begin, i_end, pad_begin = 0, 1, 0"),
    Mutant("blocks of channels are stored at their group's first", "_cpu/parts.py",
           "groups.start * out_group + m.start,", "groups.start * out_group,"),
    Mutant("warnings about NaN", "_cpu/pool.py",
           'np.errstate(all="ignore")', 'np.errstate(all="warn")', "nonfinite forward"),
    Mutant("OpenBLAS is looked for in NumPy 2 only", "_cpu/pool.py",
           "np.linalg._umath_linalg.__file__", "np._core._multiarray_umath.__file__",
           "cpu_threads"),
    Mutant("errors of other threads are lost", "_cpu/pool.py",
           "            raise error", "            pass", "cpu_threads"),
]  # fmt: skip

GRADIENTS = [
    Mutant("the weight is not conjugated for x", "_backward.py",
           "backend.conv(grad_output, conj(weight), geometry)",
           "backend.conv(grad_output, weight, geometry)", "gradients"),
    Mutant("x is not conjugated for the weight", "_backward.py",
           "x = conj(x) if of_weight else x", "pass", "gradients"),
    Mutant("output_mask exchanges x and weight", "_backward.py",
           "of_x, of_weight, of_bias = ", "of_weight, of_x, of_bias = ", "gradients"),
    Mutant("the gradient of an unbatched x is batched", "_backward.py",
           "grad_x = grad_x if batched else grad_x[0]", "grad_x = grad_x", "gradients"),
    Mutant("grad_output of any shape", "_check.py",
           "if tuple(grad_output.shape) != shape:", "if False:", "gradients"),
    Mutant("numbers in the mask", "_check.py",
           "or not all(type(v).__name__ in bools for v in values)", "", "gradients"),
    Mutant("convolution: a last output is missing", "_check.py",
           "out = tuple(whole + 1 for whole, _ in steps)",
           "out = tuple(max(1, whole) for whole, _ in steps)", "conv"),
    Mutant("convolution: the end's padding is forgotten", "_check.py",
           "room = size[axis] + sum(pad) - covered",
           "room = size[axis] + pad[0] - covered", "conv"),
    Mutant("convolution: output_size beyond the largest", "_check.py",
           "least, most = max(1, whole + 1 - spare // stride[axis]), whole + 1",
           "least, most = max(1, whole + 1 - spare // stride[axis]), whole + 2", "conv"),
    Mutant("convolution: no smaller output_size", "_check.py",
           "spare = max(stride[axis], dilation[axis]) - 1 - rest",
           "spare = stride[axis] - 1 - rest", "conv"),
    Mutant("convolution: same_lower as same_upper", "_check.py",
           'pad[::-1] if padding == "same_lower" else pad for pad in pads', "pad for pad in pads",
           "conv"),
    Mutant("convolution: groups of outputs are not checked", "_check.py",
           "if weight.shape[0] % groups:", "if False:", "conv"),
    Mutant("convolution: bias skipped", "_cpu/adjoint.py",
           "        if bias is not None:\n            total +=",
           "        if bias is None:\n            total = total +", "conv"),
    Mutant("convolution: every block takes the first bias", "_cpu/adjoint.py",
           "bias[first.x[1]]", "bias[: total.shape[0]]", "conv gradients"),
    Mutant("convolution: the last block of channels alone", "_cpu/adjoint.py",
           "np.add(total if number else 0, product, out=total)",
           "np.add(0, product, out=total)", "gradients"),
    Mutant("infinite weights meet absent outputs", "_cpu/adjoint.py",
           "is_safe = not meets_zeros(g) or np.isfinite(weight).all()", "is_safe = True",
           "gradients"),
    Mutant("infinite inputs meet absent outputs", "_cpu/weight_gradient.py",
           "if meets_zeros(geometry) and not np.isfinite(result).all():", "if False:", "gradients"),
    Mutant("zeros are not met at the end", "_cpu/columns.py",
           "begin > 0 or n - begin > size", "begin > 0", "gradients"),
    Mutant("single taps all begin at the first input", "_cpu/columns.py",
           "- k * g.dilation[axis] - begin * g.stride[axis]",
           "- k * g.dilation[axis]", "gradients"),
    Mutant("taps ignore dilation", "_cpu/columns.py",
           "*(d * step for d, step in zip(g.dilation, steps, strict=True)),", "*steps,",
           "gradients"),
    Mutant("positions ignore the stride", "_cpu/columns.py",
           "*(s * step for s, step in zip(g.stride, steps, strict=True)),", "*steps,", "gradients"),
    Mutant("what is beyond the ends is left from before", "_cpu/columns.py",
           "canvas.fill(0)", "canvas.fill(1)", "gradients"),
    Mutant("blocks begin without padding", "_cpu/columns.py",
           "k.start * g.dilation[axis] - g.pad_begin[axis]",
           "k.start * g.dilation[axis]", "gradients"),
    Mutant("blocks of taps begin at the first tap", "_cpu/columns.py",
           "i.start * g.stride[axis] + k.start * g.dilation[axis]", "i.start * g.stride[axis]",
           "gradients"),
    Mutant("blocks end an output early", "_cpu/columns.py",
           "min(end, g.out_size[axis])", "min(end - 1, g.out_size[axis])", "gradients"),
    Mutant("blocks of outputs are their group's first", "_cpu/columns.py",
           "groups.start * out_group + m.start,", "groups.start * out_group,", "gradients"),
    Mutant("blocks of inputs are their group's first", "_cpu/columns.py",
           "groups.start * in_group + c.start,", "groups.start * in_group,", "gradients"),
    Mutant("stretches leave out the last element", "_cpu/columns.py",
           "size * (i + 1) // count", "(size * (i + 1) - 1) // count", "gradients"),
    Mutant("long sums are added one after another", "_cpu/weight_gradient.py",
           "rows.sum(axis=1, dtype=dtype, out=sums[m, number])",
           "sums[m, number] = np.cumsum(rows, axis=1, dtype=dtype)[:, -1]", "gradients"),
    Mutant("the last of several sums is the result", "_cpu/weight_gradient.py",
           "result[index] += total.reshape(", "result[index] = total.reshape(", "gradients"),
    Mutant("half of a long sum", "_cpu/weight_gradient.py",
           "total += _add_up(blocks[half:]", "_add_up(blocks[half:]", "gradients"),
    Mutant("the last block is the sum", "_cpu/weight_gradient.py",
           "            total += out\n", "            total = out.copy()\n", "gradients"),
    Mutant("the first partial sum is lost", "_cpu/weight_gradient.py",
           "for number in sorted(partial):", "for number in list(partial)[1:]:", "gradients"),
    Mutant("gradients of half types stay wide", "_cpu/weight_gradient.py",
           'result.astype(x.dtype.newbyteorder("="), copy=False)', "result", "gradients"),
    Mutant("foreign byte order comes back", "_cpu/weight_gradient.py",
           'result.astype(x.dtype.newbyteorder("="), copy=False)',
           "result.astype(x.dtype, copy=False)", "gradients"),
    Mutant("the reference's kernel keeps its channels", "reference.py",
           ".reshape(shape).swapaxes(1, 2)", ".reshape(shape)", "gradients"),
    Mutant("the reference keeps every correlation", "reference.py",
           "result = result[:, :, *(slice(None, None, s) for s in g.stride)]",
           "result = result[:, :, *(slice(n) for n in g.in_size)]", "gradients"),
    Mutant("the reference's weight gradient ignores groups", "reference.py",
           "full[:, c // in_channels * out_channels + m]", "full[:, m]", "gradients"),
    Mutant("the reference's weight gradient conjugates", "reference.py",
           "inputs[:, c].conj()", "inputs[:, c]", "gradients"),
    Mutant("icnr repeats whole kernels", "init.py",
           "weight = weight.repeat(step, axis)",
           "weight = np.concatenate([weight] * step, axis)", "init"),
    Mutant("icnr counts all channels", "init.py",
           "products = shape[0] // number * prod(taps)", "products = shape[0] * prod(taps)",
           "init"),
    Mutant("initial weights may be integers", "_check.py",
           "or name not in known:", "or name not in DTYPES:", "init"),
    Mutant("a weight may have any number of axes", "_check.py",
           "if not 3 <= len(result) <= 5:", "if len(result) < 3:", "plan"),
    Mutant("the triangle is off its middle", "init.py",
           "middle = (size - 1) / 2", "middle = size / 2", "init"),
    Mutant("every channel goes to the first of its group", "init.py",
           "channel % max(1, channels // groups)", "channel * 0", "init"),
    Mutant("the checkerboard counts a tap once", "_checkerboard.py",
           "+ first] += 1", "+ first] = 1", "init"),
    Mutant("the checkerboard ignores the padding", "_checkerboard.py",
           "first = k * geometry.dilation[axis] - geometry.pad_begin[axis]",
           "first = k * geometry.dilation[axis]", "init"),
]  # fmt: skip

TABLE = "../../benchmarks/static/"
STATIC = [
    Mutant("a cache line's size is taken for a width", f"{TABLE}sass.py",
           "return next((WIDTHS[m] for m in modifiers if m in WIDTHS), 4)",
           "return next((WIDTHS[m] for m in WIDTHS if m in self.opcode), 4)", "static"),
    Mutant("a constant counts as two products", f"{TABLE}sass.py",
           '[1:3] == ["RZ", "RZ"]', '[1:3] == ["RZ"]', "static"),
    Mutant("the branch of a loop is not counted", f"{TABLE}sass.py",
           "else code[loop.first : loop.last + 1]", "else code[loop.first : loop.last]", "static"),
    Mutant("the main loop may be one around it", f"{TABLE}sass.py",
           "for n in range(loop.first, loop.last + 1) if n not in inner)",
           "for n in range(loop.first, loop.last + 1))", "static"),
    Mutant("the endless branch at the end is a loop", f"{TABLE}sass.py",
           "instruction.target < n", "instruction.target <= n", "static"),
    Mutant("a step issues its main loop once more", f"{TABLE}sass.py",
           "return whole - inner + inner.times", "return whole + inner.times", "static"),
    Mutant("the shortest round may leave out copies", f"{TABLE}sass.py",
           '(here.products, here.name in (*GLOBAL_LOADS, "STS"))', "(here.products,)", "static"),
    Mutant("results leave by a loop that mends some", f"{TABLE}sass.py",
           'and not count(_within(code, loop), "LDG")', "", "static"),
    Mutant("the adjoint's kernel is taken for the layer's", f"{TABLE}chosen.py",
           "s.threads, s.adjoint, constants", "s.threads, False, constants", "static"),
    Mutant("a box is a whole tile", f"{TABLE}traffic.py",
           "boxes.count * boxes.images * prod(boxes.sizes)", "boxes.count * tile.rows", "static"),
    Mutant("shared memory that the system takes is forgotten", f"{TABLE}occupancy.py",
           "shared_bytes + limits.reserved_bytes", "shared_bytes", "static"),
    Mutant("registers are given out one by one", f"{TABLE}occupancy.py",
           "_round_up(registers * 32, 256)", "registers * 32", "static"),
    Mutant("every block visits every shift", f"{TABLE}traffic.py",
           "-(-end // choice.phase_columns)].any(0)", "-(-end // choice.phase_columns)].any(0) | 1",
           "static"),
    Mutant("another source has the same measurements", f"{TABLE}record.py",
           "[*filter(None, lines), str", "[str", "static"),
]  # fmt: skip

MUTANTS = [
    *GEOMETRY, *CHECK, *API, *DISPATCH, *REFERENCE, *MEMORY, *ACTIVATION, *GPU, *CPU, *GRADIENTS,
    *STATIC, *LAYERS, *LAUNCH,
]  # fmt: skip


def copy_project(folder: Path) -> None:
    """Copy what the tests need, and compile it."""
    for name in ("src", "tests", "kernels", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)
    compileall.compile_dir(folder, quiet=1)


def fails(tests: str, project: Path, seconds: int | None = None) -> bool:
    """Run some test files in a copy of the project; tell whether one failed."""
    command = [
        sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider",
        "-m", "not slow and not torch and not onnx and not nvrtc and not gpu",
        *(f"tests/test_{name}.py" for name in tests.split()),
    ]  # fmt: skip
    environment = {
        **os.environ, "PYTHONPATH": str(project / "src"), "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    try:
        done = subprocess.run(
            command, cwd=project, env=environment, timeout=seconds, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return True
    if done.returncode == NO_TESTS:
        raise RuntimeError(done.stdout)
    # Below zero: a mistake may crash the interpreter.
    return done.returncode != 0


def judge(mutant: Mutant, project: Path) -> str:
    """Make the mistake, run the tests, and undo it; return the verdict."""
    path = project / SOURCES / mutant.file
    source, before = path.read_text(), path.stat()
    if source.count(mutant.old) != 1:
        return f"STALE: its text is there {source.count(mutant.old)} times"
    path.write_text(source.replace(mutant.old, mutant.new))
    try:
        return "killed" if fails(mutant.tests, project, SECONDS) else "SURVIVED"
    finally:
        path.write_text(source)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # its compiled file is right


def main() -> int:
    """Judge the mistakes two at a time; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--passed", action="store_true", help="the tests are known to pass")
    parser.add_argument("word", nargs="?", default="", help="of the mistakes to make")
    given = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if given.word in str(mutant)]
    projects: SimpleQueue[Path] = SimpleQueue()

    def in_a_copy(job, *arguments):
        project = projects.get()
        try:
            return job(*arguments, project)
        finally:
            projects.put(project)

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(WORKERS) as pool:
        for number in range(WORKERS):
            copy_project(Path(folder, str(number)))
            projects.put(Path(folder, str(number)))
        names = sorted({name for mutant in chosen for name in mutant.tests.split()})
        names = [] if given.passed else names
        sane = pool.map(lambda name: in_a_copy(fails, name), names)
        failing = [name for name, failed in zip(names, sane, strict=True) if failed]
        if failing:
            print(f"fails without any mistake: {', '.join(failing)}")
            return 1
        verdicts = pool.map(lambda mutant: in_a_copy(judge, mutant), chosen)
        bad = 0
        for mutant, verdict in zip(chosen, verdicts, strict=True):
            bad += verdict != "killed"
            print(f"{verdict:10} {mutant}", flush=True)
    print(f"{len(chosen) - bad} of {len(chosen)} mistakes noticed")
    return 1 if bad or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
