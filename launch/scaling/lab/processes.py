"""Starting, waiting for and stopping processes so that none is left behind; what /proc tells of them."""
from __future__ import annotations

import ctypes
import functools
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import IO


_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


class Interrupted(Exception):
    """A signal asked for the end. Raised by waits alone, so that no other line can be torn apart by it."""


class Signals:
    """INT, TERM and HUP, noted rather than obeyed at once. Make one, in the main thread, before anything is started."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._reader, writer = os.pipe()
        os.set_blocking(writer, False)
        os.set_blocking(self._reader, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: object) -> None:
        self.received = number

    def check(self) -> None:
        if self.received is not None:
            raise Interrupted

    def wait(
        self,
        process: subprocess.Popen[bytes],
        timeout_s: float,
        heed: bool = True,
        readable: IO[bytes] | None = None,
    ) -> int | None:
        """The exit code; None at the timeout, or when `readable` has something. With `heed` a signal raises."""
        deadline = time.monotonic() + timeout_s
        if process.poll() is not None:  # and reaped: its number may be another's
            return process.returncode
        descriptor = os.pidfd_open(process.pid)
        poll = select.poll()
        try:
            for wanted in (descriptor, self._reader, *([readable.fileno()] if readable else [])):
                poll.register(wanted, select.POLLIN)
            while True:
                if heed:
                    self.check()
                code = process.poll()
                left = deadline - time.monotonic()
                if code is not None or left <= 0:
                    return code
                for ready, _ in poll.poll(left * 1000):
                    if ready == self._reader:
                        self._drain()
                    elif ready != descriptor:
                        return process.poll()
        finally:
            os.close(descriptor)

    def sleep(self, seconds: float) -> None:
        """A signal ends it by raising."""
        self.check()
        if select.select([self._reader], [], [], seconds)[0]:
            self._drain()
        self.check()

    def _drain(self) -> None:
        try:
            os.read(self._reader, 512)
        except BlockingIOError:
            pass


def start(command: list[str], *, stdout: int | IO[bytes], stderr: int | IO[bytes]) -> subprocess.Popen[bytes]:
    """In a session of its own, so that a terminal's Ctrl-C reaches only us; gets TERM should we die."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
        preexec_fn=functools.partial(_die_with, os.getpid()),
    )


def _die_with(parent: int) -> None:
    """In the child, before it becomes the command."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it was gone before it could be told of
        os._exit(1)


def stat_fields(pid: int) -> list[str] | None:
    """Of /proc/PID/stat, from the state on; None when the process is gone."""
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
    except OSError:
        return None


def descendants(root: int) -> list[int]:
    """Of a process, itself excluded, in the order of their starts."""
    children: dict[int, list[tuple[int, int]]] = {}
    for entry in os.listdir("/proc"):
        fields = stat_fields(int(entry)) if entry.isdigit() else None
        if fields:
            children.setdefault(int(fields[1]), []).append((int(fields[19]), int(entry)))
    found, todo = [], [root]
    while todo:
        for started, pid in children.get(todo.pop(), []):
            found.append((started, pid))
            todo.append(pid)
    return [pid for _, pid in sorted(found)]


def program_of(pid: int) -> str:
    """The file name of its program, "" when it is gone."""
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        return ""


def ancestors(pid: int) -> list[int]:
    """Its parent, that one's parent, and so on."""
    found: list[int] = []
    while fields := stat_fields(found[-1] if found else pid):
        parent = int(fields[1])
        if parent <= 1:
            break
        found.append(parent)
    return found


def environment_of(pid: int) -> dict[str, str]:
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return {}
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def peak_resident_bytes(pid: int) -> int | None:
    """VmHWM: the most memory the process ever had resident, shared pages included."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def cpu_seconds(pid: int) -> float | None:
    """User and system time of all its threads."""
    fields = stat_fields(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else None


def kill_all(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
