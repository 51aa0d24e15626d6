#!/bin/bash
# Scores the planner's arithmetic against a published sweep: no GPU, nothing fitted to the points it scores.
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

usage() {
  cat <<'END'
launch/scaling/validate.sh [--build DIR] [OPTION OF trireme project ...]

Predicts Llama-3.1-70B in fp8 on 1, 2, 4 and 8 H200 from published peaks, fractions and all-reduce curves, and prints the error of each point of
launch/scaling/h200_llama70b_fp8.csv (TensorRT-LLM v0.14), the median absolute error, and every assumption.
  --build DIR      where the programs are [build/cpu/bin, built where they are missing]
What else is given goes to `trireme project`, e.g. --json, or --score FILE --gpu H100-SXM for another sweep.
END
}

bin='' options=() sweep="$root/launch/scaling/h200_llama70b_fp8.csv"
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --build) need_value "$1" $#; bin=$2; shift 2 ;;
    --score) need_value "$1" $#; sweep=$2; shift 2 ;;
    *) options+=("$1"); shift ;;
  esac
done
if [ -z "$bin" ]; then
  bin="$root/build/cpu/bin"
  [ -x "$bin/trireme" ] || build_product cpu
fi
[ -x "$bin/trireme" ] || die "$bin/trireme is missing"
exec "$bin/trireme" project --score "$sweep" "${options[@]}"
