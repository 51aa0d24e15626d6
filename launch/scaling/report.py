#!/usr/bin/env python3
"""Writes the report of a folder that run.sh filled, from its points alone: report.py DIR..."""
import sys
from pathlib import Path

sys.dont_write_bytecode = True
from lab import report  # noqa: E402
from lab.experiment import LabError  # noqa: E402

if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
    print(f"usage: {sys.argv[0]} DIR...\n{__doc__}", file=sys.stderr)
    sys.exit(0 if sys.argv[1:2] in (["-h"], ["--help"]) else 2)
for folder in sys.argv[1:]:
    try:
        print(f"report {report.write(Path(folder))}")
    except LabError as error:
        print(f"report.py: {error}", file=sys.stderr)
        sys.exit(1)
