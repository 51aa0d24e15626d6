"""Which rows belong on one line of a chart, and what the line is called."""
from __future__ import annotations

import dataclasses
from typing import Any

Row = dict[str, Any]


@dataclasses.dataclass
class Series:
    name: str
    colour: int
    rows: list[Row]  # by devices
    projected: bool = False


def load_name(row: Row) -> str:
    """Of what the layouts of a panel have in common."""
    count = row["concurrency"]
    if row["scaling"] == "weak":
        return f"weak scaling, {count} request{'s' if count > 1 else ''} at a time per device"
    return f"strong scaling, {count} request{'s' if count > 1 else ''} at a time"


def loads(rows: list[Row]) -> list[list[Row]]:
    """The rows of each load, in order."""
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["scaling"], row["concurrency"]), []).append(row)
    return list(groups.values())


def layout_name(row: Row) -> str:
    if row["replicas"] == 1:
        return f"TP {row['tensor_parallel']}"
    return f"TP {row['tensor_parallel']} × {row['replicas']} replicas"


def series_of(rows: list[Row], modes: list[str]) -> list[Series]:
    """tp and dp: a line each, that share the layout of one device. grid: a line for each tensor-parallel size, along
    which replicas are added. Projected rows have lines of their own, in the colour of the measured ones."""
    measured = [row for row in rows if row["kind"] == "measured"]
    projected = [row for row in rows if row["kind"] == "projected"]
    if "grid" in modes:
        sizes = sorted({row["tensor_parallel"] for row in rows})
        picks = [
            (f"TP {size} in each replica", lambda row, size=size: row["tensor_parallel"] == size)
            for size in sizes
        ]
    else:
        picks = [
            ("tensor parallel", lambda row: row["replicas"] == 1 and "tp" in modes),
            ("data parallel", lambda row: row["tensor_parallel"] == 1 and "dp" in modes),
        ]
    result = []
    for index, (name, belongs) in enumerate(picks):
        for kind, chosen in ((False, measured), (True, projected)):
            line = sorted((row for row in chosen if belongs(row)), key=lambda row: row["devices"])
            if line:
                result.append(Series(name + (" (projected)" if kind else ""), index % 8, line, kind))
    return result
