"""How the pictures of the examples look, and where they are saved. Knows matplotlib; does not know the server."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # files only: no window, no display needed

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

POSITIVE = "#2f6fde"
NEGATIVE = "#e4792b"
INK = "#22262e"
FAINT = "#9aa3b2"

pyplot.rcParams.update(
    {
        "font.size": 11,
        "axes.titlesize": 12,
        "axes.titleweight": "bold",
        "axes.edgecolor": FAINT,
        "axes.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "legend.frameon": False,
        "savefig.dpi": 130,
    }
)


def panels(
    columns: int, width: float, height: float, rows: int = 1, **ratios: list[float]
) -> tuple[Figure, list[Axes]]:
    """A figure and its panels, row by row; sizes are in inches, ratios are height_ratios and width_ratios."""
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(width, height), layout="constrained", squeeze=False, gridspec_kw=ratios
    )
    return figure, list(axes.flat)


def save(figure: Figure, path: Path) -> None:
    """Write the picture and say where it is."""
    figure.savefig(path)
    pyplot.close(figure)
    print(f"picture: {path}")
