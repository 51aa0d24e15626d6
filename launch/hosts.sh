# The hosts of a hostfile: which there are, which replica goes where, whether they answer. Sourced, after common.sh.

# wrong_hostfile PLACE MESSAGE: the end.
wrong_hostfile() { say "--hostfile $1: $2"; exit 2; }

# read_hostfile FILE: fills host_names, in the order of the file, and host_slots. The format is Open MPI's: a line is
# "HOST", then "slots=N" (1 when left out) and "max_slots=N"; # begins a comment; a host named twice has the sum.
read_hostfile() {
  local line number=0 word words value slots most
  host_names=()
  declare -gA host_slots=()
  [ -n "$1" ] || return 0
  { [ -f "$1" ] && [ -r "$1" ]; } || wrong_hostfile "$1" "cannot read it"
  while IFS= read -r line || [ -n "$line" ]; do
    number=$((number + 1))
    line=${line%%#*}
    # "slots = 2" is one word, too.
    while [[ $line =~ ^(.*[^[:space:]])[[:space:]]+=(.*)$ || $line =~ ^(.*)=[[:space:]]+(.*)$ ]]; do
      line="${BASH_REMATCH[1]}=${BASH_REMATCH[2]}"
    done
    read -r -a words <<<"$line"
    [ ${#words[@]} -gt 0 ] || continue
    # It becomes an argument of ssh and of mpirun, where it stands before a colon.
    [[ ${words[0]} =~ ^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$ ]] || wrong_hostfile "$1:$number" "got '${words[0]}', wanted a host's name or IPv4 address"
    slots="" most=""
    for word in "${words[@]:1}"; do
      value=${word#*=}
      case $word in
        slots=*) slots=$value ;;
        max_slots=* | max-slots=*) most=$value ;;
        *) wrong_hostfile "$1:$number" "got '$word', wanted slots=N or max_slots=N" ;;
      esac
      [[ $value =~ ^[1-9][0-9]{0,3}$ ]] || wrong_hostfile "$1:$number" "got '$word', wanted a number from 1 to 9999"
    done
    slots=${slots:-1}
    [ "$slots" -le "${most:-$slots}" ] || wrong_hostfile "$1:$number" "got slots=$slots, wanted at most max_slots=$most"
    [ -n "${host_slots[${words[0]}]:-}" ] || host_names+=("${words[0]}")
    host_slots[${words[0]}]=$((${host_slots[${words[0]}]:-0} + slots))
  done <"$1"
  [ ${#host_names[@]} -gt 0 ] || wrong_hostfile "$1" "names no host"
}

num_slots() {
  local host sum=0
  for host in "${host_names[@]}"; do sum=$((sum + host_slots[$host])); done
  echo "$sum"
}

# place_replicas: fills placement[I], the hosts of replica I as mpirun --host takes them ("a:2" or "a:1,b:1"), and
# most_ranks, of the busiest host. A replica lies on one host where it fits, the one with most slots free; else on as
# few as possible.
place_replicas() {
  local -A free=()
  local host best i need take
  placement=() most_ranks=0
  for host in "${host_names[@]}"; do free[$host]=${host_slots[$host]}; done
  for ((i = 0; i < replicas; i++)); do
    need=$tensor_parallel placement[i]=""
    while [ "$need" -gt 0 ]; do
      best=${host_names[0]}
      for host in "${host_names[@]}"; do [ "${free[$host]}" -le "${free[$best]}" ] || best=$host; done
      take=$((free[$best] < need ? free[$best] : need))
      [ "$take" -gt 0 ] || die "internal error: no slot left for replica $i"
      placement[i]+="${placement[i]:+,}$best:$take"
      free[$best]=$((free[$best] - take)) need=$((need - take))
    done
  done
  for host in "${host_names[@]}"; do
    take=$((host_slots[$host] - free[$host]))
    [ "$take" -le "$most_ranks" ] || most_ranks=$take
  done
}

# used_hosts: the hosts on which replicas were placed, one a line.
used_hosts() { printf '%s\n' "${placement[@]}" | tr ',' '\n' | cut -d: -f1 | sort -u; }

# is_local HOST: this machine, which mpirun starts processes on by itself.
is_local() {
  local address own
  case $1 in "$(uname -n)" | localhost | 127.*) return 0 ;; esac
  own=" $(hostname -I 2>/dev/null) "
  for address in $(getent ahosts "$1" | awk '{ print $1 }' | sort -u); do
    [[ $address == 127.* || $address == ::1 || $own == *" $address "* ]] && return 0
  done
  return 1
}

# on_host HOST COMMAND: runs a shell command there, by the agent that mpirun uses; at most $host_timeout seconds.
on_host() {
  local agent options=()
  if is_local "$1"; then
    timeout "$host_timeout" sh -c "$2" </dev/null
    return
  fi
  read -r -a agent <<<"$rsh_agent"
  [ "${agent[0]##*/}" != ssh ] || options=(-o BatchMode=yes -o "ConnectTimeout=$host_timeout")
  timeout --kill-after=1 "$host_timeout" "${agent[@]}" "${options[@]}" "$1" "$2" </dev/null
}

# on_used_hosts COMMAND FOLDER: on all of them at once; FOLDER/HOST.{out,rc} keep what they said.
on_used_hosts() {
  local host pids=()
  for host in $(used_hosts); do
    { on_host "$host" "$1" >"$2/$host.out" 2>&1; echo $? >"$2/$host.rc"; } &
    pids+=($!)
  done
  wait "${pids[@]}"
}

# check_hosts: names every host that does not answer or lacks what the ranks need there, and ends.
check_hosts() {
  local folder host rc reason wrong=0 command="" daemon=orted
  [ ${#host_names[@]} -gt 0 ] || return 0
  [ "$mpi_major" = 4 ] || daemon=prted
  local program
  for program in "$bin/trireme-worker" "$bin/trireme"; do
    printf -v command '%stest -x %q || { echo no program %q; exit 3; }; ' "$command" "$program" "$program"
  done
  printf -v command '%stest -r %q || { echo no %q; exit 3; }; ' "$command" "$model/config.json" "$model/config.json"
  # A private Open MPI brings its own daemon along.
  [ -n "${OPAL_PREFIX:-}" ] || command+="command -v $daemon >/dev/null || { echo no $daemon on the PATH: install Open MPI $mpi_major; exit 3; }"
  folder=$(mktemp -d) || exit 1
  on_used_hosts "$command" "$folder"
  for host in $(used_hosts); do
    read -r rc <"$folder/$host.rc"
    [ "$rc" != 0 ] || continue
    reason=$(tail -n 1 "$folder/$host.out")
    case $rc in
      3) reason="it has $reason" ;;
      124 | 137) reason="no answer within $host_timeout s by '$rsh_agent $host'" ;;
      *) reason="'$rsh_agent $host' ended with exit code $rc: ${reason:-without a word}" ;;
    esac
    say "host $host: $reason"
    wrong=$((wrong + 1))
  done
  rm -rf "$folder"
  [ "$wrong" = 0 ] || die "$wrong of $(used_hosts | wc -l) hosts cannot run what --hostfile wants there"
}

# remove_on_hosts FOLDER: what mpirun's daemons made there on hosts that are not this one.
remove_on_hosts() {
  local host
  [ ${#host_names[@]} -gt 0 ] && [[ $1 == /dev/shm/trireme.* ]] || return 0
  for host in $(used_hosts); do
    is_local "$host" || host_timeout=3 on_host "$host" "rm -rf '$1'" >/dev/null 2>&1 &
  done
  wait
}
