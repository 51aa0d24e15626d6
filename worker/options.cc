#include "worker/options.h"

#include <cmath>
#include <cstdio>

#include <CLI/CLI.hpp>

#include "absl/strings/numbers.h"

namespace trireme::worker {

namespace {

using std::chrono::milliseconds;

/// CLI::Range lets NaN pass.
std::string check_seconds(const std::string& text) {
  double seconds = 0;
  if (absl::SimpleAtod(text, &seconds) && seconds >= 0 && seconds <= 1e6) return "";
  return "got '" + text + "', wanted 0 to 1000000 seconds";
}

void add_seconds(CLI::App& app, const std::string& name, milliseconds& value, const std::string& text) {
  app.add_option_function<double>(
         name, [&value](double seconds) { value = milliseconds(std::llround(seconds * 1000)); }, text)
      ->check(CLI::Validator(check_seconds, "SECONDS"))
      ->default_str(std::to_string(value.count() / 1000))
      ->type_name("SECONDS");
}

void add_model_flags(CLI::App& app, WorkerOptions& options) {
  app.add_option("--model", options.model_dir,
                 "directory with config.json, *.safetensors and tokenizer.json, as Hugging Face lays it out");
  app.add_option("--load-format", options.load_format, "dummy: draw the weights instead of reading them")
      ->check(CLI::IsMember({"auto", "dummy"}))
      ->capture_default_str();
  app.add_option("--model-config", options.model_config, "config.json of a model without weights, for dummy");
  app.add_option("--served-model-name", options.served_model_name,
                 "what clients call the model (default: the directory's name)");
}

rpc::Address address_of(const std::string& flag, const std::string& text) {
  const auto address = rpc::parse_address(text);
  if (!address.ok()) throw CLI::ValidationError(flag, std::string(address.status().message()));
  return *address;
}

void add_network_flags(CLI::App& app, WorkerOptions& options) {
  app.add_option("--coordinator", options.coordinator, "host:port to join (default: serve alone)");
  app.add_option_function<std::string>(
         "--listen", [&options](const std::string& text) { options.listen = address_of("--listen", text); },
         "host:port of a leader's Inference service; port 0 chooses one")
      ->default_str("127.0.0.1:0");
  app.add_option_function<std::string>(
         "--metrics-listen",
         [&options](const std::string& text) {
           if (text == "off")
             options.metrics_listen.reset();
           else
             options.metrics_listen = address_of("--metrics-listen", text);
         },
         "host:port of a leader's Prometheus endpoint, told when ready; port 0 chooses one; or off")
      ->default_str("127.0.0.1:0");
  app.add_option("--advertise", options.advertise,
                 "host:port others reach the leader at, where it is not the one it listens on");
  app.add_flag("--insecure", options.insecure,
               "allow listening on an address that is not this host's loopback, without encryption");
}

void add_engine_flags(CLI::App& app, WorkerOptions& options) {
  app.add_option("--backend", options.backend,
                 "device to compute on; auto: the GPU if it can be used, else the CPU")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  app.add_option("--device", options.devices,
                 "GPU of this job's first rank on a host, of those that CUDA_VISIBLE_DEVICES leaves; the "
                 "others take those after it, and share them, all in turn, where they are too few. Or with "
                 "commas the GPU of each rank of the job")
      ->delimiter(',')
      ->check(CLI::Range(0, 1023))
      ->default_str("0");
  app.add_option("--collectives", options.collectives,
                 "between the ranks of a replica; auto: nccl where each has a GPU, else mpi, which takes the "
                 "tensors of a GPU over host memory and lets ranks share one")
      ->check(CLI::IsMember({"auto", "nccl", "mpi"}))
      ->capture_default_str();
  app.add_option("--compute-dtype", options.compute_dtype,
                 "of weights and KV cache, on a GPU of activations, too; auto: the checkpoint's, "
                 "but bf16 for f16 on the CPU, which has no f16 products")
      ->check(CLI::IsMember({"auto", "f32", "bf16", "f16"}))
      ->capture_default_str();
  app.add_option("--threads", options.num_threads, "per rank; 0: its share of the host's processors")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app.add_option_function<std::string>(
         "--tensor-parallel",
         [&options](const std::string& text) {
           int size = 0;
           if (text != "auto" && (!absl::SimpleAtoi(text, &size) || size < 1 || size > 1024)) {
             throw CLI::ValidationError("--tensor-parallel", "got '" + text + "', wanted auto or 1 to 1024");
           }
           options.tensor_parallel_size = size;
         },
         "ranks that hold one copy of the model; auto: as few as fit")
      ->default_str("auto");
  app.add_option("--max-num-seqs", options.max_num_seqs, "sequences that run at once")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--max-step-tokens", options.max_step_tokens,
                 "tokens of one step, prompts and outputs together")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  app.add_option("--max-context-len", options.max_context_len, "prompt and output together; 0: the model's")
      ->check(CLI::Range(0, 1 << 24))
      ->capture_default_str();
  app.add_option("--block-size", options.block_size, "tokens per block of the KV cache")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  app.add_option("--kv-memory", options.kv_memory_bytes,
                 "bytes of KV cache per rank, e.g. 4GiB; 0: fitted to what is left after loading")
      ->transform(CLI::AsSizeValue(false))
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--local-ranks", options.local_ranks,
                 "ranks that share this host's memory, those of other jobs included; 0: this job's")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app.add_flag("!--no-prefix-cache", options.prefix_cache,
               "do not reuse the KV cache of equal prompt prefixes");
}

