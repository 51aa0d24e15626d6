#!/bin/bash
# Serves a model: one coordinator, and one supervised mpirun for each replica. Prints one line when ready.
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
. "$(dirname "${BASH_SOURCE[0]}")/hosts.sh"
. "$(dirname "${BASH_SOURCE[0]}")/mpirun.sh"

usage() {
  cat <<'END'
launch/serve.sh --model DIR [options]

Starts a coordinator and, for each replica, an mpirun of its workers; a replica that dies is started again after
1 s, 2 s, 4 s, ... at most 60 s. Prints "ready ADDRESS in ..." once every rank serves. Stops on INT or TERM: running
requests may finish first, a second signal ends them.

  --model DIR                Hugging Face directory
  --tensor-parallel N|auto   ranks per replica [auto: one per NUMA node, or one per GPU, shared by the replicas]
  --replicas N               copies of the model [1]
  --backend auto|cpu|cuda    [auto: cuda where a GPU is visible and the programs have it]
  --compute-dtype D          auto, f32, bf16, f16 (GPU) [auto]
  --threads N                threads per rank [the cores of this host, shared by its ranks]
  --port P                   of the coordinator, 0 picks a free one [50051]
  --listen HOST              address to listen on; any but loopback needs --insecure [127.0.0.1]
  --metrics-port P           of the coordinator's Prometheus endpoint, 0 picks a free one [0]; the leaders pick theirs
  --insecure                 accept connections from the network without encryption or authentication
  --hostfile F               "HOST slots=N" per line, as Open MPI has it. A replica lies on one host where it fits, the
                             one with most free slots, and its ranks take the GPUs there behind those of the replicas
                             before it: as many slots as GPUs. Programs and model must lie at the same path on every
                             host, and --listen (or --advertise) must be an address by which they reach this one
  --advertise HOST           by which other hosts reach the coordinator, where it is not that of --listen
  --network CIDR|NAME        network between the hosts, e.g. 10.0.0.0/24 (needed where hosts share a local-only subnet)
  --rsh-agent COMMAND        starts Open MPI's daemons on other hosts: COMMAND HOST ARGUMENTS... [ssh]
  --host-timeout S           seconds in which a host must answer before anything starts [10]
  --check                    serve nothing: let the ranks find out whether they can (trireme doctor), exit code 1 if not
  --coordinator-option X     pass X on to trireme-coordinator, e.g. --resume-timeout=60; may be repeated
  --worker-option X          pass X on to trireme-worker; may be repeated
  --mpirun-option X          pass X on to mpirun; may be repeated
  --ready-timeout S          give up when not ready after S seconds [600]
  --drain-timeout S          at most S seconds for running requests when stopping [30]
  --run-dir DIR              for logs; kept [a temporary folder, kept only after a failure]
  --build DIR                where the programs are [build/cuda/bin or build/cpu/bin]

Exit codes: 0 stopped by a signal; 1 could not start or go on (the reason and the log's last lines are printed);
2 wrong command line.
END
}

model="" tensor_parallel=auto replicas=1 backend=auto compute_dtype=auto threads=0 port=50051 listen=127.0.0.1
metrics_port=0 insecure=false check=false hostfile="" network="" worker_options=() mpirun_options=() ready_timeout=600 drain_timeout=30
run_dir="" bin="" coordinator_options=() advertise="" rsh_agent=${OMPI_MCA_plm_rsh_agent:-ssh} host_timeout=10
while [ $# -gt 0 ]; do
  option=$1
  case $option in
    --insecure) insecure=true; shift; continue ;;
    --check) check=true; shift; continue ;;
    -h | --help) usage; exit 0 ;;
    --*=*) set -- "${option%%=*}" "${option#*=}" "${@:2}"; continue ;;
  esac
  need_value "$option" $#
  case $option in
    --model) model=$2 ;;
    --tensor-parallel) tensor_parallel=$2 ;;
    --replicas) replicas=$2 ;;
    --backend) backend=$2 ;;
    --compute-dtype) compute_dtype=$2 ;;
    --threads) threads=$2; positive --threads "$2" ;;
    --port) port=$2 ;;
    --listen) listen=$2 ;;
    --metrics-port) metrics_port=$2 ;;
    --hostfile) hostfile=$2 ;;
    --advertise) advertise=$2 ;;
    --network) network=$2 ;;
    --rsh-agent) rsh_agent=$2 ;;
    --host-timeout) host_timeout=$2; positive --host-timeout "$2" ;;
    --coordinator-option) coordinator_options+=("$2") ;;
    --worker-option) worker_options+=("$2") ;;
    --mpirun-option) mpirun_options+=("$2") ;;
    --ready-timeout) ready_timeout=$2; positive --ready-timeout "$2" ;;
    --drain-timeout) drain_timeout=$2; positive --drain-timeout "$2" ;;
    --run-dir) run_dir=$2 ;;
    --build) bin=$2 ;;
    *) say "unknown option '$option'; --help lists them"; exit 2 ;;
  esac
  shift 2
