#!/bin/bash
# The figures of serving on this machine, each beside what limits it, in about ten quiet minutes:
#   tests/bench/serving_speed.sh [--build DIR] [--threads N] [PART...]
# Parts, all of them when none is named:
#   batches   tokens/s at 1 to 32 streams of a 1B-class model with drawn weights, the limit that binds each, and the
#             share of scheduling, broadcast and sampling in a step
#   prefix    time to first token of a 1,000-token prompt, nine tenths of it cached, beside a cold one
#   chunked   inter-token times of 8 streams while a 2,000-token prompt arrives, beside the time of one chunk
#   relay     messages/s and core through leader and coordinator, beside a bare gRPC relay (cmake -DTRIREME_BENCHMARKS=ON)
#   wake      how fast followers of an idle group of two ranks get a plan, and what idling costs (TRIREME_BENCHMARKS=ON)
#   serve     the same model behind a coordinator, as clients see it: 1 to 32 requests at a time
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
bin="$root/build/cpu/bin" threads=$(nproc) parts=()
while [ $# -gt 0 ]; do
  case $1 in
    --build) bin=$2; shift 2 ;;
    --threads) threads=$2; shift 2 ;;
    batches | prefix | chunked | relay | wake | serve) parts+=("$1"); shift ;;
    *) sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
  esac
done
[ ${#parts[@]} -gt 0 ] || parts=(batches prefix chunked relay wake serve)
model=(--model-config "$root/tests/bench/models/llama-3.2-1b.json" --load-format dummy --threads "$threads")

folder="" pids=()
clean_up() {
  [ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
  wait
  [ -z "$folder" ] || rm -rf "$folder"
  pids=() folder=""
}
trap clean_up EXIT
trap 'exit 130' INT TERM

serve() {
  local address
  folder=$(mktemp -d)
  "$bin/trireme-coordinator" --listen 127.0.0.1:0 >"$folder/coordinator" 2>&1 &
  pids+=($!)
  for _ in {1..200}; do
    address=$(sed -n 's/.*ready, listening on \(.*\)$/\1/p' "$folder/coordinator" | head -n 1)
    [ -z "$address" ] || break
    sleep 0.05
  done
  "$bin/trireme-worker" --coordinator "$address" "${model[@]}" --max-context-len 2048 --kv-memory 2GiB >"$folder/worker" 2>&1 &
  pids+=($!)
  "$bin/trireme" status --address "$address" --wait-for-ranks 1 --timeout 300 >"$folder/status" 2>&1 ||
    { cat "$folder/worker" "$folder/status" >&2; return 1; }
  local streams
  for streams in 1 2 4 8 16 32; do
    "$bin/trireme" bench serve --address "$address" --dataset random:32,64 --concurrency "$streams" \
      --requests $((streams * 3)) --goodput ttft:5000,tpot:250
    echo
  done
  clean_up
}

for part in "${parts[@]}"; do
  echo "==== $part: $(uptime)"
  case $part in
    batches) "$bin/trireme" bench engine "${model[@]}" --batch 1,2,4,8,16,32 --prompt-tokens 32 --output-tokens 64 ;;
    prefix) "$bin/trireme" bench engine "${model[@]}" --scenario prefix --prefix-tokens 1000 --repeats 5 ;;
    chunked) "$bin/trireme" bench engine "${model[@]}" --scenario chunked --streams 8 --long-tokens 2000 --repeats 5 ;;
    relay) "$bin/relay_bench" ;;
    wake) OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 mpirun --bind-to none -np 2 "$bin/idle_wake_bench" ;;
    serve) serve ;;
  esac
done
