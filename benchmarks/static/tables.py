"""The measurements as Markdown, for `docs/kernel_resources.md`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import prod

from tconv.commands.bench import suite
from tconv.gpu.call import Call
from tconv.gpu.choice import Choice, Specialisation

from . import chosen
from .chosen import ARCHITECTURES, READ, Row
from .occupancy import occupancy
from .record import STORED_AFTERWARDS, Code, Measurement, Record, Widths, way_out
from .traffic import traffic

INTRODUCTION = """\
# What the kernels take

What can be known without a GPU of every kernel that the layers of the suite choose: from NVRTC
{nvrtc}, from the machine code, and from the geometry.  Nothing here was measured on a GPU.
`python benchmarks/static_table.py` makes this page and its raw figures,
`benchmarks/results/kernel_resources.json`; with `--check` it compares both with the sources.

Three figures in one cell are those of {read}; where they are the same, they stand once.

- *Registers* of a thread; *shared* memory of a block in bytes; *occupancy*: threads that fit on a
  multiprocessor at once, as a share of what it can hold.
- *Spills*: bytes that registers lose to memory, the most on any architecture.  What functions call
  in float32 and float16 is compiled for {all}, the rest for the three.
- *Multiplying*: the share of instructions in the main loop that multiply elements, on FMA units or
  tensor cores.  The main loop is the one with most products outside of loops within it, and of
  several the one that loads most at once: others are for rows that are not made of vectors.  All
  between its ends counts, as if nothing in it were ever skipped.  On tensor cores, where one
  instruction multiplies far more, it is the shortest round that multiplies and moves everything,
  and begins no new shift.
- *Step*: the same for a step of a tiled kernel, which is the main loop with the loop around it that
  loads from global memory.  All that is there counts, although most of it is skipped in most
  steps: the true share is higher.
- *Loads* and *shared loads* in a step, *stores* in the whole kernel: bytes for each thread x number
  of instructions; `async` are copies from global to shared memory, `tensor` those of whole tiles.
- *Way out*: instructions for each output in the loop that stores them, of the shortest round.
  Empty where no loop stores.
- *Seconds* of CPU time that NVRTC took, once; a kernel is compiled on first use, then kept on disk.
"""

LAYERS = """\
## What the layers take

On {architecture}; hopper is off until it is switched on.  *Moved*: bytes that the grid's blocks ask
of global memory or write there, whichever cache answers, for each compulsory byte (input, weight
and output, once).
*Instructions* that a thread issues for each output, the tile's waste included: of a step, or of the
main loop on tensor cores; and where results are stored after that, of the way out.
"""

USES = {
    "function": {"float32": ("float32", None), "float16": ("float16", None)},
    "layer, channels last": {
        "tf32": ("float32", "tf32"),
        "float16": ("float16", None),
        "float16, hopper": ("float16", None),
    },
}
"""The columns of what the layers take, by the order of memory: element type and precision."""


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
    """Return a family's table; what is the same in all rows is said once."""
    constants = [_by_window(row.one) for row in rows]
    names = dict.fromkeys(n for table in constants for n in table if n not in chosen.BY_CAPABILITY)
    varying = [n for n in names if len({table.get(n) for table in constants}) > 1]
    header = ["dtype", "specialised by", "registers", "shared", "occupancy", "spills", "loads"]
    header += ["stores", "shared loads", "multiplying", "step", "way out", "seconds", "layers"]
    lines = [f"## {name}", ""]
    fixed = _spelled(constants[0], [n for n in names if n not in varying])
    if fixed:
        lines += [f"All have {fixed}.", ""]
    lines += _header(header)
    for row, table in zip(rows, constants, strict=True):
        cells = [row.one.dtype, _spelled(table, varying)]
        cells += [*_cells(row, record.of(row)), ", ".join(row.layers)]
        lines.append(" | ".join(cells))
    return "\n".join(lines) + "\n"


