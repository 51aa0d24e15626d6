#pragma once
// Where a request's time went: told to metrics, and to the client in the trailing metadata.

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "trireme/v1/inference.pb.h"
#include "worker/serving_metrics.h"

namespace trireme::worker {

/// Follows one request from its arrival to its end. One thread at a time; `metrics` and `times` must outlive
/// it.
class Receipt {
 public:
  Receipt(ServingMetrics& metrics, const RequestTimes& times)
      : metrics_(metrics), times_(times), arrival_ns_(steady_ns()) {}

  /// The engine's queue has taken it.
  void submitted(int32_t num_prompt_tokens, bool resumed);
  /// A message that is given to the client now.
  void observe(const v1::GenerateResponse& message);

  // How it ended: one of these, once.
  void succeeded();
  void cancelled();  // by a client that is gone; Cancel is a success
  void failed(int status_code);

  /// Key and value, as in inference.proto.
  std::vector<std::pair<std::string, std::string>> metadata() const;

 private:
  void observe_times();

  ServingMetrics& metrics_;
  const RequestTimes& times_;
  const int64_t arrival_ns_;
  int64_t first_message_ns_ = 0;  // with a token
  int32_t num_prompt_tokens_ = 0;
  int32_t num_cached_tokens_ = 0;
  int32_t num_tokens_sent_ = 0;
  int32_t num_completion_tokens_ = 0;
  bool submitted_ = false;
  bool has_prompt_ = false;
  bool was_cancelled_ = false;  // by the Cancel RPC
};

}  // namespace trireme::worker
