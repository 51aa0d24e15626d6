"""From points to rows: a row is a layout under a load, its repeats summed up, compared with the row it scales from."""
from __future__ import annotations

import statistics
from typing import Any, Callable, Iterable

Record = dict[str, Any]
Row = dict[str, Any]

# Name in a row, where it is in a point's record.
METRICS: dict[str, tuple[str, ...]] = {
    "output_tokens_per_s": ("load", "output_tokens_per_s"),
    "total_tokens_per_s": ("load", "total_tokens_per_s"),
    "requests_per_s": ("load", "requests_per_s"),
    "goodput_requests_per_s": ("load", "goodput", "requests_per_s"),
    **{
        f"{name}_p{percent}": ("load", name, f"p{percent}")
        for name in ("ttft_ms", "itl_ms", "tpot_ms", "e2e_ms")
        for percent in (50, 95, 99)
    },
    "busy_cores": ("machine", "busy_cores"),
    "other_cores": ("machine", "other_cores"),
    "stolen_cores": ("machine", "stolen_cores"),
    "ready_s": ("ready_s",),
}


OTHERS_MATTER = 0.1  # cores that were busy with something else
SHORT_S = 2.0  # of a load, below which start and end weigh as much as what is between
UNACCOUNTED = 0.03  # of a rank's time


def _number(record: Any, path: Iterable[str]) -> float | None:
    for part in path:
        record = record.get(part) if isinstance(record, dict) else None
    return float(record) if isinstance(record, (int, float)) and not isinstance(record, bool) else None


def spread(values: list[float]) -> dict[str, float] | None:
    """Of repeats; None of none."""
    if not values:
        return None
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def _range(good: list[Record], name: str) -> dict[str, float] | None:
    """What a projection says of itself, in place of repeats."""
    if len(good) != 1 or name not in (good[0].get("range") or {}):
        return None
    values = good[0]["range"][name]
    return {"min": values["low"], "median": values["central"], "max": values["high"]}


def analyse(records: list[Record], price: float | None) -> list[Row]:
    """Rows in the order of scaling, concurrency, kind, devices, tensor parallel size."""
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        layout = record["layout"]
        key = (
            record["scaling"],
            record["concurrency"],
            record["kind"],
            layout["tensor_parallel"] * layout["replicas"],
            layout["tensor_parallel"],
        )
        groups.setdefault(key, []).append(record)
    rows = [
        _row(key, sorted(group, key=lambda record: record["repeat"])) for key, group in sorted(groups.items())
    ]
    for row in rows:
        _compare(row, rows)
        _add_cost(row, price)
    return rows


def _row(key: tuple[Any, ...], group: list[Record]) -> Row:
    scaling, concurrency, kind, devices, tensor_parallel = key
    good = [record for record in group if record["status"] == "ok"]
    others = [record for record in group if record["status"] != "ok"]
    row: Row = {
        "scaling": scaling,
        "concurrency": concurrency,
        "kind": kind,
        "devices": devices,
        "tensor_parallel": tensor_parallel,
        "replicas": devices // tensor_parallel,
        "status": "ok" if good else others[0]["status"],
        "repeats": len(group),
        "repeats_ok": len(good),
        "reasons": sorted({record["reason"] for record in others if record.get("reason")}),
        "oversubscribed": any(record.get("oversubscribed") for record in group),
        "threads_per_rank": group[0].get("threads_per_rank"),
        "speedup": None,
        "efficiency": None,
        "baseline": None,
        "lost": None,
        "cost_per_million_output_tokens": None,
        "cost_per_request": None,
    }
    for name, path in METRICS.items():
        row[name] = _range(good, name) or spread(
            [value for record in good if (value := _number(record, path)) is not None]
        )
    median = median_record(good)
    row["median_point"] = median["id"] if median else None
    row["ranks"] = _ranks(good, median)
    row["gpus"] = median.get("gpus", []) if median else []
    row["device_ms_per_token"] = _device_ms_per_token(median) if median else None
    row["notes"] = _notes(good)
    row["source"] = median.get("source") if median else None
    return row