done

[ -n "$model" ] || { say "--model DIR is needed; --help lists the options"; exit 2; }
[ -f "$model/config.json" ] || { say "--model $model: no config.json there, wanted a Hugging Face directory"; exit 2; }
model=$(cd "$model" && pwd)
positive --replicas "$replicas"
[ "$tensor_parallel" = auto ] || positive --tensor-parallel "$tensor_parallel"
[[ $port =~ ^[0-9]{1,5}$ && $port -le 65535 ]] || { say "--port: got '$port', wanted 0 to 65535"; exit 2; }
[[ $metrics_port =~ ^[0-9]{1,5}$ && $metrics_port -le 65535 ]] || { say "--metrics-port: got '$metrics_port', wanted 0 to 65535"; exit 2; }
[[ $network =~ ^([A-Za-z][A-Za-z0-9._-]{0,14}|([0-9]{1,3}\.){3}[0-9]{1,3}/[0-9]{1,2})?$ ]] ||
  { say "--network: got '$network', wanted a network such as 10.0.0.0/24 or an interface's name"; exit 2; }
case $backend in auto | cpu | cuda) ;; *) say "--backend: got '$backend', wanted auto, cpu or cuda"; exit 2 ;; esac

if [ -z "$bin" ]; then
  bin="$root/build/cpu/bin"
  if [ "$backend" != cpu ] && [ -x "$root/build/cuda/bin/trireme-worker" ] && { [ "$backend" = cuda ] || gpu_visible; }; then
    bin="$root/build/cuda/bin"
  fi
fi
for program in trireme trireme-coordinator trireme-worker; do
  [ -x "$bin/$program" ] || die "$bin/$program is missing: build first (launch/quickstart.sh does, or: cmake --preset cpu && cmake --build --preset cpu)"
done
bin=$(cd "$bin" && pwd)  # other hosts know no current folder
if [ "$backend" = auto ]; then
  backend=cpu
  if gpu_visible; then
    if [[ $bin == */cuda/bin ]]; then
      backend=cuda
    else
      say "backend auto: the CPU, since there is a GPU, but $bin is no build for it (cmake --preset cuda && cmake --build --preset cuda makes one)"
    fi
  fi
fi
mpirun_detect

