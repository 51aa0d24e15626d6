#!/bin/bash
# Which preset the scripts build for --backend auto: preset_choice.sh SOURCE_DIRECTORY.
set -uo pipefail
source=$1
tools=$(mktemp -d) && trap 'rm -rf "$tools"' EXIT
for tool in bash cat dirname grep; do ln -s "$(command -v $tool)" "$tools/$tool"; done
faults=0

# expect WANTED WANTED_MESSAGE: with what lies in $tools alone.
expect() {
  local got message
  got=$(PATH=$tools bash -c '. "$1/launch/common.sh"; preset_for auto' choice "$source" 2>"$tools/message")
  message=$(cat "$tools/message")
  [ "$got" = "$1" ] || { echo "got preset '$got', wanted '$1'" >&2; faults=1; }
  # shellcheck disable=SC2053  # a pattern
  [[ $message == $2 ]] || { echo "preset $1: got '$message', wanted '$2'" >&2; faults=1; }
}

expect cpu ""
printf '#!%s/bash\necho "GPU 0: a pretended one"\n' "$tools" >"$tools/nvidia-smi"
chmod +x "$tools/nvidia-smi"
expect cpu "choice: backend auto: the CPU, since there is a GPU, but no nvcc *"
printf '#!%s/bash\n' "$tools" >"$tools/nvcc"
chmod +x "$tools/nvcc"
expect cuda ""
exit $faults
