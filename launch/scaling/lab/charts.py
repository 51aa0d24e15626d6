"""The charts whose horizontal axis is the number of devices, and the list of all charts of a report."""
from __future__ import annotations

import math
from typing import Any

from . import bars, tradeoff
from .measures import MEASURES, Measure
from .series import Row, Series, layout_name, load_name, loads, series_of
from .svg import MARKERS, Chart, linear_ticks, power_ticks

PANEL_W, PANEL_H = 440, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 40, 48
COLUMNS = 2
HEAD = 34  # title
LEGEND_ROW = 20


def draw_all(result: dict[str, Any]) -> dict[str, Chart]:
    """By file name, those that there are figures for."""
    rows, modes = result["rows"], result["experiment"]["settings"].get("mode") or ["tp"]
    drawn = {}
    for measure in MEASURES:
        if any(measure.value(row) for row in rows):
            drawn[measure.name] = draw(measure, rows, modes)
    drawn.update(tradeoff.draw_all(rows))
    drawn.update(bars.draw_all(rows))
    return drawn


def draw(measure: Measure, rows: list[Row], modes: list[str]) -> Chart:
    panels = loads(rows)
    names: dict[str, Series] = {}
    for panel in panels:
        for series in series_of(panel, modes):
            names.setdefault(series.name, series)
    legend = _legend_items(measure, rows, list(names.values()))
    columns = min(COLUMNS, len(panels))
    lines = _legend_lines(legend, PANEL_W * columns)
    head = HEAD + LEGEND_ROW * len(lines)
    chart = Chart(measure.title, PANEL_W * columns, head + PANEL_H * math.ceil(len(panels) / columns))
    chart.text(16, 24, measure.title, size=15 if columns > 1 else 13, bold=True)
    _draw_legend(chart, lines)
    for index, panel in enumerate(panels):
        _Panel(
            chart,
            measure,
            series_of(panel, modes),
            panel,
            (index % columns) * PANEL_W,
            head + (index // columns) * PANEL_H,
        ).draw()
    return chart


def _legend_items(measure: Measure, rows: list[Row], names: list[Series]) -> list[tuple[str, int, str]]:
    """(kind, colour, text)"""
    items = [
        ("projected" if series.projected else MARKERS[series.colour], series.colour, series.name)
        for series in names
    ]
    if any(row["oversubscribed"] and measure.value(row) for row in rows):
        items.append(("hollow", 7, "hollow: more threads than cores"))
    if measure.ideal:
        items.append(("ideal", 7, "ideal"))
    if any(row["status"] != "ok" for row in rows):
        items.append(("cross", 7, "refused or failed"))
    if measure.hint:
        items.append(("hint", 7, measure.hint))
    return items


def _legend_lines(items: list[tuple[str, int, str]], width: float) -> list[list[tuple[float, str, int, str]]]:
    lines: list[list[tuple[float, str, int, str]]] = [[]]
    x = 16.0
    for kind, colour, text in items:
        wide = 34 + 6.6 * len(text) + 18
        if lines[-1] and x + wide > width:
            lines.append([])
            x = 16.0
        lines[-1].append((x, kind, colour, text))
        x += wide
    return lines


def _draw_legend(chart: Chart, lines: list[list[tuple[float, str, int, str]]]) -> None:
    for index, line in enumerate(lines):
        y = HEAD + LEGEND_ROW * index + 10
        for x, kind, colour, text in line:
            if kind == "ideal":
                chart.line([(x, y), (x + 24, y)], "ideal", width=1.5, dash="6 4")
            elif kind == "projected":
                chart.line([(x, y), (x + 24, y)], f"s{colour}", width=1.5, dash="1.5 4")
                chart.marker(x + 12, y, "plus", colour, radius=5)
            elif kind in ("hollow", "cross"):
                chart.marker(
                    x + 12, y, "circle" if kind == "hollow" else "cross", colour, hollow=True, radius=4
                )
            elif kind == "hint":
                chart.line([(x + 12, y - 7), (x + 12, y + 7)], "s7", width=1.2)
                chart.line([(x + 8, y - 1), (x + 16, y - 1)], "s7", width=2)
            else:
                chart.line([(x, y), (x + 24, y)], f"s{colour}", width=2)
                chart.marker(x + 12, y, kind, colour, radius=4)
            chart.text(x + 32, y + 4, text, css="soft")


def _between(line: list[tuple[int, float]], steps: int = 8) -> list[tuple[float, float]]:
    """A line over devices, with points enough to be a curve over their logarithm."""
    result: list[tuple[float, float]] = list(line[:1])
    for (x, y), (next_x, next_y) in zip(line, line[1:]):
        result += [(x + (next_x - x) * k / steps, y + (next_y - y) * k / steps) for k in range(1, steps + 1)]
    return result


def _below(top: float, line: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """A rising line up to where it leaves the panel."""
    inside: list[tuple[float, float]] = []
    for x, y in line:
        if y < top:
            if inside and inside[-1][1] > top:
                before_x, before_y = inside[-1]
                inside.append((before_x + (x - before_x) * (before_y - top) / (before_y - y), top))
            break
        inside.append((x, y))
    return inside


class _Panel:
    """One load: its axes and lines."""

    def __init__(
        self, chart: Chart, measure: Measure, series: list[Series], rows: list[Row], x: float, y: float
    ) -> None:
        self.chart, self.measure, self.series, self.rows = chart, measure, series, rows
        self.left, self.right = x + LEFT, x + PANEL_W - RIGHT
        self.top, self.bottom = y + TOP, y + PANEL_H - BOTTOM
        self.devices = sorted({row["devices"] for row in rows})
        self.ticks = self._vertical_ticks()
        self.apart = 7 if measure.whisker else 0  # so that long whiskers do not hide each other

    def _vertical_ticks(self) -> list[float]:
        values = [1.0] if self.measure.logarithmic else []
        for row in self.rows:
            value = self.measure.value(row)
            values += list(value.values()) if value else []
            marks = self.measure.whisker(row) if self.measure.whisker else None
            values += list(marks) if marks else []
            if self.measure.logarithmic and value and self.measure.ideal:
                values.append(self.measure.ideal(row))
        positive = [value for value in values if value > 0]
        if self.measure.logarithmic:
            return power_ticks(min(positive), max(positive))
        return linear_ticks(max(positive, default=1.0) * (1.15 if self.measure.ideal else 1))

    def _x(self, devices: float, series: int = 0, of: int = 1) -> float:
        low, high = math.log2(self.devices[0]), math.log2(self.devices[-1])
        place = 0.5 if high == low else (math.log2(devices) - low) / (high - low)
        inset = 26
        return (
            self.left
            + inset
            + place * (self.right - self.left - 2 * inset)
            + (series - (of - 1) / 2) * self.apart
        )

    def _y(self, value: float) -> float:
        first, last = self.ticks[0], self.ticks[-1]
        if self.measure.logarithmic:
            value, first, last = (math.log2(max(v, self.ticks[0])) for v in (value, first, last))
        return self.bottom - (value - first) / (last - first) * (self.bottom - self.top)

    def draw(self) -> None:
        chart = self.chart
        chart.text(
            self.left - 46,
            self.top - 14,
            load_name(self.rows[0]) + (f"; {self.measure.unit}" if self.measure.unit else ""),
            css="soft",
        )
        for tick in self.ticks:
            y = self._y(tick)
            chart.line([(self.left, y), (self.right, y)], "grid")
            chart.text(self.left - 8, y + 4, self.measure.show(tick), css="soft", anchor="end")
        for devices in self.devices:
            chart.text(self._x(devices), self.bottom + 18, f"{devices}", css="soft", anchor="middle")
        chart.text((self.left + self.right) / 2, self.bottom + 36, "devices", css="soft", anchor="middle")
        self._draw_ideal()
        for index, series in enumerate(self.series):
            self._draw_series(series, index)

    def _draw_ideal(self) -> None:
        measured = [row for row in self.rows if row["efficiency"] and self.measure.value(row)]
        if not self.measure.ideal or not measured:
            return
        best = sorted({row["devices"]: self.measure.ideal(row) for row in measured}.items())
        line = _below(self.top, [(self._x(devices), self._y(value)) for devices, value in _between(best)])
        self.chart.line(line, "ideal", width=1.5, dash="6 4")

    def _draw_series(self, series: Series, index: int) -> None:
        of, previous = len(self.series), None
        for row in series.rows:
            x = self._x(row["devices"], index, of)
            value = self.measure.value(row)
            if not value:
                if row["status"] != "ok":
                    self.chart.marker(x, self.bottom - 8, "cross", series.colour, radius=4)
                continue
            y = self._y(value["median"])
            if previous:
                if series.projected:
                    self.chart.line([previous, (x, y)], f"s{series.colour}", width=1.5, dash="1.5 4")
                else:
                    self.chart.line(
                        [previous, (x, y)],
                        f"s{series.colour}",
                        width=2,
                        opacity=0.5 if row["oversubscribed"] else 1,
                    )
            previous = (x, y)
        for row in series.rows:
            if (value := self.measure.value(row)) is not None:
                self._draw_mark(series, row, value, self._x(row["devices"], index, of))

    def _draw_mark(self, series: Series, row: Row, value: dict[str, float], x: float) -> None:
        css, show = f"s{series.colour}", self.measure.show
        marks = self.measure.whisker(row) if self.measure.whisker else None
        low, high = value["min"], value["max"]
        tip = f"{layout_name(row)}: {show(value['median'])} {self.measure.unit}"
        if marks:
            self.chart.line([(x, self._y(value["median"])), (x, self._y(marks[1]))], css, width=1.2)
            self.chart.line([(x - 4, self._y(marks[0])), (x + 4, self._y(marks[0]))], css, width=2)
            tip += f"; P95 {show(marks[0])}, P99 {show(marks[1])}"
        else:
            for end in (low, high):
                self.chart.line([(x - 4, self._y(end)), (x + 4, self._y(end))], css, width=1.5)
            self.chart.line([(x, self._y(low)), (x, self._y(high))], css, width=1.5)
            tip += f" ({show(low)} to {show(high)})"
        tip += "; more threads than cores" if row["oversubscribed"] else ""
        shape = "plus" if series.projected else MARKERS[series.colour]
        self.chart.marker(
            x,
            self._y(value["median"]),
            shape,
            series.colour,
            hollow=bool(row["oversubscribed"]),
            tip=tip,
            radius=4.5,
        )