# ---- layout: which ranks where ----------------------------------------------------------------------------------
read_hostfile "$hostfile"  # without one: no host
choose_tensor_parallel
num_ranks=$((tensor_parallel * replicas))
placement=()
if [ ${#host_names[@]} -gt 0 ]; then
  [ "$(num_slots)" -ge "$num_ranks" ] ||
    { say "--hostfile $hostfile has $(num_slots) slots, $replicas replicas of $tensor_parallel ranks need $num_ranks"; exit 2; }
  if [[ ${advertise:-$listen} =~ ^(127\.|localhost|0\.0\.0\.0|\[) ]]; then
    say "--hostfile: give --listen (or --advertise) the name or address by which the other hosts reach this one"
    exit 2
  fi
  $insecure || { say "--hostfile: leaders and coordinator will listen on the network, without encryption or authentication: type --insecure"; exit 2; }
  place_replicas
fi
choose_threads
check_hosts

# ---- folders ----------------------------------------------------------------------------------------------------
own_run_dir=false
if [ -z "$run_dir" ]; then run_dir=$(mktemp -d "${TMPDIR:-/tmp}/trireme.XXXXXX") || exit 1; own_run_dir=true; fi
mkdir -p "$run_dir" || die "cannot make $run_dir"
run_dir=$(cd "$run_dir" && pwd)
sweep_scratch
make_scratch
if $check; then
  check_job
  result=$?
  if $own_run_dir; then rm -rf "$run_dir"; fi
  exit $result
fi

# ---- processes --------------------------------------------------------------------------------------------------
# A service is "coordinator" or "replica-I". Every child leads a session of its own, so that a terminal's Ctrl-C
# reaches only this script and what a service started can be found again; when this script dies, they get TERM.
declare -A service_of=() pid_of=() delay_of=() started_at=()
stopping=0
trap 'stopping=$((stopping + 1))' INT TERM HUP

uptime_s() { local up; read -r up _ </proc/uptime; echo "$up"; }
elapsed() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.1f", b - a }'; }

launch() {  # SERVICE COMMAND...
  local service=$1
  shift
  printf '%s\n' "---- $(date -u +%FT%TZ) $*" >>"$run_dir/$service.log"
  setpriv --pdeathsig TERM setsid "$@" </dev/null >>"$run_dir/$service.log" 2>&1 &
  service_of[$!]=$service pid_of[$service]=$! started_at[$service]=$(uptime_s)
}

start_service() {  # SERVICE
  local options=("${coordinator_options[@]}")
  if [ "$1" = coordinator ]; then
    $insecure && options+=(--insecure)
    launch coordinator "$bin/trireme-coordinator" --listen "$listen:$port" --drain-timeout "$drain_timeout" \
      --metrics-listen "127.0.0.1:$metrics_port" "${options[@]}"
  else
    worker_command "${1#replica-}"  # fills command
    launch "$1" "${command[@]}"
  fi
}

# Waits until the coordinator says where it listens; keeps its port for when it has to start again.
await_coordinator() {
  local pid=${pid_of[coordinator]} said=""
  while [ -z "$said" ]; do
    [ "$stopping" -eq 0 ] || return 1
    if ! kill -0 "$pid" 2>/dev/null; then
      wait_any
      give_up coordinator "the coordinator ended with exit code $ended_rc"
    fi
    said=$(sed -n 's/^trireme-coordinator ready, listening on .*:\([0-9]*\)$/\1/p' "$run_dir/coordinator.log" | head -n 1)
    [ -n "$said" ] || sleep 0.02
  done
  port=$said
  case $listen in
    0.0.0.0) address="127.0.0.1:$port" ;;
    \[::\]) address="[::1]:$port" ;;
    *) address="$listen:$port" ;;
  esac
  reach_address=$address
  [ -z "$advertise" ] || reach_address="$advertise:$port"
}

# "ready ADDRESS ..." with the time by phase, the workers' as the slowest replica tells it.
ready_line() {
  local phases
  phases=$(sed -n 's/^trireme-worker ready, .*(\(start .*\), total \([0-9.]*\) s)$/\2 \1/p' "$run_dir"/replica-*.log | sort -n | tail -n 1)
  echo "ready $address in $(elapsed "$begin" "$(uptime_s)") s (coordinator $coordinator_s s, ${phases#* }):" \
    "$(basename "$model"), $replicas x tensor parallel $tensor_parallel, $backend, $threads threads per rank, logs in $run_dir"
}

# Where Prometheus finds the coordinator and each leader.
metrics_lines() {
  sed -n 's/^trireme-coordinator metrics on /metrics coordinator /p' "$run_dir/coordinator.log" | tail -n 1
  local log
  for log in "$run_dir"/replica-*.log; do
    sed -n "s/^trireme-worker metrics on /metrics $(basename "$log" .log) /p" "$log"
  done
}

timer() {  # NAME SECONDS: NAME ends like a service after that time
  sleep "$2" </dev/null >/dev/null 2>&1 &
  service_of[$!]=$1
  pid_of[$1]=$!
}

cancel_timer() {  # NAME
  local pid=${pid_of[$1]:-}
  [ -n "$pid" ] || return 0
  unset "service_of[$pid]" "pid_of[$1]"
  kill "$pid" 2>/dev/null
}

