"""Layouts, loads and where ranks go."""
from __future__ import annotations

import unittest

import synthetic  # noqa: F401, finds the lab

from lab.experiment import HostShare, Layout, Point, is_oversubscribed, layouts_of, place, points_of


class ExperimentTest(unittest.TestCase):
    def test_modes_make_layouts(self) -> None:
        self.assertEqual(layouts_of("tp", 4), [Layout(4, 1)])
        self.assertEqual(layouts_of("dp", 4), [Layout(1, 4)])
        self.assertEqual(layouts_of("grid", 6), [Layout(1, 6), Layout(2, 3), Layout(3, 2), Layout(6, 1)])

    def test_a_layout_of_two_modes_is_measured_once_and_repeats_interleave(self) -> None:
        points = points_of(["tp", "dp"], [1, 2], ["strong"], [8], 4, 2)
        self.assertEqual(
            [point.id for point in points],
            [
                "tp1-dp1-strong-c8-r1",
                "tp1-dp2-strong-c8-r1",
                "tp2-dp1-strong-c8-r1",
                "tp1-dp1-strong-c8-r2",
                "tp1-dp2-strong-c8-r2",
                "tp2-dp1-strong-c8-r2",
            ],
        )

    def test_weak_scaling_gives_each_device_the_load(self) -> None:
        strong, weak = (Point(Layout(2, 2), scaling, 8, 32, 1) for scaling in ("strong", "weak"))
        self.assertEqual((strong.concurrency, strong.requests), (8, 32))
        self.assertEqual((weak.concurrency, weak.requests), (32, 128))

    def test_cores_are_divided_or_threads_fixed(self) -> None:
        self.assertEqual(place({"here": 2}, {"here": 8}, None), [HostShare("here", 2, 4, 8)])
        self.assertEqual(place({"here": 3}, {"here": 8}, None)[0].threads_per_rank, 2)
        self.assertEqual(place({"here": 4}, {"here": 2}, None)[0].threads_per_rank, 1)
        self.assertEqual(place({"here": 2}, {"here": 8}, 1)[0].threads_per_rank, 1)
        # The busiest host decides for all: ranks of a layout are alike.
        shares = place({"a": 1, "b": 4}, {"a": 8, "b": 8}, None)
        self.assertEqual([share.threads_per_rank for share in shares], [2, 2])

    def test_oversubscription_is_more_threads_than_cores_on_some_host(self) -> None:
        self.assertFalse(is_oversubscribed(place({"here": 2}, {"here": 2}, None)))
        self.assertTrue(is_oversubscribed(place({"here": 4}, {"here": 2}, None)))
        self.assertTrue(is_oversubscribed(place({"here": 1}, {"here": 2}, 3)))
        self.assertTrue(is_oversubscribed(place({"a": 1, "b": 3}, {"a": 2, "b": 2}, 1)))
        self.assertIsNone(is_oversubscribed(place({"a": 1, "b": 1}, {"a": 2, "b": None}, 1)))


if __name__ == "__main__":
    unittest.main()