void add_service_flags(CLI::App& app, WorkerOptions& options) {
  app.add_option("--max-queued-requests", options.max_queued_requests, "that wait to be started")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--max-queued-tokens", options.max_queued_tokens, "of prompts that wait to be started")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40))
      ->capture_default_str();
  app.add_option(
         "--max-queued-per-client", options.max_queued_per_client,
         "requests that wait to be started and are one client's, beyond those there are free slots for; "
         "0: no bound. A client is who the call's metadata names as x-trireme-client, as a gateway "
         "does with its users, else the address that the coordinator or this leader is called from")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str();
  app.add_option("--max-unread-bytes", options.max_unread_bytes,
                 "of a request's output; one whose client leaves more unread is cancelled")
      ->transform(CLI::AsSizeValue(false))
      ->check(CLI::Range(uint64_t{4096}, uint64_t{1} << 40))
      ->capture_default_str();
  for (const RequestLimitOption& option : request_limit_options()) {
    app.add_option(option.flag, options.request_limits.*option.limit, option.text)
        ->check(CLI::Range(option.least, option.most))
        ->capture_default_str();
  }
  add_seconds(app, "--write-timeout", options.write_timeout,
              "for a client to take one message; its request is cancelled after");
  add_seconds(app, "--step-timeout", options.step_timeout,
              "a step without progress for this long ends the process; 0: never");
  add_seconds(app, "--join-timeout", options.join_timeout, "to reach the coordinator and the other ranks");
  add_seconds(
      app, "--coordinator-timeout", options.coordinator_timeout,
      "a leader that has been without its coordinator for this long, and so serves nobody but those who "
      "call it directly, lets them finish (--drain-timeout) and ends its job with exit code 69; 0: never");
  add_seconds(app, "--load-timeout", options.load_timeout, "for the ranks to wait for each other's loading");
  add_seconds(app, "--leader-timeout", options.leader_timeout,
              "a follower that hears nothing from its leader for this long ends");
  add_seconds(app, "--drain-timeout", options.drain_timeout, "for running requests to finish after SIGTERM");
  app.add_option(
      "--trace", options.trace_file,
      "file to write when the job stops in good order (or more often, --trace-interval): what every rank of "
      "the replica did in its last "
      "steps, for https://ui.perfetto.dev (pid: replica, tid: rank). A job of several replicas writes "
      "one for each, with the replica's number before the extension");
  app.add_option("--trace-steps", options.trace_steps, "steps that are kept in memory for --trace")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  add_seconds(
      app, "--trace-interval", options.trace_interval,
      "write --trace also every so often while there is work, at most each second, so that a run that is "
      "killed leaves one: the steps wait while the ranks are asked, and writing takes processor time; "
      "0: only at the end");
  app.add_option("--log-level", options.log_level, "of the lines on standard error")
      ->check(CLI::IsMember({"trace", "debug", "info", "warn", "error", "off"}))
      ->capture_default_str();
}

/// What no single flag can say.
std::string check_together(const WorkerOptions& options) {
  if (options.load_format == "dummy") {
    if (options.model_dir.empty() == options.model_config.empty()) {
      return "--load-format dummy: wanted one of --model and --model-config";
    }
  } else if (!options.model_config.empty()) {
    return "--model-config: only with --load-format dummy";
  } else if (options.model_dir.empty()) {
    return "--model is required";
  }
  if (options.trace_interval.count() > 0 && options.trace_file.empty())
    return "--trace-interval: only with --trace";
  if (options.max_step_tokens < options.max_num_seqs) {
    return "--max-step-tokens: got " + std::to_string(options.max_step_tokens) + ", wanted at least the " +
           std::to_string(options.max_num_seqs) + " of --max-num-seqs";
  }
  for (const auto& [flag, text] :
       {std::pair("--coordinator", options.coordinator), std::pair("--advertise", options.advertise)}) {
    if (text.empty()) continue;
    const auto address = rpc::parse_address(text);
    if (!address.ok()) return std::string(flag) + ": " + std::string(address.status().message());
    if (address->port == 0) return std::string(flag) + ": got port 0, wanted 1 to 65535";
  }
  return "";
}

ExitCode usage_error(const std::string& text, bool quiet) {
  if (!quiet) std::fprintf(stderr, "trireme-worker: %s (--help lists all flags)\n", text.c_str());
  return ExitCode::kUsage;
}

}  // namespace

std::optional<ExitCode> parse_options(int argc, const char* const* argv, bool quiet, WorkerOptions& options) {
  CLI::App app(
      "Serves one model with the ranks of this job: alone, or under mpirun -np N. A replica's leader speaks "
      "the Inference service; with --coordinator it also joins a cluster.",
      "trireme-worker");
  app.set_version_flag("--version", "trireme-worker " TRIREME_VERSION);
  add_model_flags(app, options);
  add_network_flags(app, options);
  add_engine_flags(app, options);
  add_service_flags(app, options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {
    if (!quiet) app.exit(success);
    return ExitCode::kOk;
  } catch (const CLI::ParseError& error) {
    return usage_error(error.what(), quiet);
  }
  const std::string wrong = check_together(options);
  if (!wrong.empty()) return usage_error(wrong, quiet);
  return std::nullopt;
}

}  // namespace trireme::worker
