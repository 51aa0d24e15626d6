"""One point: the service is started, warmed up, driven, looked at and stopped. Returns the point's record."""
from __future__ import annotations

import dataclasses
import json
import re
import resource
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable

from . import probes, processes
from .experiment import HostShare, Point, is_oversubscribed
from .service import PointFailed, Refused, Service, ServiceOptions
from .storage import SCHEMA

WARM_UP_SEED = 999_983  # other prompts than those that are measured


@dataclasses.dataclass(frozen=True)
class LoadOptions:
    dataset: str  # as `trireme bench serve --dataset` has it
    goodput: str  # "" for none
    seed: int
    timeout_s: int  # of the whole measured load, and of its warm-up


def measure(
    point: Point,
    shares: list[HostShare],
    service_options: ServiceOptions,
    load: LoadOptions,
    logs: Path,
    signals: processes.Signals,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """A layout that the planner refuses, and a point that fails, are records too. Interrupted and LabError pass through,
    with nothing left running."""
    record = _describe(point, shares)
    began = time.monotonic()
    service = Service(service_options, point.layout, shares[0].threads_per_rank, logs / point.id, signals)
    record["commands"] = {"serve": service.command}
    try:
        tell("starting")
        service.start()
        record["ready_s"] = service.ready_s
        record.update(_drive(point, service, load, logs / point.id, signals, tell, record["commands"]))
        record["status"] = "ok"
    except Refused as refusal:
        record.update(status="refused", reason=str(refusal))
    except PointFailed as failure:
        record.update(status="failed", reason=str(failure))
    finally:
        tell("stopping")
        service.stop()
    record["wall_s"] = time.monotonic() - began
    return record


def _describe(point: Point, shares: list[HostShare]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "kind": "measured",
        "id": point.id,
        "status": "failed",
        "reason": None,
        "scaling": point.scaling,
        "concurrency": point.base_concurrency,
        "repeat": point.repeat,
        "layout": {
            "tensor_parallel": point.layout.tensor_parallel,
            "replicas": point.layout.replicas,
            "devices": point.layout.devices,
        },
        "started_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "threads_per_rank": shares[0].threads_per_rank,
        "hosts": [dataclasses.asdict(share) | {"oversubscribed": share.oversubscribed} for share in shares],
        "oversubscribed": is_oversubscribed(shares),
        "absent": {},
    }


def _drive(
    point: Point,
    service: Service,
    load: LoadOptions,
    logs: Path,
    signals: processes.Signals,
    tell: Callable[[str], None],
    commands: dict[str, Any],
) -> dict[str, Any]:
    tell("warming up")
    # Every replica must have its share: as many requests at a time as there are replicas, at least.
    at_a_time = max(point.concurrency, point.layout.replicas)
    warm_up = _command(service, load, at_a_time, at_a_time, WARM_UP_SEED + load.seed, logs / "warm-up.json")
    warm_up_report = _run_load(warm_up, load, logs / "warm-up", signals)
    measured = _command(service, load, point.concurrency, point.requests, load.seed, logs / "load.json")
    commands |= {
        "started_by_serve": service.job_commands(),
        "warm_up": warm_up,
        "load": measured + ["--no-null-server"],
    }

    absent: dict[str, str] = {}
    status = service.status()
    before = _settled(service, signals, warm_up_report["ok"])
    ranks = service.local_ranks()
    tell("measuring")
    began = time.monotonic()
    cpu_before = {rank.pid: processes.cpu_seconds(rank.pid) or 0.0 for rank in ranks}
    machine = probes.MachineTime(service.pids())
    gpus = probes.GpuSampler(service.backend)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        report = _run_load(commands["load"], load, logs / "load", signals)
    finally:
        gpu_records = gpus.stop()
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    machine_record = machine.end(now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime)
    cpu_after = {rank.pid: processes.cpu_seconds(rank.pid) for rank in ranks}
    watched_s = time.monotonic() - began
    after = _settled(service, signals, probes.finished_requests(before) + report["ok"])
    _check_same_replicas(before, after)
    service.check_running()
    if gpus.absent:
        absent["power" if service.backend == "cpu" else "utilization and power"] = gpus.absent
    result = {
        "load": report,
        "generator": warm_up_report.get("null_server"),
        "machine": machine_record,
        "gpus": gpu_records,
        "model": status.get("model"),
        "version": status["cluster"]["version"],
    }
    rank_records = _rank_records(before, after, report["duration_s"])
    for rank in ranks:
        mine = next((r for r in rank_records if (r["replica"], r["rank"]) == (rank.replica, rank.rank)), None)
        if mine is not None:
            mine["peak_memory_bytes"] = processes.peak_resident_bytes(rank.pid)
            if (seconds := cpu_after[rank.pid]) is not None:
                mine["cpu_seconds"] = seconds - cpu_before[rank.pid]
                mine["cpu_utilization"] = mine["cpu_seconds"] / (watched_s * mine["threads"])
    if any(record.get("peak_memory_bytes") is None for record in rank_records):
        absent["peak memory"] = "of ranks on other hosts it is not known here"
    return result | {"ranks": rank_records, "absent": absent}


def _command(
    service: Service, load: LoadOptions, concurrency: int, requests: int, seed: int, path: Path
) -> list[str]:
    command = [
        service.program("trireme"),
        "bench",
        "serve",
        "--address",
        service.address,
        "--dataset",
        load.dataset,
        "--concurrency",
        str(concurrency),
        "--requests",
        str(requests),
        "--seed",
        str(seed),
        "--timeout",
        str(load.timeout_s),
        "--json",
        str(path),
    ]
    return command + (["--goodput", load.goodput] if load.goodput else [])


def _run_load(command: list[str], load: LoadOptions, log: Path, signals: processes.Signals) -> dict[str, Any]:
    """What `trireme bench serve` reports. Interrupted ends it first."""
    with open(log.with_suffix(".log"), "wb") as output:
        process = processes.start(command, stdout=output, stderr=output)
    try:
        code = signals.wait(process, load.timeout_s)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    said = log.with_suffix(".log").read_text(encoding="utf-8", errors="replace").strip()
    if code is None:
        raise PointFailed(f"the load did not end within {load.timeout_s} s (--point-timeout)")
    if code != 0:
        raise PointFailed(f"the load generator ended with exit code {code}: {_first_error(said)}")
    try:
        report = json.loads(Path(command[command.index("--json") + 1]).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PointFailed(f"the load generator's report: {error}") from error
    if not isinstance(report, dict) or report.get("ok", 0) < 1:
        raise PointFailed("no request ended well")
    return report


def _first_error(said: str) -> str:
    error = re.search(r"^(trireme.*|  \d+ x .*)$", said, re.MULTILINE)
    return (error[1].strip() if error else said[-300:]) or "it said nothing"


def _settled(service: Service, signals: processes.Signals, finished_requests: int) -> list[dict[str, Any]]:
    """The replicas, as serve.sh numbers them, once nothing runs and their ranks have told of all they did. What the
    coordinator knows of them is a little old: it may be from before a load of which `finished_requests`, in all since
    their start, tell that it is over."""
    deadline = time.monotonic() + probes.TELEMETRY_S
    while True:
        replicas = service.in_order(service.status()["cluster"]["replicas"])
        if probes.finished_requests(replicas) >= finished_requests and all(
            map(probes.are_complete, replicas)
        ):
            return replicas
        if time.monotonic() > deadline:
            raise PointFailed(f"for {probes.TELEMETRY_S} s the ranks did not tell where their time went")
        signals.sleep(0.1)


def _check_same_replicas(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
    def lives(replicas: list[dict[str, Any]]) -> list[tuple[str, str]]:
        return sorted((replica["replica_id"], replica["incarnation"]) for replica in replicas)

    if lives(before) != lives(after):
        raise PointFailed(f"replicas changed while they were measured: {lives(before)} became {lives(after)}")


def _rank_records(
    before: list[dict[str, Any]], after: list[dict[str, Any]], load_s: float
) -> list[dict[str, Any]]:
    records = []
    for index, replica in enumerate(after):
        phases = probes.phases_between(probes.rank_times(before[index]), probes.rank_times(replica), load_s)
        errors = [times["clock_error_seconds"] for times in replica["load"]["rank_times"]]
        for rank, info in enumerate(replica["ranks"]):
            records.append(
                {
                    "replica": index,
                    "rank": rank,
                    "host": info["host"],
                    "device": info["device"],
                    "threads": info["num_threads"],
                    "peak_memory_bytes": None,
                    "cpu_seconds": None,
                    "cpu_utilization": None,
                    "phases": phases.get(rank),
                    "clock_error_s": errors[rank] if rank < len(errors) else None,
                }
            )
    return records
