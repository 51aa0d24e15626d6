#!/bin/bash
# Installs what is missing, builds, runs the tests. Needs no GPU, no network once the packages are there.
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'END'
launch/test.sh [--all]

Installs missing Debian packages, builds preset cpu, runs its tests, compiles the CUDA sources where nvcc is found,
judges what the compiler made of them, builds the programs with them, and, where there is a GPU, runs the tests labelled gpu
and those of the kernels once more under compute-sanitizer.
  --all   also: the property tests with 10,000 cases each; all tests under AddressSanitizer and UndefinedBehaviorSanitizer, the tests labelled tsan under
          ThreadSanitizer, each fuzz target for 30 seconds (clang 14), and a job of a real Slurm on this machine
The last line is "N passed, N failed, N skipped"; a build that fails counts as one failure. Exit code 0 when none failed.
END
}

all=false
for argument in "$@"; do
  case $argument in
    --all) all=true ;;
    -h | --help) usage; exit 0 ;;
    *) say "unknown argument '$argument'"; usage >&2; exit 2 ;;
  esac
done

# Many processes on few cores: what a peer's silence may last in tests, in multiples of the product's own limits.
export TRIREME_TEST_TIME_FACTOR=${TRIREME_TEST_TIME_FACTOR:-4}

passed=0 failed=0 skipped=0
failures=()
fail() { say "FAILED: $*"; failures+=("$*"); failed=$((failed + 1)); }

# junit_count FILE ATTRIBUTE: of the outermost element.
junit_count() { tr '\n\t' '  ' <"$1" | grep -o '<testsuite [^>]*>' | head -n 1 | sed -n "s/.* $2=\"\([0-9]*\)\".*/\1/p"; }

# run_ctest PRESET [CTEST ARGUMENT...]: runs and counts.
run_ctest() {
  local preset=$1 junit="$root/build/$1/tests.xml" rc
  shift
  rm -f "$junit"
  (cd "$root" && ctest --preset "$preset" --parallel 2 --output-on-failure --no-tests=error --output-junit "$junit" "$@" </dev/null)
  rc=$?
  [ -s "$junit" ] || { fail "ctest of preset $preset did not run (exit code $rc)"; return; }
  local tests failures_here skipped_here disabled
  tests=$(junit_count "$junit" tests) failures_here=$(junit_count "$junit" failures)
  skipped_here=$(junit_count "$junit" skipped) disabled=$(junit_count "$junit" disabled)
  skipped_here=$((skipped_here + disabled))
  passed=$((passed + tests - failures_here - skipped_here)) skipped=$((skipped + skipped_here))
  failed=$((failed + failures_here))
  [ "$failures_here" = 0 ] || failures+=("$failures_here tests of preset $preset")
  [ $rc = 0 ] || [ "$failures_here" != 0 ] || fail "ctest of preset $preset ended with exit code $rc"
}

# build PRESET [CMAKE ARGUMENT...] [-- TARGET...]
build() {
  local preset=$1 options=() targets=()
  shift
  while [ $# -gt 0 ] && [ "$1" != -- ]; do options+=("$1"); shift; done
  [ $# -eq 0 ] || { shift; targets=(--target "$@"); }
  (cd "$root" && cmake --preset "$preset" "${options[@]}" </dev/null &&
    cmake --build --preset "$preset" "${targets[@]}" </dev/null) || { fail "building preset $preset"; return 1; }
}

# compile_cuda ARCHITECTURES: the kernels, then the programs around them.
compile_cuda() {
  if ! command -v nvcc >/dev/null; then
    say "CUDA: nvcc not found, nothing compiled"
    return
  fi
  build cuda -DTRIREME_TESTS=OFF -DCMAKE_CUDA_ARCHITECTURES="$1" -- trireme_cuda_kernels || return
  say "CUDA: compiled for $1"
  check "resources of the CUDA kernels" /usr/bin/python3 "$root/tests/kernels/cuda/resources.py" \
    "$root/build/cuda/kernels/cuda/libtrireme_cuda_kernels.a"
  build cuda -- trireme trireme-worker trireme-coordinator || return
  gpu_visible || check "programs of preset cuda without a GPU" "$root/tests/e2e/cuda_programs.sh" "$root/build/cuda/bin"
}

# check NAME COMMAND...: one test, whose output goes to the log.
check() {
  local name=$1
  shift
  if "$@" </dev/null; then passed=$((passed + 1)); else fail "$name"; fi
}

# run_script PATH ARGUMENT...: one test that may say with code 77 that it cannot run here.
run_script() {
  local path=$1
  shift
  "$root/$path" "$@" </dev/null
  case $? in
    0) passed=$((passed + 1)) ;;
    77) skipped=$((skipped + 1)) ;;
    *) fail "$path" ;;
  esac
}

# What needs a device, where there is one.
run_gpu_tests() {
  if gpu_visible && command -v nvcc >/dev/null; then
    build cuda -DTRIREME_TESTS=ON -- gpu_tests || return
    run_ctest cuda -L gpu
    run_script tests/kernels/cuda/sanitizer.sh "$root/build/cuda/bin"
  else
    say "tests labelled gpu, and the kernel tests under compute-sanitizer: skipped, no GPU and compiler for it are here"
    skipped=$((skipped + 2))
  fi
}

run_sanitizers() {
  local lists="$root/tests/sanitizers"
  # Open MPI's modules are unloaded before the leak check, hence the slow unwinder.
  export LSAN_OPTIONS="suppressions=$lists/lsan.supp:print_suppressions=0:fast_unwind_on_malloc=0"
  export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1"
  export ASAN_OPTIONS="detect_stack_use_after_return=1"
  export TSAN_OPTIONS="ignore_noninstrumented_modules=1:suppressions=$lists/tsan.supp"
  build asan -DTRIREME_TESTS=ON && run_ctest asan
  build tsan -DTRIREME_TESTS=ON -- tsan_tests && run_ctest tsan -L tsan
}

run_fuzz_targets() {
  local folder="$root/build/fuzz" target name corpus seeds
  build fuzz || return
  for target in "$folder"/bin/*_fuzz; do
    [ -x "$target" ] || { fail "no fuzz target was built"; return; }
    name=$(basename "$target")
    corpus=$(mktemp -d)
    seeds=()
    [ ! -d "$root/tests/fuzz/corpus/$name" ] || seeds=("$root/tests/fuzz/corpus/$name")
    if "$target" -max_total_time=30 -rss_limit_mb=2048 -timeout=10 -artifact_prefix="$folder/" -print_final_stats=1 \
      "$corpus" "${seeds[@]}" </dev/null >"$folder/$name.log" 2>&1; then
      passed=$((passed + 1))
      say "$name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$folder/$name.log") inputs, no failure"
    else
      tail -n 40 "$folder/$name.log" >&2
      fail "fuzz target $name"
    fi
    rm -rf "$corpus"
  done
}

# The demo model as a job of a real Slurm on this machine.
run_slurm_test() { run_script tests/e2e/slurm_test.sh "$root/build/cpu/bin"; }

sets=(build test)
$all && sets+=(all)
install_packages "${sets[@]}"
build cpu -DTRIREME_TESTS=ON && run_ctest cpu
if $all; then compile_cuda "80;89;90a-real;90-virtual"; else compile_cuda 90a-real; fi
run_gpu_tests
if $all; then
  TRIREME_PROPERTY_CASES=10000 run_ctest cpu -R PropertyTest
  run_slurm_test
  run_sanitizers
  run_fuzz_targets
fi
[ ${#failures[@]} -eq 0 ] || printf 'failed: %s\n' "${failures[@]}"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
