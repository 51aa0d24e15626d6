"""What leaders, GPUs and hosts tell."""
from __future__ import annotations

import unittest

import synthetic  # noqa: F401, finds the lab

from lab import hosts, probes
from lab.experiment import Layout
from lab.measure import metrics_address


PAGE = """\
# TYPE trireme:step_phase_seconds_total counter
trireme:step_phase_seconds_total{model_name="m \\"x\\"",rank="0",phase="compute",replica="j-0"} 1.5
trireme:step_phase_seconds_total{model_name="m",rank="0",phase="idle",replica="j-0"} 2e1
trireme:step_phase_seconds_total{model_name="m",rank="1",phase="idle",replica="j-0"} 3
trireme:num_requests_running{model_name="m"} 4
"""


class ProbesTest(unittest.TestCase):
    def test_phases_are_found_in_a_page(self) -> None:
        self.assertEqual(probes.parse_phases(PAGE), {0: {"compute": 1.5, "idle": 20.0}, 1: {"idle": 3.0}})

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

    def test_a_leader_that_listens_everywhere_is_asked_where_the_coordinator_finds_it(self) -> None:
        self.assertEqual(
            metrics_address({"address": "10.0.0.2:4000", "metrics_address": "0.0.0.0:9000"}), "10.0.0.2:9000"
        )
        self.assertEqual(
            metrics_address({"address": "10.0.0.2:4000", "metrics_address": "10.1.0.2:9000"}), "10.1.0.2:9000"
        )

    def test_a_survey_of_hosts_is_read(self) -> None:
        survey = hosts.parse_survey("place 2x2 a:2 b:1,c:1\nplace 1x1 a:1\ncores a 8\ncores b 4\ncores c -\n")
        self.assertEqual(survey.ranks, {Layout(2, 2): {"a": 2, "b": 1, "c": 1}, Layout(1, 1): {"a": 1}})
        self.assertEqual(survey.cores, {"a": 8, "b": 4, "c": None})


if __name__ == "__main__":
    unittest.main()
