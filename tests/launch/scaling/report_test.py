"""The files of a report, and what is said of broken points."""
from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
import unittest
import xml.dom.minidom
from pathlib import Path
from typing import Any

import synthetic
from analysis_test import row_of
from synthetic import point, refused

from lab import analysis, charts, measures, report, svg, tables, tradeoff
from lab.experiment import LabError


class ReportTest(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name) / "out"

    def write(self, points: list[dict[str, Any]], **changes: Any) -> None:
        synthetic.write_folder(self.folder, points, **changes)
        report.write(self.folder)

    def text(self, name: str) -> str:
        return (self.folder / name).read_text(encoding="utf-8")

    def test_all_files_agree(self) -> None:
        self.write(
            [point(1, 1, 100.0), point(2, 1, 160.0, oversubscribed=True), point(1, 2, 190.0)],
            price_usd_per_device_hour=3.6,
        )
        result = json.loads(self.text("report.json"))
        self.assertEqual([row["devices"] for row in result["rows"]], [1, 2, 2])
        lines = list(csv.DictReader(self.text("report.csv").splitlines()))
        self.assertEqual([float(line["speedup_median"]) for line in lines], [1.0, 1.9, 1.6])
        self.assertEqual([line["oversubscribed"] for line in lines], ["False", "False", "True"])
        markdown = self.text("report.md")
        self.assertIn("| TP 2 * | 2 | 1 | 160 | 1.6 | 80 % |", markdown)
        page_text = self.text("report.html")
        self.assertIn("<td>TP 2 *</td><td>2</td><td>1</td><td>160</td><td>1.6</td><td>80 %</td>", page_text)
        self.assertIn("more threads than the machine has cores", page_text)
        self.assertIn("cost", [path.stem for path in (self.folder / "plots").iterdir()])

    def test_a_tradeoff_is_drawn_of_several_loads(self) -> None:
        # 100 tokens in 500 ms for each request, whatever the messages; 160 tokens/s on two devices.
        row = analysis.analyse([point(2, 1, 160.0)], None)[0]
        self.assertEqual(tradeoff.speeds(row), (200.0, 80.0))
        self.write([point(1, 1, 100.0), point(1, 1, 400.0, concurrency=32)])
        self.assertTrue((self.folder / "plots/tradeoff_strong.svg").exists())

    def test_the_page_needs_nothing_else(self) -> None:
        self.write([point(1, 1, 100.0), point(2, 1, 160.0)])
        text = self.text("report.html").replace("http://www.w3.org/2000/svg", "")
        for word in ("http://", "https://", "<script", "src=", "@import", "url("):
            self.assertNotIn(word, text)

    def test_pictures_are_well_formed(self) -> None:
        self.write([point(1, 1, 100.0), point(2, 1, 160.0), refused(4, "a < b & c")])
        names = {path.stem for path in (self.folder / "plots").glob("*.svg")}
        self.assertLessEqual(
            {"throughput", "speedup", "efficiency", "ttft", "itl", "tpot", "phases", "device_time", "memory"},
            names,
        )
        for name in names:
            xml.dom.minidom.parse(str(self.folder / "plots" / f"{name}.svg"))

    def test_a_refused_layout_is_there_with_its_reason(self) -> None:
        self.write([point(1, 1, 100.0), refused(3, "num_heads 8 is not a multiple of <3>")])
        self.assertIn("refused: num_heads 8 is not a multiple of <3>", self.text("report.md"))
        self.assertIn("refused: num_heads 8 is not a multiple of &lt;3&gt;", self.text("report.html"))
        self.assertIn("num_heads 8", self.text("report.csv"))

    def test_only_refusals_make_a_report_too(self) -> None:
        self.write([refused(3, "no")])
        self.assertIn("refused: no", self.text("report.md"))

    def test_missing_points_are_counted(self) -> None:
        records = [point(1, 1, 100.0), point(2, 1, 150.0)]
        synthetic.write_folder(self.folder, records[:1], points=[record["id"] for record in records])
        report.write(self.folder)
        self.assertIn("Not finished: 1 of 2 points", self.text("report.md"))

    def test_no_goodput_or_price_means_no_column(self) -> None:
        self.write([point(1, 1, 100.0)])
        self.assertNotIn("goodput requests/s", self.text("report.md"))
        self.assertNotIn(
            "USD per", self.text("report.md").split("## How to read it")[0].split("## What it")[0]
        )

    def test_projected_points_have_lines_and_marks_of_their_own(self) -> None:
        projected = point(4, 1, 300.0, kind="projected", ranks=[])
        rows = analysis.analyse([point(1, 1, 100.0), point(2, 1, 160.0), projected], None)
        self.assertAlmostEqual(row_of(rows, 4, 1)["efficiency"]["median"], 0.75)
        drawn = charts.draw(measures.MEASURES[0], rows, ["tp"]).inline()
        self.assertIn("tensor parallel (projected)", drawn)
        self.assertIn(
            "TP 4 (projected)", tables.markdown(report.build(synthetic.experiment([]), [projected]), {})
        )
        only_measured = charts.draw(measures.MEASURES[0], rows[:2], ["tp"]).inline()
        self.assertNotIn('stroke-dasharray="1.5 4"', only_measured)
        self.assertIn('stroke-dasharray="1.5 4"', drawn)

    def test_a_projected_point_is_never_the_baseline(self) -> None:
        rows = analysis.analyse(
            [point(1, 1, 500.0, kind="projected", ranks=[]), point(2, 1, 100.0), point(4, 1, 150.0)], None
        )
        self.assertEqual(row_of(rows, 4, 1)["baseline"]["devices"], 2)


