#!/bin/bash
# The programs of a build on a machine without a usable GPU: cuda_programs.sh BIN_DIRECTORY. They link neither the NVIDIA
# driver nor its management library, refuse --backend cuda with one line and a code, and say why auto takes the CPU. A
# coordinator that such workers wanted to join answers UNAVAILABLE and goes on.
set -uo pipefail
bin=$1
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
if command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then
  echo "there is a GPU: nothing to refuse"
  exit 77
fi
faults=0
fault() { printf 'cuda_programs.sh: %s\n' "$*" >&2; faults=$((faults + 1)); }

for program in trireme trireme-worker trireme-coordinator; do
  needed=$(readelf --dynamic --wide "$bin/$program" | grep NEEDED) || { fault "$program: not a program"; continue; }
  ! grep -E 'libcuda\.so|libnvidia' <<<"$needed" >&2 || fault "$program links the driver"
done

# refuses WANTED_CODE PROGRAM [ARGUMENT...]: nothing on standard output, one line on standard error that names the flag.
refuses() {
  local code=$1 rc lines
  shift
  output=$(timeout 120 "$@" 2>&1 </dev/null)
  rc=$?
  lines=$(grep -c . <<<"$output")
  [ $rc = "$code" ] || fault "$1: ended with $rc, wanted $code"
  [ "$lines" = 1 ] || fault "$1: said $lines lines, wanted 1"
  [[ $output == *"--backend cuda: "?????????????* ]] || fault "$1: gave no reason"
  printf '%s\n' "$output"
}

shape=(--model-config "$root/tests/bench/models/llama-3.2-1b.json" --load-format dummy)
tiny=$(mktemp -d) && trap 'rm -rf "$tiny"' EXIT
sed 's/"num_hidden_layers": *[0-9]*/"num_hidden_layers": 1/; s/"vocab_size": *[0-9]*/"vocab_size": 512/; s/12800[01]/1/' "${shape[1]}" >"$tiny/config.json"
shape[1]=$tiny/config.json
refuses 78 "$bin/trireme-worker" "${shape[@]}" --backend cuda
refuses 1 "$bin/trireme" bench engine "${shape[@]}" --backend cuda
notes=$(timeout 120 "$bin/trireme" bench engine "${shape[@]}" --backend auto --threads 1 --batch 1 --prompt-tokens 2 --output-tokens 2 \
  --repeats 1 </dev/null | grep '^note: backend auto')
[[ $notes == "note: backend auto: the CPU, since "?????????????* ]] || fault "bench engine --backend auto: got '$notes'"
printf '%s\n' "$notes"

# The whole service: the job ends with the reason, the coordinator stays.
"$bin/trireme-coordinator" --listen 127.0.0.1:0 --metrics-listen off --log-level error >"$tiny/coordinator" 2>&1 </dev/null &
coordinator=$!
trap 'kill $coordinator 2>/dev/null; rm -rf "$tiny"' EXIT
address=
for _ in $(seq 600); do
  address=$(grep -o '127\.0\.0\.1:[0-9]*' "$tiny/coordinator" | head -n 1)
  [ -z "$address" ] || break
  sleep 0.1
done
if [ -z "$address" ]; then
  fault "the coordinator did not start: $(cat "$tiny/coordinator")"
else
  job=$(timeout 120 "$bin/trireme-worker" "${shape[@]}" --backend cuda --coordinator "$address" 2>&1 </dev/null)
  [ $? = 78 ] || fault "a worker with a coordinator: got '$job'"
  [[ $job == *"--backend cuda: "?????????????* ]] || fault "a worker with a coordinator gave no reason: '$job'"
  answer=$(timeout 60 "$bin/trireme" generate --address "$address" --prompt x --max-tokens 1 2>&1 </dev/null)
  [ $? != 0 ] || fault "somebody served: '$answer'"
  [[ $answer == *UNAVAILABLE*"no replica is serving"* ]] || fault "the coordinator: got '$answer', wanted UNAVAILABLE"
  printf '%s\n%s\n' "$job" "$answer"
  kill -0 $coordinator || fault "the coordinator is gone"
fi
[ $faults = 0 ]
