"""The measurements of compiled kernels, and the file that keeps them.

A measurement's key is made of all that it depends on.  So a kernel whose source is the same is not
compiled again, and a record that no longer belongs to the sources is noticed without a compiler.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from math import prod
from pathlib import Path

from tconv.gpu import compile
from tconv.gpu.call import TYPES
from tconv.gpu.choice import Specialisation
from tconv.gpu.source import source

from . import sass
from .chosen import READ, TENSOR_CORES, Row
from .sass import Share

FILE = Path(__file__).parents[1] / "results" / "kernel_resources.json"
SPILLED = re.compile(r"\d+ bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
WARNING = re.compile(r".*(?:warning|\(C7\d{3}\)).*")
"""A line that warns; the assembler's remarks on wgmma and setmaxnreg are mere information to it."""
REGISTERS = re.compile(r"Used (\d+) registers")
ENUMERATION = re.compile(r"^enum class (\w+) \{.*\};$", re.MULTILINE)
SHARED = re.compile(r"(\d+) bytes smem")

STORED_AFTERWARDS = ("gemm", "mma")
"""Kernels that store their results in a loop of its own, after their main loop."""

Widths = dict[int, int]
"""``{bytes of one thread: number of instructions}``."""


@dataclass(frozen=True, slots=True)
class Code:
    """What the machine code of a kernel says; loads are those of a step."""

    spills: int
    global_loads: Widths
    global_stores: Widths
    copies: Widths
    """From global to shared memory, asynchronously."""
    tensor_copies: int
    """By the tensor memory accelerator, of whole tiles to shared memory."""
    shared_loads: Widths
    main: Share
    step: Share
    tensor_stores: int = 0
    """From shared to global memory, of whole tiles."""
    way_out: Widths = field(default_factory=dict)
    """``{bytes that one thread stores in a round: instructions}``; empty where no loop stores."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What is known of one kernel on one architecture; ``seconds`` of CPU time to compile it."""

    kernel: str
    registers: int
    shared_bytes: int
    spilled_bytes: int
    warnings: int
    seconds: float
    code: Code | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """Measurements by their key, all made with one version of NVRTC."""

    nvrtc: str
    measurements: dict[str, Measurement]

    def of(self, row: Row) -> dict[int, Measurement]:
        """Return the measurements of a row, by capability."""
        return {
            capability: self.measurements[key(specialisation, capability, self.nvrtc)]
            for capability, specialisation in row.specialisations.items()
        }

    @classmethod
    def read(cls) -> Record:
        """Return what the file holds."""
        if not FILE.exists():
            return cls("", {})
        table = json.loads(FILE.read_text())
        return cls(table["nvrtc"], {k: _measurement(v) for k, v in table["measurements"].items()})

    def write(self) -> None:
        """Write the file, one line a measurement."""
        lines = (
            f"{json.dumps(key)}: {json.dumps(asdict(self.measurements[key]))}"
            for key in sorted(self.measurements, key=lambda k: (self.measurements[k].kernel, k))
        )
        body = ",\n".join(lines)
        FILE.write_text(f'{{"nvrtc": "{self.nvrtc}", "measurements": {{\n{body}\n}}}}\n')


@cache
def key(specialisation: Specialisation, capability: int, nvrtc: str) -> str:
    """Return the key of a measurement; neither comments nor unused enumerations matter."""
    text = source(specialisation)
    unused = {name for name in ENUMERATION.findall(text) if text.count(name) == 1}
    text = ENUMERATION.sub(lambda match: "" if match[1] in unused else match[0], text)
    lines = (line.split("//")[0].rstrip() for line in text.splitlines())
    identity = [*filter(None, lines), str(capability), *compile.OPTIONS, nvrtc]
    return hashlib.sha256("\0".join(identity).encode()).hexdigest()[:20]


def measure(specialisation: Specialisation, capability: int) -> Measurement:
    """Compile a kernel, and read its machine code."""
    architecture = compile.architecture(capability)
    begin = time.process_time()
    cubin, log = compile.compiled(source(specialisation), architecture, "--ptxas-options=-v")
    seconds = time.process_time() - begin
    static = SHARED.search(log)
    return Measurement(
        kernel=specialisation.kernel,
        registers=int(REGISTERS.search(log)[1]),
        shared_bytes=specialisation.shared_bytes + (int(static[1]) if static else 0),
        spilled_bytes=sum(map(int, SPILLED.search(log).groups())),
        warnings=len(WARNING.findall(log)),
        seconds=round(seconds, 2),
        code=_code(specialisation, cubin) if capability in READ else None,
    )


def same(a: Measurement, b: Measurement) -> bool:
    """Tell whether two measurements agree in all but time."""
    return replace(a, seconds=0) == replace(b, seconds=0)


def way_out(specialisation: Specialisation, code: Code) -> float:
    """Return the instructions for each output in the loop that stores them; 0 where none does."""
    size = TYPES[specialisation.dtype].element_bytes
    return sum(size * instructions / nbytes for nbytes, instructions in code.way_out.items())


def _code(specialisation: Specialisation, cubin: bytes) -> Code:
    code = sass.disassemble(cubin)
    step = sass.step_code(code)
    if specialisation.kernel in TENSOR_CORES:
        main_share, step_share = sass.round_share(code), sass.main_share(code)
    else:
        main_share = sass.main_share(code)
        step_share = sass.step_share(code, _products_of_a_step(specialisation))
    return Code(
        spills=sass.count(code, *sass.SPILLS),
        global_loads=sass.widths(step, "LDG"),
        global_stores=sass.widths(code, "STG"),
        copies=sass.widths(step, "LDGSTS"),
        tensor_copies=sass.count(code, *sass.TENSOR_COPIES),
        shared_loads=sass.widths(step, "LDS", "LDSM"),
        main=main_share,
        step=step_share,
        tensor_stores=sass.count(code, *sass.TENSOR_STORES),
        way_out=sass.way_out(code),
    )


def _products_of_a_step(specialisation: Specialisation) -> int | None:
    """Return the products that a thread computes between two barriers, if the tile says so."""
    constants = dict(specialisation.constants)
    names = ("THREAD_ROWS", "THREAD_COLUMNS", "DEPTH")
    return prod(constants[n] for n in names) if constants.keys() >= set(names) else None


def _measurement(table: dict) -> Measurement:
    code = table["code"]
    if code is not None:
        for name in ("global_loads", "global_stores", "copies", "shared_loads", "way_out"):
            code[name] = {int(width): n for width, n in code[name].items()}
        for name in ("main", "step"):
            code[name] = Share(**code[name])
    return Measurement(**{**table, "code": code and Code(**code)})
