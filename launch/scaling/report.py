#!/usr/bin/env python3
"""Writes the report of a folder that run.sh filled, from its points alone:
    report.py DIR...
Or of what `trireme project --measured ... --json` printed, into a folder of its own:
    report.py --projection FILE DIR
"""
import sys
from pathlib import Path

sys.dont_write_bytecode = True
from lab import projection, report  # noqa: E402
from lab.experiment import LabError  # noqa: E402


def main(arguments: list[str]) -> int:
    if arguments in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    source = None
    if len(arguments) == 3 and arguments[0] == "--projection":
        source = Path(arguments[1])
        arguments = arguments[2:]
    if not arguments or any(argument.startswith("-") for argument in arguments):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        for folder in arguments:
            if source is not None:
                projection.write(source, Path(folder))
            print(f"report {report.write(Path(folder))}")
    except LabError as error:
        print(f"report.py: {error}", file=sys.stderr)
        return 1
    return 0


sys.exit(main(sys.argv[1:]))
