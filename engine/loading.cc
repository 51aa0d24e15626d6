#include "engine/loading.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/backend_choice.h"
#include "engine/parallel/agreement.h"
#include "engine/parallel/collectives.h"
#include "engine/weights/safetensors.h"
#include "engine/weights/weight_loader.h"

namespace trireme {
namespace {

constexpr float kDummyDeviation = 0.02f;
constexpr uint64_t kDummySeed = 1;
// Of a device, for what is taken after the cache beside activations, token counts and recorded steps: partial
// results of attention (256 MiB at most), the library's workspace, kernels that are loaded when they are
// first needed. Where much is left the cache's share leaves more than that by itself.
constexpr int64_t kDeviceScratchBytes = int64_t{384} << 20;
// For the ranks, whose devices are open by then, to connect them.
constexpr std::chrono::milliseconds kConnectTimeout{120'000};

std::string mebibytes(int64_t bytes) {
  return absl::StrFormat("%.1f MiB", static_cast<double>(bytes) / (1 << 20));
}

/// The stages of a start, agreed on one by one. Within a stage whatever talks to the other ranks comes before
/// anything that can fail on one rank alone: a rank that left early would answer the wrong question.
class Loader {
 public:
  Loader(const EngineConfig& config, HostGroup& host) : config_(config), host_(host) {}

  absl::StatusOr<LoadedRank> load() {
    for (auto stage :
         {&Loader::open, &Loader::agree_on_backend, &Loader::cut, &Loader::fill, &Loader::size_cache}) {
      absl::Status done = agree_on_success(host_, (this->*stage)(), config_.load_timeout);
      if (!done.ok()) return done;
    }
    return std::move(rank_);
  }

 private:
  /// Checkpoint, backend, compute dtype.
  absl::Status open() {
    if (config_.dummy_weights) {
      stored_ = config_.model.checkpoint_dtype;
    } else {
      auto checkpoint = Checkpoint::open(config_.model_dir);
      if (!checkpoint.ok()) return checkpoint.status();
      checkpoint_ = *std::move(checkpoint);
      stored_ = dominant_dtype(*checkpoint_);
    }
    return choose_device(config_.backend);
  }

  absl::Status choose_device(const std::string& name) {
    const BackendWish wish{name,
                           config_.device,
                           config_.num_threads,
                           wanted_compute_dtype(config_.compute_dtype, stored_),
                           host_.local_rank(),
                           host_.local_size(),
                           config_.collectives,
                           config_.placement};
    auto chosen = choose_backend(wish, rank_.notes);
    if (!chosen.ok()) return chosen.status();
    rank_.backend = std::move(chosen->backend);
    rank_.placement = chosen->placement;
    part_at_start_ = rank_.backend->available_memory_bytes() / rank_.placement.num_sharers;
    std::string note;
    auto dtype = choose_compute_dtype(config_.compute_dtype, stored_, *rank_.backend, &note);
    if (!dtype.ok()) return dtype.status();
    if (!note.empty()) rank_.notes.push_back(note);
    rank_.compute_dtype = *dtype;
    return absl::OkStatus();
  }

  /// Bytes that are held of what weights and cache are put into, from some zero on: this process's, or this
  /// rank's part of a device's. To be asked where no rank takes memory until all have answered.
  int64_t memory_in_use() const {
    if (shares_host_memory(*rank_.backend)) return resident_bytes();
    return -rank_.backend->available_memory_bytes() / rank_.placement.num_sharers;
  }

  /// The ranks of a model sit on one kind of device.
  absl::Status agree_on_backend() {
    const bool on_host = shares_host_memory(*rank_.backend);
    auto all_own_devices = agree_on_minimum(host_, on_host ? 0 : 1, config_.load_timeout);
    if (!all_own_devices.ok()) return all_own_devices.status();
    if (on_host || *all_own_devices == 1) return absl::OkStatus();
    rank_.notes.push_back("backend auto: the CPU, since another rank has no GPU that it can use");
    return choose_device("cpu");
  }

  /// This rank's part of the model. The dtype is one for all: ranks may stand on different processors.
  absl::Status cut() {
    auto all_bf16 = agree_on_minimum(host_, rank_.compute_dtype == DType::bf16 ? 1 : 0, config_.load_timeout);
    if (!all_bf16.ok()) return all_bf16.status();
    if (*all_bf16 == 0 && rank_.compute_dtype == DType::bf16) {
      rank_.compute_dtype = DType::f32;
      rank_.notes.push_back("compute dtype f32: another rank's processor has no bf16 products");
    }
    RunnerConfig& runner = rank_.runner;
    runner.shape =
        model_shape(config_.model, config_.model.architecture, rank_.compute_dtype, rank_.compute_dtype);
    runner.shape.activation_dtype_bytes = static_cast<int>(dtype_bytes(rank_.backend->activation_dtype()));
    const bool isolated = config_.shard_size > 0;
    auto layout = layout_tensor_parallel(runner.shape, isolated ? config_.shard_size : host_.size());
    if (!layout.ok()) return layout.status();
    runner.layout = *std::move(layout);
    runner.tp_rank = isolated ? config_.shard_rank : host_.rank();
    if (isolated) {
      rank_.group = create_isolated_process_group(runner.tp_rank, config_.shard_size, *rank_.backend);
      rank_.notes.push_back(absl::StrCat("rank ", config_.shard_rank, " of ", config_.shard_size,
                                         " by itself, communication replaced by nothing: outputs are wrong"));
    } else if (absl::Status connected = connect(); !connected.ok()) {
      return connected;
    }
    if (absl::Status context = choose_context(); !context.ok()) return context;
    if (absl::Status heads = rank_.backend->check_kv_cache(kv_spec()); !heads.ok()) return heads;
    const Shard shard{runner.shape, runner.layout, runner.tp_rank};
    auto model = create_causal_lm(config_.model, shard, *rank_.backend, context_len_);
    if (!model.ok()) return model.status();
    rank_.model = *std::move(model);
    memory_before_ = memory_in_use();
    return absl::OkStatus();
  }

  absl::Status connect() {
    const auto deadline = std::min(config_.load_timeout, kConnectTimeout);
    const bool shares_device = rank_.placement.num_sharers > 1;
    const auto any_shares = agree_on_any(host_, shares_device, deadline);
    if (!any_shares.ok()) return any_shares.status();
    auto group = create_process_group(config_.collectives, host_, *rank_.backend, shares_device, deadline);
    if (!group.ok()) return group.status();
    rank_.group = *std::move(group);
    if (host_.size() > 1) {
      const char* why = *any_shares ? ", since ranks share a GPU" : "";
      rank_.notes.push_back(absl::StrCat("collectives: ", rank_.group->name(), why,
                                         "; all-reduce: ", describe_all_reduce(*rank_.group)));
    }
    return absl::OkStatus();
  }

  absl::Status choose_context() {
    const int longest = longest_context(config_.model);
    if (config_.max_context_len < 0 || config_.max_context_len > longest) {
      return absl::InvalidArgumentError(absl::StrCat("max_context_len: got ", config_.max_context_len,
                                                     ", wanted at most the model's ", longest));
    }
    context_len_ =
        config_.max_context_len > 0 ? config_.max_context_len : config_.model.max_position_embeddings;
    return absl::OkStatus();
  }

  absl::Status fill() {
    const std::vector<Parameter*> parameters = rank_.model->parameters();
    const int threads = config_.num_threads > 0 ? config_.num_threads : 0;
    LoadStats stats;
    absl::Status filled =
        config_.dummy_weights
            ? fill_dummy_parameters(parameters, rank_.compute_dtype, *rank_.backend, kDummyDeviation,
                                    kDummySeed, threads, &stats)
            : load_parameters(*checkpoint_, parameters, rank_.compute_dtype, *rank_.backend, threads, &stats);
    if (!filled.ok()) return with_needs(filled);
    checkpoint_.reset();
    rank_.ledger.rank = rank_.runner.tp_rank;
    rank_.ledger.read_bytes = static_cast<int64_t>(stats.bytes_read);
    rank_.ledger.num_sharers = rank_.placement.num_sharers;
    return absl::OkStatus();
  }

  RankBytes predicted() const {
    DeviceOverhead device;
    if (config_.capture_decodes && rank_.backend->can_capture() && rank_.group->can_be_captured())
      device.graphs = config_.capture_bytes;
    return rank_bytes(rank_.runner.shape, rank_.runner.layout, rank_.runner.tp_rank, config_.max_step_tokens,
                      config_.max_num_seqs, device);
  }

  KvCacheSpec kv_spec() const {
    const HeadGroup& heads = rank_.runner.layout.heads[static_cast<size_t>(rank_.runner.tp_rank)];
    KvCacheSpec spec;
    spec.num_layers = config_.model.num_layers;
    spec.num_kv_heads = heads.kv_head_end - heads.kv_head_begin;
    spec.head_dim = config_.model.head_dim;
    spec.block_size = config_.block_size;
    spec.dtype = rank_.compute_dtype;
    return spec;
  }

  std::string sharing() const {
    if (rank_.placement.num_sharers == 1) return "";
    return absl::StrCat("; ", rank_.placement.num_sharers, " ranks share GPU ", rank_.placement.device);
  }

  /// Memory ran out: what was to be put there.
  absl::Status with_needs(const absl::Status& status) const {
    if (status.code() != absl::StatusCode::kResourceExhausted) return status;
    const RankBytes bytes = predicted();
    return absl::ResourceExhaustedError(
        absl::StrCat(status.message(), "; rank ", rank_.runner.tp_rank, " of ", rank_.runner.layout.tp_size,
                     " needs ", mebibytes(bytes.weights), " for weights, ", mebibytes(bytes.activations),
                     " for activations, ", mebibytes(bytes.token_counts), " for token counts and ",
                     mebibytes(bytes.kv_per_token), " for each token of KV cache", sharing()));
  }

  /// What this rank may take of its device or host, now that its weights are there. Ranks of other replicas
  /// on the same GPU may still be loading: nobody takes more than a part of what there was at the start.
  int64_t memory_left(int64_t weights) const {
    const int64_t available = rank_.backend->available_memory_bytes();
    if (shares_host_memory(*rank_.backend)) return available / config_.local_ranks;
    if (rank_.placement.num_sharers == 1) return available;
    return std::min(available / rank_.placement.num_sharers, part_at_start_ - weights);
  }

  /// The cache takes what is left, as far as it is of use, and no more than was allowed. All ranks have the
  /// same blocks.
  absl::Status size_cache() {
    const int64_t weights_measured = memory_in_use() - memory_before_;
    const KvCacheSpec spec = kv_spec();
    if (std::string note = rank_.backend->attention_note(spec); !note.empty())
      rank_.notes.push_back(std::move(note));
    const int64_t block_bytes = static_cast<int64_t>(rank_.backend->kv_block_bytes(spec));
    const RankBytes bytes = predicted();
    const int64_t allowed = config_.kv_memory_bytes > 0 ? config_.kv_memory_bytes : fitted_budget(bytes);
    const int64_t blocks_per_seq = (context_len_ + config_.block_size - 1) / config_.block_size;
    const int64_t of_use = blocks_per_seq * config_.max_num_seqs;
    auto blocks =
        agree_on_minimum(host_, std::clamp<int64_t>(allowed / block_bytes, 0, of_use), config_.load_timeout);
    if (!blocks.ok()) return blocks.status();
    if (absl::Status fits = fit_context(*blocks, block_bytes, allowed); !fits.ok()) return fits;
    auto cache = rank_.backend->create_kv_cache(spec, *blocks);
    if (!cache.ok()) return with_needs(cache.status());
    rank_.cache = *std::move(cache);
    rank_.ledger.lines = predicted_lines(bytes, *blocks * block_bytes);
    rank_.ledger.lines.front().measured = weights_measured;
    StepPlanLimits& limits = rank_.runner.limits;
    limits.max_num_seqs = config_.max_num_seqs;
    limits.max_num_tokens = config_.max_step_tokens;
    limits.max_context_len = context_len_;
    limits.block_size = config_.block_size;
    limits.num_blocks = static_cast<int32_t>(*blocks);
    limits.vocab_size = config_.model.vocab_size;
    return absl::OkStatus();
  }

  /// What the cache may take where nobody has said it.
  int64_t fitted_budget(const RankBytes& bytes) const {
    const int64_t left = memory_left(bytes.weights);
    const int64_t share = kv_cache_budget(left, bytes);
    if (shares_host_memory(*rank_.backend)) return share;
    // Edited logits are as large as the token counts of rank 0, on every rank.
    const int64_t edited = token_count_bytes(rank_.runner.shape, 0, config_.max_num_seqs);
    const int64_t others = bytes.beside_weights() + edited + kDeviceScratchBytes + config_.leave_bytes;
    return std::min(share, left - others);
  }

  /// One sequence of the whole context must fit; the model's own context is shortened to what does, a wish is
  /// not.
  absl::Status fit_context(int64_t blocks, int64_t block_bytes, int64_t allowed) {
    const int64_t tokens = blocks * config_.block_size;
    if (tokens >= context_len_) return absl::OkStatus();
    const int64_t wanted = (context_len_ + config_.block_size - 1) / config_.block_size * block_bytes;
    if (config_.max_context_len > 0 || tokens < config_.block_size) {
      return absl::ResourceExhaustedError(
          absl::StrCat("no memory for one sequence: the KV cache of ", context_len_, " tokens takes ",
                       mebibytes(wanted), " per rank, ", mebibytes(allowed), " may be used", sharing(),
                       "; lower --max-context-len or raise --kv-memory"));
    }
    rank_.notes.push_back(absl::StrCat("context shortened from ", context_len_, " to ", tokens,
                                       " tokens, what the KV cache of ", mebibytes(allowed),
                                       " per rank holds"));
    context_len_ = static_cast<int>(tokens);
    return absl::OkStatus();
  }

  const EngineConfig& config_;
  HostGroup& host_;
  LoadedRank rank_;
  std::unique_ptr<Checkpoint> checkpoint_;
  DType stored_ = DType::f32;  // most of the checkpoint
  int64_t part_at_start_ = 0;  // of the device's free memory
  int64_t memory_before_ = 0;  // loading
  int context_len_ = 0;
};

}  // namespace

int64_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t total = 0, resident = 0;
  if (!(statm >> total >> resident)) return -1;
  return resident * sysconf(_SC_PAGESIZE);
}

int longest_context(const ModelConfig& model) {
  const int longest = model.max_position_embeddings;
  const bool stretches = model.rope_scaling.kind == RopeScaling::Kind::dynamic;
  return stretches ? static_cast<int>(longest * model.rope_scaling.factor) : longest;
}

absl::StatusOr<LoadedRank> load_rank(const EngineConfig& config, HostGroup& group) {
  return Loader(config, group).load();
}

}  // namespace trireme
