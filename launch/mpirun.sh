# Everything that serve.sh has to know of mpirun. Sourced.

# Sets mpi_major. Open MPI 4 (ORTE) and 5 (PRRTE) name their options differently.
mpirun_detect() {
  local version
  command -v mpirun >/dev/null || die "mpirun not found (Debian: openmpi-bin)"
  version=$(mpirun --version 2>/dev/null </dev/null | head -n 1)
  [[ $version =~ \(Open\ MPI\)\ ([0-9]+)\. ]] || die "mpirun is not Open MPI: '$version'; start the workers by hand"
  mpi_major=${BASH_REMATCH[1]}
  [ "$mpi_major" = 4 ] || [ "$mpi_major" = 5 ] || die "Open MPI $mpi_major is not known here (4 and 5 are); start the workers by hand"
}

# Of those that CUDA_VISIBLE_DEVICES leaves.
num_gpus() {
  if [ -n "${CUDA_VISIBLE_DEVICES:-}" ]; then
    tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | grep -c .
  else
    nvidia-smi -L 2>/dev/null | grep -c '^GPU'
  fi
}

# Resolves --tensor-parallel auto: the devices there are, shared by the replicas, down to a power of two.
choose_tensor_parallel() {
  [ "$tensor_parallel" = auto ] || return 0
  local devices
  if [ ${#host_names[@]} -gt 0 ]; then
    devices=$(num_slots)
  elif [ "$backend" = cuda ]; then
    devices=$(num_gpus)
  else
    devices=$(compgen -G '/sys/devices/system/node/node[0-9]*' | wc -l)
  fi
  tensor_parallel=1
  while [ $((tensor_parallel * 2 * replicas)) -le "$devices" ]; do tensor_parallel=$((tensor_parallel * 2)); done
}

# Sets ranks_here, how many ranks share a host, and threads where it was not given. Hosts of a hostfile are taken to be
# alike: the busiest one counts.
choose_threads() {
  ranks_here=$num_ranks
  [ ${#host_names[@]} -eq 0 ] || ranks_here=$most_ranks
  [ "$threads" = 0 ] || return 0
  threads=$(($(nproc) / ranks_here))
  [ "$threads" -ge 1 ] || threads=1
}

# Session files and shared memory of our jobs lie in one folder named after this process, so that what a killed run
# left can be told from what a living one uses. Other hosts get a folder of the same name, hence this one's in it.
make_scratch() {
  scratch=/dev/shm/trireme.$$
  [ ${#host_names[@]} -eq 0 ] || scratch=/dev/shm/trireme.$(uname -n).$$
  mkdir -m 700 "$scratch" 2>/dev/null || { scratch="$run_dir/scratch"; mkdir -p "$scratch"; }
}

sweep_scratch() {
  local folder
  for folder in /dev/shm/trireme.[0-9]* "/dev/shm/trireme.$(uname -n)".[0-9]*; do
    [[ -d $folder && -O $folder && ${folder##*.} =~ ^[0-9]+$ ]] || continue
    # trireme.17.4711 would be of a host that is called 17.
    [[ $folder == "/dev/shm/trireme.${folder##*.}" || $folder == "/dev/shm/trireme.$(uname -n).${folder##*.}" ]] || continue
    kill -0 "${folder##*.}" 2>/dev/null || rm -rf "$folder"
  done
  return 0
}

# What ranks on other hosts need of this environment: where the libraries of a private Open MPI are, and NCCL's settings.
forward_environment() {
  local name
  if [ -n "${OPAL_PREFIX:-}" ]; then command+=(--prefix "$OPAL_PREFIX" -x OPAL_PREFIX); fi
  if [ -n "${LD_LIBRARY_PATH:-}" ]; then
    command+=(-x LD_LIBRARY_PATH)
    # The daemon that starts the ranks needs them before it can be told.
    if [ "$mpi_major" = 4 ]; then
      command+=(--mca plm_rsh_pass_libpath "$LD_LIBRARY_PATH")
    else
      command+=(--prtemca plm_ssh_pass_libpath "$LD_LIBRARY_PATH")
    fi
  fi
  for name in $(compgen -e | grep '^NCCL_'); do command+=(-x "$name"); done
}

# Options of a job on the hosts of a hostfile.
remote_options() {  # HOSTS, as --host takes them
  command+=(--host "$1")
  if [ "$mpi_major" = 4 ]; then
    # A partition ends the job in seconds instead of eight minutes.
    command+=(--mca plm_rsh_agent "$rsh_agent" --mca btl self,vader,tcp
      --mca oob_tcp_keepalive_time 2 --mca oob_tcp_keepalive_intvl 1 --mca oob_tcp_keepalive_probes 3)
    [ -z "$network" ] || command+=(--mca btl_tcp_if_include "$network" --mca oob_tcp_if_include "$network")
  else
    command+=(--prtemca plm_ssh_agent "$rsh_agent" --mca btl self,sm,tcp)
    [ -z "$network" ] || command+=(--mca btl_tcp_if_include "$network" --prtemca prte_if_include "$network")
  fi
  # NCCL takes names of interfaces, not networks.
  [[ -z $network || $network == */* || -n ${NCCL_SOCKET_IFNAME:-} ]] || command+=(-x "NCCL_SOCKET_IFNAME==$network")
  forward_environment
}

# mpirun_command NAME RANKS HOSTS: the array command gets mpirun with its options; HOSTS is "" without a hostfile. NAME
# tells this job's files from those of others.
mpirun_command() {
  local own="$scratch/$1"
  # A folder each: of several mpiruns that make one session folder at the same moment, some fail.
  mkdir -p "$own"
  command=(mpirun -np "$2" --bind-to none)
  if [ "$mpi_major" = 4 ]; then
    command+=(--oversubscribe --mca orte_tmpdir_base "$own" --mca btl_vader_backing_directory "$own")
  else
    command+=(--map-by ":OVERSUBSCRIBE" --prtemca prte_tmpdir_base "$own" --mca btl_sm_backing_directory "$own")
  fi
  [ "$(id -u)" != 0 ] || command+=(--allow-run-as-root)
  # More ranks than cores: whoever waits lets the others run.
  command+=(--mca mpi_yield_when_idle 1)
  if [ -n "$3" ]; then
    remote_options "$3"
  elif [ "$mpi_major" = 4 ]; then
    command+=(--mca btl self,vader)  # on one host no rank has to listen on the network
  else
    command+=(--mca btl self,sm)
  fi
  command+=("${mpirun_options[@]}")
}

# all_hosts: those of all replicas, as --host of one job takes them; nothing without a hostfile.
all_hosts() {
  [ ${#placement[@]} -gt 0 ] || return 0
  printf '%s\n' "${placement[@]}" | tr ',' '\n' | awk -F: '
    !($1 in ranks) { name[++count] = $1 }
    { ranks[$1] += $2 }
    END { for (i = 1; i <= count; i++) printf "%s%s:%d", (i > 1 ? "," : ""), name[i], ranks[name[i]] }'
}

# check_job: `trireme doctor` by the ranks that would serve; returns 1 where something is wrong.
check_job() {
  local result=0
  [ "$mpi_major" != 4 ] || mpirun_options+=(--quiet)  # the doctor says itself what is wrong
  mpirun_command check "$num_ranks" "$(all_hosts)"
  command+=("$bin/trireme" doctor --model "$model" --backend "$backend")
  [ -z "$network" ] || command+=(--network "$network")
  timeout --kill-after=5 180 "${command[@]}" </dev/null || result=1
  if [[ $port != 0 && $listen != \[* ]] && (exec 3<>"/dev/tcp/$listen/$port") 2>/dev/null; then
    say "PROBLEM: port $port of $listen is in use, --port names another"
    result=1
  fi
  remove_on_hosts "$scratch"
  rm -rf "$scratch"
  return $result
}

# devices_of I: --device for replica I, whose ranks take the GPUs behind those of earlier replicas on their host: the first
# one, where it is the same on each of its hosts, else that of each rank. mpirun fills the hosts in their order.
devices_of() {
  local replica part first firsts=() each=()
  local -A taken=()
  if [ ${#placement[@]} -eq 0 ]; then echo $(($1 * tensor_parallel)); return; fi
  for ((replica = 0; replica < $1; replica++)); do
    for part in ${placement[replica]//,/ }; do taken[${part%:*}]=$((${taken[${part%:*}]:-0} + ${part#*:})); done
  done
  for part in ${placement[$1]//,/ }; do
    first=${taken[${part%:*}]:-0}
    firsts+=("$first")
    each+=($(seq "$first" $((first + ${part#*:} - 1))))
  done
  if [ "$(printf '%s\n' "${firsts[@]}" | sort -u | wc -l)" = 1 ]; then echo "$first"; else (IFS=,; echo "${each[*]}"); fi
}

# worker_command I: the array command gets the whole command line of replica I.
worker_command() {
  mpirun_command "$1" "$tensor_parallel" "${placement[$1]:-}"
  command+=("$bin/trireme-worker" --model "$model" --coordinator "$reach_address"
    --backend "$backend" --compute-dtype "$compute_dtype" --threads "$threads" --tensor-parallel "$tensor_parallel"
    --local-ranks "$ranks_here")
  # Whoever names GPUs himself knows what else runs on them.
  if [ "$backend" = cuda ] && [[ " ${worker_options[*]}" != *" --device"* ]]; then
    command+=(--device "$(devices_of "$1")")
  fi
  # A leader on another host has to be reachable from the coordinator.
  [ ${#host_names[@]} -eq 0 ] || command+=(--listen 0.0.0.0:0 --insecure)
  command+=("${worker_options[@]}")
}
