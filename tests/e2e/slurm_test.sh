#!/bin/bash
# slurm_test.sh BIN: serves the demo model as a job of a one-machine Slurm (Debian's slurm-wlm and munge), asks it, ends
# it. Exit code 77, with the reason, where Slurm cannot be started.
set -uo pipefail
bin=$(cd "$1" && pwd)
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
factor=${TRIREME_TEST_TIME_FACTOR:-1}
skip() { echo "SKIPPED: Slurm: $*"; exit 77; }
for program in munged slurmctld slurmd sbatch; do command -v "$program" >/dev/null || skip "no $program (Debian: slurm-wlm, munge)"; done
[ "$(id -u)" = 0 ] || skip "its daemons start as root only"

folder=$(mktemp -d /tmp/trireme-slurm.XXXXXX) || exit 1
chmod 755 "$folder"
host=$(uname -n) daemons=() job=""
end() {
  trap - EXIT
  [ -z "$job" ] || scancel --full --signal KILL "$job" 2>/dev/null
  for ((i = ${#daemons[@]} - 1; i >= 0; i--)); do kill "${daemons[i]}" 2>/dev/null; done
  wait
  rm -rf "$folder"
}
trap end EXIT
trap 'exit 1' INT TERM HUP
fail() {
  echo "FAILED: $*"
  tail -n 30 "$folder"/*.log
  exit 1
}
# wait_for SECONDS COMMAND...
wait_for() {
  local until=$((SECONDS + $1 * ${factor%.*}))
  shift
  while ! "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $until ] || return 1
    sleep 0.2
  done
}
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# Everything is the test's own: key, socket, state, ports.
head -c 1024 /dev/urandom >"$folder/munge.key"
chmod 400 "$folder/munge.key"
mkdir "$folder/state" "$folder/spool"
munged --foreground --force --key-file "$folder/munge.key" --socket "$folder/munge.socket" --pid-file "$folder/munged.pid" \
  --log-file "$folder/munged.log" --seed-file "$folder/munge.seed" </dev/null >"$folder/munged.log" 2>&1 &
daemons+=($!)
wait_for 10 test -S "$folder/munge.socket" || skip "munged does not start: $(tail -n 1 "$folder/munged.log")"
cat >"$folder/slurm.conf" <<EOF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=YES
EOF
export SLURM_CONF="$folder/slurm.conf"
slurmctld -D -i </dev/null >"$folder/slurmctld.log" 2>&1 &
daemons+=($!)
slurmd -D -f "$SLURM_CONF" </dev/null >"$folder/slurmd.log" 2>&1 &
daemons+=($!)
node_is_up() { [ "$(sinfo --noheader --format %t)" = idle ]; }
wait_for 20 node_is_up || skip "its node does not come up: $(tail -n 1 "$folder/slurmd.log")"

job=$(TRIREME_ROOT=$root sbatch --parsable --ntasks-per-node "$(nproc)" --output "$folder/job.log" "$root/launch/slurm/serve.sbatch" \
  --build "$bin" --backend cpu --model "$root/launch/demo-model" --tensor-parallel 2 --threads 1 --port 0 \
  --worker-option=--kv-memory --worker-option=64MiB) || fail "sbatch"
wait_for 40 grep -q '^ready ' "$folder/job.log" || fail "job $job is not ready: $(squeue --noheader)"
address=$(sed -n 's/^ready \([^ ]*\) .*/\1/p' "$folder/job.log")
text=$("$bin/trireme" generate --address "$address" --prompt "In the beginning" --max-tokens 16 --temperature 0 --timeout 60) ||
  fail "generate"
[ -n "$text" ] || fail "no text"
echo "a Slurm job says: $text"
scancel --signal TERM --batch "$job" || fail "scancel"
job_is_gone() { [ -z "$(squeue --noheader --job "$job" 2>/dev/null)" ]; }
wait_for 40 job_is_gone || fail "job $job does not end"
state=$(scontrol show job "$job" | sed -n 's/.*JobState=\([A-Z]*\).*/\1/p')
[ "$state" = COMPLETED ] || fail "job $job ended as '$state', wanted COMPLETED"
job=""
echo "PASSED"
