"""The report as a table of values (CSV) and for people (Markdown)."""
from __future__ import annotations

import csv
import io
from typing import Any, Callable

from .analysis import METRICS
from . import provenance
from .bars import phase_name, phases_in_order
from .series import Row, layout_name, load_name, loads
from .svg import number

Spread = dict[str, float] | None
Column = tuple[str, Callable[[Row], str]]
UNKNOWN = "–"
PLAIN = (
    "scaling",
    "concurrency",
    "kind",
    "devices",
    "tensor_parallel",
    "replicas",
    "status",
    "repeats",
    "repeats_ok",
    "oversubscribed",
    "threads_per_rank",
)
SPREAD = (*METRICS, "speedup", "efficiency", "cost_per_million_output_tokens", "cost_per_request")


def csv_text(rows: list[Row]) -> str:
    """A line per row; of each figure the least, the median and the most of the repeats. Empty: not known."""
    phases = phases_in_order({phase for row in rows for phase in row["device_ms_per_token"] or {}})
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [
            *PLAIN,
            *(f"{name}_{which}" for name in SPREAD for which in ("min", "median", "max")),
            "peak_memory_bytes_max",
            "peak_memory_bytes_min",
            *(f"device_ms_per_token_{phase}" for phase in phases),
            "reasons",
            "notes",
        ]
    )
    for row in rows:
        values = [row[name] for name in PLAIN]
        for name in SPREAD:
            values += [row[name][which] if row[name] else "" for which in ("min", "median", "max")]
        peaks = [rank["peak_memory_bytes"] for rank in row["ranks"] if rank.get("peak_memory_bytes")]
        values += [max(peaks), min(peaks)] if peaks else ["", ""]
        values += [(row["device_ms_per_token"] or {}).get(phase, "") for phase in phases]
        writer.writerow(
            ["" if value is None else value for value in values]
            + ["; ".join(row["reasons"]), "; ".join(row["notes"])]
        )
    return out.getvalue()


def with_spread(value: Spread, percent: bool = False) -> str:
    """ "12.3 (11.9 to 12.8)"; the median alone where the repeats agree."""
    if not value:
        return UNKNOWN

    def show(figure: float) -> str:
        return f"{100 * figure:.0f} %" if percent else number(figure)

    low, middle, high = (show(value[which]) for which in ("min", "median", "max"))
    return middle if low == high else f"{middle} ({low} to {high})"


def median(value: Spread) -> str:
    return number(value["median"]) if value else UNKNOWN


def percentiles(row: Row, name: str) -> str:
    if not row[f"{name}_p50"]:
        return UNKNOWN
    return " / ".join(median(row[f"{name}_p{percent}"]) for percent in (50, 95, 99))


def layout_cell(row: Row) -> str:
    return (
        layout_name(row)
        + ("" if row["kind"] == "measured" else " (projected)")
        + (" *" if row["oversubscribed"] else "")
    )


def _known(rows: list[Row], columns: list[Column]) -> list[Column]:
    """Without those that nothing is known of."""
    return [
        column
        for column in columns
        if any(row["status"] == "ok" and column[1](row) != UNKNOWN for row in rows)
    ]


def _fill(rows: list[Row], columns: list[Column]) -> tuple[list[str], list[list[str]]]:
    """Head and cells. A layout that was refused or failed has its reason instead of figures."""
    columns = _known(rows, columns)
    body = []
    for row in rows:
        if row["status"] == "ok":
            body.append([layout_cell(row), *(show(row) for _, show in columns)])
        else:
            body.append([layout_cell(row), f"{row['status']}: {'; '.join(row['reasons'])}"])
    return ["layout", *(name for name, _ in columns)], body


def _repeats(row: Row) -> str:
    return UNKNOWN if row["kind"] == "projected" else f"{row['repeats_ok']} of {row['repeats']}"