def _by_window(specialisation: Specialisation) -> dict[str, object]:
    """Return the constants; those of the axes X, Y and Z make one, as in KERNEL 16x16."""
    table: dict[str, object] = {"ADJOINT": specialisation.adjoint, **dict(specialisation.constants)}
    for name in [n.removesuffix("_X") for n in table if n.endswith("_X")]:
        sizes = [table.pop(f"{name}_{axis}") for axis in "ZYX" if f"{name}_{axis}" in table]
        table[name] = "x".join(map(str, sizes[-int(table["AXES"]) :]))
    return table


def _spelled(table: dict[str, object], names: Iterable[str]) -> str:
    """Return the constants of these names; a flag is named where it is set."""
    parts = []
    for name in names:
        value = table.get(name, False)
        if value is not False:
            parts.append(name if value is True else f"{name} {value}")
    return ", ".join(parts)


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
        of_code(_stores),
        of_code(lambda code: _widths(code.shared_loads)),
        of_code(lambda code: f"{code.main.fraction:.0%}" if code.main.products else ""),
        of_code(lambda code: f"{code.step.fraction:.0%}" if code.step != code.main else ""),
        of_code(lambda code: f"{way_out(row.one, code):.0f}" if code.way_out else ""),
        _three(f"{m.seconds:.1f}" for m in read.values()),
    ]


def _layers(rows: list[Row], record: Record) -> str:
    by_identity = {chosen.identity(row.one): row for row in rows}
    capability = 90
    parts = [LAYERS.format(architecture=ARCHITECTURES[capability])]
    names = {name for row in rows for name in row.layers}
    for order, uses in USES.items():
        lines = [f"As a {order}:", ""]
        lines += _header(["layer", *(f"{use}: {n}" for use in uses for n in _LAYER_CELLS)])
        for layer in (layer for layer in suite.load(cpu=False) if layer.name in names):
            cells = [layer.name]
            for use, (dtype, precision) in uses.items():
                call = chosen.call(layer, dtype, capability, order, precision)
                choice = chosen.choices(call)["hopper" in use]
                kernel = choice.specialisation.kernel
                if "hopper" in use and kernel != "hopper":
                    cells += [""] * len(_LAYER_CELLS)
                    continue
                row = by_identity[chosen.identity(choice.specialisation)]
                code = record.of(row)[capability].code
                assert code is not None
                cells += [kernel, str(choice.blocks), *_work(call, choice, code)]
            lines.append(" | ".join(cells))
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _work(call: Call, choice: Choice, code: Code) -> tuple[str, str]:
    """Return the bytes moved for each compulsory one, and the instructions for each output."""
    work = traffic(call, choice)
    if work is None:
        return "", ""
    moved = work.moved / call.geometry.nbytes(call.type.element_bytes)
    loop = code.main if choice.specialisation.kernel in chosen.TENSOR_CORES else code.step
    if not loop.products:
        return f"{moved:.1f}", ""
    issued = work.products * loop.instructions / loop.products / prod(call.geometry.out_shape)
    if choice.specialisation.kernel in STORED_AFTERWARDS:
        issued += way_out(choice.specialisation, code)
    return f"{moved:.1f}", f"{issued:.0f}"


_LAYER_CELLS = ("kernel", "blocks", "moved", "instructions")


def _header(names: list[str]) -> list[str]:
    return [" | ".join(names), " | ".join("---" for _ in names)]


def _three(texts: Iterable[str]) -> str:
    texts = list(texts)
    return texts[0] if len(set(texts)) == 1 else " / ".join(text or "-" for text in texts)


def _loads(code: Code) -> str:
    parts = [_widths(code.global_loads)]
    parts += [f"async {_widths(code.copies)}"] if code.copies else []
    parts += [f"tensor {code.tensor_copies}"] if code.tensor_copies else []
    return ", ".join(filter(None, parts))


def _stores(code: Code) -> str:
    parts = [_widths(code.global_stores)]
    parts += [f"tensor {code.tensor_stores}"] if code.tensor_stores else []
    return ", ".join(filter(None, parts))


def _widths(widths: Widths) -> str:
    return " ".join(f"{width}x{n}" for width, n in widths.items())
