#include "worker/inventory.h"

#include <sched.h>
#include <unistd.h>

#include <array>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "engine/backend_choice.h"
#include "engine/models/causal_lm.h"
#include "engine/weights/safetensors.h"
#include "engine/weights/weight_loader.h"
#include "kernels/backend.h"

namespace trireme::worker {

namespace {

std::vector<int> usable_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cpus;
  if (::sched_getaffinity(0, sizeof(set), &set) != 0) return {0};
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

std::string name_of_path(const std::string& path) {
  std::error_code error;
  const auto absolute = std::filesystem::weakly_canonical(path, error);
  const std::string name = (error ? std::filesystem::path(path) : absolute).filename().string();
  return name.empty() ? "model" : name;
}

/// Of most of the model's bytes.
absl::StatusOr<DType> stored_dtype(const LocalModel& model, const WorkerOptions& options) {
  if (options.load_format == "dummy") return model.config.checkpoint_dtype;
  const auto checkpoint = Checkpoint::open(options.model_dir);
  if (!checkpoint.ok()) return checkpoint.status();
  return dominant_dtype(**checkpoint);
}

}  // namespace

std::string host_name() {
  std::array<char, 256> name = {};
  if (::gethostname(name.data(), name.size() - 1) != 0) return "localhost";
  return name.data();
}

absl::StatusOr<LocalModel> identify_model(const WorkerOptions& options) {
  const std::string path =
      options.model_config.empty() ? absl::StrCat(options.model_dir, "/config.json") : options.model_config;
  auto config = load_model_config(path);
  if (!config.ok()) return config.status();
  LocalModel model;
  model.config = *std::move(config);
  model.name = options.served_model_name;
  if (model.name.empty()) {
    model.name = options.model_config.empty() ? name_of_path(options.model_dir)
                                              : std::filesystem::path(options.model_config).stem().string();
  }
  return model;
}

absl::StatusOr<LocalDevice> find_device(const WorkerOptions& options, const HostGroup& world,
                                        const absl::StatusOr<std::optional<DevicePlacement>>& named,
                                        const absl::StatusOr<LocalModel>& model) {
  if (!named.ok()) return named.status();
  if (!model.ok()) return model.status();
  const auto stored = stored_dtype(*model, options);
  if (!stored.ok()) return stored.status();
  const BackendWish wish{options.backend,     options.devices.front(),
                         /*num_threads=*/1,   wanted_compute_dtype(options.compute_dtype, *stored),
                         world.local_rank(),  world.local_size(),
                         options.collectives, *named};
  std::vector<std::string> notes;  // told when the engine chooses, in the same way
  const auto chosen = choose_backend(wish, notes);
  if (!chosen.ok()) return chosen.status();
  const Backend& backend = *chosen->backend;
  const auto dtype = choose_compute_dtype(options.compute_dtype, *stored, backend, nullptr);
  if (!dtype.ok()) return dtype.status();
  return LocalDevice{backend.name(),
                     backend.description(),
                     backend.available_memory_bytes() / chosen->placement.num_sharers,
                     shares_host_memory(backend),
                     *dtype,
                     backend.activation_dtype()};
}

v1::RankReport make_rank_report(int rank, const WorkerOptions& options,
                                const absl::StatusOr<LocalModel>& model,
                                const absl::StatusOr<LocalDevice>& device) {
  v1::RankReport report;
  v1::RankInfo& info = *report.mutable_info();
  info.set_rank(rank);
  info.set_host(host_name());
  info.set_num_threads(options.num_threads);
  for (int cpu : usable_cpus()) report.add_cpus(cpu);
  if (device.ok()) {
    info.set_device(device->shares_host_memory ? device->name : device->description);
    info.set_isa(device->description);
    info.set_memory_bytes(device->memory_bytes);
    report.set_has_own_memory(!device->shares_host_memory);
    report.set_config_hash(model->config.hash);
  } else {
    report.set_error_code(static_cast<int>(device.status().code()));
    report.set_error_message(std::string(device.status().message()));
  }
  return report;
}

v1::ModelInfo describe_model(const LocalModel& model, const LocalDevice& device,
                             const std::string& tokenizer_hash) {
  const ModelShape shape = model_shape(model.config, model.name, device.compute_dtype, device.compute_dtype);
  v1::ModelInfo info;
  info.set_name(model.name);
  info.set_architecture(model.config.architecture);
  info.set_hidden_size(shape.hidden_size);
  info.set_intermediate_size(shape.intermediate_size);
  info.set_num_layers(shape.num_layers);
  info.set_num_heads(shape.num_heads);
  info.set_num_kv_heads(shape.num_kv_heads);
  info.set_head_dim(shape.head_dim);
  info.set_vocab_size(shape.vocab_size);
  info.set_tie_word_embeddings(shape.tie_word_embeddings);
  info.set_max_position_embeddings(model.config.max_position_embeddings);
  info.set_weight_dtype_bytes(shape.weight_dtype_bytes);
  info.set_kv_dtype_bytes(shape.kv_dtype_bytes);
  info.set_activation_dtype_bytes(static_cast<int>(dtype_bytes(device.activation_dtype)));
  info.set_config_hash(model.config.hash);
  info.set_tokenizer_hash(tokenizer_hash);
  info.set_compute_dtype(std::string(dtype_name(device.compute_dtype)));
  return info;
}

}  // namespace trireme::worker
