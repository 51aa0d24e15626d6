"""What the machine and the service tell of themselves while a load runs: phases, memory, processor time, GPUs."""
from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

from . import processes
from .service import PointFailed

Phases = dict[int, dict[str, float]]  # by rank of the replica, seconds by phase

_SAMPLE = re.compile(r"^trireme:step_phase_seconds_total\{(.*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
TELEMETRY_S = 10  # leaders gather once a second


def parse_phases(page: str) -> Phases:
    """trireme:step_phase_seconds_total of a Prometheus page."""
    phases: Phases = {}
    for labels, value in _SAMPLE.findall(page):
        names = dict(_LABEL.findall(labels))
        if names.get("rank", "").isdigit() and "phase" in names:
            phases.setdefault(int(names["rank"]), {})[names["phase"]] = float(value)
    return phases


def read_page(address: str) -> str:
    """OSError when nobody answers in time. Never through a proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{address}/metrics", timeout=10) as response:
        return response.read(16 << 20).decode("utf-8", "replace")


def fresh_phases(address: str, signals: processes.Signals) -> Phases:
    """What every rank says of itself from now on: waits until the leader has asked its ranks again."""
    deadline = time.monotonic() + TELEMETRY_S
    before = parse_phases(read_page(address))
    while True:
        signals.sleep(0.05)
        now = parse_phases(read_page(address))
        if before and now and all(now.get(rank) != phases for rank, phases in before.items()):
            return now
        before = before or now
        if time.monotonic() > deadline:
            raise PointFailed(
                f"http://{address}/metrics: the ranks' phases have not changed for {TELEMETRY_S} s"
            )


def phases_between(before: Phases, after: Phases, load_s: float) -> dict[int, dict[str, float]]:
    """Seconds of each phase within the load. Telemetry begins before it and ends after it: nothing but idling lies
    there, so what its window is longer than the load is taken off `idle`."""
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
