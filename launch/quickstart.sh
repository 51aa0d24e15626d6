#!/bin/bash
# From a fresh clone to text from a model that two processes hold between them: installs, builds, serves, asks, stops.
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'END'
launch/quickstart.sh [--prompt T] [--max-tokens N] [--tensor-parallel N] [--replicas N] [--backend auto|cpu|cuda]

Installs the Debian packages that are missing, builds the programs, serves the demo model of launch/demo-model with
a coordinator and one mpirun of N workers per replica, streams the model's continuation of the prompt, stops it all.
The CUDA backend is built when a GPU and nvcc are there, or --backend cuda asks for it.
Defaults: --prompt "In the beginning" --max-tokens 120 --tensor-parallel 2 --replicas 1 --backend auto
END
}

prompt="In the beginning" max_tokens=120 tensor_parallel=2 replicas=1 backend=auto
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}"; continue ;;
  esac
  need_value "$1" $#
  case $1 in
    --prompt) prompt=$2 ;;
    --max-tokens) max_tokens=$2; positive "$1" "$2" ;;
    --tensor-parallel) tensor_parallel=$2; positive "$1" "$2" ;;
    --replicas) replicas=$2; positive "$1" "$2" ;;
    --backend) backend=$2 ;;
    *) say "unknown option '$1'; --help lists them"; exit 2 ;;
  esac
  shift 2
done
preset=$(preset_for "$backend") || exit 2

begin=$(now)
install_packages build
[ -x "$root/build/$preset/bin/trireme-worker" ] || say "building preset $preset, a few minutes the first time"
build_product "$preset"
say "built in $(seconds_since "$begin") s; serving launch/demo-model: $replicas x tensor parallel $tensor_parallel, backend $preset"

# serve.sh says "ready ADDRESS ..." on its stdout, which ends when it does.
run_dir=$(mktemp -d "${TMPDIR:-/tmp}/trireme-quickstart.XXXXXX") || exit 1
server=""
stop_server() {
  trap - EXIT INT TERM HUP
  if [ -n "$server" ]; then
    kill -TERM "$server" 2>/dev/null
    wait "$server" 2>/dev/null
  fi
  rm -rf "$run_dir"
}
trap stop_server EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
mkfifo "$run_dir/events"
"$root/launch/serve.sh" --model "$root/launch/demo-model" --tensor-parallel "$tensor_parallel" --replicas "$replicas" \
  --backend "$preset" --build "$root/build/$preset/bin" --port 0 --run-dir "$run_dir/serve" \
  </dev/null >"$run_dir/events" &
server=$!
exec 3<"$run_dir/events"
address=""
while read -r -t 120 word value rest <&3; do
  if [ "$word" = ready ]; then address=$value; say "$word $value $rest"; break; fi
done
[ -n "$address" ] || die "the server did not become ready"

"$root/build/$preset/bin/trireme" generate --address "$address" --echo --prompt "$prompt" --max-tokens "$max_tokens" --timeout 120
result=$?
stop_server
exit $result
