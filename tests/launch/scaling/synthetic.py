"""Points with figures that are easy to calculate with, as files of an experiment's folder."""
from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.dont_write_bytecode = True
ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "launch/scaling"))


def percentiles(p50: float) -> dict[str, float]:
    return {"count": 10, "mean": p50, "p50": p50, "p95": 2 * p50, "p99": 3 * p50, "max": 4 * p50}


def point(
    tensor_parallel: int,
    replicas: int,
    tokens_per_s: float,
    *,
    repeat: int = 1,
    scaling: str = "strong",
    concurrency: int = 8,
    phases: list[dict[str, float]] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """One that ended well: 1,000 output tokens in 10 requests."""
    devices = tensor_parallel * replicas
    ranks = [
        {
            "replica": index // tensor_parallel,
            "rank": index % tensor_parallel,
            "host": "here",
            "device": "cpu",
            "threads": 1,
            "peak_memory_bytes": (100 + index) << 20,
            "cpu_seconds": 1.0,
            "phases": phases[index] if phases else {"compute": 3.0, "idle": 1.0},
        }
        for index in range(devices)
    ]
    record = {
        "schema": 1,
        "kind": "measured",
        "id": f"tp{tensor_parallel}-dp{replicas}-{scaling}-c{concurrency}-r{repeat}",
        "status": "ok",
        "reason": None,
        "scaling": scaling,
        "concurrency": concurrency,
        "repeat": repeat,
        "layout": {"tensor_parallel": tensor_parallel, "replicas": replicas, "devices": devices},
        "threads_per_rank": 1,
        "oversubscribed": False,
        "absent": {},
        "ranks": ranks,
        "gpus": [],
        "load": {
            "ok": 10,
            "errors": 0,
            "requests": 10,
            "output_tokens": 1000,
            "duration_s": 1000 / tokens_per_s,
            "output_tokens_per_s": tokens_per_s,
            "total_tokens_per_s": 2 * tokens_per_s,
            "requests_per_s": tokens_per_s / 100,
            "ttft_ms": percentiles(20),
            "itl_ms": percentiles(5),
            "tpot_ms": percentiles(6),
            "e2e_ms": percentiles(500),
        },
        "generator": {"output_tokens_per_s": 1e6},
        "commands": {
            "serve": ["serve.sh", "--tensor-parallel", str(tensor_parallel)],
            "started_by_serve": [],
            "warm_up": ["trireme"],
            "load": ["trireme", "bench", "serve"],
        },
    }
    return record | changes


def refused(tensor_parallel: int, reason: str, **changes: Any) -> dict[str, Any]:
    record = point(tensor_parallel, 1, 1.0, **changes)
    del record["load"], record["ranks"]
    return record | {"status": "refused", "reason": reason}


def experiment(records: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "settings": {"model": "toy", "mode": ["tp", "dp"], "devices": [1, 2, 4], "backend": "cpu"},
        "points": [record["id"] for record in records],
        "command": ["launch/scaling/run.sh"],
        "price_usd_per_device_hour": None,
        "hardware": {},
        "versions": {},
    } | changes


def write_folder(folder: Path, records: list[dict[str, Any]], **changes: Any) -> None:
    (folder / "points").mkdir(parents=True)
    (folder / "experiment.json").write_text(json.dumps(experiment(records, **changes)))
    for record in records:
        (folder / "points" / f"{record['id']}.json").write_text(json.dumps(record))
