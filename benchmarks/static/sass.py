"""What a kernel's machine code says: how wide its accesses are, and what its main loop issues.

Machine code (SASS) is read by NVIDIA's ``nvdisasm``, from the package ``nvidia-cuda-nvdisasm``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

BYTES = 16
"""Length of an instruction, from compute capability 7.0 on."""

FMA = {"FFMA": 1, "FFMA2": 2, "DFMA": 1, "HFMA2": 2}
"""Products that one thread computes with one instruction on FMA units."""

WIDTHS = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16, "256": 32}
"""Bytes that one thread moves, by the modifier that says so; 4 without one."""

BRANCHES = {"BRA", "JMP"}
SPILLS = ("LDL", "STL")
TENSOR_COPIES = ("UTMALDG", "UBLKCP")
TENSOR_STORES = ("UTMASTG",)
GLOBAL_LOADS = ("LDG", "LDGSTS", *TENSOR_COPIES)


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction; ``opcode`` has its modifiers, as in ``LDG.E.128.CONSTANT``."""

    opcode: str
    operands: str = ""
    predicate: str = ""

    @property
    def name(self) -> str:
        """The opcode without its modifiers."""
        return self.opcode.split(".")[0]

    @property
    def width(self) -> int:
        """Bytes that a load, a store or a copy moves for one thread."""
        modifiers = self.opcode.split(".")[1:]
        return next((WIDTHS[m] for m in modifiers if m in WIDTHS), 4)

    @property
    def target(self) -> int | None:
        """Number of the instruction that a branch goes to; None if this is no branch."""
        if self.name not in BRANCHES:
            return None
        last = self.operands.split(",")[-1]
        return int(last, 16) // BYTES if last.startswith("0x") else None

    @property
    def goes_on(self) -> bool:
        """Whether the next instruction may follow: not after a branch without a condition."""
        return self.target is None or bool(self.predicate) or "," in self.operands

    @property
    def products(self) -> int:
        """Products of elements that one thread computes, its share of the warp's or warp group's.

        ``HFMA2`` with two zeros is how the compiler writes a constant: no product.
        """
        if self.name == "HFMA2" and self.operands.replace("-", "").split(",")[1:3] == ["RZ", "RZ"]:
            return 0
        if self.name in FMA:
            return FMA[self.name]
        modifiers = self.opcode.split(".")[1:]
        if self.name == "HMMA":  # HMMA.16816.F32: 16 x 8 x 16 by the 32 threads of a warp
            shape = next(m for m in modifiers if m.isdigit())
            return {"1684": 16, "1688": 32, "16816": 64}[shape]
        if self.name == "HGMMA":  # HGMMA.64x128x16.F32: by the 128 threads of a warp group
            m, n, k = map(int, next(m for m in modifiers if "x" in m).split("x"))
            return m * n * k // 128
        return 0


