"""The command line of run.sh. Nothing is served here; tests/e2e does that."""
from __future__ import annotations

import subprocess
import tempfile
import unittest
from pathlib import Path
from typing import Any

import synthetic

from lab import options
from lab.experiment import LabError

DEMO = str(synthetic.ROOT / "launch/demo-model")


class OptionsTest(unittest.TestCase):
    def parse(self, *arguments: str) -> Any:
        return options.parse(["--model", DEMO, "--out", "/nonexistent/out", *arguments])

    def test_lists_are_read(self) -> None:
        parsed = self.parse(
            "--devices", "1,2,8", "--mode", "tp,dp", "--scaling", "both", "--concurrency", "1,16"
        )
        self.assertEqual(
            (parsed.devices, parsed.modes, parsed.concurrency), ([1, 2, 8], ["tp", "dp"], [1, 16])
        )
        self.assertEqual(parsed.scalings, ["strong", "weak"])
        self.assertEqual(parsed.dataset, "random:64,64")

    def test_wrong_options_are_named_with_what_they_hold(self) -> None:
        for arguments, wanted in (
            (["--devices", "0"], "--devices: got '0'"),
            (["--devices", "1,0"], "--devices: got '0'"),
            (["--devices", "2,1"], "--devices: got '2,1', wanted each number once, in rising order"),
            (["--devices", "1,2,2"], "each number once"),
            (["--devices", ""], "--devices: got ''"),
            (["--devices", "1,x"], "--devices: got 'x'"),
            (["--devices", "-1"], "--devices"),
            (["--mode", "pp"], "--mode: got 'pp', wanted tp, dp or grid"),
            (["--mode", "tp,tp"], "each once"),
            (["--concurrency", "8,4"], "--concurrency: got '8,4'"),
            (["--repeat", "0"], "--repeat: got '0'"),
            (["--workload", "/nonexistent"], "--workload /nonexistent: cannot be read"),
            (["--workload", "random:12"], "--workload: got 'random:12', wanted random:IN,OUT"),
            (["--workload", "random:0,4"], "--workload"),
            (["--workload", "/dev/null"], "is empty"),
            (["--workload", "/"], "--workload /: cannot be read"),
            (["--price", "-1"], "--price"),
            (["--price", "nan"], "--price: got 'nan'"),
            (["--goodput", "ttft"], "--goodput: got 'ttft'"),
            (["--backend", "tpu"], "--backend"),
            (["--threads-per-rank", "1", "--divide-cores"], "not allowed with"),
            (["--unknown"], "--unknown"),
        ):
            with self.subTest(arguments=arguments):
                with self.assertRaises(LabError) as caught:
                    self.parse(*arguments)
                self.assertIn(wanted, str(caught.exception))

    def test_a_model_is_a_folder_with_a_configuration(self) -> None:
        with self.assertRaises(LabError) as caught:
            options.parse(["--model", "/nonexistent", "--out", "x"])
        self.assertIn("--model /nonexistent: no config.json", str(caught.exception))

    def test_the_script_ends_with_2_before_anything_is_made(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out"
            run = subprocess.run(
                [
                    str(synthetic.ROOT / "launch/scaling/run.sh"),
                    "--model",
                    DEMO,
                    "--out",
                    str(out),
                    "--devices",
                    "2,1",
                ],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            self.assertEqual(run.returncode, 2)
            self.assertIn("run.sh: --devices: got '2,1'", run.stderr)
            self.assertFalse(out.exists())


if __name__ == "__main__":
    unittest.main()
