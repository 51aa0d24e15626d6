"""Horizontal bars: where the ranks' time went, and what memory they took."""
from __future__ import annotations

from typing import Any

from .series import Row, layout_name, load_name, loads
from .svg import Chart, linear_ticks, number

WIDTH = 900
LEFT = 210
RIGHT = 30
HEAD = 34
LEGEND_ROW = 20

# Colour and opacity by phase, in the order in which they are stacked: work first, then what is lost.
PHASES: dict[str, tuple[str, float]] = {
    "compute": ("f0", 1),
    "sample": ("f5", 1),
    "schedule": ("f2", 1),
    "finish": ("f2", 0.55),
    "host": ("f6", 0.6),
    "upload": ("f6", 1),
    "broadcast": ("f3", 1),
    "collective": ("f4", 1),
    "collective_transfer": ("f4", 1),
    "collective_wait": ("f1", 1),
    "unaccounted": ("f7", 1),
    "idle": ("f7", 0.3),
}
NAMES = {
    "collective": "collectives",
    "collective_transfer": "collectives: transfer",
    "collective_wait": "collectives: waiting for a slower rank",
    "sample": "sampling",
    "finish": "finishing",
    "host": "service around the engine",
}
SPARE = ("f3", 0.5)


def phases_in_order(found: set[str]) -> list[str]:
    """Known ones first; what a later version adds is shown, too."""
    known = [phase for phase in PHASES if phase in found and phase not in ("unaccounted", "idle")]
    return (
        known + sorted(found - set(PHASES)) + [phase for phase in ("unaccounted", "idle") if phase in found]
    )


def phase_name(phase: str) -> str:
    return NAMES.get(phase, phase.replace("_", " "))


def draw_all(rows: list[Row]) -> dict[str, Chart]:
    drawn: dict[str, Chart] = {}
    with_phases = [row for row in rows if any(rank.get("phases") for rank in row["ranks"])]
    if with_phases:
        drawn["phases"] = draw_phases(with_phases)
    if any(row["device_ms_per_token"] for row in rows):
        drawn["device_time"] = draw_device_time([row for row in rows if row["device_ms_per_token"]])
    if any(rank.get("peak_memory_bytes") for row in rows for rank in row["ranks"]):
        drawn["memory"] = draw_memory(rows)
    return drawn


def _legend(chart: Chart, phases: list[str]) -> float:
    """Returns where the panels begin."""
    x, y = 16.0, float(HEAD)
    for phase in phases:
        wide = 16 + 6.8 * len(phase_name(phase)) + 20
        if x + wide > WIDTH:
            x, y = 16.0, y + LEGEND_ROW
        css, opacity = PHASES.get(phase, SPARE)
        chart.box(x, y + 2, 11, 11, css, opacity=opacity)
        chart.text(x + 16, y + 12, phase_name(phase), css="soft")
        x += wide
    return y + LEGEND_ROW + 8


def _legend_height(phases: list[str]) -> float:
    return _legend(Chart("", WIDTH, 0), phases)


def _stack(chart: Chart, parts: list[tuple[str, float, str]], y: float, height: float, scale: float) -> None:
    """`parts`: phase, size, tip. A share is written into a piece that has room for it."""
    x = float(LEFT)
    for phase, size, tip in parts:
        css, opacity = PHASES.get(phase, SPARE)
        wide = size * scale
        if wide >= 0.2:
            chart.box(x, y, wide, height, f"{css} edge" if wide >= 4 else css, tip, opacity)
        x += wide


def _heading(row: Row) -> float:
    """The name of a layout of several ranks has a line of its own."""
    return 18 if len(row["ranks"]) > 1 else 0


def draw_phases(rows: list[Row]) -> Chart:
    """A bar per rank: its time from the first request to the end of the last, in percent."""
    title = "Where each rank's time went"
    phases = phases_in_order(
        {phase for row in rows for rank in row["ranks"] for phase in rank.get("phases") or {}}
    )
    bar, gap, between, panel_head, panel_foot = 14, 3, 12, 34, 34
    height = _legend_height(phases)
    for panel in loads(rows):
        height += (
            panel_head
            + panel_foot
            + sum(_heading(row) + len(row["ranks"]) * (bar + gap) + between for row in panel)
        )
    chart = Chart(title, WIDTH, height)
    chart.text(16, 24, title, size=15, bold=True)
    y = _legend(chart, phases)
    scale = (WIDTH - LEFT - RIGHT) / 100
    for panel in loads(rows):
        chart.text(16, y + 18, load_name(panel[0]) + "; percent of the load's time", css="soft")
        y += panel_head
        begin = y
        for row in panel:
            chart.text(16, y + bar - 3, layout_name(row) + (" *" if row["oversubscribed"] else ""), bold=True)
            y += _heading(row)
            for rank in row["ranks"]:
                label = (
                    f"replica {rank['replica']} rank {rank['rank']}"
                    if row["replicas"] > 1
                    else f"rank {rank['rank']}"
                )
                chart.text(
                    LEFT - 8,
                    y + bar - 3,
                    label if len(row["ranks"]) > 1 else "",
                    css="soft",
                    anchor="end",
                    size=10,
                )
                spent = rank.get("phases") or {}
                whole = sum(spent.values())
                if whole > 0:
                    _stack(
                        chart,
                        [
                            (
                                phase,
                                100 * spent.get(phase, 0.0) / whole,
                                f"{layout_name(row)}, {label}: {phase_name(phase)} {100 * spent.get(phase, 0.0) / whole:.1f} %",
                            )
                            for phase in phases
                        ],
                        y,
                        bar,
                        scale,
                    )
                y += bar + gap
            y += between
        _foot(chart, begin, y, [0, 25, 50, 75, 100], scale, lambda tick: f"{tick:.0f} %", panel)
        y += panel_foot
    return chart


