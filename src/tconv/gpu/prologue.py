"""The lines that specialise a kernel, written in place of ``kernels/prologue.cuh``."""

from __future__ import annotations

from .select import TYPES, Specialisation


def prologue(specialisation: Specialisation) -> str:
    """Return the prologue of one specialisation, as CUDA C++."""
    s = specialisation
    types, tile = TYPES[s.dtype], s.tile
    index = "int" if s.index_bits == 32 else "long long"
    lines = [
        "struct Float16;",
        "struct BFloat16;",
        "template <typename T>",
        "struct Complex;",
        "enum class Activation { NONE, RELU, LEAKY_RELU, SIGMOID, TANH, GELU, SILU };",
        "",
        f"using Element = {types.element};",
        f"using Accumulator = {types.accumulator};",
        f"using Index = {index};",
        f"using UnsignedIndex = unsigned {index};",
        f"constexpr int AXES = {s.axes};",
        f"constexpr Activation ACTIVATION = Activation::{(s.activation or 'none').upper()};",
        f"constexpr bool OUT_CHANNELS_LAST = {_bool(s.out_channels_last)};",
        f"constexpr int THREADS = {s.threads};",
    ]
    if tile is not None:
        lines += [
            f"constexpr int ROWS = {tile.rows};",
            f"constexpr int COLUMNS = {tile.columns};",
            f"constexpr int DEPTH = {tile.depth};",
            f"constexpr int THREAD_ROWS = {tile.thread_rows};",
            f"constexpr int THREAD_COLUMNS = {tile.thread_columns};",
            f"constexpr bool X_CHANNELS_LAST = {_bool(s.x_channels_last)};",
            f"constexpr bool ASYNC = {_bool(s.asynchronous)};",
            f"constexpr int SHARED_BYTES = {s.shared_bytes};",
        ]
    return "\n".join(lines) + "\n"


def _bool(value: bool) -> str:
    return "true" if value else "false"
