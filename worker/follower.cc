#include "worker/follower.h"

#include "absl/strings/str_cat.h"

namespace trireme::worker {

absl::Status run_follower(StepFollower& engine, std::chrono::milliseconds deadline) {
  while (true) {
    const absl::StatusOr<bool> more = engine.follow(deadline);
    if (absl::IsDeadlineExceeded(more.status())) {
      return absl::UnavailableError(absl::StrCat("the leader is gone: neither a plan nor a sign of life in ",
                                                 deadline.count(), " ms (", more.status().message(), ")"));
    }
    if (!more.ok()) return more.status();
    if (!*more) return absl::OkStatus();
  }
}

}  // namespace trireme::worker
