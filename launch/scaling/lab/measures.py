"""What the charts over devices show of a row."""

from __future__ import annotations

import dataclasses
from typing import Any, Callable

from .series import Row
from .svg import number


@dataclasses.dataclass(frozen=True)
class Measure:
    """What a chart shows. `value` gives the least, the median and the most of a row; `ideal` the best of a row."""

    name: str
    title: str
    unit: str
    value: Callable[[Row], dict[str, float] | None]
    ideal: Callable[[Row], float] | None = None
    logarithmic: bool = False
    show: Callable[[float], str] = number
    hint: str = ""  # to the legend
    whisker: Callable[[Row], tuple[float, float] | None] | None = None  # further marks above the median


def _plain(name: str) -> Callable[[Row], dict[str, float] | None]:
    return lambda row: row[name]


def _percentiles(name: str) -> dict[str, Any]:
    def value(row: Row) -> dict[str, float] | None:
        return row[f"{name}_p50"]

    def whisker(row: Row) -> tuple[float, float] | None:
        p95, p99 = row[f"{name}_p95"], row[f"{name}_p99"]
        return (p95["median"], p99["median"]) if p95 and p99 else None

    return {"value": value, "whisker": whisker, "hint": "mark P50, tick P95, end of the line P99"}


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


MEASURES = [
    Measure(
        "throughput",
        "Output throughput",
        "output tokens/s",
        _plain("output_tokens_per_s"),
        ideal=lambda row: row["output_tokens_per_s"]["median"]
        * row["devices"]
        / row["baseline"]["devices"]
        / row["speedup"]["median"],
    ),
    Measure(
        "speedup",
        "Speedup over the fewest devices",
        "times",
        _plain("speedup"),
        logarithmic=True,
        ideal=lambda row: row["devices"] / row["baseline"]["devices"],
    ),
    Measure(
        "efficiency",
        "Efficiency: throughput per device",
        "",
        _plain("efficiency"),
        ideal=lambda row: 1.0,
        show=_percent,
    ),
    Measure("ttft", "Time to first token", "ms", **_percentiles("ttft_ms")),
    Measure("itl", "Inter-token latency", "ms", **_percentiles("itl_ms")),
    Measure("tpot", "Time per output token", "ms", **_percentiles("tpot_ms")),
    Measure(
        "goodput", "Goodput: requests that met every target", "requests/s", _plain("goodput_requests_per_s")
    ),
    Measure("cost", "Cost of a million output tokens", "USD", _plain("cost_per_million_output_tokens")),
]
