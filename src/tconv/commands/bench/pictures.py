"""What a run on a GPU looks like: the roofline, and the ratio of every layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from .gpu import LAYER, OURS, GpuResults


def draw(results: GpuResults, folder: Path) -> list[Path]:
    """Write a roofline and a chart of ratios for each variant; return the files."""
    files = []
    for variant in dict.fromkeys(row.variant for row in results.rows):
        if variant in results.ceilings:
            files.append(_roofline(results, variant, folder))
        files.append(_ratios(results, variant, folder))
    return files


def _roofline(results: GpuResults, variant: str, folder: Path) -> Path:
    figure = Figure((8, 5), layout="constrained")
    axes = figure.subplots()
    rate, copy = results.ceilings[variant], results.ceilings["copy"]
    intensity = np.geomspace(0.1, 10_000, 200)
    axes.loglog(intensity, np.minimum(rate, intensity * copy), color="grey", label="ceiling")
    for row in results.rows:
        best = row.best(LAYER) or row.best(OURS)
        if row.variant != variant or row.gradients or best is None:
            continue
        g = row.layer.geometry
        at = g.flops / g.nbytes(row.itemsize), g.flops / best[0]
        axes.plot(*at, "o", color="tab:blue")
        axes.annotate(row.layer.name, at, fontsize=6, xytext=(3, 2), textcoords="offset points")
    axes.set(
        title=f"{variant} on {results.facts['device']}",
        xlabel="useful operations per compulsory byte",
        ylabel="useful operations per second",
    )
    axes.legend()
    return _save(figure, folder / f"roofline-{variant}.png")


def _ratios(results: GpuResults, variant: str, folder: Path) -> Path:
    rows = [
        (row.layer.name, ratio)
        for row in results.rows
        if row.variant == variant and not row.gradients and (ratio := row.ratio_to_best_peer())
    ]
    figure = Figure((8, 1.5 + len(rows) / 5), layout="constrained")
    axes = figure.subplots()
    names, ratios = [name for name, _ in rows], [ratio for _, ratio in rows]
    colours = ["tab:blue" if ratio >= 1 else "tab:red" for ratio in ratios]
    axes.barh(names, ratios, color=colours)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set(
        title=f"times faster than PyTorch's best mode, {variant} on {results.facts['device']}",
        xscale="log",
    )
    axes.invert_yaxis()
    return _save(figure, folder / f"ratios-{variant}.png")


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, dpi=150)
    return path
