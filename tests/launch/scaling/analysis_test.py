"""Rows of synthetic points against figures calculated by hand."""
from __future__ import annotations

import unittest
from typing import Any

import synthetic  # noqa: F401, finds the lab
from synthetic import point, refused

from lab import analysis, choice


def row_of(rows: list[dict[str, Any]], tensor_parallel: int, replicas: int, **wanted: Any) -> dict[str, Any]:
    return next(
        row
        for row in rows
        if (row["tensor_parallel"], row["replicas"]) == (tensor_parallel, replicas)
        and all(row[name] == value for name, value in wanted.items())
    )


class AnalysisTest(unittest.TestCase):
    def test_speedup_and_efficiency_are_of_the_smallest_layout(self) -> None:
        rows = analysis.analyse([point(4, 1, 250.0), point(1, 1, 100.0), point(2, 1, 160.0)], None)
        self.assertEqual(row_of(rows, 1, 1)["speedup"]["median"], 1.0)
        self.assertAlmostEqual(row_of(rows, 2, 1)["speedup"]["median"], 1.6)
        self.assertAlmostEqual(row_of(rows, 2, 1)["efficiency"]["median"], 0.8)
        self.assertAlmostEqual(row_of(rows, 4, 1)["speedup"]["median"], 2.5)
        self.assertAlmostEqual(row_of(rows, 4, 1)["efficiency"]["median"], 0.625)

    def test_without_one_device_the_fewest_that_were_measured_count(self) -> None:
        rows = analysis.analyse([refused(1, "too large"), point(2, 1, 100.0), point(8, 1, 200.0)], None)
        row = row_of(rows, 8, 1)
        self.assertEqual(row["baseline"]["devices"], 2)
        self.assertAlmostEqual(row["speedup"]["median"], 2.0)
        self.assertAlmostEqual(row["efficiency"]["median"], 0.5)  # twice as fast on four times as many
        self.assertIsNone(row_of(rows, 1, 1)["speedup"])

    def test_layouts_of_equal_devices_are_compared_with_the_same_baseline(self) -> None:
        rows = analysis.analyse([point(1, 1, 100.0), point(2, 1, 150.0), point(1, 2, 190.0)], None)
        self.assertAlmostEqual(row_of(rows, 2, 1)["efficiency"]["median"], 0.75)
        self.assertAlmostEqual(row_of(rows, 1, 2)["efficiency"]["median"], 0.95)

    def test_loads_are_not_mixed(self) -> None:
        records = [
            point(1, 1, 100.0),
            point(2, 1, 150.0),
            point(1, 1, 400.0, concurrency=32),
            point(2, 1, 500.0, concurrency=32),
            point(1, 1, 90.0, scaling="weak"),
            point(2, 1, 171.0, scaling="weak"),
        ]
        rows = analysis.analyse(records, None)
        self.assertAlmostEqual(row_of(rows, 2, 1, scaling="strong", concurrency=8)["speedup"]["median"], 1.5)
        self.assertAlmostEqual(
            row_of(rows, 2, 1, scaling="strong", concurrency=32)["speedup"]["median"], 1.25
        )
        self.assertAlmostEqual(row_of(rows, 2, 1, scaling="weak")["efficiency"]["median"], 0.95)

    def test_repeats_give_the_least_the_median_and_the_most(self) -> None:
        records = [point(1, 1, speed, repeat=index) for index, speed in enumerate([90.0, 130.0, 100.0], 1)]
        records += [point(2, 1, speed, repeat=index) for index, speed in enumerate([200.0, 150.0], 1)]
        rows = analysis.analyse(records, None)
        self.assertEqual(
            row_of(rows, 1, 1)["output_tokens_per_s"], {"min": 90.0, "median": 100.0, "max": 130.0}
        )
        self.assertEqual(row_of(rows, 1, 1)["median_point"], "tp1-dp1-strong-c8-r3")
        two = row_of(rows, 2, 1)
        self.assertEqual(two["output_tokens_per_s"], {"min": 150.0, "median": 175.0, "max": 200.0})
        self.assertAlmostEqual(two["speedup"]["min"], 1.5)
        self.assertAlmostEqual(two["efficiency"]["max"], 1.0)
        self.assertEqual(two["median_point"], "tp2-dp1-strong-c8-r2")  # of two the slower one

    def test_cost_follows_from_price_devices_and_rates(self) -> None:
        # 3.6 USD per device and hour are 0.001 USD per second; 2 devices, 100 tokens/s, 1 request/s.
        row = row_of(analysis.analyse([point(2, 1, 100.0)], 3.6), 2, 1)
        self.assertAlmostEqual(row["cost_per_million_output_tokens"]["median"], 20.0)
        self.assertAlmostEqual(row["cost_per_request"]["median"], 0.002)
        self.assertIsNone(row_of(analysis.analyse([point(2, 1, 100.0)], None), 2, 1)["cost_per_request"])

    def test_lost_efficiency_is_split_by_phase_and_adds_up(self) -> None:
        # 1,000 tokens: 4 ms of device time per token on one device, 10 on two, 3 of them waiting.
        one = point(1, 1, 250.0, phases=[{"compute": 3.5, "idle": 0.5}])
        two = point(
            2,
            1,
            200.0,
            phases=[
                {"compute": 3.0, "collective_wait": 1.0, "idle": 1.0},
                {"compute": 2.5, "collective_wait": 2.0, "idle": 0.5},
            ],
        )
        row = row_of(analysis.analyse([one, two], None), 2, 1)
        self.assertAlmostEqual(row["efficiency"]["median"], 0.4)
        self.assertAlmostEqual(row["device_ms_per_token"]["collective_wait"], 3.0)
        self.assertAlmostEqual(row["lost"]["collective_wait"], 0.3)
        self.assertAlmostEqual(row["lost"]["compute"], 0.2)
        self.assertAlmostEqual(row["lost"]["idle"], 0.1)
        self.assertAlmostEqual(sum(row["lost"].values()), 1 - row["efficiency"]["median"])

    def test_ranks_without_phases_are_not_taken_for_idle(self) -> None:
        silent = point(2, 1, 100.0)
        silent["ranks"][1]["phases"] = None
        row = row_of(analysis.analyse([point(1, 1, 100.0), silent], None), 2, 1)
        self.assertIsNone(row["device_ms_per_token"])
        self.assertIsNone(row["lost"])

    def test_peak_memory_is_the_largest_of_the_repeats(self) -> None:
        first, second = point(1, 1, 100.0), point(1, 1, 110.0, repeat=2)
        second["ranks"][0]["peak_memory_bytes"] = 777
        first["ranks"][0]["peak_memory_bytes"] = 778
        self.assertEqual(
            row_of(analysis.analyse([first, second], None), 1, 1)["ranks"][0]["peak_memory_bytes"], 778
        )

    def test_one_oversubscribed_repeat_marks_the_row(self) -> None:
        rows = analysis.analyse([point(2, 1, 100.0), point(2, 1, 90.0, repeat=2, oversubscribed=True)], None)
        self.assertTrue(rows[0]["oversubscribed"])

    def test_a_generator_near_its_own_limit_is_told(self) -> None:
        record = point(1, 1, 100.0, generator={"output_tokens_per_s": 150.0})
        self.assertEqual(
            analysis.analyse([record], None)[0]["notes"], ["the load generator may be the limit"]
        )

    def test_what_makes_figures_doubtful_is_noted(self) -> None:
        self.assertEqual(analysis.analyse([point(1, 1, 100.0)], None)[0]["notes"], [])
        for changed, wanted in (
            (point(1, 1, 501.0), "lasted less than 2 s"),
            (
                point(1, 1, 100.0, phases=[{"compute": 9.6, "unaccounted": 0.4}]),
                "more than 3 % of a rank's time",
            ),
            (point(1, 1, 100.0, machine={"other_cores": 0.2}), "other processes were busy"),
            (point(1, 1, 100.0, absent={"phases": "gone"}), "no phases: gone"),
        ):
            with self.subTest(wanted=wanted):
                (note,) = analysis.analyse([changed], None)[0]["notes"]
                self.assertIn(wanted, note)


