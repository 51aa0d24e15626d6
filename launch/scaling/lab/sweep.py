"""run.sh: from the command line to the report, point by point."""
from __future__ import annotations

import os
import shutil
import sys
import time
from collections import Counter
from typing import Any, Sequence

from . import hardware, hosts, options as command_line, report
from .experiment import HostShare, LabError, Layout, Point, place, points_of
from .measure import LoadOptions, measure
from .processes import Interrupted, Signals
from .progress import Progress
from .service import REPOSITORY, ServiceOptions
from .storage import Folder

PROGRAMS = ("trireme", "trireme-coordinator", "trireme-worker")


def say(text: str) -> None:
    for line in text.splitlines():
        print(f"run.sh: {line}", file=sys.stderr, flush=True)


class Sweep:
    """An experiment whose options have been checked. Makes sure of the rest before anything is started."""

    def __init__(self, options: Any, arguments: Sequence[str]) -> None:
        self.options = options
        self._arguments = list(arguments)
        self._build = (options.build or REPOSITORY / "build" / options.backend / "bin").resolve()
        for program in PROGRAMS:
            if not os.access(self._build / program, os.X_OK):
                raise LabError(
                    f"{self._build / program} is missing: build first, or name the folder with --build"
                )
        if shutil.which("mpirun") is None:
            raise LabError("mpirun not found (Debian: openmpi-bin)")
        self.points = points_of(
            options.modes,
            options.devices,
            options.scalings,
            options.concurrency,
            options.requests,
            options.repeat,
        )
        self._hardware = hardware.hardware()
        if (
            options.backend == "cuda"
            and not options.hostfile
            and len(self._hardware["gpus"]) < options.devices[-1]
        ):
            raise LabError(
                f"--devices: got {options.devices[-1]}, this host has {len(self._hardware['gpus'])} GPUs"
            )
        layouts = {point.layout for point in self.points}
        self._placement = self._place_all(layouts)
        self._service_options = ServiceOptions(
            options.model,
            options.backend,
            options.compute_dtype,
            self._build,
            tuple(self._pass_on()),
            options.ready_timeout,
            options.trace,
        )
        self._load = LoadOptions(options.dataset, options.goodput, options.seed, options.point_timeout)

    def _place_all(self, layouts: set[Layout]) -> dict[Layout, list[HostShare]]:
        threads = self.options.threads_per_rank
        if not self.options.hostfile:
            here, cores = self._hardware["host"], self._hardware["cores"]
            return {layout: place({here: layout.devices}, {here: cores}, threads) for layout in layouts}
        found = hosts.survey(self.options, str(self._build), layouts)
        return {layout: place(found.ranks[layout], found.cores, threads) for layout in layouts}

    def _pass_on(self) -> list[str]:
        """Of this command line to serve.sh."""
        return hosts.network_options(self.options) + self.options.serve_option

    def description(self) -> dict[str, Any]:
        """experiment.json. What is under `settings` makes it this experiment and no other."""
        options, versions = self.options, hardware.versions(self._build)
        hostfile = (
            options.hostfile.read_text(encoding="utf-8", errors="replace") if options.hostfile else None
        )
        settings = {
            "model": options.model.name,
            "config_hash": hardware.file_hash(options.model / "config.json"),
            "devices": options.devices,
            "mode": options.modes,
            "scaling": options.scalings,
            "backend": options.backend,
            "compute_dtype": options.compute_dtype,
            "workload": options.dataset,
            "concurrency": options.concurrency,
            "requests": options.requests,
            "repeat": options.repeat,
            "threads_per_rank": options.threads_per_rank or "cores divided",
            "goodput": options.goodput,
            "seed": options.seed,
            "hostfile": hostfile,
            "trace": options.trace,
            "serve_options": self._pass_on(),
            "host": self._hardware["host"],
            "cores": self._hardware["cores"],
            "programs": versions["programs"],
        }
        command = ["launch/scaling/run.sh", *self._arguments]
        return {
            "schema": 1,
            "settings": settings,
            "command": command,
            "price_usd_per_device_hour": options.price,
            "hardware": self._hardware,
            "versions": versions,
            "points": [point.id for point in self.points],
        }

    def measure(self, point: Point, folder: Folder, signals: Signals, progress: Progress) -> str:
        """Leaves the point's file; returns its status."""
        record = measure(
            point,
            self._placement[point.layout],
            self._service_options,
            self._load,
            folder.logs,
            signals,
            lambda doing: progress.tell(point.id, doing),
        )
        folder.write_point(record)
        mark = ", oversubscribed" if record["oversubscribed"] else ""
        if record["status"] == "ok":
            outcome = f"{record['load']['output_tokens_per_s']:.1f} tokens/s{mark}"
        else:
            outcome = f"{record['status']}: {record['reason']}"
        progress.done(point.id, outcome)
        return record["status"]


def run(sweep: Sweep, folder: Folder, signals: Signals) -> Counter[str]:
    """Measures what is left to do. How many points ended how, those of earlier runs included."""
    left = [point for point in sweep.points if not folder.finished(point)]
    outcomes = Counter({"earlier": len(sweep.points) - len(left)})
    if outcomes["earlier"]:
        say(f"{outcomes['earlier']} of {len(sweep.points)} points are there already")
    progress = Progress(len(sweep.points), [str(point.layout) for point in left])
    try:
        for point in left:
            signals.check()
            outcomes[sweep.measure(point, folder, signals, progress)] += 1
    finally:
        progress.end()
    return outcomes


def main(arguments: Sequence[str]) -> int:
    try:
        options = command_line.parse(arguments)
        signals = Signals()
        sweep = Sweep(options, arguments)
    except LabError as error:
        say(str(error))
        return 2
    begin = time.monotonic()
    try:
        with Folder(options.out) as folder:
            folder.claim(sweep.description())
            try:
                outcomes = run(sweep, folder, signals)
            except Interrupted:
                done = sum(folder.point_path(point.id).exists() for point in sweep.points)
                total = len(sweep.points)
                say(
                    f"interrupted with {done} of {total} points measured; the same command goes on from there"
                )
                return 130
            written = report.write(options.out)
    except LabError as error:
        say(str(error))
        return 1
    say(
        f"{sum(outcomes.values())} points in {time.monotonic() - begin:.0f} s: "
        + ", ".join(f"{count} {status}" for status, count in outcomes.items() if count)
    )
    print(f"report {written}", flush=True)
    return 1 if outcomes["failed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
