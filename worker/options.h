#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/request_limits.h"
#include "proto/support/endpoint.h"
#include "worker/exit_code.h"

namespace trireme::worker {

/// The flags of trireme-worker, checked as far as they can be without a model.
struct WorkerOptions {
  std::string model_dir;     // of a Hugging Face checkpoint; or
  std::string model_config;  // a config.json, with load_format dummy
  std::string load_format = "auto";
  std::string served_model_name;  // empty: the directory's
  std::string coordinator;        // host:port; empty: none
  rpc::Address listen{"127.0.0.1", 0};
  std::optional<rpc::Address> metrics_listen = rpc::Address{"127.0.0.1", 0};  // unset: off
  std::string advertise;
  bool insecure = false;

  std::string backend = "auto";
  std::vector<int> devices = {0};  // GPU of each rank of the job; or one: that of a host's first rank
  std::string collectives = "auto";
  std::string compute_dtype = "auto";
  int num_threads = 0;           // 0: the rank's share of the host
  int tensor_parallel_size = 0;  // 0: auto
  int max_num_seqs = 64;
  int max_step_tokens = 512;
  int max_context_len = 0;  // 0: the model's
  int block_size = 16;
  int64_t kv_memory_bytes = 0;  // 0: fitted to what is left
  int local_ranks = 0;          // 0: this job's
  bool prefix_cache = true;
  int64_t max_queued_requests = 256;
  int64_t max_queued_tokens = 512 << 10;
  int64_t max_queued_per_client = 32;     // requests; 0: no bound
  uint64_t max_unread_bytes = 256 << 10;  // of one request's output
  RequestLimits request_limits;

  std::chrono::milliseconds write_timeout{30'000};
  std::chrono::milliseconds step_timeout{10'000};
  std::chrono::milliseconds join_timeout{60'000};
  std::chrono::milliseconds coordinator_timeout{600'000};
  std::chrono::milliseconds load_timeout{1'800'000};
  std::chrono::milliseconds leader_timeout{3'000};
  std::chrono::milliseconds drain_timeout{30'000};
  std::string trace_file;  // empty: none
  int trace_steps = 256;
  std::chrono::milliseconds trace_interval{0};
  std::string log_level = "info";
};

/// Fills `options`. An exit code when the process is to end at once: after --help or --version, or after one
/// line saying which flag is wrong (on the first process of a job only, when `quiet` is not set).
std::optional<ExitCode> parse_options(int argc, const char* const* argv, bool quiet, WorkerOptions& options);

}  // namespace trireme::worker