def draw_device_time(rows: list[Row]) -> Chart:
    """A bar per layout: the time of all its devices together for one output token. What scales perfectly is as long
    as the bar of the fewest devices; what is longer was lost, and its colour says where."""
    title = "Device time for an output token, all devices together"
    phases = phases_in_order({phase for row in rows for phase in row["device_ms_per_token"]})
    bar, between, panel_head, panel_foot = 20, 10, 34, 34
    height = _legend_height(phases) + sum(
        panel_head + panel_foot + len(panel) * (bar + between) for panel in loads(rows)
    )
    chart = Chart(title, WIDTH, height)
    chart.text(16, 24, title, size=15, bold=True)
    y = _legend(chart, phases)
    for panel in loads(rows):
        chart.text(16, y + 18, load_name(panel[0]) + "; milliseconds", css="soft")
        y += panel_head
        begin = y
        ticks = linear_ticks(max(sum(row["device_ms_per_token"].values()) for row in panel) * 1.08)
        scale = (WIDTH - LEFT - RIGHT) / ticks[-1]
        for row in panel:
            spent = row["device_ms_per_token"]
            chart.text(
                LEFT - 8,
                y + bar - 6,
                layout_name(row) + (" *" if row["oversubscribed"] else ""),
                anchor="end",
            )
            _stack(
                chart,
                [
                    (
                        phase,
                        spent.get(phase, 0.0),
                        f"{layout_name(row)}: {phase_name(phase)} " f"{number(spent.get(phase, 0.0))} ms",
                    )
                    for phase in phases
                ],
                y,
                bar,
                scale,
            )
            chart.text(
                LEFT + sum(spent.values()) * scale + 5,
                y + bar - 6,
                number(sum(spent.values())),
                css="soft",
                size=11,
            )
            y += bar + between
        base = next((row for row in panel if row["efficiency"] and row["efficiency"]["median"] == 1), None)
        if base:
            at = LEFT + sum(base["device_ms_per_token"].values()) * scale
            chart.line([(at, begin - 4), (at, y - 4)], "ideal", width=1.5, dash="6 4")
        _foot(chart, begin, y, ticks, scale, number, panel)
        y += panel_foot
    return chart


def _foot(
    chart: Chart, begin: float, end: float, ticks: list[Any], scale: float, show: Any, panel: list[Row]
) -> None:
    for tick in ticks:
        x = LEFT + tick * scale
        chart.line([(x, end - 4), (x, end)], "axis")
        chart.text(x, end + 14, show(tick), css="soft", anchor="middle", size=11)
    chart.line([(LEFT, begin - 4), (LEFT, end)], "axis")
    if any(row["oversubscribed"] for row in panel):
        chart.text(16, end + 14, "* more threads than cores", css="soft", size=11)


def draw_memory(rows: list[Row]) -> Chart:
    """A bar per layout: the largest peak of its ranks under any load; a tick at the smallest."""
    title = "Peak memory per rank: the largest, and the smallest (tick)"
    peaks: dict[str, list[float]] = {}
    for row in rows:
        found = [
            rank["peak_memory_bytes"] / 2**20 for rank in row["ranks"] if rank.get("peak_memory_bytes")
        ]
        if found:
            peaks.setdefault(layout_name(row), []).extend(found)
    bar, between = 20, 10
    chart = Chart(title, WIDTH, HEAD + 24 + len(peaks) * (bar + between) + 34)
    chart.text(16, 24, title, size=15, bold=True)
    chart.text(16, HEAD + 10, "MiB resident", css="soft")
    ticks = linear_ticks(max(max(values) for values in peaks.values()) * 1.08)
    scale = (WIDTH - LEFT - RIGHT) / ticks[-1]
    y = begin = HEAD + 24.0
    for name, values in peaks.items():
        chart.text(LEFT - 8, y + bar - 6, name, anchor="end")
        chart.box(
            LEFT,
            y,
            max(values) * scale,
            bar,
            "f0",
            f"{name}: {number(min(values))} to {number(max(values))} MiB",
        )
        least = LEFT + min(values) * scale
        chart.line([(least, y + 2), (least, y + bar - 2)], "edge", width=2)
        chart.text(LEFT + max(values) * scale + 5, y + bar - 6, number(max(values)), css="soft", size=11)
        y += bar + between
    _foot(chart, begin, y, ticks, scale, number, [])
    return chart
