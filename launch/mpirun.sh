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

# read_slots HOSTFILE: the array slots gets a host for each rank it has room for.
read_slots() {
  slots=()
  [ -n "$1" ] || return 0
  local host rest count
  while read -r host rest; do
    [[ -n $host && $host != \#* ]] || continue
    count=1
    [[ $rest =~ slots=([0-9]+) ]] && count=${BASH_REMATCH[1]}
    while [ "$count" -gt 0 ]; do slots+=("$host"); count=$((count - 1)); done
  done <"$1"
  [ ${#slots[@]} -gt 0 ] || die "--hostfile $1 names no host"
}

num_gpus() { nvidia-smi -L 2>/dev/null | grep -c '^GPU'; }

# Resolves --tensor-parallel auto: the devices there are, shared by the replicas, down to a power of two.
choose_tensor_parallel() {
  [ "$tensor_parallel" = auto ] || return 0
  local devices
  if [ ${#slots[@]} -gt 0 ]; then
    devices=${#slots[@]}
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
  [ ${#slots[@]} -eq 0 ] || ranks_here=$(printf '%s\n' "${slots[@]:0:num_ranks}" | sort | uniq -c | awk '$1 > m { m = $1 } END { print m }')
  [ "$threads" = 0 ] || return 0
  threads=$(($(nproc) / ranks_here))
  [ "$threads" -ge 1 ] || threads=1
}

# Session files and shared memory of our jobs lie in one folder named after this process, so that what a killed run
# left can be told from what a living one uses.
make_scratch() {
  scratch=/dev/shm/trireme.$$
  mkdir -m 700 "$scratch" 2>/dev/null || { scratch="$run_dir/scratch"; mkdir -p "$scratch"; }
}

sweep_scratch() {
  local folder
  for folder in /dev/shm/trireme.[0-9]*; do
    [ -d "$folder" ] && [ -O "$folder" ] && ! kill -0 "${folder##*.}" 2>/dev/null && rm -rf "$folder"
  done
  return 0
}

# mpirun_command I: the array command gets the whole command line of replica I.
mpirun_command() {
  local first=$(($1 * tensor_parallel)) hosts own="$scratch/$1"
  # A folder each: of several mpiruns that make one session folder at the same moment, some fail.
  mkdir -p "$own"
  command=(mpirun -np "$tensor_parallel" --bind-to none)
  if [ "$mpi_major" = 4 ]; then
    command+=(--oversubscribe --mca orte_tmpdir_base "$own")
  else
    command+=(--map-by ":OVERSUBSCRIBE" --prtemca prte_tmpdir_base "$own")
  fi
  [ "$(id -u)" != 0 ] || command+=(--allow-run-as-root)
  # More ranks than cores: whoever waits lets the others run.
  command+=(--mca mpi_yield_when_idle 1)
  if [ ${#slots[@]} -eq 0 ]; then
    # On one host no rank has to listen on the network.
    if [ "$mpi_major" = 4 ]; then
      command+=(--mca btl self,vader --mca btl_vader_backing_directory "$own")
    else
      command+=(--mca btl self,sm --mca btl_sm_backing_directory "$own")
    fi
  else
    hosts=$(printf '%s\n' "${slots[@]:first:tensor_parallel}" | uniq -c | awk '{ printf "%s%s:%s", c, $2, $1; c = "," }')
    command+=(--host "$hosts")
    if [ "$mpi_major" = 4 ]; then
      # A partition ends the job in seconds instead of eight minutes.
      command+=(--mca btl self,vader,tcp --mca oob_tcp_keepalive_time 2 --mca oob_tcp_keepalive_intvl 1 --mca oob_tcp_keepalive_probes 3)
      [ -z "$interface" ] || command+=(--mca btl_tcp_if_include "$interface" --mca oob_tcp_if_include "$interface")
    else
      command+=(--mca btl self,sm,tcp)
      [ -z "$interface" ] || command+=(--mca btl_tcp_if_include "$interface" --prtemca prte_if_include "$interface")
    fi
  fi
  if [ "$backend" = cuda ] && [ ${#slots[@]} -eq 0 ]; then
    command+=(-x "CUDA_VISIBLE_DEVICES=$(seq -s, "$first" $((first + tensor_parallel - 1)))")
  fi
  command+=("${mpirun_options[@]}" "$bin/trireme-worker" --model "$model" --coordinator "$address"
    --backend "$backend" --compute-dtype "$compute_dtype" --threads "$threads" --tensor-parallel "$tensor_parallel"
    --local-ranks "$ranks_here")
  # A leader on another host has to be reachable from the coordinator.
  [ ${#slots[@]} -eq 0 ] || command+=(--listen 0.0.0.0:0 --insecure)
  command+=("${worker_options[@]}")
}
