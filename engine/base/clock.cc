#include "engine/base/clock.h"

#include "kernels/check.h"

namespace trireme {

void ManualClock::advance(Duration duration) {
  CHECK_GE(duration.count(), 0);
  ticks_.fetch_add(duration.count(), std::memory_order_acq_rel);
}

}  // namespace trireme
