#pragma once
// Measures an engine without any service around it, beside the machine's ceilings taken in the same moments.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/engine.h"

namespace trireme::client {

struct EngineBenchOptions {
  EngineConfig engine;
  std::vector<int> batches = {1, 8};
  std::vector<int> prompt_tokens = {512};  // each with every batch
  int output_tokens = 64;
  int repeats = 3;
  std::string trace_file;  // empty: none; else engine.trace_steps says how much it holds
  int trace_steps = 64;
  size_t probe_bytes = size_t{512} << 20;  // read by all ranks together to measure the bandwidth
};

/// A batch that was not measured, since the KV cache does not hold its sequences.
struct LeftOut {
  int batch = 0, prompt_tokens = 0;
  int64_t wanted_tokens = 0, cache_tokens = 0;
};

/// Medians over the repeats for one batch size and length of prompts. Fractions are medians of ratios to the
/// ceilings measured right before and after each repeat, on all ranks at once.
struct BatchFigures {
  int batch = 0;
  int prompt_tokens = 0;  // of each sequence
  double prefill_tokens_per_s = 0;
  double prefill_gflop_s = 0;   // of the matrix products and attention, all ranks
  double prefill_fraction = 0;  // of the library's rate with product_rows rows
  double decode_tokens_per_s = 0;
  double decode_step_ms = 0, decode_step_ms_p99 = 0;
  double decode_gb_s = 0;                // weights and KV read per step, all ranks
  double decode_bandwidth_fraction = 0;  // of the memory's bandwidth
  double decode_rows_fraction = 0;       // of the library's rate with `batch` rows, products alone
  double decode_speedup = 0;             // tokens/s over those of the first batch of as long prompts
  /// The step can take no less time than its bytes at the memory's bandwidth, nor than its products at the
  /// library's rate: the longer of the two binds.
  std::string limit;                // memory_name or product_name of the report
  double ceiling_tokens_per_s = 0;  // what that limit allows
  /// Rank 0, mean of the decode steps: where the time goes, by phase and "unaccounted", and the part of it
  /// that is neither computing nor communicating (scheduling, sending the plan, uploading it, sampling,
  /// bookkeeping).
  std::vector<std::pair<std::string, double>> decode_phases_ms;
  double decode_host_fraction = 0;
  double decode_unaccounted_fraction = 0;  // of the wall time between first and last decode step
};

struct EngineBenchReport {
  std::string backend, compute_dtype;
  int tp_size = 1, threads = 0;
  double load_seconds = 0;
  std::string memory_name;     // what read_gb_s measures: read (CPU) or copy (GPU)
  std::string product_name;    // the library of products: oneDNN or cuBLASLt
  double read_gb_s = 0;        // median of the probes
  int64_t product_rows = 0;    // as many as a step's prompt tokens, 512 to 2,048
  double product_gflop_s = 0;  // with so many rows, median of the probes
  int64_t resident_bytes = 0;  // of rank 0, at the end
  ByteLedger ledger;           // of rank 0
  std::vector<std::string> notes;
  std::vector<BatchFigures> batches;  // by prompt_tokens, then batch, in the order of the options
  std::vector<LeftOut> left_out;
  /// Of rank 0, since its first step; "unaccounted" holds what the benchmark does between its runs, too.
  std::vector<std::pair<std::string, double>> phases_ms;
};

/// Collective over `world`; the report is filled on rank 0.
absl::StatusOr<EngineBenchReport> run_engine_bench(const EngineBenchOptions& options, HostGroup& world);

}  // namespace trireme::client
