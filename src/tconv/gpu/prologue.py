"""The lines that specialise a kernel, written in place of ``kernels/prologue.cuh``."""

from __future__ import annotations

from .call import TYPES
from .choice import Constant, Specialisation


def prologue(specialisation: Specialisation) -> str:
    """Return the prologue of one specialisation, as CUDA C++."""
    s = specialisation
    types = TYPES[s.dtype]
    index = "int" if s.index_bits == 32 else "long long"
    lines = [
        "struct Float16;",
        "struct BFloat16;",
        "template <typename T>",
        "struct Complex;",
        "enum class Activation { NONE, RELU, LEAKY_RELU, SIGMOID, TANH, GELU, SILU };",
        "enum class Mma { F16_K8, F16, BF16, TF32, TF32X3 };",
        "",
        f"using Element = {types.element};",
        f"using Accumulator = {types.accumulator};",
        f"using Index = {index};",
        f"using UnsignedIndex = unsigned {index};",
        _constant("THREADS", s.threads),
        *([_constant("SHARED_BYTES", s.shared_bytes)] if s.shared_bytes else []),
        _constant("ADJOINT", s.adjoint),
        *(_constant(name, value) for name, value in s.constants),
    ]
    return "\n".join(lines) + "\n"


def _constant(name: str, value: Constant) -> str:
    if isinstance(value, bool):
        return f"constexpr bool {name} = {str(value).lower()};"
    if isinstance(value, int):
        return f"constexpr int {name} = {value};"
    enum = name.title()
    return f"constexpr {enum} {name} = {enum}::{value.upper()};"
