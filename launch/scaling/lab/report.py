"""Writes the report of an experiment's folder, from the files of its points alone."""
from __future__ import annotations

from pathlib import Path
from typing import Any

from . import analysis, charts, choice, page, tables
from .experiment import LabError
from .storage import read_json, read_points, to_text, write_whole

METHOD = [
    "A row is a layout under a load; its figures are the median of its repeats, with the least and the most of them.",
    "Speedup is output throughput over that of the baseline: the measured layout of the same load with the fewest "
    "devices, and of those the smallest tensor-parallel size. Efficiency is throughput per device over the baseline's.",
    "Strong scaling: the same load for every layout. Weak scaling: that load for each device.",
    "TTFT, ITL and TPOT are exact percentiles over all samples of a run, as clients see them (trireme bench serve).",
    "Phases are of the repeat with the median throughput, each by a clock of its own; what none covers is unaccounted. "
    "Waiting for a slower rank is told from transfer by comparing the ranks' arrivals, on clocks aligned within "
    "clock_error_s. Idling before and after the load is taken off.",
    "Peak memory is each rank's largest resident size since its start, loading included (VmHWM), of all repeats.",
    "An oversubscribed layout has more threads than the host has cores: its ranks take turns.",
]


def load(folder: Path) -> dict[str, Any]:
    """experiment.json and all points; LabError names what is broken."""
    if not (folder / "experiment.json").is_file():
        raise LabError(f"{folder}: no experiment.json there, wanted a folder that run.sh wrote")
    experiment = read_json(folder / "experiment.json")
    if not isinstance(experiment, dict) or not isinstance(experiment.get("settings"), dict):
        raise LabError(f"{folder / 'experiment.json'}: no settings in it")
    records = read_points(folder)
    if not records:
        raise LabError(f"{folder / 'points'}: no point there yet")
    return {"experiment": experiment, "points": records}


def build(experiment: dict[str, Any], records: list[dict[str, Any]]) -> dict[str, Any]:
    """What report.json holds. README.md beside run.sh explains its fields."""
    price = experiment.get("price_usd_per_device_hour")
    planned = experiment.get("points") or []
    there = {record["id"] for record in records}
    rows = analysis.analyse(records, price)
    return {
        "schema": 1,
        "method": METHOD,
        "experiment": experiment,
        "missing": [point for point in planned if point not in there],
        "best": choice.best_layouts(rows),
        "rows": rows,
        "points": records,
    }


def write(folder: Path) -> Path:
    """All files of the report; returns the page's path."""
    content = load(folder)
    result = build(content["experiment"], content["points"])
    plots = folder / "plots"
    plots.mkdir(exist_ok=True)
    drawn = charts.draw_all(result)
    for old in plots.glob("*.svg"):
        if old.stem not in drawn:
            old.unlink()
    for name, chart in drawn.items():
        write_whole(plots / f"{name}.svg", chart.standalone())
    write_whole(folder / "report.json", to_text(result))
    write_whole(folder / "report.csv", tables.csv_text(result["rows"]))
    write_whole(
        folder / "report.md", tables.markdown(result, {name: chart.title for name, chart in drawn.items()})
    )
    write_whole(folder / "report.html", page.html(result, drawn))
    return folder / "report.html"
