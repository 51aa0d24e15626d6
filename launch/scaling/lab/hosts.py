"""The hosts of a hostfile: which ranks serve.sh would put there, and how many cores they have."""
from __future__ import annotations

import dataclasses
import subprocess
from typing import Any, Iterable

from .experiment import LabError, Layout
from .service import REPOSITORY


@dataclasses.dataclass(frozen=True)
class Survey:
    ranks: dict[Layout, dict[str, int]]  # of each layout, how many on each host
    cores: dict[str, int | None]


def network_options(options: Any) -> list[str]:
    """Of serve.sh, those that concern other hosts."""
    words = []
    for name in ("hostfile", "listen", "advertise", "network", "rsh_agent", "host_timeout"):
        value = getattr(options, name)
        if value is None:
            continue
        if options.hostfile is None:
            raise LabError(f"--{name.replace('_', '-')} is for several hosts: name them with --hostfile")
        words += ["--" + name.replace("_", "-"), str(value.resolve() if name == "hostfile" else value)]
    return words + (["--insecure"] if options.insecure else [])


def survey(options: Any, build: str, layouts: Iterable[Layout]) -> Survey:
    """Asks every host that some layout needs. A LabError names those that do not answer, or a layout without slots."""
    command = [
        str(REPOSITORY / "launch/scaling/survey_hosts.sh"),
        str(options.hostfile),
        str(options.model),
        build,
        options.rsh_agent or "",
        options.host_timeout or "",
    ]
    ordered = sorted(layouts, key=lambda layout: (layout.devices, layout))
    asked = subprocess.run(
        command + [f"{layout.tensor_parallel}x{layout.replicas}" for layout in ordered],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode != 0:
        lines = [line.partition(": ")[2] or line for line in asked.stderr.strip().splitlines()]
        raise LabError("\n".join(lines) or f"--hostfile: the survey of hosts ended with {asked.returncode}")
    return parse_survey(asked.stdout)


def parse_survey(text: str) -> Survey:
    """Lines "cores HOST N" and "place TPxDP HOST:RANKS,... HOST:RANKS ..."."""
    ranks: dict[Layout, dict[str, int]] = {}
    cores: dict[str, int | None] = {}
    for line in text.splitlines():
        kind, name, *rest = line.split()
        if kind == "cores":
            cores[name] = int(rest[0]) if rest and rest[0].isdigit() else None
            continue
        counts: dict[str, int] = {}
        for place in ",".join(rest).split(","):
            host, _, count = place.rpartition(":")
            counts[host] = counts.get(host, 0) + int(count)
        tensor_parallel, _, replicas = name.partition("x")
        ranks[Layout(int(tensor_parallel), int(replicas))] = counts
    return Survey(ranks, cores)
