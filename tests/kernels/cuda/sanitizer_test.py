#!/usr/bin/env python3
"""sanitizer.sh asks for both tools, and says what they said, with a compute-sanitizer made up here."""

import os
import subprocess
import tempfile
import unittest

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sanitizer.sh")
SANITIZER = """#!/bin/bash
printf '%s\\n' "$TRIREME_TEST_SIZES $*" >>"{log}"
[[ " $* " == *" {faulty} "* ]] && exit 99
while [ "${{1##*/}}" != cuda_backend_test ]; do shift; done
exec "$@"
"""


class SanitizerTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.log = os.path.join(self.folder.name, "log")
        self.tools = os.path.join(self.folder.name, "tools")
        os.mkdir(self.tools)

    def write(self, path, text):
        with open(path, "w") as file:
            file.write(text)
        os.chmod(path, 0o755)

    def run_script(self, faulty="nothing", tests_end_with=0, has_sanitizer=True):
        """Exit code, and the sanitizer's arguments of each time."""
        if has_sanitizer:
            self.write(os.path.join(self.tools, "compute-sanitizer"), SANITIZER.format(log=self.log, faulty=faulty))
        self.write(os.path.join(self.folder.name, "cuda_backend_test"), f"#!/bin/bash\nexit {tests_end_with}\n")
        # Nothing else on the path: no compiler beside which the tool could lie.
        done = subprocess.run([SCRIPT, self.folder.name], env={"PATH": self.tools}, text=True,
                              capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
        lines = open(self.log).read().splitlines() if os.path.exists(self.log) else []
        return done.returncode, lines, done.stdout + done.stderr

    def test_both_tools_look_at_small_sizes(self):
        code, lines, _ = self.run_script()
        self.assertEqual(code, 0)
        self.assertEqual(len(lines), 2)
        for line, tool in zip(lines, ("memcheck", "racecheck")):
            self.assertTrue(line.startswith(f"small --tool {tool} --error-exitcode 99 "), line)
            self.assertIn(f"{self.folder.name}/cuda_backend_test", line)

    def test_what_one_tool_finds_is_a_failure_and_the_other_runs_all_the_same(self):
        for tool in ("memcheck", "racecheck"):
            with self.subTest(tool):
                if os.path.exists(self.log):
                    os.remove(self.log)
                code, lines, output = self.run_script(faulty=tool)
                self.assertEqual(code, 1)
                self.assertEqual(len(lines), 2)
                self.assertIn(f"{tool} ended with 99, which means that it found something", output)

    def test_tests_that_fail_fail(self):
        code, _, output = self.run_script(tests_end_with=1)
        self.assertEqual(code, 1)
        self.assertIn("memcheck ended with 1\n", output)

    def test_without_the_tool_it_is_skipped_aloud(self):
        code, lines, output = self.run_script(has_sanitizer=False)
        self.assertEqual(code, 77)
        self.assertEqual(lines, [])
        self.assertIn("not found", output)


if __name__ == "__main__":
    unittest.main()
