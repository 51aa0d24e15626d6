"""Waits, signals and what is found below a process."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import unittest
from pathlib import Path

import synthetic

from lab import processes


# Waits for a child as a sweep does; says how that ended.
WAITER = """
import subprocess, sys
from lab.processes import Interrupted, Signals, start
signals = Signals()
child = start(["sleep", sys.argv[1]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(child.pid, flush=True)
try:
    print(signals.wait(child, float(sys.argv[2])), flush=True)
except Interrupted:
    print("interrupted", flush=True)
"""


class SignalsTest(unittest.TestCase):
    def start(self, sleep: str, patience: str) -> tuple[subprocess.Popen[str], int]:
        waiter = subprocess.Popen(
            [sys.executable, "-B", "-c", WAITER, sleep, patience],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(synthetic.ROOT / "launch/scaling")},
        )
        assert waiter.stdout is not None
        self.addCleanup(waiter.stdout.close)
        watchdog = threading.Timer(60, waiter.kill)
        watchdog.start()
        self.addCleanup(watchdog.cancel)
        return waiter, int(waiter.stdout.readline())

    def said(self, waiter: subprocess.Popen[str]) -> str:
        assert waiter.stdout is not None
        last = waiter.stdout.readline().strip()
        waiter.wait(60)
        return last

    def gone(self, pid: int) -> bool:
        """A zombie that nobody of us can reap is gone as well."""
        fields = processes.stat_fields(pid)
        return fields is None or fields[0] == "Z"

    def test_the_exit_code_comes_at_once_and_a_timeout_says_none(self) -> None:
        self.assertEqual(self.said(self.start("0", "60")[0]), "0")
        waiter, pid = self.start("600", "0.05")
        self.assertEqual(self.said(waiter), "None")

    def test_each_signal_ends_a_wait_and_the_childs_life_with_it(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            with self.subTest(signal=number):
                waiter, pid = self.start("600", "600")
                waiter.send_signal(number)
                self.assertEqual(self.said(waiter), "interrupted")
                deadline = threading.Event()
                for _ in range(1000):
                    if self.gone(pid):
                        break
                    deadline.wait(0.01)
                self.assertTrue(self.gone(pid))

    def test_what_starts_below_a_process_is_found_in_order(self) -> None:
        child = subprocess.Popen(["sh", "-c", "sleep 600 & sleep 601 & wait"])
        pause, below = threading.Event(), []
        for _ in range(1000):
            below = processes.descendants(child.pid)
            names = [Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0] for pid in below]
            if names == [b"sleep", b"sleep"]:
                break
            pause.wait(0.01)
        arguments = [Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[1] for pid in below]
        above = [processes.ancestors(pid)[:2] for pid in below]
        processes.kill_all([*below, child.pid])
        child.wait(60)
        self.assertEqual(arguments, [b"600", b"601"])
        self.assertEqual(above, 2 * [[child.pid, os.getpid()]])


if __name__ == "__main__":
    unittest.main()
