"""How far a sweep is."""
from __future__ import annotations

import io
import unittest

import synthetic  # noqa: F401, finds the lab

from lab import progress


class ProgressTest(unittest.TestCase):
    def test_time_left_is_by_layout_where_it_is_known(self) -> None:
        self.assertIsNone(progress.seconds_left({}, ["a"]))
        self.assertEqual(
            progress.seconds_left({"a": [2.0, 4.0], "b": [12.0]}, ["a", "b", "c"]), 3.0 + 12.0 + 6.0
        )

    def test_each_point_has_a_line_where_there_is_no_terminal(self) -> None:
        stream = io.StringIO()
        bar = progress.Progress(4, ["a", "b"], stream)
        bar.tell("a-r1", "measuring")
        bar.done("a-r1", "5 tokens/s")
        self.assertEqual(
            stream.getvalue(), "[###############.....] 3 of 4 a-r1: 5 tokens/s; about 0:00 left\n"
        )

    def test_only_all_is_shown_as_all(self) -> None:
        self.assertEqual(progress.bar(0, 1000), f"[{'.' * 20}]")
        self.assertEqual(progress.bar(1, 1000), f"[#{'.' * 19}]")
        self.assertEqual(progress.bar(999, 1000), f"[{'#' * 19}.]")
        self.assertEqual(progress.bar(3, 3), f"[{'#' * 20}]")

    def test_times_read_well(self) -> None:
        self.assertEqual(
            [progress.clock(s) for s in (0, 59.6, 61, 3725)], ["0:00", "1:00", "1:01", "1:02:05"]
        )


if __name__ == "__main__":
    unittest.main()
