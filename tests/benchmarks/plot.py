"""A picture of the comparison, the same bytes for the same figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.contenders import OURS
from benchmarks.table import Figures, number, summary

PANELS = {
    "start ms": "start of all workers, ms",
    "respawn ms": "SIGKILL of one to its successor, median, ms",
    "storm ms": "SIGKILL of all to the last successor, ms",
    "stop ms": "stop of all workers, ms",
}
HIGHLIGHT, REST, INK = "#d9480f", "#9db4c9", "#222222"
STYLE = {
    # Without a salt, ids are random; as text, letters are no paths, and small.
    "svg.hashsalt": "benchmarks",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 7.5,
    "text.color": INK,
    "axes.edgecolor": "#888888",
    "xtick.color": INK,
    "ytick.color": INK,
}


def draw_again(figures: Path, picture: Path) -> None:
    """Draw what `--json` has kept."""
    draw(json.loads(figures.read_text())["sizes"], picture)


def draw(sizes: Mapping[str, Mapping[str, Figures]], picture: Path) -> None:
    """Draw a panel for each figure, of the largest number of workers."""
    size = max(sizes, key=int)
    summaries = {name: summary(figures) for name, figures in sizes[size].items()}
    with mpl.rc_context(STYLE):
        # Not by pyplot, which would look for a screen.
        figure = Figure(figsize=(9, 5), facecolor="white")
        axes = figure.subplots(2, 2)
        figure.suptitle(f"{size} workers; shorter is better, and the scale is logarithmic", fontsize=9)
        for ax, (column, title) in zip(axes.flat, PANELS.items(), strict=True):
            values = {name: found[column] for name, found in summaries.items() if column in found}
            _panel(ax, title, dict(sorted(values.items(), key=lambda item: -item[1])))
        figure.tight_layout(w_pad=2)
        figure.savefig(picture, format="svg", metadata={"Date": None, "Creator": None})


def _panel(ax: Any, title: str, values: Mapping[str, float]) -> None:
    ax.set_title(title, fontsize=8, loc="left")
    if not values:
        ax.set_axis_off()
        return
    colours = [HIGHLIGHT if name == OURS.name else REST for name in values]
    # A logarithmic scale has no zero to begin at.
    left = min(values.values()) / 2
    bars = ax.barh(list(values), [value - left for value in values.values()], left=left, color=colours, height=0.7)
    ax.bar_label(bars, [number(value) for value in values.values()], padding=2)
    ax.set_xscale("log")
    ax.set_xlim(left, max(values.values()) * 3)
    ax.minorticks_off()
    ax.tick_params(length=0)
    ax.spines[["top", "right", "bottom"]].set_visible(False)
    ax.set_xticks([])
    # What is left needs no paths to cut it off.
    for artist in ax.findobj():
        artist.set_clip_on(False)