# Waits until some child has ended; sets ended_service ("" when a signal came instead) and ended_rc.
wait_any() {
  local ended=""
  ended_rc=0 ended_service=""
  [ ${#service_of[@]} -gt 0 ] || return 0
  wait -n -p ended "${!service_of[@]}" 2>/dev/null
  ended_rc=$?
  # A signal leaves `ended` unset.
  [ -n "${ended:-}" ] && [ -n "${service_of[$ended]:-}" ] || return 0
  ended_service=${service_of[$ended]}
  unset "service_of[$ended]" "pid_of[$ended_service]"
}

# Everything of a service's session, mpirun's ranks included: those are in process groups of their own.
kill_session() {  # SIGNAL SESSION
  local stat fields
  for stat in /proc/[0-9]*/stat; do
    read -r -d '' fields 2>/dev/null <"$stat"
    set -- "$1" "$2" ${fields##*) }
    [ "${6:-}" = "$2" ] && kill "-$1" "$(basename "${stat%/stat}")" 2>/dev/null
  done
}

show_log() {  # SERVICE
  [ -s "$run_dir/$1.log" ] || return 0
  printf -- '---- last lines of %s\n' "$run_dir/$1.log" >&2
  grep -v '^----' "$run_dir/$1.log" | tail -n 15 >&2
}

stop_all() {
  trap 'stopping=$((stopping + 1))' INT TERM HUP
  local service phase sessions=() limit
  for service in "${!pid_of[@]}"; do
    [[ $service == coordinator || $service == replica-* ]] && sessions+=("${pid_of[$service]}")
  done
  # 1: the coordinator drains, and tells the leaders to stop. 2: TERM for jobs that stay. 3: KILL.
  for phase in drain term; do
    [ "$stopping" -le 1 ] || break
    limit=5
    for service in "${!pid_of[@]}"; do
      case $service in
        coordinator) kill -TERM "${pid_of[$service]}" 2>/dev/null; [ $phase = term ] || limit=$drain_timeout ;;
        replica-*) [ $phase = drain ] && [ -n "${pid_of[coordinator]:-}" ] || kill -TERM "${pid_of[$service]}" 2>/dev/null ;;
        *) kill "${pid_of[$service]}" 2>/dev/null ;;  # timers, the wait for readiness
      esac
    done
    timer limit "$limit"
    while [ "$stopping" -le 1 ]; do
      [[ " ${!pid_of[*]} " =~ \ (coordinator|replica-[0-9]+)\  ]] || break
      wait_any
      [ "$ended_service" != limit ] || break
      if [ "$ended_service" = coordinator ] && [ $phase = drain ]; then
        cancel_timer limit  # jobs have been told; they need seconds, not the drain's time
        timer limit 5
      fi
    done
    cancel_timer limit
  done
  for service in "${sessions[@]}"; do kill_session KILL "$service"; done
  wait 2>/dev/null
  remove_on_hosts "$scratch"
  rm -rf "$scratch"
  trap - EXIT
}

# A way out that nobody planned, an error of this script included, still leaves nothing running.
trap 'stopping=2; stop_all' EXIT

give_up() {  # SERVICE MESSAGE
  say "$2"
  show_log "$1"
  stopping=1
  stop_all
  say "logs are in $run_dir"
  exit 1
}

begin=$(uptime_s)
start_service coordinator
await_coordinator || { stop_all; exit 0; }
coordinator_s=$(elapsed "$begin" "$(uptime_s)")
for ((i = 0; i < replicas; i++)); do start_service "replica-$i"; done
"$bin/trireme" status --address "$address" --wait-for-ranks "$num_ranks" --timeout "$ready_timeout" \
  </dev/null >"$run_dir/status.log" 2>&1 &
service_of[$!]=readiness pid_of[readiness]=$!

ready=false
while [ "$stopping" -eq 0 ]; do
  wait_any
  case $ended_service in
    "") ;;
    readiness)
      [ "$ended_rc" -eq 0 ] || give_up replica-0 "not ready after $ready_timeout s: $(tail -n 1 "$run_dir/status.log")"
      ready=true
      ready_line
      metrics_lines
      ;;
    restart-*) start_service "${ended_service#restart-}" ;;
    *)
      $ready || give_up "$ended_service" "$ended_service ended with exit code $ended_rc before it was ready"
      uptime=$(elapsed "${started_at[$ended_service]}" "$(uptime_s)")
      delay=${delay_of[$ended_service]:-1}
      [ "${uptime%.*}" -lt 60 ] || delay=1
      delay_of[$ended_service]=$((delay * 2 < 60 ? delay * 2 : 60))
      say "$ended_service ended with exit code $ended_rc after $uptime s, starts again in $delay s ($run_dir/$ended_service.log)"
      timer "restart-$ended_service" "$delay"
      ;;
  esac
done
stop_all
if $own_run_dir; then rm -rf "$run_dir"; fi
exit 0
