// trireme plan: what a model needs and would reach on devices that need not be there.

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/loading.h"
#include "engine/models/causal_lm.h"
#include "engine/plan/csv_table.h"
#include "engine/plan/planner.h"
#include "launch/client/commands.h"
#include "launch/client/plan_report.h"
#include "launch/client/scaling_tables.h"

namespace trireme::client {
namespace {

struct Flags {
  std::string model_dir, model_config, model_name, gpu, inventory;
  std::string dtype = "auto", kv_dtype = "auto", target = "throughput", collectives = "nccl", json;
  std::string gpu_table, model_table, all_reduce_table;
  std::vector<int> devices;
  bool list = false;
  PlanRequest request;
};

int fail(const absl::Status& status) {
  std::cerr << "trireme plan: " << status.message() << "\n";
  const bool users = status.code() == absl::StatusCode::kInvalidArgument ||
                     status.code() == absl::StatusCode::kNotFound ||
                     status.code() == absl::StatusCode::kFailedPrecondition;
  return users ? kExitInvalid : kExitFailed;
}

std::string auto_dtype(const ModelConfig& config) {
  return config.checkpoint_dtype == DType::f32   ? "f32"
         : config.checkpoint_dtype == DType::f16 ? "f16"
                                                 : "bf16";
}

absl::Status choose_model(const Flags& flags, const ModelTable& models, std::string& dtype,
                          ModelSpec& model) {
  const int given = !flags.model_dir.empty() + !flags.model_config.empty() + !flags.model_name.empty();
  if (given != 1) return absl::InvalidArgumentError("give one of --model, --model-config and --model-name");
  if (!flags.model_name.empty()) {
    auto found = models.find(flags.model_name);
    if (!found.ok()) return found.status();
    model = *std::move(found);
    if (dtype == "auto") dtype = "bf16";
    return absl::OkStatus();
  }
  const std::string path = flags.model_dir.empty() ? flags.model_config : flags.model_dir + "/config.json";
  auto config = load_model_config(path);
  if (!config.ok()) return config.status();
  std::filesystem::path name(flags.model_dir.empty() ? flags.model_config : flags.model_dir);
  if (!name.has_filename()) name = name.parent_path();
  const std::string shown = flags.model_dir.empty() ? name.stem().string() : name.filename().string();
  model.shape = model_shape(*config, shown, DType::bf16, DType::bf16);
  model.max_context = longest_context(*config);
  model.parameters = count_parameters(model.shape);
  if (dtype == "auto") dtype = auto_dtype(*config);
  return absl::OkStatus();
}

/// The device, and with an inventory how many there are and how many share a host.
absl::Status choose_devices(Flags& flags, const GpuTable& gpus) {
  if (flags.gpu.empty() == flags.inventory.empty()) {
    return absl::InvalidArgumentError("give one of --gpu and --inventory");
  }
  PlanRequest& request = flags.request;
  if (flags.inventory.empty()) {
    auto gpu = gpus.find(flags.gpu);
    if (!gpu.ok()) return gpu.status();
    request.gpu = *std::move(gpu);
    if (!flags.devices.empty()) request.devices = flags.devices;
    return absl::OkStatus();
  }
  auto text = read_table_file(flags.inventory);
  if (!text.ok()) return text.status();
  auto hosts = parse_inventory(*text, flags.inventory, gpus);
  if (!hosts.ok()) return hosts.status();
  int total = 0;
  request.gpu = hosts->front().gpu;
  request.devices_per_host = hosts->front().devices;
  for (const InventoryHost& host : *hosts) {
    request.gpu = weakest_of(request.gpu, host.gpu);
    request.devices_per_host = std::min(request.devices_per_host, host.devices);
    total += host.devices;
  }
  request.devices = flags.devices.empty() ? std::vector<int>{total} : flags.devices;
  if (absl::Status checked = check_devices(request.devices); !checked.ok()) return checked;
  if (request.devices.back() > total) {
    return absl::InvalidArgumentError(
        absl::StrCat("--devices: got ", request.devices.back(), ", ", flags.inventory, " has ", total));
  }
  return absl::OkStatus();
}

absl::Status complete(Flags& flags, const ScalingTables& tables) {
  PlanRequest& request = flags.request;
  std::string dtype = flags.dtype;
  if (absl::Status model = choose_model(flags, tables.models, dtype, request.model); !model.ok())
    return model;
  if (absl::Status devices = choose_devices(flags, tables.gpus); !devices.ok()) return devices;
  auto weights = parse_number_format(dtype, "--dtype");
  if (!weights.ok()) return weights.status();
  const std::string like_weights = weights->quantized ? "bf16" : weights->name;
  auto cache = parse_number_format(flags.kv_dtype == "auto" ? like_weights : flags.kv_dtype, "--kv-dtype");
  if (!cache.ok()) return cache.status();
  request.weights = *std::move(weights);
  request.cache = *std::move(cache);
  request.target = flags.target == "latency" ? PlanTarget::latency : PlanTarget::throughput;
  request.all_reduce = flags.collectives == "best" ? AllReduceChoice::best : AllReduceChoice::nccl;
  return absl::OkStatus();
}

void print_tables(const ScalingTables& tables) {
  std::printf("%-20s %-10s %9s %9s %12s %9s\n", "GPU", "capability", "GiB", "GB/s", "bf16 TFLOP/s", "USD/h");
  for (const GpuSpec& gpu : tables.gpus.gpus()) {
    std::printf("%-20s %-10s %9.0f %9.0f %12.1f %9.2f\n", gpu.name.c_str(), gpu.compute_capability.c_str(),
                gpu.memory_gib, gpu.memory_gb_s, gpu.bf16_tflops, gpu.usd_per_hour);
  }
  std::printf("\n%-32s %12s %9s\n", "model", "B parameters", "context");
  for (const ModelSpec& model : tables.models.models()) {
    std::printf("%-32s %12.2f %9d\n", model.shape.name.c_str(), count_parameters(model.shape) * 1e-9,
                model.max_context);
  }
}

int write_json(const std::string& path, const nlohmann::json& json) {
  if (path == "-") {
    std::cout << json.dump(2) << "\n";
    return kExitOk;
  }
  std::ofstream file(path);
  if (!(file << json.dump(2) << "\n") || !file.flush()) {
    return fail(absl::InvalidArgumentError(absl::StrCat("--json: ", path, " cannot be written")));
  }
  return kExitOk;
}

int run(Flags& flags) {
  auto tables = load_scaling_tables(flags.gpu_table, flags.model_table, flags.all_reduce_table);
  if (!tables.ok()) return fail(tables.status());
  if (flags.list) {
    print_tables(*tables);
    return kExitOk;
  }
  if (absl::Status status = complete(flags, *tables); !status.ok()) return fail(status);
  auto report = plan_deployment(flags.request, tables->all_reduce);
  if (!report.ok()) return fail(report.status());
  if (flags.json != "-") std::cout << plan_text(*report);
  return flags.json.empty() ? kExitOk : write_json(flags.json, plan_json(*report));
}

void add_choices(CLI::App& command, Flags& flags) {
  command.add_option("--model", flags.model_dir, "Hugging Face directory; only its config.json is read");
  command.add_option("--model-config", flags.model_config, "a config.json alone");
  command.add_option("--model-name", flags.model_name, "a model of the table, e.g. Llama-3.1-70B");
  command.add_option("--gpu", flags.gpu, "a device of the table, e.g. H100-SXM");
  command.add_option(
      "--inventory", flags.inventory,
      "CSV with the columns host, gpu, devices: plan for these; a mixed group is as its weakest");
  command.add_option("--devices", flags.devices, "counts that rise; 1,2,4,8 or all of the inventory")
      ->delimiter(',');
  command
      .add_option("--devices-per-host", flags.request.devices_per_host,
                  "beyond it ranks talk over the network")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command.add_option(
      "--gpu-table", flags.gpu_table,
      "CSV like launch/scaling/gpus.csv; its rows are added, or replace those of the same name");
  command.add_option("--model-table", flags.model_table, "CSV like launch/scaling/models.csv");
  command.add_option("--all-reduce-table", flags.all_reduce_table, "CSV like launch/scaling/all_reduce.csv");
  command.add_flag("--list", flags.list, "print the devices and models of the tables");
}

void add_workload(CLI::App& command, Flags& flags) {
  PlanRequest& request = flags.request;
  command.add_option("--dtype", flags.dtype, "of the weights: auto, bf16, f16, f32, fp8, int8, int4")
      ->capture_default_str();
  command.add_option("--kv-dtype", flags.kv_dtype, "of the KV cache: auto, bf16, f16, f32, fp8, int8")
      ->capture_default_str();
  command.add_option("--context", request.context, "tokens of each sequence; 4096 or what the model has")
      ->check(CLI::Range(1, 1 << 28));
  command
      .add_option("--prompt-tokens", request.prompt_tokens, "of the first token's estimate; half the context")
      ->check(CLI::Range(1, 1 << 28));
  command
      .add_option("--batch", request.batch,
                  "sequences at once over all replicas; the largest, at most 256 each")
      ->check(CLI::Range(1, 1 << 20));
  command.add_option("--max-step-tokens", request.max_step_tokens, "of the worker: sizes the activations")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  command
      .add_option("--target", flags.target, "latency: speed for one user; throughput: tokens/s per device")
      ->check(CLI::IsMember({"latency", "throughput"}))
      ->capture_default_str();
  command.add_option("--price", request.usd_per_device_hour, "USD per device and hour; the table's")
      ->check(CLI::Range(1e-6, 1e6));
  command
      .add_option("--collectives", flags.collectives,
                  "nccl: its published curves; best: also custom kernels, whichever is faster at a size")
      ->check(CLI::IsMember({"nccl", "best"}))
      ->capture_default_str();
  command.add_option("--json", flags.json, "write the plan here as JSON; - for standard output");
}

}  // namespace

void add_plan_command(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "plan",
      "What a model needs and would reach: bytes per rank, batch, speed and price of every layout, by "
      "arithmetic on published figures; no device needed");
  auto flags = std::make_shared<Flags>();
  add_choices(*command, *flags);
  add_workload(*command, *flags);
  command->footer(kPlanJsonHelp);
  command->callback([flags, &exit_code] { exit_code = run(*flags); });
}

}  // namespace trireme::client
