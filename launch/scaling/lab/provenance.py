"""What figures were measured with, for people: settings, hardware, versions, commands."""

from __future__ import annotations

import shlex
from typing import Any

from .svg import number


def facts(experiment: dict[str, Any]) -> list[tuple[str, str]]:
    """Settings, hardware and versions as pairs for people."""
    settings, hardware = experiment["settings"], experiment.get("hardware") or {}
    versions = experiment.get("versions") or {}
    if "projection" in settings:
        return _projected_facts(experiment)
    threads = settings.get("threads_per_rank")
    memory = hardware.get("memory_bytes")
    gpus = [f"{gpu['name']}, {gpu['memory']}, driver {gpu['driver']}" for gpu in hardware.get("gpus") or []]
    price = experiment.get("price_usd_per_device_hour")
    pairs = [
        ("model", f"{settings.get('model')} (config.json {settings.get('config_hash')})"),
        (
            "workload",
            f"{settings.get('workload')}, {settings.get('requests')} requests for each one at a time, seed "
            f"{settings.get('seed')}",
        ),
        ("backend", f"{settings.get('backend')}, compute dtype {settings.get('compute_dtype')}"),
        (
            "threads per rank",
            f"{threads}, on every layout"
            if isinstance(threads, int)
            else "the host's cores divided by its ranks, at least one each",
        ),
        ("goodput targets", settings.get("goodput") or "none"),
        ("price", f"{number(price)} USD per device and hour" if price else "none given"),
        (
            "host",
            f"{hardware.get('host')}: {hardware.get('cpu')}, {hardware.get('cores')} cores to use, "
            f"{hardware.get('numa_nodes')} NUMA node(s), {number(memory / 2**30) + ' GiB' if memory else 'memory unknown'}"
            + (", a virtual machine" if hardware.get("virtual_machine") else ""),
        ),
        ("GPUs", "; ".join(gpus) or "none"),
        ("system", f"{versions.get('system')}, {hardware.get('kernel')}"),
        ("source", versions.get("source") or "not a git checkout"),
        (
            "programs",
            ", ".join(f"{name} {digest}" for name, digest in (versions.get("programs") or {}).items()),
        ),
        (
            "packages",
            ", ".join(f"{name} {version}" for name, version in (versions.get("packages") or {}).items()),
        ),
        ("command", shlex.join(experiment.get("command") or [])),
    ]
    return pairs


def _projected_facts(experiment: dict[str, Any]) -> list[tuple[str, str]]:
    settings = experiment["settings"]
    pairs = [("model", str(settings.get("model"))), ("backend of the shards", str(settings.get("backend")))]
    pairs += [
        ("compute dtype", str(settings.get("compute_dtype"))),
        ("workload", str(settings.get("workload"))),
    ]
    for sums in settings["projection"].get("all_reduce") or []:
        origin = f"{sums.get('from')}, within {100 * (sums.get('uncertainty') or 0):.0f} %"
        pairs.append((f"sums between {sums.get('num_ranks')} ranks", origin))
    skew = settings["projection"].get("skew") or {}
    if skew:
        told = (
            f"{100 * skew['central']:.0f} % of a step ({100 * skew['low']:.0f} to {100 * skew['high']:.0f})"
        )
        pairs.append(("ranks that do not end together, head and host", told))
    return pairs + [("command", shlex.join(experiment.get("command") or []))]


def first_commands(points: list[dict[str, Any]]) -> list[str]:
    for record in points:
        commands = record.get("commands") or {}
        if record["status"] == "ok" and commands.get("load"):
            return [
                shlex.join(commands["serve"]),
                *commands.get("started_by_serve", []),
                shlex.join(commands["warm_up"]),
                shlex.join(commands["load"]),
            ]
    return ["# no point was measured"]
