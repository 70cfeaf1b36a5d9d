"""Where the time of the CPU path goes: the steps of its strategies, for each layer of the suite.

    python benchmarks/cpu_profile.py docs/images/cpu_profile.png

The processor time of one thread, as the profiler of the standard library counts it; a second of
calls for each layer.  The bars are shares of it, so that other work on the machine matters less.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from cProfile import Profile
from pathlib import Path
from pstats import Stats
from time import perf_counter, thread_time
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tconv import _cpu
from tconv._cpu import arrange, banded, overlap_add
from tconv.commands.bench import suite

STEPS = {
    arrange.extend: "lay out",
    overlap_add._operand: "lay out",
    banded._pad: "lay out",
    banded._windows: "lay out",
    banded._matrices: "lay out",
    overlap_add._multiply: "multiply",
    overlap_add._drop_absent: "add taps",
    overlap_add._add_taps: "add taps",
    arrange.store: "store",
    banded._store: "store",
}
"""What the functions of `tconv._cpu` do, with all that they call."""

OWN = {banded.compute: "multiply"}
"""What functions do themselves."""

COLOURS = {"multiply": "tab:blue", "add taps": "tab:green", "store": "tab:orange"}
COLOURS |= {"lay out": "tab:purple", "rest": "lightgrey"}
SECONDS = 1


def main() -> None:
    """Profile every layer, print its shares and draw them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("picture", type=Path, help="where to draw the shares")
    picture = parser.parse_args().picture
    os.environ["TCONV_NUM_THREADS"] = "1"
    shares = {}
    for layer in suite.load(cpu=True):
        if layer.group in suite.CPU_GROUPS:
            strategy = _cpu.choose(layer.geometry).__module__.rpartition(".")[2]
            shares[strategy, layer.name] = steps = profile(layer)
            print(f"{strategy:12} {layer.name:20}", *(f"{k} {v:.0%}  " for k, v in steps.items()))
    draw(dict(sorted(shares.items(), key=lambda item: item[0][0])), picture)


def profile(layer: suite.Layer) -> dict[str, float]:
    """Return the share of every step."""
    x, weight = suite.arrays(layer, np.dtype("float32"))
    out = np.empty(layer.geometry.out_shape, x.dtype)
    _cpu.transposed_conv(x, weight, None, layer.geometry, out=out)
    profiler = Profile(thread_time)
    end = perf_counter() + SECONDS
    while perf_counter() < end:
        profiler.runcall(_cpu.transposed_conv, x, weight, None, layer.geometry, out=out)
    stats = Stats(profiler)
    steps, own_steps = by_key(STEPS), by_key(OWN)
    seconds = dict.fromkeys(COLOURS, 0.0)
    for key, (_, _, own, cumulative, callers) in stats.stats.items():
        if key in steps and not steps.keys() & callers.keys():
            seconds[steps[key]] += cumulative
        elif key in own_steps:
            seconds[own_steps[key]] += own
    seconds["rest"] = stats.total_tt - sum(seconds.values())
    return {step: value / stats.total_tt for step, value in seconds.items()}


def by_key(steps: dict[Callable[..., Any], str]) -> dict[tuple[str, int, str], str]:
    """Return the steps by what the profiler calls a function."""
    codes = {function.__code__: step for function, step in steps.items()}
    return {(c.co_filename, c.co_firstlineno, c.co_name): step for c, step in codes.items()}


def draw(shares: dict[tuple[str, str], dict[str, float]], picture: Path) -> None:
    """Draw one bar for each layer, by strategy."""
    figure = Figure((8, 1 + len(shares) / 5), layout="constrained")
    axes = figure.subplots()
    labels = [f"{layer}  ({strategy.replace('_', '-')})" for strategy, layer in shares]
    left = np.zeros(len(shares))
    for step, colour in COLOURS.items():
        width = np.array([100 * steps[step] for steps in shares.values()])
        axes.barh(labels, width, left=left, color=colour, label=step)
        left += width
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel="% of the processor time of one thread")
    figure.legend(loc="outside upper center", ncols=len(COLOURS), frameon=False)
    figure.savefig(picture, dpi=100)


if __name__ == "__main__":
    main()
