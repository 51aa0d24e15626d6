"""The folder of an experiment."""
from __future__ import annotations

import json
import tempfile
import unittest
from pathlib import Path
from typing import Any

import synthetic

from lab.experiment import LabError, Layout, Point
from lab.storage import Folder


class FolderTest(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.path = Path(temporary.name) / "out"
        self.experiment = {"settings": {"devices": [1, 2], "seed": 1}, "points": []}

    def claim(self, experiment: dict[str, Any]) -> None:
        with Folder(self.path) as folder:
            folder.claim(experiment)

    def error(self, experiment: dict[str, Any]) -> str:
        with self.assertRaises(LabError) as caught:
            self.claim(experiment)
        return str(caught.exception)

    def test_the_same_experiment_may_go_on_with_another_price(self) -> None:
        self.claim(self.experiment)
        self.claim(self.experiment | {"price_usd_per_device_hour": 2.0})

    def test_another_experiment_is_refused_and_the_difference_told(self) -> None:
        self.claim(self.experiment)
        said = self.error({"settings": {"devices": [1, 2, 4], "seed": 1}, "points": []})
        self.assertIn("holds another experiment's results: devices was [1, 2], now [1, 2, 4]", said)
        self.assertEqual(
            json.loads((self.path / "experiment.json").read_text())["settings"]["devices"], [1, 2]
        )

    def test_a_folder_with_other_files_is_refused(self) -> None:
        self.path.mkdir()
        (self.path / "thesis.tex").write_text("mine")
        self.assertIn("is not empty, and is no folder of the scaling lab", self.error(self.experiment))

    def test_an_experiment_that_cannot_be_read_is_refused(self) -> None:
        self.claim(self.experiment)
        for text, wanted in (("[]", "has no settings"), ("{", "not a whole JSON file")):
            (self.path / "experiment.json").write_text(text)
            self.assertIn(wanted, self.error(self.experiment))

    def test_two_runs_do_not_share_a_folder(self) -> None:
        with Folder(self.path):
            self.assertIn("another run is writing there", self.error(self.experiment))

    def test_what_is_done_is_kept_and_what_failed_is_tried_again(self) -> None:
        point = Point(Layout(1, 1), "strong", 8, 32, 1)
        with Folder(self.path) as folder:
            self.assertFalse(folder.finished(point))
            folder.write_point(synthetic.point(1, 1, 100.0))
            self.assertTrue(folder.finished(point))
            folder.write_point(synthetic.refused(1, "why"))
            self.assertTrue(folder.finished(point))
            folder.write_point(synthetic.refused(1, "why") | {"status": "failed"})
            self.assertFalse(folder.finished(point))
            folder.point_path(point.id).write_text("{")
            with self.assertRaises(LabError):
                folder.finished(point)

    def test_a_write_that_fails_leaves_the_old_file(self) -> None:
        with Folder(self.path) as folder:
            folder.write_point(synthetic.point(1, 1, 100.0))
            with self.assertRaises(ValueError):
                folder.write_point(synthetic.point(1, 1, float("nan")))
            self.assertTrue(folder.finished(Point(Layout(1, 1), "strong", 8, 32, 1)))


if __name__ == "__main__":
    unittest.main()
