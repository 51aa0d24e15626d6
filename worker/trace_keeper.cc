#include "worker/trace_keeper.h"

#include <utility>

#include "kernels/check.h"

namespace trireme::worker {

void TraceKeeper::write_beside(std::vector<RankTimeline> ranks) {
  CHECK_EQ(busy(), false);
  finish();
  busy_ = true;
  thread_ = std::thread([this, ranks = std::move(ranks)] {
    write_(ranks);
    busy_ = false;
  });
}

void TraceKeeper::write_now(const std::vector<RankTimeline>& ranks) {
  finish();
  write_(ranks);
}

}  // namespace trireme::worker
