"""What can be known without a GPU of every kernel that the suite's layers choose.

    python benchmarks/static_table.py [--check] [--jobs 2]
    python benchmarks/static_table.py --layers unet-top fcn8s-dense --dtypes float32

Compiles with NVRTC for every architecture that tconv supports what is not in the record yet, reads
the machine code with nvdisasm, and writes the record (``benchmarks/results/kernel_resources.json``)
and the page made of it (``docs/kernel_resources.md``).  Exits with 1 if a limit of
``static/limits.py`` does not hold.

With ``--check`` nothing is written.  Exits with 1 also if the record or the page does not belong to
the sources, or if a sample of the kernels, compiled anew, gives other figures (where the record was
made by another version of NVRTC: breaks a limit).

With ``--layers`` only the kernels of these layers are measured, whatever the record has, and shown.

Needs CuPy, NVRTC and nvdisasm (the packages nvidia-cuda-nvrtc and nvidia-cuda-nvdisasm), no driver.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path

from static import chosen, limits, record, tables
from static.chosen import Row
from static.record import Measurement, Record
from tconv.commands.bench import suite
from tconv.gpu import compile
from tconv.gpu.choice import Specialisation

PAGE = Path(__file__).parents[1] / "docs" / "kernel_resources.md"
SAMPLE = 40
"""Of so many kernels a check compiles one anew; their keys are hashes, so it may be any."""

REMEDY = "run python benchmarks/static_table.py"


def main(arguments: list[str]) -> int:
    """Make the record and the page, or check them; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    parser.add_argument("--jobs", type=int, default=2, help="compilers at once (default 2)")
    parser.add_argument("--layers", nargs="+", help="show the kernels of these layers only")
    parser.add_argument("--dtypes", nargs="+", default=suite.DTYPES, help="for --layers")
    given = parser.parse_args(arguments)
    with ProcessPoolExecutor(given.jobs) as pool:
        if given.layers:
            complaints = show(chosen.rows(given.dtypes, chosen.READ, given.layers), pool)
        else:
            complaints = (check if given.check else write)(chosen.rows(), pool)
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return 1 if complaints else 0


def write(rows: list[Row], pool: Executor) -> list[str]:
    """Measure what is missing, write the record and the page; return the limits that are broken."""
    nvrtc = compile.version()
    kernels = keys(rows, nvrtc)
    known = Record.read().measurements
    missing = {key: kernel for key, kernel in kernels.items() if key not in known}
    print(f"{len(missing)} of {len(kernels)} kernels to compile", flush=True)
    try:
        for key, measurement in measured(missing, pool):
            known[key] = measurement
    finally:  # The next run goes on where this one was stopped.
        new = Record(nvrtc, {key: known[key] for key in kernels if key in known})
        new.write()
    PAGE.write_text(tables.page(rows, new))
    return limits.broken(rows, new)


def check(rows: list[Row], pool: Executor) -> list[str]:
    """Return what does not belong to the sources, and the limits that are broken."""
    old = Record.read()
    kernels = keys(rows, old.nvrtc)
    changed = kernels.keys() ^ old.measurements.keys()
    if changed:
        return [f"the record lacks kernels or has old ones ({len(changed)}); {REMEDY}"]
    complaints = limits.broken(rows, old)
    if PAGE.read_text() != tables.page(rows, old):
        complaints.append(f"{PAGE.name} is not what the record gives; {REMEDY}")
    sample = {key: kernels[key] for key in sorted(kernels)[::SAMPLE]}
    for key, now in measured(sample, pool):
        if compile.version() != old.nvrtc:
            complaints += limits.complaints(*sample[key], now)
        elif not record.same(now, old.measurements[key]):
            complaints.append(f"{sample[key]} measures {now}, recorded is {old.measurements[key]}")
    return complaints


def show(rows: list[Row], pool: Executor) -> list[str]:
    """Measure and print; return the limits that are broken."""
    nvrtc = compile.version()
    new = Record(nvrtc, dict(measured(keys(rows, nvrtc), pool)))
    print("\n".join(tables.families(rows, new)), end="")
    return limits.broken(rows, new)


def keys(rows: list[Row], nvrtc: str) -> dict[str, tuple[Specialisation, int]]:
    """Return every kernel to measure, a specialisation on a capability, by its key."""
    return {
        record.key(specialisation, capability, nvrtc): (specialisation, capability)
        for row in rows
        for capability, specialisation in row.specialisations.items()
    }


def measured(
    kernels: dict[str, tuple[Specialisation, int]], pool: Executor
) -> Iterator[tuple[str, Measurement]]:
    """Compile kernels; yield their keys and measurements."""
    specialisations = [specialisation for specialisation, _ in kernels.values()]
    capabilities = [capability for _, capability in kernels.values()]
    done = pool.map(record.measure, specialisations, capabilities)
    return zip(kernels, done, strict=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
