#pragma once
// Two promises of the scheduler as measurements of the engine alone: cached prefixes cost nothing, and a long
// prompt delays nobody's next token by more than one chunk.

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"
#include "engine/engine.h"

namespace trireme::client {

struct ScenarioOptions {
  EngineConfig engine;
  int repeats = 3;
  int prefix_prompt_tokens = 1000;
  int streams = 8;
  int long_prompt_tokens = 2000;
  int stream_steps = 64;  // decode steps of each repeat, before and while the long prompt arrives
};

/// Milliseconds from submission to first token on an idle engine.
struct PrefixReport {
  int prompt_tokens = 0, shared_tokens = 0;
  int cached_tokens = 0;                         // of the shared prompts, at least
  std::vector<double> cold, shared;              // one per repeat, in turns
  double cold_ms = 0, shared_ms = 0, ratio = 0;  // medians
  std::string to_text() const;
  nlohmann::json to_json() const;
};

/// Milliseconds between two tokens of a stream.
struct ChunkedReport {
  int streams = 0, long_prompt_tokens = 0, chunk_tokens = 0;
  size_t samples = 0;  // steps with the prompt
  double undisturbed_p50 = 0, undisturbed_p99 = 0;
  double disturbed_p50 = 0, disturbed_p99 = 0, disturbed_max = 0;
  double chunk_ms = 0;      // a chunk by itself, median
  double long_ttft_ms = 0;  // of the long prompt among the streams, median
  /// By repeat: what the streams' P99 rises by, over the P99 of a chunk by itself in the same repeat. The
  /// same tail on both sides: on a machine that stumbles, a tail beside a median tells of the stumbling.
  std::vector<double> rises;
  double rise_in_chunks = 0;  // their median
  std::string to_text() const;
  nlohmann::json to_json() const;
};

/// Both are collective over `world` and filled on rank 0. Errors are the engine's.
absl::StatusOr<PrefixReport> run_prefix_scenario(ScenarioOptions options, HostGroup& world);
absl::StatusOr<ChunkedReport> run_chunked_scenario(ScenarioOptions options, HostGroup& world);

}  // namespace trireme::client
