"""What the compiler says of every kernel that the suite's layers choose, without a GPU.

    python benchmarks/static_table.py [--write docs/kernel_resources.md]

Compiles each specialisation with NVRTC for every architecture that tconv supports, and shows its
registers and shared memory.  Exits with 1 if one spills registers to memory, keeps a stack, or
compiles with a warning.  Needs CuPy and NVRTC, no driver.
"""

from __future__ import annotations

import argparse
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from tconv import gpu
from tconv._check import DTYPES
from tconv.commands.bench import suite
from tconv.gpu import compile
from tconv.gpu.source import source

CAPABILITIES = (75, 80, 86, 89, 90, 100, 120)
SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")


def specialisations(capability, dtypes):
    """Return what the suite's layers choose on a device, both channels-first and channels-last."""
    chosen = {}
    for layer in suite.load(cpu=False):
        for dtype in dtypes:
            for channels_last in (False, True):
                plan = gpu.plan(
                    layer.geometry.x_shape,
                    layer.geometry.weight_shape,
                    dtype,
                    **layer.arguments,
                    channels_last=channels_last,
                    capability=capability,
                )
                chosen.setdefault(plan.choice.specialisation, []).append(layer.name)
    return chosen


def resources(specialisation, capability):
    """Return registers and bytes of stack and spills of one compiled kernel."""
    architecture = compile.architecture(capability)
    _, log = compile.compiled(source(specialisation), architecture, "--ptxas-options=-v")
    if "warning" in log:
        raise RuntimeError(f"NVRTC warns of {specialisation} for {architecture}:\n{log}")
    stack = sum(map(int, SPILLS.search(log).groups()))
    return int(REGISTERS.search(log)[1]), stack


def describe(specialisation):
    """Return the first cells of a row of the table."""
    s, constants = specialisation, dict(specialisation.constants)
    tile = "x".join(str(constants[n]) for n in ("ROWS", "COLUMNS", "DEPTH") if n in constants)
    orders = [constants.get(f"{name}_CHANNELS_LAST") for name in ("X", "OUT")]
    x, out = ("last" if last else "first" for last in orders)
    return f"{s.kernel} | {s.dtype} | {constants['AXES']} | {x} | {out} | {tile} | {s.shared_bytes}"


def main(arguments):
    """Compile everything and print the table; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtypes", nargs="+", default=suite.DTYPES, choices=DTYPES)
    parser.add_argument("--jobs", type=int, default=2, help="compilers at once (default 2)")
    parser.add_argument("--write", type=Path, help="write the table to this file")
    given = parser.parse_args(arguments)

    table, spilling = {}, []
    with ProcessPoolExecutor(given.jobs) as pool:
        for capability in CAPABILITIES:
            chosen = list(specialisations(capability, given.dtypes))
            measure = partial(resources, capability=capability)
            for one, (registers, stack) in zip(chosen, pool.map(measure, chosen), strict=True):
                table.setdefault(describe(one), {})[capability] = registers
                if stack:
                    spilling.append(f"{one} for sm_{capability} keeps {stack} bytes in memory")

    from cupy.cuda import nvrtc

    version = ".".join(map(str, nvrtc.getVersion()))
    lines = [
        "# What the kernels take",
        "",
        f"Registers of a thread, as NVRTC {version} compiles every kernel that the suite's layers",
        "choose.  None spills.  `python benchmarks/static_table.py` makes this table.",
        "",
        "kernel | dtype | axes | channels of x | of result | tile | shared bytes | "
        + " | ".join(map(compile.architecture, CAPABILITIES)),
        " | ".join(["---"] * 7 + ["--:"] * len(CAPABILITIES)),
    ]
    for name in sorted(table):
        row = [str(table[name].get(capability, "")) for capability in CAPABILITIES]
        lines.append(f"{name} | {' | '.join(row)}")
    text = "\n".join(lines) + "\n"
    print(text)
    if given.write:
        given.write.write_text(text)
    print("\n".join(spilling), file=sys.stderr)
    return 1 if spilling else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