def median_record(good: list[Record]) -> Record | None:
    """The repeat in the middle by throughput, the slower of two; phases are shown of one real run, not of a mean."""
    ordered = sorted(good, key=lambda record: record["load"]["output_tokens_per_s"])
    return ordered[(len(ordered) - 1) // 2] if ordered else None


def _ranks(good: list[Record], median: Record | None) -> list[Record]:
    """Of the median repeat; memory is the largest peak of all repeats."""
    ranks = []
    for rank in median["ranks"] if median else []:
        peaks = [
            other["peak_memory_bytes"]
            for record in good
            for other in record["ranks"]
            if (other["replica"], other["rank"]) == (rank["replica"], rank["rank"])
            and other.get("peak_memory_bytes") is not None
        ]
        ranks.append(rank | {"peak_memory_bytes": max(peaks) if peaks else None})
    return ranks


def _device_ms_per_token(record: Record) -> dict[str, float] | None:
    """Milliseconds of all ranks together for an output token, by phase; None where phases of a rank are missing."""
    tokens = record["load"].get("output_tokens")
    if not tokens or not record["ranks"] or any(not rank.get("phases") for rank in record["ranks"]):
        return None
    total: dict[str, float] = {}
    for rank in record["ranks"]:
        for phase, seconds in rank["phases"].items():
            total[phase] = total.get(phase, 0.0) + 1000 * seconds / tokens
    return total


def _notes(good: list[Record]) -> list[str]:
    notes = set()
    for record in good:
        load, generator = record["load"], record.get("generator") or {}
        if record.get("source"):
            notes.add(f"{record['kind']}: {record['source']}")
        if load.get("errors"):
            notes.add(f"{load['errors']} of {load['requests']} requests were refused or failed")
        alone = _number(generator, ("output_tokens_per_s",))
        if alone is not None and 2 * load["output_tokens_per_s"] > alone:
            notes.add("the load generator may be the limit")
        others = _number(record, ("machine", "other_cores"))
        if others is not None and others > OTHERS_MATTER:
            notes.add("other processes were busy meanwhile: see the machine's table")
        if load.get("duration_s", SHORT_S) < SHORT_S:
            notes.add(f"a load lasted less than {SHORT_S:.0f} s: more --requests would tell more")
        if any(_unaccounted(rank) > UNACCOUNTED for rank in record["ranks"]):
            notes.add(f"more than {100 * UNACCOUNTED:.0f} % of a rank's time is not accounted for")
        for what, why in (record.get("absent") or {}).items():
            notes.add(f"no {what}: {why}")
    return sorted(notes)


def _unaccounted(rank: Record) -> float:
    """As a fraction of the rank's time."""
    phases = rank.get("phases") or {}
    return phases.get("unaccounted", 0.0) / max(sum(phases.values()), 1e-9)


def _compare(row: Row, rows: list[Row]) -> None:
    """Speedup: throughput over that of the baseline, the measured layout of the same load with the fewest devices (the
    smallest tensor-parallel size among those). Efficiency: throughput per device over the baseline's."""
    base = next(
        (
            other
            for other in rows
            if other["kind"] == "measured"
            and other["status"] == "ok"
            and (other["scaling"], other["concurrency"]) == (row["scaling"], row["concurrency"])
        ),
        None,
    )
    if base is None or row["status"] != "ok":
        return
    per_s = base["output_tokens_per_s"]["median"]
    if per_s <= 0:
        return
    row["baseline"] = {
        "tensor_parallel": base["tensor_parallel"],
        "replicas": base["replicas"],
        "devices": base["devices"],
    }
    row["speedup"] = _scaled(row["output_tokens_per_s"], lambda value: value / per_s)
    row["efficiency"] = _scaled(row["speedup"], lambda value: value * base["devices"] / row["devices"])
    if base["device_ms_per_token"] and row["device_ms_per_token"]:
        row["lost"] = lost_efficiency(base["device_ms_per_token"], row["device_ms_per_token"])


def _scaled(values: dict[str, float] | None, change: Callable[[float], float]) -> dict[str, float] | None:
    return {name: change(value) for name, value in values.items()} if values else None


def lost_efficiency(base: dict[str, float], here: dict[str, float]) -> dict[str, float]:
    """What each phase takes from the efficiency, as a fraction of this row's device time: the device time per token
    it has more than at the baseline. They add up to 1 - (device time per token there / here); a phase that became
    cheaper counts below zero."""
    total = sum(here.values())
    if total <= 0:
        return {}
    return {phase: (here.get(phase, 0.0) - base.get(phase, 0.0)) / total for phase in sorted({*base, *here})}


def _add_cost(row: Row, price: float | None) -> None:
    """Of output tokens and of requests, at a price per device and hour. The dearest repeat is the slowest."""
    if price is None or row["status"] != "ok":
        return
    per_s = price * row["devices"] / 3600
    for name, rate, factor in (
        ("cost_per_million_output_tokens", "output_tokens_per_s", 1e6),
        ("cost_per_request", "requests_per_s", 1.0),
    ):
        speeds = row[rate]
        if speeds and speeds["min"] > 0:
            row[name] = {
                "min": factor * per_s / speeds["max"],
                "median": factor * per_s / speeds["median"],
                "max": factor * per_s / speeds["min"],
            }
