"""What an experiment consists of: layouts of devices, loads, repeats. Arithmetic alone; nothing is started here."""
from __future__ import annotations

import dataclasses


class LabError(Exception):
    """Something the user can act on; the text says what, where, got and wanted."""


@dataclasses.dataclass(frozen=True, order=True)
class Layout:
    """`replicas` copies of the model, each cut over `tensor_parallel` devices."""

    tensor_parallel: int
    replicas: int

    @property
    def devices(self) -> int:
        return self.tensor_parallel * self.replicas

    def __str__(self) -> str:
        return f"tp{self.tensor_parallel}-dp{self.replicas}"


@dataclasses.dataclass(frozen=True)
class Point:
    """One measurement. Strong scaling: the same load whatever the layout; weak: that load for each device."""

    layout: Layout
    scaling: str  # strong or weak
    base_concurrency: int
    base_requests: int
    repeat: int  # from 1

    @property
    def _factor(self) -> int:
        return self.layout.devices if self.scaling == "weak" else 1

    @property
    def concurrency(self) -> int:
        """Requests at a time."""
        return self.base_concurrency * self._factor

    @property
    def requests(self) -> int:
        """In all."""
        return self.base_requests * self._factor

    @property
    def id(self) -> str:
        return f"{self.layout}-{self.scaling}-c{self.base_concurrency}-r{self.repeat}"


def layouts_of(mode: str, devices: int) -> list[Layout]:
    """tp: one replica over all devices; dp: a replica on each; grid: every way to write devices as tp x dp."""
    if mode == "tp":
        return [Layout(devices, 1)]
    if mode == "dp":
        return [Layout(1, devices)]
    return [Layout(tp, devices // tp) for tp in range(1, devices + 1) if devices % tp == 0]


def points_of(
    modes: list[str],
    devices: list[int],
    scalings: list[str],
    concurrency: list[int],
    requests_per_stream: int,
    repeats: int,
) -> list[Point]:
    """Repeats outermost: what drifts on the machine meets every layout alike. A layout of two modes occurs once."""
    layouts = sorted(
        {layout for mode in modes for count in devices for layout in layouts_of(mode, count)},
        key=lambda layout: (layout.devices, layout),
    )
    return [
        Point(layout, scaling, streams, streams * requests_per_stream, repeat)
        for repeat in range(1, repeats + 1)
        for scaling in scalings
        for streams in concurrency
        for layout in layouts
    ]


@dataclasses.dataclass(frozen=True)
class HostShare:
    """What one host carries of a layout. `cores` is what its processes may use, None where that is not known."""

    host: str
    ranks: int
    threads_per_rank: int
    cores: int | None

    @property
    def oversubscribed(self) -> bool | None:
        return None if self.cores is None else self.ranks * self.threads_per_rank > self.cores


def place(
    ranks: dict[str, int], cores: dict[str, int | None], threads_per_rank: int | None
) -> list[HostShare]:
    """Of a layout with so many ranks on each host; `cores` has what each host's processes may use, where known.

    threads_per_rank None divides cores by ranks on each host, at least one thread each, and takes the fewest: every
    rank of a layout has the same number of threads.
    """
    threads = threads_per_rank
    if threads is None:
        threads = min(max(1, (cores.get(host) or 1) // count) for host, count in ranks.items())
    return [HostShare(host, count, threads, cores.get(host)) for host, count in ranks.items()]


def is_oversubscribed(shares: list[HostShare]) -> bool | None:
    """More threads than cores on some host; None where no host is known to be, and not all are known."""
    if any(share.oversubscribed for share in shares):
        return True
    return None if any(share.oversubscribed is None for share in shares) else False
