"""What leaders, GPUs and hosts tell."""
from __future__ import annotations

import unittest

import synthetic  # noqa: F401, finds the lab

from lab import hosts, probes
from lab.experiment import Layout


class ProbesTest(unittest.TestCase):
    def test_phases_are_found_in_a_status(self) -> None:
        times = {"wall_seconds": 9.0, "clock_error_seconds": 0.1, "collectives": 3, "compute_seconds": 1.5}
        replica = {"load": {"rank_times": [{"rank": 0, "idle_seconds": 2} | times, {"rank": 1} | times]}}
        self.assertEqual(probes.rank_times(replica), {0: {"idle": 2.0, "compute": 1.5}, 1: {"compute": 1.5}})

    def test_times_are_complete_when_nothing_runs_and_all_steps_are_in_them(self) -> None:
        load = {"running_requests": 0, "waiting_requests": 0, "rank_times_steps": 7, "steps": 7}
        self.assertTrue(probes.are_complete({"load": load}))
        for change in ({"running_requests": 1}, {"waiting_requests": 1}, {"rank_times_steps": 6}):
            self.assertFalse(probes.are_complete({"load": load | change}))

    def test_idling_before_and_after_the_load_is_taken_off(self) -> None:
        before = {0: {"compute": 1.0, "idle": 10.0}}
        after = {0: {"compute": 4.0, "idle": 13.0, "sample": 1.0}}  # 7 s, of which 5 s were the load
        self.assertEqual(
            probes.phases_between(before, after, 5.0), {0: {"compute": 3.0, "idle": 1.0, "sample": 1.0}}
        )

    def test_busy_time_is_never_taken_off(self) -> None:
        self.assertEqual(
            probes.phases_between(
                {0: {"compute": 0.0, "idle": 0.0}}, {0: {"compute": 5.0, "idle": 0.5}}, 3.0
            ),
            {0: {"compute": 5.0, "idle": 0.0}},
        )

    def test_gpus_have_mean_and_most(self) -> None:
        text = "0, NVIDIA H200, 50, 300.5, 1000\n1, NVIDIA H200, 10, [N/A], 900\n0, NVIDIA H200, 100, 500.5, 1200\nbroken\n"
        first, second = probes.summarize_gpus(text)
        self.assertEqual(first["utilization_percent"], {"mean": 75.0, "max": 100.0})
        self.assertEqual(first["power_w"], {"mean": 400.5, "max": 500.5})
        self.assertNotIn("power_w", second)

    def test_a_survey_of_hosts_is_read(self) -> None:
        survey = hosts.parse_survey("place 2x2 a:2 b:1,c:1\nplace 1x1 a:1\ncores a 8\ncores b 4\ncores c -\n")
        self.assertEqual(survey.ranks, {Layout(2, 2): {"a": 2, "b": 1, "c": 1}, Layout(1, 1): {"a": 1}})
        self.assertEqual(survey.cores, {"a": 8, "b": 4, "c": None})


if __name__ == "__main__":
    unittest.main()
