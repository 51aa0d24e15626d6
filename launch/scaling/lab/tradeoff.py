"""What a layout gives each user against what each device gives: a line per layout, a point per number of users."""

from __future__ import annotations

from typing import Any

from .series import Row, layout_name
from .svg import LIGHT, MARKERS, Chart, linear_ticks, number

WIDTH, LEAST_HEIGHT = 880, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 200, 66, 56


def speeds(row: Row) -> tuple[float, float] | None:
    """Tokens/s of a request, waiting included, and of a device. TPOT would not do: of a short answer that comes in one
    message it is next to nothing."""
    took, speed, requests = row["e2e_ms_p50"], row["output_tokens_per_s"], row["requests_per_s"]
    if row["status"] != "ok" or not took or not speed or not requests:
        return None
    if took["median"] <= 0 or requests["median"] <= 0:
        return None
    tokens = speed["median"] / requests["median"]
    return 1000 * tokens / took["median"], speed["median"] / row["devices"]


def draw_all(rows: list[Row]) -> dict[str, Chart]:
    """A chart per scaling that was measured with several numbers of requests at a time."""
    drawn = {}
    for scaling in ("strong", "weak"):
        chosen = [
            row for row in rows if row["scaling"] == scaling and row["kind"] == "measured" and speeds(row)
        ]
        if len({row["concurrency"] for row in chosen}) > 1:
            drawn[f"tradeoff_{scaling}"] = draw(chosen, scaling)
    return drawn


def draw(rows: list[Row], scaling: str) -> Chart:
    title = f"Speed of each request against throughput of each device, {scaling} scaling"
    height = max(LEAST_HEIGHT, TOP + 20 * len({layout_name(row) for row in rows}) + 20)
    chart = Chart(title, WIDTH, height)
    chart.text(16, 24, title, size=15, bold=True)
    chart.text(
        16,
        46,
        "right and up is better; numbers are requests at a time; hollow: more threads than cores",
        css="soft",
    )
    places: list[tuple[float, float]] = [place for row in rows if (place := speeds(row))]
    x_ticks, y_ticks = linear_ticks(max(x for x, _ in places)), linear_ticks(max(y for _, y in places))
    right, bottom = WIDTH - RIGHT, height - BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        return LEFT + x / x_ticks[-1] * (right - LEFT), bottom - y / y_ticks[-1] * (bottom - TOP)

    for tick in x_ticks:
        chart.text(at(tick, 0)[0], bottom + 18, number(tick), css="soft", anchor="middle")
    for tick in y_ticks:
        chart.line([at(0, tick), at(x_ticks[-1], tick)], "grid")
        chart.text(LEFT - 8, at(0, tick)[1] + 4, number(tick), css="soft", anchor="end")
    chart.text(
        (LEFT + right) / 2,
        bottom + 40,
        "output tokens/s of a request: its tokens / P50 end to end",
        css="soft",
        anchor="middle",
    )
    chart.text(18, (TOP + bottom) / 2, "output tokens/s per device", css="soft", anchor="middle", turn=-90)
    layouts: dict[str, list[Row]] = {}
    for row in rows:
        layouts.setdefault(layout_name(row), []).append(row)
    for index, (name, line) in enumerate(layouts.items()):
        _draw_layout(chart, name, sorted(line, key=lambda row: row["concurrency"]), index, at)
    return chart


def _draw_layout(chart: Chart, name: str, line: list[Row], index: int, at: Any) -> None:
    colour, shape = index % len(LIGHT), MARKERS[(index + index // len(LIGHT)) % len(MARKERS)]
    dash = "" if index < len(LIGHT) else "5 3"
    points = [at(*place) for row in line if (place := speeds(row))]
    chart.line(points, f"s{colour}", width=1.8, dash=dash)
    for row, (x, y) in zip(line, points):
        users = row["concurrency"] * (row["devices"] if row["scaling"] == "weak" else 1)
        chart.marker(
            x, y, shape, colour, hollow=bool(row["oversubscribed"]), tip=f"{name}: {users} at a time"
        )
        chart.text(x + 8, y - 6, str(users), css="soft", size=10)
    y = TOP + 4 + 20 * index
    chart.line([(WIDTH - RIGHT + 24, y), (WIDTH - RIGHT + 46, y)], f"s{colour}", width=1.8, dash=dash)
    chart.marker(WIDTH - RIGHT + 35, y, shape, colour, hollow=bool(line[0]["oversubscribed"]), radius=4)
    chart.text(WIDTH - RIGHT + 54, y + 4, name, css="soft")
