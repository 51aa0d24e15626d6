#pragma once
// The one OpenMP pool: static, contiguous shares, so that a thread meets the same data each time.

#include <omp.h>

#include <cstdint>
#include <utility>

namespace trireme::cpu {

struct Range {
  int64_t begin = 0;
  int64_t end = 0;
};

/// Part `index` of [0, count) cut into `parts` contiguous ranges whose lengths differ by at most one.
inline Range split_range(int64_t count, int parts, int index) {
  const int64_t base = count / parts, rest = count % parts;
  const int64_t begin = index * base + (index < rest ? index : rest);
  return {begin, begin + base + (index < rest ? 1 : 0)};
}

/// Calls body(thread, range) on each of `threads` threads. Counts below `serial_below` run on the caller,
/// since waking a team costs about a microsecond. The team always has `threads` members: libgomp ends the
/// threads that a smaller team leaves over and starts them again later.
template <typename Body>
void parallel_ranges(int threads, int64_t count, int64_t serial_below, Body&& body) {
  if (threads == 1 || count < serial_below || count <= 1) {
    body(0, Range{0, count});
    return;
  }
#pragma omp parallel num_threads(threads)
  {
    const int thread = omp_get_thread_num();
    const Range range = split_range(count, omp_get_num_threads(), thread);
    if (range.begin < range.end) body(thread, range);
  }
}

}  // namespace trireme::cpu
