"""Which layout to use: the best of each load by what matters, and those that repeats do not tell apart from it."""

from __future__ import annotations

from typing import Any

from .series import Row, loads

# What matters, where it is in a row, whether more is better.
AIMS = (
    ("most output tokens/s", "output_tokens_per_s", True),
    ("most output tokens/s per device", "efficiency", True),
    ("least time to first token (P95)", "ttft_ms_p95", False),
    ("least time per output token (P95)", "tpot_ms_p95", False),
)


def best_layouts(rows: list[Row]) -> list[dict[str, Any]]:
    """For each load and aim: `layouts`, best median first, are the best one and all measured ones whose repeats reach
    into the best one's. A single repeat tells all apart, whether it should or not: `repeats` is the fewest of them.
    """
    result = []
    for panel in loads(rows):
        for aim, name, more in AIMS:
            able = [row for row in panel if row["kind"] == "measured" and row["status"] == "ok" and row[name]]
            if len(able) < 2:
                continue
            able.sort(key=lambda row: row[name]["median"], reverse=more)
            first = able[0][name]
            alike = [row for row in able if _reaches(row[name], first, more)]
            result.append(
                {
                    "scaling": panel[0]["scaling"],
                    "concurrency": panel[0]["concurrency"],
                    "aim": aim,
                    "metric": name,
                    "repeats": min(row["repeats_ok"] for row in able),
                    "layouts": [_layout(row, name) for row in alike],
                }
            )
    return result


def _reaches(value: dict[str, float], best: dict[str, float], more: bool) -> bool:
    return value["max"] >= best["min"] if more else value["min"] <= best["max"]


def _layout(row: Row, name: str) -> dict[str, Any]:
    return {
        "tensor_parallel": row["tensor_parallel"],
        "replicas": row["replicas"],
        "devices": row["devices"],
        "oversubscribed": row["oversubscribed"],
        "kind": row["kind"],
        "median": row[name]["median"],
    }
