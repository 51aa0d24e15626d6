"""Projections as reports of their own."""
from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any

import synthetic

from lab import projection
from lab.experiment import LabError


def projected(size: int, low: float, central: float, high: float, batch: int = 8) -> dict[str, Any]:
    return {
        "tensor_parallel_size": size,
        "batch": batch,
        "projected": size > 1,
        "tokens_per_s": {"low": low, "central": central, "high": high},
        "step_ms": {"low": 1.0, "central": 2.0, "high": 3.0},
    }


PROJECTION = {
    "kind": "projection",
    "projected": True,
    "backend": "cuda",
    "compute_dtype": "bf16",
    "skew": {"low": 0.03, "central": 0.04, "high": 0.05},
    "all_reduce": [{"num_ranks": 4, "from": "published points, nvlink4", "uncertainty": 0.15}],
    "points": [projected(1, 100.0, 100.0, 100.0), projected(4, 240.0, 300.0, 320.0)],
}


class ProjectionTest(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.source = Path(temporary.name) / "projection.json"
        self.folder = Path(temporary.name) / "out"
        self.source.write_text(json.dumps(PROJECTION))

    def report(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(synthetic.ROOT / "launch/scaling/report.py"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def test_a_projection_is_reported_with_its_ranges_and_never_as_measured(self) -> None:
        for _ in range(2):  # the same projection again changes nothing
            run = self.report("--projection", str(self.source), str(self.folder))
            self.assertEqual(run.returncode, 0, run.stderr)
        one, four = json.loads((self.folder / "report.json").read_text())["rows"]
        self.assertEqual((one["kind"], four["kind"]), ("measured", "projected"))
        self.assertEqual(four["efficiency"], {"min": 0.6, "median": 0.75, "max": 0.8})
        markdown = (self.folder / "report.md").read_text()
        self.assertIn("| TP 4 (projected) | 4 |", markdown)
        self.assertIn("| 300 (240 to 320) | 3 (2.4 to 3.2) | 75 % (60 % to 80 %) |", markdown)
        self.assertIn("published points, nvlink4, within 15 %", markdown)
        page = (self.folder / "report.html").read_text()
        self.assertIn("PROJECTED, not measured", page)
        self.assertIn("tensor parallel (projected)", page)

    def test_what_is_no_projection_is_named(self) -> None:
        for change, wanted in (
            ({"kind": "score"}, "got something else than `trireme project"),
            ({"points": []}, "points: got none"),
            ({"points": [3]}, "points[0]: got 3"),
            ({"points": [projected(0, 1, 1, 1)]}, "points[0]: layout: got"),
            (
                {"points": [projected(2, 1, 1, 1) | {"tokens_per_s": 3}]},
                "points[0]: load.output_tokens_per_s: got null",
            ),
            (
                {"points": [projected(2, 1, 1, 1) | {"step_ms": None}]},
                "points[0]: range.tpot_ms_p50: got null",
            ),
            ({"points": [projected(2, 1, 1, 1) | {"batch": "8"}]}, 'points[0]: concurrency: got "8"'),
        ):
            with self.subTest(change=change):
                with self.assertRaises(LabError) as caught:
                    projection.points_of(PROJECTION | change, "p.json")
                self.assertIn("p.json: " + wanted, str(caught.exception))

    def test_a_folder_of_something_else_is_not_overwritten(self) -> None:
        synthetic.write_folder(self.folder, [synthetic.point(1, 1, 100.0)])
        run = self.report("--projection", str(self.source), str(self.folder))
        self.assertEqual(run.returncode, 1)
        self.assertIn("holds another experiment's results", run.stderr)


if __name__ == "__main__":
    unittest.main()
