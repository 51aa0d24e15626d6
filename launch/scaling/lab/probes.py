"""What the machine and the service tell of themselves while a load runs: phases, memory, processor time, GPUs."""
from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from . import processes

Phases = dict[int, dict[str, float]]  # by rank of the replica, seconds by phase

TELEMETRY_S = 20  # leaders ask their ranks when the work runs out, and once a second


def rank_times(replica: dict[str, Any]) -> Phases:
    """Of a replica of `trireme status --json`: what its ranks told of themselves, in their order. wall is the sum of all, and no phase."""
    return {
        rank: {
            name.removesuffix("_seconds"): float(value)
            for name, value in times.items()
            if name.endswith("_seconds") and name not in ("wall_seconds", "clock_error_seconds")
        }
        for rank, times in enumerate(replica["load"].get("rank_times", []))
    }


def are_complete(replica: dict[str, Any]) -> bool:
    """Whether its ranks have told of all they did, and do nothing now."""
    load = replica["load"]
    return (
        load["running_requests"] + load["waiting_requests"] == 0
        and load.get("rank_times_steps") == load["steps"]
    )


def finished_requests(replicas: list[dict[str, Any]]) -> int:
    """Of all replicas, since their start."""
    return sum(int(replica["load"]["finished_requests"]) for replica in replicas)


def phases_between(before: Phases, after: Phases, load_s: float) -> dict[int, dict[str, float]]:
    """Seconds of each phase within the load. What was told before it and after it is further apart than the load is
    long: nothing but idling lies there, so the difference is taken off `idle`."""
    result = {}
    for rank, now in after.items():
        spent = {
            name: max(0.0, seconds - before.get(rank, {}).get(name, 0.0)) for name, seconds in now.items()
        }
        outside = max(0.0, sum(spent.values()) - load_s)
        if "idle" in spent:
            spent["idle"] = max(0.0, spent["idle"] - outside)
        result[rank] = spent
    return result


class MachineTime:
    """Processor time of the whole machine against that of chosen processes, from construction on. In cores."""

    def __init__(self, pids: list[int]) -> None:
        self._pids = pids
        self._begin = time.monotonic()
        self._before = self._read()
        self._own_before = self._own()

    @staticmethod
    def _read() -> tuple[float, float]:
        """(busy, stolen) seconds of all processors since boot."""
        fields = [
            int(value)
            for value in Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:]
        ]
        user, nice, system, _idle, _iowait, irq, softirq, steal = fields[:8]
        tick = os.sysconf("SC_CLK_TCK")
        return (user + nice + system + irq + softirq) / tick, steal / tick

    def _own(self) -> float:
        return sum(processes.cpu_seconds(pid) or 0.0 for pid in self._pids)

    def end(self, children_s: float) -> dict[str, float]:
        """`children_s`: processor time of processes that came and went meanwhile and count as ours."""
        passed = max(time.monotonic() - self._begin, 1e-9)
        busy, stolen = (now - then for now, then in zip(self._read(), self._before))
        own = self._own() - self._own_before + children_s
        return {
            "busy_cores": busy / passed,
            "service_cores": (own - children_s) / passed,
            "load_generator_cores": children_s / passed,
            "other_cores": max(0.0, (busy - own) / passed),
            "stolen_cores": stolen / passed,
        }


_GPU_FIELDS = ("index", "name", "utilization.gpu", "power.draw", "memory.used")


class GpuSampler:
    """nvidia-smi in a loop while a load runs. `absent` says why there is nothing, where there is nothing."""

    def __init__(self, backend: str) -> None:
        self.absent: str | None = None
        self._process: subprocess.Popen[bytes] | None = None
        if backend == "cpu":
            self.absent = "the power of processors is not known here"
        elif shutil.which("nvidia-smi") is None:
            self.absent = "nvidia-smi not found"
        else:
            self._process = processes.start(
                [
                    "nvidia-smi",
                    f"--query-gpu={','.join(_GPU_FIELDS)}",
                    "--format=csv,noheader,nounits",
                    "--loop-ms=500",
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )

    def stop(self) -> list[dict[str, Any]]:
        if self._process is None:
            return []
        self._process.terminate()
        output, _ = self._process.communicate(timeout=20)
        gpus = summarize_gpus(output.decode("utf-8", "replace"))
        if not gpus:
            self.absent = "nvidia-smi told nothing"
        return gpus


def summarize_gpus(text: str) -> list[dict[str, Any]]:
    """Mean and largest of each GPU's samples; a value that nvidia-smi does not know ([N/A]) is left out."""
    samples: dict[int, list[list[str]]] = {}
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == len(_GPU_FIELDS) and fields[0].isdigit():
            samples.setdefault(int(fields[0]), []).append(fields)
    gpus = []
    for index, rows in sorted(samples.items()):
        gpu: dict[str, Any] = {"index": index, "name": rows[0][1], "samples": len(rows)}
        for column, name in ((2, "utilization_percent"), (3, "power_w"), (4, "memory_used_mib")):
            values = [float(row[column]) for row in rows if re.fullmatch(r"[0-9.]+", row[column])]
            if values:
                gpu[name] = {"mean": sum(values) / len(values), "max": max(values)}
        gpus.append(gpu)
    return gpus