class BrokenFilesTest(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name) / "out"
        self.good = point(1, 1, 100.0)
        synthetic.write_folder(self.folder, [self.good, point(2, 1, 150.0)])
        self.path = self.folder / "points" / f"{self.good['id']}.json"

    def error(self) -> str:
        with self.assertRaises(LabError) as caught:
            report.load(self.folder)
        return str(caught.exception)

    def test_a_half_written_file_is_named(self) -> None:
        self.path.write_text(json.dumps(self.good)[:200])
        self.assertIn(f"{self.path}: not a whole JSON file", self.error())

    def test_all_broken_files_are_named(self) -> None:
        for path in (self.folder / "points").iterdir():
            path.write_text("")
        self.assertEqual(self.error().count("not a whole JSON file"), 2)

    def test_wrong_fields_are_named_with_what_they_hold(self) -> None:
        for change, wanted in (
            ({"schema": 2}, "schema: got 2, wanted 1"),
            ({"status": "good"}, "status: got 'good'"),
            ({"repeat": "one"}, 'repeat: got "one", wanted a whole number'),
            ({"layout": {"tensor_parallel": 0, "replicas": 1}}, "layout: got"),
            ({"layout": [1]}, "layout.tensor_parallel: got null"),
            ({"load": {"ok": 1}}, "load.requests_per_s: got null, wanted a number"),
            ({"concurrency": -1}, "concurrency: got -1"),
            ({"ranks": None}, "ranks: got null, wanted a list"),
            ({"ranks": [3]}, "ranks[0]: got 3, wanted an object"),
            ({"ranks": [{"replica": 0, "rank": 0, "phases": {"idle": "x"}}]}, "ranks[0].phases: got"),
            ({"kind": "guessed"}, "kind: got 'guessed'"),
            ({"concurrency": True}, "concurrency: got true"),
            ({"id": "tp9"}, "holds the point 'tp9'"),
        ):
            with self.subTest(change=change):
                self.path.write_text(json.dumps(self.good | change))
                self.assertIn(f"{self.path}: {wanted}", self.error())

    def test_what_json_does_not_know_is_refused(self) -> None:
        for text in (
            "NaN",
            "[1e9999, Infinity]",
            '{"a": NaN}',
            "[" * 100 + "]" * 100,
            "[1]",
            "\udc80".encode("utf-8", "surrogatepass").decode("latin1"),
        ):
            with self.subTest(text=text[:20]):
                self.path.write_text(text, encoding="utf-8")
                self.assertIn(str(self.path), self.error())

    def test_the_command_says_it_and_fails(self) -> None:
        self.path.write_text("{")
        run = subprocess.run(
            [sys.executable, str(synthetic.ROOT / "launch/scaling/report.py"), str(self.folder)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual(run.returncode, 1)
        self.assertIn(str(self.path), run.stderr)
        self.assertFalse((self.folder / "report.json").exists())

    def test_another_folder_is_not_an_experiment(self) -> None:
        with self.assertRaises(LabError) as caught:
            report.load(self.folder / "points")
        self.assertIn("no experiment.json", str(caught.exception))


class NumbersTest(unittest.TestCase):
    def test_numbers_have_three_digits_or_so(self) -> None:
        for value, text in (
            (0, "0"),
            (12345.6, "12,346"),
            (123.4, "123"),
            (12.34, "12.3"),
            (10.0, "10"),
            (1.234, "1.23"),
            (1.5, "1.5"),
            (0.0123456, "0.0123"),
            (99.99, "100"),
            (9.999, "10"),
            (3e-7, "3.00e-07"),
        ):
            self.assertEqual(svg.number(value), text)

    def test_ticks_cover_what_is_drawn(self) -> None:
        for most in (0.013, 0.9, 1.0, 7.3, 100.0, 31234.0):
            ticks = svg.linear_ticks(most)
            self.assertEqual(ticks[0], 0)
            self.assertGreaterEqual(ticks[-1], most * (1 - 1e-9))
            self.assertLessEqual(len(ticks), 7)
        self.assertEqual(svg.power_ticks(0.6, 5.0), [0.5, 1.0, 2.0, 4.0, 8.0])
        self.assertEqual(svg.power_ticks(1.0, 1.0), [1.0, 2.0])


if __name__ == "__main__":
    unittest.main()
