"""The measurements as Markdown, for `docs/kernel_resources.md`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tconv.commands.bench import suite

from . import chosen
from .chosen import ARCHITECTURES, Row
from .occupancy import occupancy
from .record import READ, Code, Measurement, Record, Widths
from .traffic import moved_over_compulsory, traffic

INTRODUCTION = """\
# What the kernels take

What can be known without a GPU of every kernel that the layers of the suite choose: from NVRTC
{nvrtc}, from the machine code, and from the geometry.  Nothing here was measured on a GPU.
`python benchmarks/static_table.py` makes this page and its raw figures,
`benchmarks/results/kernel_resources.json`; with `--check` it compares both with the sources.

Three figures in one cell are those of {read}; where they are the same, they stand once.

- *Registers* of a thread; *shared* memory of a block in bytes; *occupancy*: threads that fit on a
  multiprocessor at once, as a share of what it can hold.
- *Spills*: bytes that registers lose to memory, the most on any of {all}.
- *Loads*, *stores*, *shared loads*: bytes for each thread x number of instructions, in the whole
  kernel; `async` are copies from global to shared memory, `tensor` those of whole tiles.
- *Multiplying*: the share of instructions in the main loop that multiply elements, on FMA units or
  tensor cores.  The main loop is the one with most products outside of loops within it; all
  between its ends counts, as if nothing in it were ever skipped.
- *Step*: the same for a whole step of a tiled kernel with its loads and its bookkeeping, if those
  lie in a loop around the main loop.  All that is there counts, although most of it is skipped in
  most steps: the true share is higher.
- *Seconds* of CPU time that NVRTC took, once; a kernel is compiled on first use, then kept on disk.
"""

LAYERS = """\
## What the layers take

With channels first, on {architecture}.  *Moved*: bytes that the grid's blocks ask of global memory
or write there, whichever cache answers, for each compulsory byte (input, weight and output, once).
*Instructions* of the main loop that a thread issues for each output, the tile's waste included.
"""


def page(rows: list[Row], record: Record) -> str:
    """Return the whole page."""
    introduction = INTRODUCTION.format(
        nvrtc=record.nvrtc,
        read=", ".join(ARCHITECTURES[c] for c in READ),
        all=", ".join(ARCHITECTURES.values()),
    )
    return "\n".join([introduction, *families(rows, record), _layers(rows, record)])


def families(rows: list[Row], record: Record) -> list[str]:
    """Return one table for each family."""
    names = dict.fromkeys(row.one.kernel for row in rows)
    return [
        _family(name, [row for row in rows if row.one.kernel == name], record) for name in names
    ]


def _family(name: str, rows: list[Row], record: Record) -> str:
    """Return a family's table: one column for each constant that is not the same in all rows."""
    constants = [dict(row.one.constants) for row in rows]
    names = dict.fromkeys(n for table in constants for n in table if n not in chosen.BY_CAPABILITY)
    varying = [n for n in names if len({table.get(n) for table in constants}) > 1]
    fixed = [f"{n} {_constant(constants[0][n])}" for n in names if n not in varying]
    header = ["dtype", *varying, "registers", "shared", "occupancy", "spills", "loads", "stores"]
    header += ["shared loads", "multiplying", "step", "seconds", "layers"]
    lines = [f"## {name}", "", f"In all: {', '.join(fixed)}.", "", *_header(header)]
    for row, table in zip(rows, constants, strict=True):
        cells = [row.one.dtype, *(_constant(table.get(n, "")) for n in varying)]
        cells += [*_cells(row, record.of(row)), ", ".join(row.layers)]
        lines.append(" | ".join(cells))
    return "\n".join(lines) + "\n"


def _cells(row: Row, measured: dict[int, Measurement]) -> list[str]:
    read = {c: m for c, m in measured.items() if m.code is not None}

    def of_code(show: Callable[[Code], str]) -> str:
        return _three(show(m.code) for m in read.values() if m.code)

    def resident(capability: int) -> str:
        m = read[capability]
        return f"{occupancy(capability, row.one.threads, m.registers, m.shared_bytes):.0%}"

    return [
        _three(str(m.registers) for m in read.values()),
        _three(str(m.shared_bytes) for m in read.values()),
        _three(map(resident, read)),
        str(max(m.spilled_bytes for m in measured.values())),
        of_code(lambda code: _loads(code)),
        of_code(lambda code: _widths(code.global_stores)),
        of_code(lambda code: _widths(code.shared_loads)),
        of_code(lambda code: f"{code.main.fraction:.0%}"),
        of_code(lambda code: f"{code.step.fraction:.0%}" if code.step != code.main else ""),
        _three(f"{m.seconds:.1f}" for m in read.values()),
    ]


def _layers(rows: list[Row], record: Record) -> str:
    by_identity = {chosen.identity(row.one): row for row in rows}
    capability, dtypes = 90, ("float32", "float16")
    header = ["layer", *(f"{dtype}: {n}" for dtype in dtypes for n in _LAYER_CELLS)]
    text = LAYERS.format(architecture=ARCHITECTURES[capability])
    lines = [text, *_header(header)]
    for layer in suite.load(cpu=False):
        cells = [layer.name]
        for dtype in dtypes:
            plan = chosen.plan(layer, dtype, capability)
            row = by_identity[chosen.identity(plan.choice.specialisation)]
            code = record.of(row)[capability].code
            assert code is not None
            moved, work = moved_over_compulsory(plan), traffic(plan)
            issued = None
            if work and code.step.products:
                of_a_product = code.step.instructions / code.step.products
                issued = work.products * of_a_product / work.stored
            cells += [
                plan.choice.specialisation.kernel,
                str(plan.choice.blocks),
                "" if moved is None else f"{moved:.1f}",
                "" if issued is None else f"{issued:.0f}",
            ]
        lines.append(" | ".join(cells))
    return "\n".join(lines) + "\n"


_LAYER_CELLS = ("kernel", "blocks", "moved", "instructions")


def _header(names: list[str]) -> list[str]:
    return [" | ".join(names), " | ".join("---" for _ in names)]


def _constant(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _three(texts: Iterable[str]) -> str:
    texts = list(texts)
    return texts[0] if len(set(texts)) == 1 else " / ".join(text or "-" for text in texts)


def _loads(code: Code) -> str:
    parts = [_widths(code.global_loads)]
    parts += [f"async {_widths(code.copies)}"] if code.copies else []
    parts += [f"tensor {code.tensor_copies}"] if code.tensor_copies else []
    return ", ".join(filter(None, parts))


def _widths(widths: Widths) -> str:
    return " ".join(f"{width}x{n}" for width, n in widths.items())
