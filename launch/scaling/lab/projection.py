"""What `trireme project --json` prints, as points of an experiment's folder: a report of hardware not at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .experiment import LabError
from .storage import SCHEMA, Folder, check_point, read_json


def points_of(projection: Any, where: str) -> list[dict[str, Any]]:
    """A point per size and batch. A shard of size 1 was measured as a whole; every larger size is projected."""
    if not isinstance(projection, dict) or projection.get("kind") != "projection":
        raise LabError(f"{where}: got something else than `trireme project --measured ... --json` prints")
    points = projection.get("points")
    if not isinstance(points, list) or not points:
        raise LabError(f"{where}: points: got none")
    return [_point(point, f"{where}: points[{index}]") for index, point in enumerate(points)]


def _point(point: Any, where: str) -> dict[str, Any]:
    if not isinstance(point, dict) or not isinstance(point.get("projected"), bool):
        raise LabError(f"{where}: got {str(point)[:80]}, wanted a point of trireme project")
    size, batch = point.get("tensor_parallel_size"), point.get("batch")
    speed = point.get("tokens_per_s")
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": "projected" if point["projected"] else "measured",
        "id": f"tp{size}-dp1-batch{batch}",
        "status": "ok",
        "reason": None,
        "scaling": "strong",
        "concurrency": batch,
        "repeat": 1,
        "layout": {"tensor_parallel": size, "replicas": 1, "devices": size},
        "oversubscribed": False,
        "source": "a shard timed alone, plus the cost of the sums between ranks"
        if point["projected"]
        else "the whole model on one device, without a service around it",
        "range": {"output_tokens_per_s": speed, "tpot_ms_p50": point.get("step_ms")},
        "load": {"output_tokens_per_s": speed.get("central") if isinstance(speed, dict) else None},
        "ranks": [],
    }
    return check_point(record, where)


def write(source: Path, folder: Path) -> None:
    """Fills a folder for report.write(). LabError where it holds something else, or the source cannot be read."""
    projection = read_json(source)
    records = points_of(projection, str(source))
    settings = {
        "model": str(projection.get("model") or "a model, PROJECTED from single shards"),
        "mode": ["tp"],
        "devices": sorted({record["layout"]["devices"] for record in records}),
        "backend": str(projection.get("backend")),
        "compute_dtype": str(projection.get("compute_dtype")),
        "workload": "decode steps of a batch",
        "projection": {name: projection.get(name) for name in ("all_reduce", "skew")},
    }
    with Folder(folder) as out:
        out.claim(
            {
                "schema": 1,
                "settings": settings,
                "command": ["launch/scaling/report.py", "--projection", str(source), str(folder)],
                "points": [record["id"] for record in records],
            }
        )
        for record in records:
            out.write_point(record)
