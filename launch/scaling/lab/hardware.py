"""What the figures were measured with: processor, memory, GPUs, kernel, versions."""
from __future__ import annotations

import hashlib
import math
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from .service import REPOSITORY

PACKAGES = (
    "openmpi-bin",
    "libopenmpi3",
    "libgrpc++1*",
    "libprotobuf3*",
    "libdnnl*",
    "libhwy1*",
    "libgomp1",
    "libc6",
    "libnccl2",
)


def _output(*command: str) -> str:
    """Of a program that may not be there: "" then."""
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False
        ).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def usable_cores() -> int:
    """What this process may use: its affinity, and its control group's quota where that is less."""
    cores = len(os.sched_getaffinity(0))
    quota = re.fullmatch(r"(\d+) (\d+)", _text("/sys/fs/cgroup/cpu.max").strip())
    if quota:
        cores = min(cores, max(1, math.floor(int(quota[1]) / int(quota[2]))))
    return cores


def gpus() -> list[dict[str, str]]:
    rows = _output(
        "nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"
    ).splitlines()
    fields = [[field.strip() for field in row.split(",")] for row in rows]
    return [{"name": row[0], "memory": row[1], "driver": row[2]} for row in fields if len(row) == 3]


def hardware() -> dict[str, Any]:
    cpuinfo = _text("/proc/cpuinfo")
    model = re.search(r"^model name\s*: (.*)$", cpuinfo, re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+) kB", _text("/proc/meminfo"), re.MULTILINE)
    return {
        "host": platform.node(),
        "cpu": model[1] if model else platform.machine(),
        "cores": usable_cores(),
        "processors": os.cpu_count(),
        "numa_nodes": len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))) or 1,
        "virtual_machine": bool(re.search(r"^flags\s*:.*\bhypervisor\b", cpuinfo, re.MULTILINE)),
        "memory_bytes": int(memory[1]) * 1024 if memory else None,
        "gpus": gpus(),
        "kernel": f"{platform.system()} {platform.release()}",
    }


def versions(build: Path) -> dict[str, Any]:
    described = _output("git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--tags")
    packages = dict(
        line.split(" ", 1)
        for line in _output("dpkg-query", "-W", "-f=${Package} ${Version}\n", *PACKAGES).splitlines()
        if " " in line
    )
    system = re.search(r'^PRETTY_NAME="(.*)"', _text("/etc/os-release"), re.MULTILINE)
    return {
        "source": described or None,
        "programs": {
            name: file_hash(build / name) for name in ("trireme", "trireme-coordinator", "trireme-worker")
        },
        "mpirun": _output("mpirun", "--version").splitlines()[:1],
        "packages": {name: version for name, version in packages.items() if version},
        "system": system[1] if system else None,
        "python": platform.python_version(),
    }


def file_hash(path: Path) -> str:
    """The first 16 hexadecimal digits of its SHA-256."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