@dataclass(frozen=True, slots=True)
class Loop:
    """Instructions ``first`` to ``last``: the target of a backward branch, and the branch."""

    first: int
    last: int

    def __contains__(self, other: Loop) -> bool:
        return self != other and self.first <= other.first and other.last <= self.last

    def __len__(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class Share:
    """How many of the instructions issued in a loop multiply, and how much they multiply."""

    instructions: int
    multiplications: int
    products: int

    @property
    def fraction(self) -> float:
        """Share of the instructions that multiply."""
        return self.multiplications / self.instructions

    def times(self, n: float) -> Share:
        """Return what ``n`` rounds of the loop issue."""
        return Share(*(round(n * part) for part in self._parts))

    def __add__(self, other: Share) -> Share:
        return Share(*(a + b for a, b in zip(self._parts, other._parts, strict=True)))

    def __sub__(self, other: Share) -> Share:
        return self + other.times(-1)

    @property
    def _parts(self) -> tuple[int, int, int]:
        return self.instructions, self.multiplications, self.products


def share(code: Iterable[Instruction]) -> Share:
    """Count instructions, those that multiply, and their products."""
    products = [instruction.products for instruction in code]
    return Share(len(products), sum(p > 0 for p in products), sum(products))


def loops(code: Sequence[Instruction]) -> list[Loop]:
    """Return every loop: a branch that goes back, and all between its target and itself.

    The branch to itself with which every kernel ends is none.
    """
    return [
        Loop(instruction.target, n)
        for n, instruction in enumerate(code)
        if instruction.target is not None and instruction.target < n
    ]


def main_loop(code: Sequence[Instruction]) -> Loop | None:
    """Return the loop that computes most products outside of the loops within it.

    Of several the one that loads the most at once: others are for what does not lie in vectors.
    None where no loop multiplies: a kernel without a loop is its own main loop.
    """
    found = loops(code)

    def own_products(loop: Loop) -> int:
        inner = {n for other in found if other in loop for n in range(other.first, other.last + 1)}
        own = (n for n in range(loop.first, loop.last + 1) if n not in inner)
        return sum(code[n].products for n in own)

    def widest(loop: Loop) -> int:
        return max(widths(_within(code, loop), *GLOBAL_LOADS), default=0)

    best = max(
        found, key=lambda loop: (own_products(loop), widest(loop), -len(loop)), default=None
    )
    return best if best is not None and own_products(best) > 0 else None


def main_share(code: Sequence[Instruction]) -> Share:
    """Return what one round of the main loop issues, as if every instruction in it were executed.

    Loops within it are counted once, and skipped blocks too, so the share of multiplications is a
    lower bound as long as such loops run once.
    """
    return share(_within(code, main_loop(code)))


def round_share(code: Sequence[Instruction]) -> Share:
    """Return what the shortest round of the main loop issues that multiplies and moves everything.

    Moves are loads from global memory and stores to shared memory.  Tensor-core kernels look for
    the inputs of a new shift within their main loop; most rounds begin none, and branch past that.
    """
    loop = main_loop(code)
    if loop is None:
        return share(code)
    return share(
        shortest_round(
            code, loop, lambda here: (here.products, here.name in (*GLOBAL_LOADS, "STS"))
        )
    )


def way_out(code: Sequence[Instruction]) -> dict[int, int]:
    """Return ``{bytes: instructions}`` of the shortest round that stores results; {} for none.

    Of all loops that store and load nothing, the one that issues least for a byte: others store at
    the ends of a row, or mend results.
    """
    found = [loop for loop in loops(code) if count(_within(code, loop), "STG")]
    innermost = [
        loop
        for loop in found
        if not any(other in loop for other in found) and not count(_within(code, loop), "LDG")
    ]
    rounds = []
    for loop in innermost:
        issued = shortest_round(code, loop, lambda here: (here.width if here.name == "STG" else 0,))
        rounds.append((sum(i.width for i in issued if i.name == "STG"), len(issued)))
    rounds = [(stored, issued) for stored, issued in rounds if stored]
    return dict(sorted(rounds, key=lambda round: round[1] / round[0])[:1])


def shortest_round(
    code: Sequence[Instruction], loop: Loop, value: Callable[[Instruction], tuple[int, ...]]
) -> list[Instruction]:
    """Return the instructions of a round worth most; of such rounds, of the shortest.

    Empty where the end is reached from elsewhere alone.
    """
    start, end = loop.first, loop.last + 1
    worth = {start: (*(0 for _ in value(code[start])), 0)}  # of the best way to an instruction
    came_from: dict[int, int] = {}
    for n in range(start, end):
        if n not in worth:
            continue
        here = code[n]
        ways = [n + 1] if here.goes_on or n == loop.last else []
        ways += [here.target] if here.target in range(n + 1, end) else []
        after = tuple(a + b for a, b in zip(worth[n], (*value(here), -1), strict=True))
        for way in ways:
            if way not in worth or worth[way] < after:
                worth[way], came_from[way] = after, n
    issued = []
    while end != start and end in came_from:
        end = came_from[end]
        issued.append(code[end])
    return issued[::-1]


def step(code: Sequence[Instruction]) -> Loop | None:
    """Return the innermost loop with the products of the main loop and loads from global memory.

    That is the main loop itself, or one around it; or the main loop alone where other warps bring
    in whole tiles.  None where all of that is not so.
    """
    main = main_loop(code)
    if main is None or count(code, *TENSOR_COPIES):
        return main
    around = [loop for loop in loops(code) if loop == main or main in loop]
    loading = [loop for loop in around if count(_within(code, loop), *GLOBAL_LOADS)]
    return min(loading, key=len, default=None)


def step_code(code: Sequence[Instruction]) -> Sequence[Instruction]:
    """Return the instructions of a step; all, where there is no loop that is one."""
    return _within(code, step(code))


def step_share(code: Sequence[Instruction], products: int | None) -> Share:
    """Return what a step issues: ``products`` of one thread, and the loads for them.

    A main loop within the step is repeated until there are as many products; all else counts once.
    """
    inner, whole = main_share(code), share(step_code(code))
    if inner == whole or products is None:
        return inner
    return whole - inner + inner.times(products / inner.products)


def _within(code: Sequence[Instruction], loop: Loop | None) -> Sequence[Instruction]:
    return code if loop is None else code[loop.first : loop.last + 1]


def widths(code: Iterable[Instruction], *names: str) -> dict[int, int]:
    """Return ``{bytes of one thread: number of instructions}`` of some opcodes, widest first."""
    counted = Counter(instruction.width for instruction in code if instruction.name in names)
    return dict(sorted(counted.items(), reverse=True))


def count(code: Iterable[Instruction], *names: str) -> int:
    """Return how many instructions have one of these names."""
    return sum(instruction.name in names for instruction in code)


def disassemble(cubin: bytes) -> list[Instruction]:
    """Return the instructions of a cubin's only kernel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run(
            [nvdisasm(), "-json", file.name], capture_output=True, text=True, check=True
        )
    return parse(json.loads(done.stdout))


def parse(document: list) -> list[Instruction]:
    """Return the instructions in what ``nvdisasm -json`` prints: a header, then the functions."""
    _, functions = document
    (function,) = functions
    return [
        Instruction(i["opcode"], i.get("operands", ""), i.get("predicate", ""))
        for i in function["sass-instructions"]
    ]


def nvdisasm() -> str:
    """Return the path of the disassembler: a package's, or the one on the search path."""
    try:
        packaged = files("nvidia-cuda-nvdisasm") or []
    except PackageNotFoundError:
        packaged = []
    paths = [Path(file.locate()) for file in packaged if file.name == "nvdisasm"]
    path = next(map(os.fspath, paths), None) or shutil.which("nvdisasm")
    if path is None:
        raise RuntimeError("no nvdisasm here; pip install nvidia-cuda-nvdisasm")
    return path