class ChoiceTest(unittest.TestCase):
    def test_the_best_layout_depends_on_what_is_wanted(self) -> None:
        latency = point(2, 1, 150.0)
        latency["load"]["ttft_ms"]["p95"] = 1.0
        best = choice.best_layouts(analysis.analyse([point(1, 1, 100.0), latency, point(1, 2, 190.0)], None))
        found = {
            entry["aim"]: [(layout["tensor_parallel"], layout["replicas"]) for layout in entry["layouts"]]
            for entry in best
        }
        self.assertEqual(found["most output tokens/s"], [(1, 2)])
        self.assertEqual(found["most output tokens/s per device"], [(1, 1)])
        self.assertEqual(found["least time to first token (P95)"], [(2, 1)])

    def test_layouts_whose_repeats_overlap_are_not_told_apart(self) -> None:
        records = [point(2, 1, speed, repeat=index) for index, speed in enumerate([100.0, 120.0, 125.0], 1)]
        records += [point(1, 2, speed, repeat=index) for index, speed in enumerate([110.0, 90.0, 95.0], 1)]
        records += [point(1, 1, speed, repeat=index) for index, speed in enumerate([99.0, 60.0, 60.0], 1)]
        first = choice.best_layouts(analysis.analyse(records, None))[0]
        layouts = [(layout["tensor_parallel"], layout["replicas"]) for layout in first["layouts"]]
        self.assertEqual(layouts, [(2, 1), (1, 2)])
        self.assertEqual(first["repeats"], 3)

    def test_one_layout_is_no_choice(self) -> None:
        self.assertEqual(choice.best_layouts(analysis.analyse([point(1, 1, 100.0)], None)), [])


if __name__ == "__main__":
    unittest.main()
