#!/bin/bash
# Scores the planner's arithmetic against published sweeps: no GPU, nothing fitted to the points it scores.
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

usage() {
  cat <<'END'
launch/scaling/validate.sh [--build DIR] [--all] [OPTION OF trireme project ...]

Predicts Llama-3.1-70B in fp8 on 1, 2, 4 and 8 H200 from published peaks, fractions and all-reduce curves, and prints the error of each point of
launch/scaling/h200_llama70b_fp8.csv (TensorRT-LLM v0.14), the median absolute error, and every assumption.
  --build DIR      where the programs are [build/cpu/bin, built where they are missing]
  --all            also H100 in fp8 and f16 and A100 in f16, which the arithmetic was written without a look at
What else is given goes to `trireme project`, e.g. --json, or --score FILE --gpu H100-SXM for another sweep.
END
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bin='' options=() sweep="$here/h200_llama70b_fp8.csv" all=false
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --build) need_value "$1" $#; bin=$2; shift 2 ;;
    --score) need_value "$1" $#; sweep=$2; shift 2 ;;
    --all) all=true; shift ;;
    *) options+=("$1"); shift ;;
  esac
done
if [ -z "$bin" ]; then
  bin="$root/build/cpu/bin"
  [ -x "$bin/trireme" ] || build_product cpu
fi
[ -x "$bin/trireme" ] || die "$bin/trireme is missing"

"$bin/trireme" project --score "$sweep" "${options[@]}" || exit
$all || exit 0
while read -r file gpu dtype; do
  echo
  "$bin/trireme" project --score "$here/$file" --gpu "$gpu" --dtype "$dtype" --kv-dtype "$dtype" "${options[@]}" || exit
done <<'END'
h100_llama70b_fp8.csv H100-SXM fp8
h100_llama70b_f16.csv H100-SXM f16
a100_llama70b_f16.csv A100-80 f16
END
