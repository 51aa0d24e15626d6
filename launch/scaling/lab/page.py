"""The report as one HTML page that needs nothing else: no script, no other file, no network."""
from __future__ import annotations

import shlex
from html import escape
from typing import Any

from . import provenance, tables
from .series import load_name, loads
from .svg import STYLE, Chart

CSS = """
:root{color-scheme:light dark;--ground:#fff;--ink:#1f2328;--soft:#59636e;--line:#dde2e7;--band:#f6f8fa}
@media (prefers-color-scheme:dark){:root{--ground:#0d1117;--ink:#e6edf3;--soft:#9aa4af;--line:#2b323a;--band:#161b22}}
body{background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif;
margin:2rem auto;max-width:1100px;padding:0 1.2rem}
h1{font-size:1.6rem;margin-bottom:.3rem}h2{font-size:1.2rem;margin-top:2.4rem}
table{border-collapse:collapse;font-size:13px;display:block;overflow-x:auto;margin:.8rem 0}
th,td{border-bottom:1px solid var(--line);padding:.35rem .6rem;text-align:right;white-space:nowrap;vertical-align:top}
th{color:var(--soft);font-weight:600;white-space:normal}
th:first-child,td:first-child{text-align:left}tr:nth-child(even) td{background:var(--band)}
td.reason{text-align:left;white-space:normal}
table.facts td{text-align:left;white-space:normal;overflow-wrap:anywhere}table.facts td:first-child{color:var(--soft);white-space:nowrap}
.soft{color:var(--soft)}.warning{border-left:4px solid #D55E00;padding:.3rem .8rem;background:var(--band)}
.charts{display:flex;flex-wrap:wrap;gap:1.6rem 2rem;align-items:flex-start;margin:1.6rem 0}
svg.plot{max-width:100%;height:auto;display:block}
pre{background:var(--band);padding:.8rem;overflow-x:auto;font-size:12px}summary{cursor:pointer}
"""


def _table(head: list[str], body: list[list[str]]) -> str:
    rows = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
    for cells in body:
        last = len(head) - len(cells)
        cells_html = "".join(f"<td>{escape(cell)}</td>" for cell in (cells[:-1] if last else cells))
        if last:
            cells_html += f'<td class="reason" colspan="{last + 1}">{escape(cells[-1])}</td>'
        rows.append(f"<tr>{cells_html}</tr>")
    return f"<table>{''.join(rows)}</table>"


def _facts(experiment: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(str(value))}</td></tr>"
        for name, value in provenance.facts(experiment)
    )
    return f'<table class="facts">{rows}</table>'


def _load_section(panel: list[dict[str, Any]], best: list[dict[str, Any]]) -> str:
    parts = [f"<h2>{escape(load_name(panel[0]).capitalize())}</h2>", _table(*tables.speed_table(panel))]
    if any(row["oversubscribed"] for row in panel):
        parts.append('<p class="soft">* more threads than cores: these ranks take turns.</p>')
    head, body = tables.best_table(best, panel)
    if body:
        parts += [_table(head, body)]
    head, body = tables.lost_table(panel)
    if body:
        parts += [
            "<p>Where the efficiency went, in points of 100 (a phase that became cheaper is negative):</p>",
            _table(head, body),
        ]
    parts += ["<p>Latencies as clients see them, and the machine:</p>", _table(*tables.latency_table(panel))]
    notes = tables.notes_of(panel)
    if notes:
        parts.append(f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in notes)}</ul>")
    return "".join(parts)


def _commands(records: list[dict[str, Any]]) -> str:
    blocks = []
    for record in records:
        commands = record.get("commands") or {}
        lines = [shlex.join(commands["serve"])] if commands.get("serve") else []
        lines += commands.get("started_by_serve", [])
        lines += [shlex.join(commands[name]) for name in ("warm_up", "load") if name in commands]
        blocks.append(
            f"<details><summary>{escape(record['id'])}: {escape(record['status'])}</summary>"
            f"<pre>{escape(chr(10).join(lines))}</pre></details>"
        )
    return "".join(blocks)


def html(result: dict[str, Any], charts: dict[str, Chart]) -> str:
    experiment, rows = result["experiment"], result["rows"]
    title = f"Scaling of {experiment['settings'].get('model')}"
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<style>{CSS}{STYLE}</style></head><body><h1>{escape(title)}</h1>",
    ]
    settings, hardware = experiment["settings"], experiment.get("hardware") or {}
    subtitle = (
        f"{', '.join(map(str, settings.get('devices', [])))} devices, backend {settings.get('backend')}"
    )
    if hardware.get("cpu"):
        subtitle += f", on {hardware['cpu']} ({hardware.get('cores')} cores)"
    parts.append(f'<p class="soft">{escape(subtitle)}</p>')
    if result["missing"]:
        parts.append(
            f'<p class="warning">Not finished: {len(result["missing"])} of {len(experiment["points"])} points are '
            "missing. The same command goes on.</p>"
        )
    if any(row["kind"] == "projected" for row in rows):
        parts.append(
            '<p class="warning">Some figures are PROJECTED, not measured: dotted lines and crosses in the charts, '
            "marked in the tables; what is in brackets is the range they may be in.</p>"
        )
    if any(row["oversubscribed"] for row in rows):
        parts.append(
            '<p class="warning">Some layouts had more threads than the machine has cores: they show that a layout '
            "works, not what it would give on devices of its own. They are marked: hollow in the charts, * in the "
            "tables.</p>"
        )
    parts += ['<div class="charts">', *(chart.inline() for chart in charts.values()), "</div>"]
    parts += [_load_section(panel, result["best"]) for panel in loads(rows)]
    parts += [
        "<h2>What it was measured with</h2>",
        _facts(experiment),
        "<h2>How to read it</h2><ul>",
        *(f"<li>{escape(sentence)}</li>" for sentence in result["method"]),
        "</ul>",
        "<h2>Commands of each point</h2>",
        _commands(result["points"]),
        "</body></html>\n",
    ]
    return "".join(parts)
