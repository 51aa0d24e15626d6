#!/bin/bash
# survey_hosts.sh HOSTFILE MODEL BUILD RSH_AGENT HOST_TIMEOUT TPxDP...: for each layout, rising, where serve.sh would put
# its ranks ("place TPxDP HOST:RANKS,... HOST:RANKS ...", a word per replica), then the cores of each host that is used
# ("cores HOST N", - where nproc is not known there). Ends with the hosts that do not answer, or a layout without slots.
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
. "$root/launch/hosts.sh"
. "$root/launch/mpirun.sh"
hostfile=$1 model=$2 bin=$3 rsh_agent=${4:-${OMPI_MCA_plm_rsh_agent:-ssh}} host_timeout=${5:-10}
shift 5
positive --host-timeout "$host_timeout"
mpirun_detect
read_hostfile "$hostfile"
for layout in "$@"; do
  tensor_parallel=${layout%x*} replicas=${layout#*x}
  [ "$(num_slots)" -ge $((tensor_parallel * replicas)) ] ||
    die "--hostfile $hostfile has $(num_slots) slots, $replicas replicas of $tensor_parallel ranks need $((tensor_parallel * replicas))"
  place_replicas
  echo "place $layout ${placement[*]}"
  everything+=("${placement[@]}")
done
placement=("${everything[@]}")
check_hosts
for host in $(used_hosts); do
  cores=$(on_host "$host" nproc 2>/dev/null) && [[ $cores =~ ^[0-9]+$ ]] || cores=-
  echo "cores $host $cores"
done
