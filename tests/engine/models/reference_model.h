#pragma once
// The tiny checkpoints under references/, and ways to run them on this test's world.

#include <map>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/loading.h"
#include "engine/runner/model_runner.h"

namespace trireme::testing {

/// What transformers computes; see make_references.py.
struct Reference {
  std::string dir;
  std::vector<int32_t> prompt_ids, greedy_ids, positions;
  std::vector<std::vector<float>> logits;
  int max_context_len = 0;
  float max_abs_logit = 0;
};

/// Aborts with the status.
template <typename T>
T value_or_die(absl::StatusOr<T> value) {
  if (!value.ok()) check_failed(__FILE__, __LINE__, value.status().ToString());
  return *std::move(value);
}

inline void or_die(const absl::Status& status) {
  if (!status.ok()) check_failed(__FILE__, __LINE__, status.ToString());
}

/// Names of all references, sorted.
std::vector<std::string> reference_names();
Reference load_reference(const std::string& name);
/// An engine for it: f32, one thread, the reference's context.
EngineConfig reference_engine_config(const Reference& reference);

/// Runs requests to their end on an engine over the world. On rank 0: the outputs by handle, and in `stats`,
/// where given, what the scheduler counted; elsewhere nothing. Aborts on any error.
std::map<RequestHandle, std::vector<TokenOutput>> generate(const EngineConfig& config,
                                                           std::vector<Request> requests,
                                                           SchedulerStats* stats = nullptr);

/// A request for the greedy continuation, past any end-of-sequence token.
Request greedy_request(RequestHandle handle, std::vector<int32_t> prompt, int max_tokens);

/// A rank loaded by hand, so that a test can change it before anything is computed.
class HandLoaded {
 public:
  explicit HandLoaded(const EngineConfig& config);
  LoadedRank& rank() { return rank_; }
  /// Logits of `ids` at each of `positions`, in chunks that end there. [positions.size()][vocab_size] on rank
  /// 0.
  std::vector<std::vector<float>> logits(const std::vector<int32_t>& ids,
                                         const std::vector<int32_t>& positions);

 private:
  LoadedRank rank_;
};

/// The largest difference of two equally shaped tables; infinite when anything is not a number.
float largest_difference(const std::vector<std::vector<float>>& a, const std::vector<std::vector<float>>& b);

}  // namespace trireme::testing
