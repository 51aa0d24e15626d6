#include "worker/join_job.h"

#include <algorithm>
#include <thread>
#include <utility>

#include <spdlog/spdlog.h>

#include "absl/strings/str_cat.h"
#include "proto/support/endpoint.h"
#include "proto/support/errors.h"
#include "trireme/v1/cluster.grpc.pb.h"
#include "worker/backoff.h"

namespace trireme::worker {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kJoinAttempt{10};

bool worth_another_try(grpc::StatusCode code) {
  return code == grpc::StatusCode::UNAVAILABLE || code == grpc::StatusCode::DEADLINE_EXCEEDED;
}

}  // namespace

absl::StatusOr<v1::JoinJobResponse> join_job(const std::string& coordinator,
                                             const v1::JoinJobRequest& request,
                                             std::chrono::milliseconds timeout) {
  const auto deadline = Clock::now() + timeout;
  Backoff backoff(std::chrono::milliseconds(200), std::chrono::milliseconds(5000));
  bool told = false;
  while (true) {
    const auto stub = v1::Cluster::NewStub(rpc::create_channel(coordinator));
    grpc::ClientContext context;
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
    const auto time = std::min<std::chrono::milliseconds>(left, kJoinAttempt);
    context.set_deadline(gpr_time_from_millis(time.count(), GPR_TIMESPAN));
    v1::JoinJobResponse response;
    const grpc::Status status = stub->JoinJob(&context, request, &response);
    if (status.ok()) return response;
    if (!worth_another_try(status.error_code())) {
      const absl::Status refused = rpc::from_grpc(status);
      return absl::Status(refused.code(),
                          absl::StrCat("coordinator ", coordinator, " refused the job: ", refused.message()));
    }
    const auto pause = backoff.next();
    if (Clock::now() + pause >= deadline) {
      return absl::UnavailableError(absl::StrCat("coordinator ", coordinator, ": not reached within ",
                                                 timeout.count(), " ms (", status.error_message(), ")"));
    }
    if (!std::exchange(told, true)) {
      spdlog::warn("coordinator {} cannot be reached yet ({}); trying again for {} ms", coordinator,
                   status.error_message(), timeout.count());
    }
    std::this_thread::sleep_for(pause);
  }
}

}  // namespace trireme::worker
