#!/bin/bash
# NVIDIA's compute-sanitizer over the kernel tests, on a GPU: sanitizer.sh BIN_DIRECTORY. memcheck finds accesses beyond
# allocations and shared memory, racecheck shared memory that threads use without a barrier between them. Exit code 0: both
# found nothing; 77: the tool is not here; 1 otherwise.
set -uo pipefail
bin=$1

tool=$(command -v compute-sanitizer) || {
  compiler=$(command -v nvcc) && tool=$(dirname "$(readlink -f "$compiler")")/compute-sanitizer
  [ -x "${tool:-}" ] || {
    echo "compute-sanitizer: not found (of the CUDA Toolkit, package cuda-sanitizer): the kernel tests run without it"
    exit 77
  }
}

# Each access is looked at: of the sizes that the tests have, the small ones.
export TRIREME_TEST_SIZES=small
faults=0
examine() {  # TOOL [OPTION...]
  local kind=$1 rc
  shift
  "$tool" --tool "$kind" --error-exitcode 99 "$@" "$bin/cuda_backend_test" --gtest_brief=1 </dev/null
  rc=$?
  [ $rc = 0 ] && return
  echo "sanitizer.sh: $kind ended with $rc$([ $rc != 99 ] || echo ', which means that it found something')" >&2
  faults=$((faults + 1))
}

# What is refused on purpose, more memory than there is, is no error.
examine memcheck --report-api-errors no
examine racecheck
[ $faults = 0 ]
