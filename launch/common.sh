# Shared by quickstart.sh, serve.sh and test.sh: packages, build, messages. Sourced, not run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$*"; exit 1; }

# The value of an option that needs one: need_value OPTION COUNT
need_value() { [ "$2" -ge 2 ] || { say "$1 needs a value; --help lists the options"; exit 2; }; }

# positive NAME VALUE: a whole number of at least 1, or the end.
positive() { [[ $2 =~ ^[1-9][0-9]{0,5}$ ]] || { say "$1: got '$2', wanted a whole number of at least 1"; exit 2; }; }

# install_packages SET...: those of launch/packages.txt that are missing; asks apt for nothing when all are there.
install_packages() {
  local set package missing=()
  command -v dpkg-query >/dev/null || {
    say "this is not Debian: make sure that you have what launch/packages.txt lists"
    return
  }
  while read -r set package; do
    [[ " $* " == *" $set "* ]] || continue
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done < <(grep -v '^#' "$root/launch/packages.txt")
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing ${missing[*]}"
  local as_root=(env DEBIAN_FRONTEND=noninteractive)
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || die "not root, and no sudo: ask someone to run apt-get install ${missing[*]}"
    as_root=(sudo "${as_root[@]}")
  fi
  "${as_root[@]}" apt-get update -qq </dev/null || die "apt-get update failed"
  "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >/dev/null ||
    die "apt-get install ${missing[*]} failed"
}

gpu_visible() { command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q '^GPU'; }

# preset_for BACKEND: cpu or cuda; auto means cuda where a GPU and its compiler are.
preset_for() {
  case $1 in
    cpu) echo cpu ;;
    cuda) echo cuda ;;
    auto)
      if ! gpu_visible; then
        echo cpu
      elif command -v nvcc >/dev/null; then
        echo cuda
      else
        say "backend auto: the CPU, since there is a GPU, but no nvcc to build for it: install NVIDIA's CUDA Toolkit and NCCL, or put /usr/local/cuda/bin on PATH"
        echo cpu
      fi ;;
    *) say "--backend: got '$1', wanted auto, cpu or cuda"; exit 2 ;;
  esac
}

# Keeps what a build says in a file, and shows on a terminal how far it is.
show_progress() {  # LOG
  local line
  while IFS= read -r line; do
    printf '%s\n' "$line" >>"$1"
    [ -t 2 ] && [[ $line =~ ^\[[0-9]+/[0-9]+\] ]] && printf '\r%s ' "${BASH_REMATCH[0]}" >&2
  done
  [ ! -t 2 ] || printf '\r\033[K' >&2
}

# build_product PRESET: the programs alone. A build folder that has the tests configured keeps them.
build_product() {
  local build="$root/build/$1" options=() log result
  [ -f "$build/CMakeCache.txt" ] || options=(-DTRIREME_TESTS=OFF)
  log=$(mktemp)
  (cd "$root" && cmake --preset "$1" "${options[@]}" && cmake --build "$build" --target trireme trireme-coordinator trireme-worker) \
    2>&1 </dev/null | show_progress "$log"
  result=${PIPESTATUS[0]}
  [ "$result" = 0 ] || tail -n 40 "$log" >&2
  rm -f "$log"
  [ "$result" = 0 ] || die "building preset $1 failed"
}

seconds_since() { awk -v a="$1" -v b="$(cut -d' ' -f1 /proc/uptime)" 'BEGIN { printf "%.1f", b - a }'; }
now() { cut -d' ' -f1 /proc/uptime; }
