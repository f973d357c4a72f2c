"""The picture of a run: losses over the steps, with the learning rate below. matplotlib is imported inside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from largeforge.jobs import history
from largeforge.jobs.history import Log

NAME = "loss.png"
_TRAIN, _HELD_OUT, _RATE, _FAINT = "#3b6fb6", "#d1495b", "#6c757d", "#a9c1e2"
_SMOOTH_FROM = 30
"""From so many points on, a moving mean is drawn over the single losses."""


def smooth(values: Sequence[float], width: int) -> list[float]:
    """The mean of each value with those around it, *width* in all; fewer at the ends, so that nothing is shifted."""
    half = width // 2
    windows = [
        values[max(0, i - min(half, i, len(values) - 1 - i)) : i + min(half, i, len(values) - 1 - i) + 1]
        for i in range(len(values))
    ]
    return [sum(window) / len(window) for window in windows]


def draw(log: Log, path: Path, *, job: str, base: str, steps: int) -> None:
    """Write the picture of *log* to *path*."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.4), dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    losses, rates = figure.subplots(2, 1, sharex=True, height_ratios=(5, 1))
    figure.suptitle(job, x=0.012, ha="left", fontsize=14, fontweight="bold")
    losses.set_title(f"{base} · {steps} steps", loc="left", fontsize=9, color=_RATE)
    _losses(losses, log)
    _rates(rates, log)
    for axes in (losses, rates):
        axes.grid(axis="y", color="#e9ecef", linewidth=0.8)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            axes.spines[side].set_color("#adb5bd")
        axes.tick_params(colors="#495057", labelsize=9)
        axes.margins(x=0.02)
    figure.savefig(path, metadata={"Software": "LargeForge"})


def _losses(axes: Any, log: Log) -> None:
    trained, held_out = history.training_losses(log), history.held_out_losses(log)
    if trained:
        steps, values = zip(*trained, strict=True)
        many = len(values) >= _SMOOTH_FROM
        axes.plot(steps, values, color=_FAINT if many else _TRAIN, linewidth=1 if many else 1.8, label="training")
        if many:
            mean = smooth(values, max(5, len(values) // 20) | 1)
            axes.plot(steps, mean, color=_TRAIN, linewidth=2, label="training, moving mean")
    if held_out:
        steps, values = zip(*held_out, strict=True)
        axes.plot(
            steps,
            values,
            color=_HELD_OUT,
            linewidth=1.8,
            marker="o",
            markersize=5,
            label=f"held out ({values[-1]:.3f})",
        )
    axes.set_ylabel("loss", color="#495057")
    axes.legend(frameon=False, fontsize=9, loc="upper right")


def _rates(axes: Any, log: Log) -> None:
    rates = history.learning_rates(log)
    if rates:
        steps, values = zip(*rates, strict=True)
        axes.plot(steps, values, color=_RATE, linewidth=1.4)
        axes.fill_between(steps, values, color="#f1f3f5")
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=True)
    axes.yaxis.get_offset_text().set_fontsize(8)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("learning\nrate", color="#495057", fontsize=9)
    axes.set_xlabel("step", color="#495057")
    axes.locator_params(axis="y", nbins=2)
    axes.xaxis.get_major_locator().set_params(integer=True)
