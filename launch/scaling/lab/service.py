"""The service under test: launch/serve.sh with one layout, from its start to the end of its last process."""
from __future__ import annotations

import dataclasses
import json
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from . import processes
from .experiment import LabError, Layout

REPOSITORY = Path(__file__).resolve().parents[3]
DRAIN_S = 5
STOP_S = 20


class Refused(Exception):
    """The shard planner has no place for the layout; the text is its reason."""


class PointFailed(Exception):
    """This point could not be measured; others may be."""


@dataclasses.dataclass(frozen=True)
class ServiceOptions:
    """What every layout of an experiment is started with."""

    model: Path
    backend: str
    compute_dtype: str
    build: Path
    pass_on: tuple[str, ...]  # to serve.sh as they are
    ready_timeout_s: int
    trace: bool

    def command(self, layout: Layout, threads_per_rank: int, run_dir: Path) -> list[str]:
        options = {
            "model": self.model,
            "tensor-parallel": layout.tensor_parallel,
            "replicas": layout.replicas,
            "backend": self.backend,
            "compute-dtype": self.compute_dtype,
            "threads": threads_per_rank,
            "port": 0,
            "build": self.build,
            "ready-timeout": self.ready_timeout_s,
            "drain-timeout": DRAIN_S,
            "run-dir": run_dir,
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        # The load comes from one host, which is its only user: no bound for each user's share of the queue.
        words += ["--worker-option", "--max-queued-per-client=0"]
        if self.trace and layout.replicas == 1:  # several would write the same file
            words += ["--worker-option", "--trace", "--worker-option", str(run_dir / "trace.json")]
        return [str(REPOSITORY / "launch/serve.sh"), *words, *self.pass_on]


@dataclasses.dataclass(frozen=True)
class LocalRank:
    """A worker on this host. `rank` is its place in its replica, 0 the leader."""

    pid: int
    replica: int
    rank: int


class Service:
    """One run of serve.sh. stop() is to be called whatever happens after start()."""

    def __init__(
        self,
        options: ServiceOptions,
        layout: Layout,
        threads_per_rank: int,
        run_dir: Path,
        signals: processes.Signals,
    ) -> None:
        self._options = options
        self._layout = layout
        self._signals = signals
        self._run_dir = run_dir
        self._process: subprocess.Popen[bytes] | None = None
        self.command = options.command(layout, threads_per_rank, run_dir)
        self.address = ""
        self.ready_s = 0.0

    def start(self) -> None:
        """Returns when every rank serves. Refused, PointFailed or Interrupted otherwise."""
        shutil.rmtree(self._run_dir, ignore_errors=True)
        self._run_dir.mkdir(parents=True)
        begin = time.monotonic()
        with open(self._run_dir / "serve.log", "wb") as log:
            self._process = processes.start(self.command, stdout=subprocess.PIPE, stderr=log)
        assert self._process.stdout is not None
        code = self._signals.wait(
            self._process, self._options.ready_timeout_s + 30, readable=self._process.stdout
        )
        line = "" if code is not None else self._process.stdout.readline().decode("utf-8", "replace")
        if not line.startswith("ready "):
            raise self._why_not_ready()
        self.address = line.split()[1]
        self.ready_s = time.monotonic() - begin

    def _why_not_ready(self) -> Exception:
        """Waits for serve.sh's end; the coordinator's log has a refusal, serve.sh's own what else there is."""
        assert self._process is not None
        self._signals.wait(self._process, STOP_S + DRAIN_S)
        refusal = re.search(r"a job of \d+ ranks was refused: (.*)", self._log("coordinator.log"))
        if refusal:
            # Escaped as C has it, byte by byte.
            text = refusal[1].encode().decode("unicode_escape").encode("latin-1")
            return Refused(text.decode("utf-8", "replace"))
        worker = re.findall(
            r"^trireme-worker: .*",
            "\n".join(self._log(path.name) for path in sorted(self._run_dir.glob("replica-*.log"))),
            re.MULTILINE,
        )
        said = worker or [
            line for line in self._log("serve.log").splitlines() if line.startswith("serve.sh: ")
        ]
        return PointFailed(
            f"the service did not start: {said[0] if said else 'it said nothing'} "
            f"(logs in {self._run_dir})"
        )

    def _log(self, name: str) -> str:
        try:
            return (self._run_dir / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def program(self, name: str) -> str:
        return str(self._options.build / name)

    def check_running(self) -> None:
        if self._process is None or self._process.poll() is not None:
            raise PointFailed(f"the service ended while it was measured (logs in {self._run_dir})")

    def status(self) -> dict[str, Any]:
        """What `trireme status --json` says of the coordinator."""
        asked = subprocess.run(
            [self.program("trireme"), "status", "--address", self.address, "--json", "--timeout", "10"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        try:
            status = json.loads(asked.stdout)
        except ValueError:
            status = None
        if not isinstance(status, dict) or "cluster" not in status:
            raise PointFailed(f"trireme status: {asked.stderr.decode('utf-8', 'replace').strip()[:300]}")
        return status

    @property
    def backend(self) -> str:
        return self._options.backend

    def in_order(self, replicas: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Of a status, as serve.sh numbers them: each one's leader has told its metrics' address in its log."""

        def place(replica: dict[str, Any]) -> int:
            said = f"trireme-worker metrics on http://{replica['metrics_address']}/"
            return next(
                (i for i in range(self._layout.replicas) if said in self._log(f"replica-{i}.log")),
                len(replicas),
            )

        return sorted(replicas, key=place)

    def local_ranks(self) -> list[LocalRank]:
        """The workers that run on this host, by replica and rank. serve.sh starts its mpiruns in replica order."""
        if self._process is None:
            return []
        below = processes.descendants(self._process.pid)
        jobs = [pid for pid in below if processes.program_of(pid) in ("mpirun", "orterun", "prterun")]
        ranks = []
        for pid in below:
            job = next((ancestor for ancestor in processes.ancestors(pid) if ancestor in jobs), None)
            if job is not None and processes.program_of(pid) == "trireme-worker":
                rank = processes.environment_of(pid).get("OMPI_COMM_WORLD_RANK", "0")
                ranks.append(LocalRank(pid, jobs.index(job), int(rank)))
        return sorted(ranks, key=lambda rank: (rank.replica, rank.rank))

    def pids(self) -> list[int]:
        return processes.descendants(self._process.pid) if self._process else []

    def job_commands(self) -> list[str]:
        """The command lines that serve.sh ran: coordinator, then each replica's mpirun."""
        found = []
        for path in [self._run_dir / "coordinator.log", *sorted(self._run_dir.glob("replica-*.log"))]:
            line = re.match(r"---- \S+ (.*)", self._log(path.name))
            found += [line[1]] if line else []
        return found

    def stop(self) -> None:
        """Nothing is left running afterwards, or a LabError says what is. Signals have to wait for it."""
        if self._process is None:
            return
        started = self.pids()
        for number, patience_s in ((signal.SIGTERM, DRAIN_S + STOP_S), (signal.SIGTERM, STOP_S)):
            if self._process.poll() is None:
                self._process.send_signal(number)
                self._signals.wait(self._process, patience_s, heed=False)
        left = [pid for pid in {*started, *self.pids()} if processes.program_of(pid)]
        if self._process.poll() is None:
            left.append(self._process.pid)
        processes.kill_all(left)
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        deadline = time.monotonic() + STOP_S
        while any(processes.program_of(pid) for pid in left):
            if time.monotonic() > deadline:
                raise LabError(f"processes that do not end although killed: {left}")
            time.sleep(0.02)
