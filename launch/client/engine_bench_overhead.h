#pragma once
// What the accounting of time costs: steps with and without it, in turns within one run.

#include <string>

#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"
#include "engine/engine.h"

namespace trireme::client {

struct OverheadOptions {
  EngineConfig engine;
  int repeats = 3;
  int streams = 8;
  int steps = 400;  // of each repeat
};

/// Medians over fours of steps in the order on, off, off, on, so that a drift of the machine falls on both.
/// Where other programs take the processors away, the fastest tenth of the steps still tells: that only adds
/// time.
struct OverheadReport {
  int streams = 0;
  bool traced = false;
  size_t fours = 0;
  double on_ms = 0, off_ms = 0;  // a step
  double overhead = 0;           // of a four: on / off - 1
  double quartile_1 = 0, quartile_3 = 0;
  double standard_error = 0;               // of `overhead`, from the quartiles
  double fast_on_ms = 0, fast_off_ms = 0;  // a tenth of the steps was faster
  double report_ms = 0;                    // telling the leader, as is done once a second
  double whole() const { return overhead + report_ms / 1000; }
  double fast_overhead() const { return fast_on_ms / fast_off_ms - 1; }
  std::string to_text() const;
  nlohmann::json to_json() const;
};

/// "On" is phases and collectives, and the trace where engine.trace_steps says so. Collective over `world`
/// and filled on rank 0; errors are the engine's.
absl::StatusOr<OverheadReport> run_overhead_scenario(OverheadOptions options, HostGroup& world);

}  // namespace trireme::client
