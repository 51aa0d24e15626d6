"""The folder of an experiment: what was asked for, one file per point, a lock. Files appear whole or not at all."""
from __future__ import annotations

import fcntl
import json
import math
import os
from pathlib import Path
from typing import Any, TextIO

from .experiment import LabError, Point

SCHEMA = 1
STATUSES = ("ok", "refused", "failed")
MAX_DEPTH = 64


def write_whole(path: Path, text: str) -> None:
    """Writes beside it first, then renames: a reader, and a crash, see the old file or the new one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(beside, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def to_text(value: Any) -> str:
    return json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _depth_of(text: str) -> int:
    deepest = depth = 0
    for character in text:
        if character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def read_json(path: Path) -> Any:
    """A LabError names the file and what is wrong with it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LabError(f"{path}: cannot be read: {error}") from error
    if _depth_of(text) > MAX_DEPTH:
        raise LabError(f"{path}: nested deeper than {MAX_DEPTH}")
    try:
        return json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except ValueError as error:
        raise LabError(f"{path}: not a whole JSON file ({error})") from error


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not finite")
    return value


class Folder:
    """DIR of --out. Use as a context to hold its lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.points = path / "points"
        self.logs = path / "logs"
        self._lock: TextIO | None = None

    def __enter__(self) -> Folder:
        try:
            self.points.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / ".lock", "w", encoding="utf-8")
        except OSError as error:
            raise LabError(f"--out {self.path}: cannot be written: {error}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise LabError(f"--out {self.path}: another run is writing there") from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.close()

    def claim(self, experiment: dict[str, Any]) -> None:
        """Makes the folder this experiment's, or sees that it is. `experiment["settings"]` decides; the rest may change."""
        path = self.path / "experiment.json"
        if path.exists():
            differences = _differences(_look_up(read_json(path), "settings"), experiment["settings"])
            if differences:
                raise LabError(
                    f"--out {self.path} holds another experiment's results: {'; '.join(differences)}. "
                    "Name another folder, or remove that one"
                )
        elif any(self.points.iterdir()) or any(
            entry.name != "points" and not entry.name.startswith(".") for entry in self.path.iterdir()
        ):
            raise LabError(f"--out {self.path} is not empty, and is no folder of the scaling lab")
        write_whole(path, to_text(experiment))

    def point_path(self, point_id: str) -> Path:
        return self.points / f"{point_id}.json"

    def write_point(self, record: dict[str, Any]) -> None:
        write_whole(self.point_path(record["id"]), to_text(record))

    def finished(self, point: Point) -> bool:
        """Whether there is nothing left to do for it: a point that failed is tried again. Raises for a broken file."""
        path = self.point_path(point.id)
        return path.exists() and read_point(path)["status"] != "failed"


def _differences(old: Any, new: dict[str, Any]) -> list[str]:
    if not isinstance(old, dict):
        return ["its experiment.json has no settings"]
    names = sorted(set(old) | set(new))
    return [
        f"{name} was {json.dumps(old.get(name))}, now {json.dumps(new.get(name))}"
        for name in names
        if old.get(name) != new.get(name)
    ]


# Of each field that the report relies on, where it is and what it must be.
_ALWAYS: dict[str, type | tuple[type, ...]] = {
    "schema": int,
    "kind": str,
    "id": str,
    "status": str,
    "scaling": str,
    "concurrency": int,
    "repeat": int,
    "layout.tensor_parallel": int,
    "layout.replicas": int,
}
_WHEN_OK: dict[str, type | tuple[type, ...]] = {
    "load.requests_per_s": (int, float),
    "load.output_tokens_per_s": (int, float),
    "load.output_tokens": int,
    "load.ok": int,
    "load.duration_s": (int, float),
    "ranks": list,
}
# Of figures that were brought from elsewhere, which have a "source".
_WHEN_BROUGHT: dict[str, type | tuple[type, ...]] = {
    "load.output_tokens_per_s": (int, float),
    "ranks": list,
    "source": str,
}


def _look_up(record: Any, name: str) -> Any:
    for part in name.split("."):
        record = record.get(part) if isinstance(record, dict) else None
    return record


def check_point(record: Any, where: str) -> dict[str, Any]:
    """The record itself; a LabError that begins with `where` says what is wrong with it."""
    if not isinstance(record, dict):
        raise LabError(f"{where}: got {type(record).__name__}, wanted an object")
    needed = dict(_ALWAYS)
    if record.get("status") == "ok":
        needed |= _WHEN_BROUGHT if record.get("source") is not None else _WHEN_OK
    for name, kind in needed.items():
        value = _look_up(record, name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise LabError(f"{where}: {name}: got {json.dumps(value)[:80]}, wanted {_name_of(kind)}")
        if isinstance(value, (int, float)) and value < 0:
            raise LabError(f"{where}: {name}: got {value}, wanted at least 0")
    if record["schema"] != SCHEMA:
        raise LabError(f"{where}: schema: got {record['schema']}, wanted {SCHEMA}")
    if record["status"] not in STATUSES:
        raise LabError(f"{where}: status: got {record['status']!r}, wanted one of {', '.join(STATUSES)}")
    if record["kind"] not in ("measured", "projected"):
        raise LabError(f"{where}: kind: got {record['kind']!r}, wanted measured or projected")
    if record["layout"]["tensor_parallel"] < 1 or record["layout"]["replicas"] < 1:
        raise LabError(f"{where}: layout: got {json.dumps(record['layout'])}, wanted at least 1 of each")
    for name, values in (record.get("range") or {}).items():
        if [_number(_look_up(values, end)) for end in ("low", "central", "high")].count(False):
            raise LabError(
                f"{where}: range.{name}: got {json.dumps(values)[:80]}, wanted low, central and high"
            )
    for index, rank in enumerate(record["ranks"] if record["status"] == "ok" else []):
        _check_rank(rank, f"{where}: ranks[{index}]")
    return record


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_rank(rank: Any, where: str) -> None:
    phases, peak = _look_up(rank, "phases"), _look_up(rank, "peak_memory_bytes")
    if not (isinstance(_look_up(rank, "replica"), int) and isinstance(_look_up(rank, "rank"), int)):
        raise LabError(f"{where}: got {json.dumps(rank)[:80]}, wanted an object with replica and rank")
    if not (peak is None or isinstance(peak, int)):
        raise LabError(
            f"{where}.peak_memory_bytes: got {json.dumps(peak)[:80]}, wanted a whole number or null"
        )
    numbers = isinstance(phases, dict) and all(
        isinstance(s, (int, float)) and s >= 0 for s in phases.values()
    )
    if not (phases is None or numbers):
        raise LabError(f"{where}.phases: got {json.dumps(phases)[:80]}, wanted seconds by phase or null")


def _name_of(kind: type | tuple[type, ...]) -> str:
    names = {int: "a whole number", float: "a number", str: "a text", list: "a list"}
    return names[float] if isinstance(kind, tuple) else names[kind]


def read_point(path: Path) -> dict[str, Any]:
    record = check_point(read_json(path), str(path))
    if path.name != f"{record['id']}.json":
        raise LabError(f"{path}: holds the point {record['id']!r}")
    return record


def read_points(folder: Path) -> list[dict[str, Any]]:
    """All of them, in the order of their names; one LabError names every file that is broken."""
    records, wrong = [], []
    for path in sorted((folder / "points").glob("*.json")):
        try:
            records.append(read_point(path))
        except LabError as error:
            wrong.append(str(error))
    if wrong:
        raise LabError(
            "\n".join(wrong) + "\nremove what is broken and run again: those points are measured anew"
        )
    return records
