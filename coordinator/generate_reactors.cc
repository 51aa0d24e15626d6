#include "coordinator/generate_reactors.h"

#include "absl/strings/str_cat.h"
#include "proto/support/collect.h"

namespace trireme {
namespace {

constexpr size_t kMaxResultBytes = 4 * 1024 * 1024;  // what a client receives by default

}  // namespace

void OnceReactor::write(const v1::GenerateResponse& message) {
  collected_bytes_ += message.ByteSizeLong();
  too_large_ = collected_bytes_ > kMaxResultBytes;
  if (!too_large_) rpc::collect(message, num_samples_, *response_);
  call_->on_written(!too_large_);
}

void OnceReactor::finish(const grpc::Status& status, const RequestRecord::Metadata& receipt) {
  for (const auto& [key, value] : receipt) context_->AddTrailingMetadata(key, value);
  if (too_large_)
    Finish(grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED,
                        absl::StrCat("the result is over ", kMaxResultBytes, " bytes; use Generate")));
  else
    Finish(status);
}

}  // namespace trireme
