"""What a run leaves behind: a table for people, a JSON file for programs, a picture for both."""

from __future__ import annotations

import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .stats import Curve, Figures, Outcome, Row

HEADINGS = ("id", "what", "median", "p99", "spread", "yardstick", "median", "ratio", "of rounds", "verdict")
DISTRIBUTIONS = ("grpcio", "numpy", "protobuf", "pyarrow", "torch", "tclient")


def table(outcomes: Iterable[Outcome]) -> str:
    """Rows in aligned columns, then the curves."""
    outcomes = list(outcomes)
    lines = [HEADINGS, *(_cells(outcome) for outcome in outcomes if isinstance(outcome, Row))]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    texts = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    texts.insert(1, "  ".join("-" * width for width in widths))
    if len(lines) == 1:
        texts = []
    for curve in outcomes:
        if isinstance(curve, Curve):
            points = "  ".join(f"{size:,.0f}: {_short(cost)}" for size, cost in curve.points)
            texts.append(
                f"{curve.id:12} {curve.what}, {curve.unit}:  {points}" + (f"  ({curve.note})" if curve.note else "")
            )
    return "\n".join(texts)


def _cells(row: Row) -> tuple[str, ...]:
    theirs, extent = row.yardstick, row.ratio_range
    return (
        row.id,
        row.what,
        _with_unit(row.figures),
        _short(row.figures.p99),
        f"{row.figures.spread:.0%}",
        theirs.side if theirs else "",
        _with_unit(theirs) if theirs else "",
        f"{row.ratio:.2f}" if row.ratio is not None else "",
        f"{extent[0]:.2f}–{extent[1]:.2f}" if extent else "",
        "; ".join(text for text in (row.verdict, row.note) if text),
    )


def _with_unit(figures: Figures) -> str:
    return f"{_short(figures.median)} {figures.unit}"


def _short(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def machine() -> dict[str, Any]:
    """Where and with what the run was made."""
    versions = {}
    for name in DISTRIBUTIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "system": f"{platform.system()} {platform.release()}",
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": versions,
    }


def write_json(outcomes: Iterable[Outcome], about: dict[str, Any], command: str, path: Path) -> None:
    """Everything that was measured."""
    outcomes = list(outcomes)
    content = {
        "machine": about,
        "command": command,
        "rows": [outcome.as_json() for outcome in outcomes if isinstance(outcome, Row)],
        "curves": [outcome.as_json() for outcome in outcomes if isinstance(outcome, Curve)],
    }
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def write_picture(outcomes: Iterable[Outcome], path: Path) -> bool:
    """Ratios as bars with their bars as lines, and the curves; False without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        return False
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    outcomes = list(outcomes)
    rows = [outcome for outcome in outcomes if isinstance(outcome, Row) and outcome.ratio is not None]
    curves = [outcome for outcome in outcomes if isinstance(outcome, Curve)]
    groups: dict[tuple[str, str], list[Curve]] = {}
    for curve in curves:
        groups.setdefault((curve.size, curve.unit), []).append(curve)
    panels = len(groups) + bool(rows)
    figure, axes = plt.subplots(panels or 1, 1, figsize=(9, 0.45 * len(rows) + 2 + 2.6 * len(groups)), squeeze=False)
    figure.set_layout_engine("constrained")
    places = iter(axes[:, 0])
    if rows:
        _draw_ratios(next(places), rows)
    for (size, unit), group in groups.items():
        axis = next(places)
        for curve in group:
            axis.plot(*zip(*curve.points, strict=True), marker="o", label=curve.what)
        axis.set_xscale("symlog" if any(point[0] == 0 for point in group[0].points) else "log")
        axis.set_yscale("log")
        axis.set_xlabel(size)
        axis.set_ylabel(unit)
        axis.legend(fontsize="small")
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return True


def _draw_ratios(axis: Any, rows: list[Row]) -> None:
    names = [f"{row.id} {row.what} / {row.yardstick.side if row.yardstick else ''}" for row in rows]
    for place, row in enumerate(rows):
        ratio, extent = row.ratio or 0.0, row.ratio_range or (0.0, 0.0)
        judged = row.bar is not None and row.value is None
        colour = "tab:grey" if not judged else "tab:red" if row.verdict.startswith("MISS") else "tab:green"
        error = [[max(0.0, ratio - extent[0])], [max(0.0, extent[1] - ratio)]]
        axis.barh(place, ratio, xerr=error, color=colour, alpha=0.8, height=0.6)
        if judged and row.bar is not None:
            axis.vlines(row.bar.steps, place - 0.4, place + 0.4, colors="black", linewidth=1.5)
    axis.set_yticks(range(len(rows)), names, fontsize="small")
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.set_xlabel("ratio to the yardstick (whiskers: single rounds; black lines: the bar and its further steps)")
    axis.grid(axis="x", alpha=0.3)
