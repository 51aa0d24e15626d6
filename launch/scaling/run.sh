#!/bin/bash
# Measures how a model scales over devices, and writes a report. --help tells; README.md beside this file has more.
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
command -v python3 >/dev/null || die "python3 not found (Debian: python3)"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "python3 is older than 3.11: $(python3 --version)"
export PYTHONPATH="$root/launch/scaling${PYTHONPATH:+:$PYTHONPATH}" PYTHONDONTWRITEBYTECODE=1
exec python3 -m lab.sweep "$@"