def speed_table(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    columns: list[Column] = [
        ("devices", lambda row: str(row["devices"])),
        ("threads per rank", lambda row: str(row["threads_per_rank"] or UNKNOWN)),
        ("output tokens/s", lambda row: with_spread(row["output_tokens_per_s"])),
        ("speedup", lambda row: with_spread(row["speedup"])),
        ("efficiency", lambda row: with_spread(row["efficiency"], percent=True)),
        ("requests/s", lambda row: median(row["requests_per_s"])),
        ("goodput requests/s", lambda row: median(row["goodput_requests_per_s"])),
        ("USD per million tokens", lambda row: median(row["cost_per_million_output_tokens"])),
        ("USD per request", lambda row: median(row["cost_per_request"])),
        ("repeats", _repeats),
    ]
    return _fill(rows, columns)


def latency_table(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    able = [row for row in rows if row["status"] == "ok"]
    columns: list[Column] = [
        ("TTFT ms, P50 / P95 / P99", lambda row: percentiles(row, "ttft_ms")),
        ("ITL ms, P50 / P95 / P99", lambda row: percentiles(row, "itl_ms")),
        ("TPOT ms, P50 / P95 / P99", lambda row: percentiles(row, "tpot_ms")),
        ("peak MiB per rank", _peak_mib),
        ("ready after s", lambda row: median(row["ready_s"])),
        ("CPU utilization % of its threads", _cpu_percent),
        ("cores busy", lambda row: median(row["busy_cores"])),
        ("cores busy with other things", lambda row: median(row["other_cores"])),
        ("cores stolen by the host", lambda row: median(row["stolen_cores"])),
        ("GPU utilization %", lambda row: _gpus(row, "utilization_percent", mean=True)),
        ("power W of all GPUs", lambda row: _gpus(row, "power_w", mean=False)),
    ]
    return _fill(able, columns)


def _peak_mib(row: Row) -> str:
    peaks = [rank["peak_memory_bytes"] for rank in row["ranks"] if rank.get("peak_memory_bytes")]
    return number(max(peaks) / 2**20) if peaks else UNKNOWN


def _cpu_percent(row: Row) -> str:
    values = [rank["cpu_utilization"] for rank in row["ranks"] if rank.get("cpu_utilization") is not None]
    return number(100 * sum(values) / len(values)) if values else UNKNOWN


def _gpus(row: Row, name: str, mean: bool) -> str:
    values = [gpu[name]["mean"] for gpu in row["gpus"] if name in gpu]
    if not values:
        return UNKNOWN
    return number(sum(values) / len(values) if mean else sum(values))


def lost_table(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Points of efficiency that each phase takes, of rows that are compared with another."""
    compared = [row for row in rows if row["lost"] is not None and row["efficiency"]["median"] != 1]
    phases = phases_in_order({phase for row in compared for phase in row["lost"]})
    body = []
    for row in compared:
        body.append(
            [
                layout_cell(row),
                f"{100 * row['efficiency']['median']:.0f} %",
                *(f"{round(100 * row['lost'].get(phase, 0.0), 1) + 0.0:+.1f}" for phase in phases),
            ]
        )
    return (["layout", "efficiency", *(phase_name(phase) for phase in phases)], body)


def best_table(best: list[dict[str, Any]], panel: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Which layout to use under this load."""
    body = []
    for choice in best:
        if (choice["scaling"], choice["concurrency"]) != (panel[0]["scaling"], panel[0]["concurrency"]):
            continue
        names = [layout_cell(layout) for layout in choice["layouts"]]
        alike = "only one repeat" if choice["repeats"] == 1 else ", ".join(names[1:]) or "none"
        body.append([choice["aim"], names[0], alike])
    return ["wanted", "best layout", "not told apart from it by the repeats"], body


def notes_of(rows: list[Row]) -> list[str]:
    """Each once, with the layouts that it is of where not all share it."""
    shared: dict[str, list[str]] = {}
    for row in rows:
        for note in row["notes"] + [
            f"of {row['repeats']} repeats {row['repeats'] - row['repeats_ok']} failed: {reason}"
            for reason in row["reasons"]
            if row["status"] == "ok"
        ]:
            shared.setdefault(note, []).append(layout_cell(row))
    measured = sum(row["status"] == "ok" for row in rows)
    return [
        note if len(names) == measured else f"{note} ({', '.join(dict.fromkeys(names))})"
        for note, names in shared.items()
    ]


def _markdown_table(head: list[str], body: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for cells in body:
        padded = cells + [""] * (len(head) - len(cells))
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in padded) + " |")
    return lines + [""]


def markdown(result: dict[str, Any], charts: dict[str, str]) -> str:
    """`charts`: titles by file name under plots/."""
    rows, experiment = result["rows"], result["experiment"]
    lines = [f"# Scaling of {experiment['settings'].get('model')}", ""]
    if result["missing"]:
        lines += [
            f"**Not finished: {len(result['missing'])} of {len(experiment['points'])} points are missing.**",
            "",
        ]
    if any(row["kind"] == "projected" for row in rows):
        lines += [
            "**Rows marked (projected) were not measured; in brackets is the range they may be in.**",
            "",
        ]
    for panel in loads(rows):
        lines += [f"## {load_name(panel[0]).capitalize()}", "", *_markdown_table(*speed_table(panel))]
        head, body = best_table(result["best"], panel)
        lines += _markdown_table(head, body) if body else []
        if any(row["oversubscribed"] for row in panel):
            lines += ["\\* more threads than cores: these ranks take turns.", ""]
        head, body = lost_table(panel)
        if body:
            lines += [
                "Where the efficiency went, in points of 100 (a phase that became cheaper is negative):",
                "",
                *_markdown_table(head, body),
            ]
        lines += [
            "Latencies as clients see them, and the machine:",
            "",
            *_markdown_table(*latency_table(panel)),
        ]
        lines += [f"- {note}" for note in notes_of(panel)] + [""]
    for name, title in charts.items():
        lines += [f"![{title}](plots/{name}.svg)", ""]
    lines += [
        "## What it was measured with",
        "",
        *_markdown_table(["", ""], [[a, b] for a, b in provenance.facts(experiment)]),
    ]
    lines += ["## How to read it", "", *(f"- {sentence}" for sentence in result["method"]), ""]
    lines += [
        "## Commands",
        "",
        "Those of each point are in `points/*.json`; of the first one:",
        "",
        "```sh",
        *provenance.first_commands(result["points"]),
        "```",
        "",
    ]
    return "\n".join(lines)
