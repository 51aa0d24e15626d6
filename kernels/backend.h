#pragma once
// The interface of a device. Everything above kernels/ computes through it and never sees which device it is.
// Public operations check shapes and dtypes, once for all devices, and abort on a mismatch (a programmer's
// error); the private do_* methods are the device's own. All operations are enqueued in order on the
// backend's one stream; on the CPU they are complete on return. One thread uses a backend at a time.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/drawn_values.h"
#include "kernels/dtype.h"
#include "kernels/sampling_row.h"
#include "kernels/tensor.h"

namespace trireme {

/// A matrix [out_features, in_features] in the form its device multiplies fastest. Opaque above kernels/.
class Weight {
 public:
  virtual ~Weight() = default;
  int64_t out_features() const { return out_features_; }
  int64_t in_features() const { return in_features_; }
  DType dtype() const { return dtype_; }
  /// Bytes it occupies on the device, padding and scratch included.
  virtual size_t bytes() const = 0;

 protected:
  Weight(int64_t out_features, int64_t in_features, DType dtype)
      : out_features_(out_features), in_features_(in_features), dtype_(dtype) {}

 private:
  int64_t out_features_, in_features_;
  DType dtype_;
};

/// Fills one Weight from pieces of checkpoint tensors.
class WeightBuilder {
 public:
  virtual ~WeightBuilder() = default;
  /// Writes elements [row, row + num_rows) x [col, col + num_cols) of the matrix from host memory.
  /// `source` is row-major with `source_stride` elements between rows, of `source_dtype` (f32, f16, bf16),
  /// converted to the weight's dtype with round-to-nearest-even. Any number of threads may call it for
  /// disjoint elements. Elements never written are zero.
  virtual void write(int64_t row, int64_t num_rows, int64_t col, int64_t num_cols, const void* source,
                     int64_t source_stride, DType source_dtype) = 0;
  /// The same with drawn elements: they are those of draw_values() at `place`, rounded like any other. Drawn
  /// by the calling thread on the host unless the device has a way of its own.
  virtual void draw(int64_t row, int64_t num_rows, int64_t col, int64_t num_cols, const DrawnPlace& place);
  /// Call once, after every write has returned.
  virtual std::unique_ptr<Weight> finish() = 0;
};

/// Keys and values of all layers, in blocks. The layout is the device's own.
struct KvCacheSpec {
  int num_layers = 0;
  int num_kv_heads = 0;  // of this rank
  int head_dim = 0;
  int block_size = 16;  // tokens per block
  DType dtype = DType::f32;
};

class KvCache {
 public:
  virtual ~KvCache() = default;
  const KvCacheSpec& spec() const { return spec_; }
  int64_t num_blocks() const { return num_blocks_; }

 protected:
  KvCache(const KvCacheSpec& spec, int64_t num_blocks) : spec_(spec), num_blocks_(num_blocks) {}

 private:
  KvCacheSpec spec_;
  int64_t num_blocks_;
};

/// A ragged batch: sequence s owns the query rows [cu_query_lens[s], cu_query_lens[s + 1]).
/// All tensors i32 in the backend's memory, one row each unless said otherwise.
struct RaggedBatch {
  Tensor positions;  // [num_tokens]: position of each query token in its sequence
  Tensor slots;      // [num_tokens]: block_id * block_size + offset where its K and V go; -1 stores nothing
  Tensor cu_query_lens;  // [num_seqs + 1], starts at 0, ends at num_tokens
  Tensor context_lens;   // [num_seqs]: tokens attended over, this step's included
  Tensor block_tables;   // [num_seqs, max_blocks_per_seq]: block ids in sequence order; unused entries are
                         // ignored
  int64_t num_tokens = 0;
  int64_t num_seqs = 0;
  int64_t max_query_len = 0;  // host copies, for the choice of kernels
  int64_t max_context_len = 0;
};

/// What rotary embedding needs; pairs element i with i + rotary_dim / 2 ("half-split", the Hugging Face
/// layout).
struct RopeSpec {
  Tensor inverse_frequencies;  // f32 [rotary_dim / 2]
  float attention_factor = 1;  // multiplies cos and sin (YaRN)
  int rotary_dim = 0;          // at most head_dim, even
};

/// Normalization of each head of q and k before rotation (Qwen3). Empty tensors: none.
struct QkNormSpec {
  Tensor q_weight, k_weight;  // f32 [head_dim]
  float eps = 0;
};

struct AttentionSpec {
  float scale = 0;          // multiplies q·k
  int window_left = -1;     // a token sees itself and this many before it; -1: all
  float logit_softcap = 0;  // s -> cap * tanh(s / cap); 0: none
};

/// What the rows of a sample() refer to by count (see SamplingRow), in the backend's memory; the entries of
/// one row follow those of the rows before it. What no row refers to may be left out.
struct SamplingLists {
  const int32_t* first_bias = nullptr;    // [num_rows]: where a row's entries of bias_ids and biases begin
  const int32_t* first_banned = nullptr;  // [num_rows]: the same of banned_ids
  const int32_t* bias_ids = nullptr;      // [sum of num_biases]
  const float* biases = nullptr;          // as many, finite
  const int32_t* banned_ids = nullptr;    // [sum of num_banned]
  Tensor token_counts;                    // i32 [num_slots, >= vocab_size], see set_token_counts()
  const int32_t* slots = nullptr;         // [num_rows]: which row of token_counts, for rows with penalties
};

/// A point in the work a backend was given.
class Fence {
 public:
  virtual ~Fence() = default;
  /// From now on it stands for everything enqueued so far.
  virtual void record() = 0;
  /// Returns when that has finished; at once when nothing was recorded.
  virtual void wait() = 0;
};

/// Operations that were recorded to be enqueued all at once, any number of times, on the memory they were
/// recorded with. The backend and that memory must outlive it.
class Graph {
 public:
  virtual ~Graph() = default;
  virtual void launch() = 0;
};

/// Moments in the work of a device that works by itself.
class Marks {
 public:
  virtual ~Marks() = default;
  /// Mark `index` is the moment at which all that was enqueued so far has finished. Recorded by capture(), it
  /// is that of the last launch; the graph must not outlive it.
  virtual void record(int index) = 0;
  /// The moments of the first moments.size() marks in nanoseconds of the host's steady clock, when a fence
  /// recorded after them has passed. The device is asked for its time, and waited for no longer than that
  /// takes. Returns the error they may have in common, in nanoseconds; apart from it they are exact to 1 us.
  virtual int64_t read(std::span<int64_t> moments) = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;

  /// "cpu" or "cuda".
  virtual std::string name() const = 0;
  /// For people: model of the processor, instruction set or compute capability, threads.
  virtual std::string description() const = 0;
  /// dtype of activations between operations, the residual stream included (f32 on the CPU).
  virtual DType activation_dtype() const = 0;
  /// OK, or UNIMPLEMENTED saying what this device cannot do for weights of this dtype.
  virtual absl::Status check_compute_dtype(DType dtype) const = 0;

  // ---- memory
  // -----------------------------------------------------------------------------------------------------
  /// 64-byte aligned, zeroed memory of the device. RESOURCE_EXHAUSTED with wanted and available bytes.
  virtual absl::StatusOr<Buffer> allocate(size_t bytes) = 0;
  /// The same, of which little may ever be used: where the device has virtual memory (the host), a page takes
  /// none until it is written.
  virtual absl::StatusOr<Buffer> allocate_sparse(size_t bytes) = 0;
  /// Host memory, 64-byte aligned, that copies go to and from without the host's help. By default any memory.
  virtual absl::StatusOr<Buffer> allocate_staging(size_t bytes);
  /// In order with the operations. `source`, in host memory, may change when this returns, unless it is
  /// staging memory: then when a fence recorded after it has passed.
  virtual void copy_to_device(void* destination, const void* source, size_t bytes) = 0;
  /// In order with the operations. `destination`, in host memory, is filled when synchronize() returns, or,
  /// if it is staging memory, when a fence recorded after it has passed.
  virtual void copy_to_host(void* destination, const void* source, size_t bytes) = 0;
  /// Waits until everything enqueued so far has finished.
  virtual void synchronize() = 0;
  /// By default one that waits for everything.
  virtual std::unique_ptr<Fence> create_fence();
  /// Whether capture() is there.
  virtual bool can_capture() const { return false; }
  /// Calls `work`, whose operations are recorded instead of done: operations, copies on the device and
  /// collectives that allow it; no allocation, no copy from or to the host, no wait. Every shape must have
  /// been computed before. UNIMPLEMENTED where there is none; else the device's own error.
  virtual absl::StatusOr<std::unique_ptr<Graph>> capture(const std::function<void()>& /*work*/) {
    return absl::UnimplementedError(name() + " backend: steps cannot be captured");
  }
  /// Room for `count` marks; null where operations are complete on return.
  virtual std::unique_ptr<Marks> create_marks(int /*count*/) { return nullptr; }
  /// The queue of the device's work, for a library that adds to it: a cudaStream_t; null where operations are
  /// complete on return.
  virtual void* stream() { return nullptr; }
  /// Bytes that an allocation could still get: the host's MemAvailable or cgroup limit, or the device's free
  /// memory.
  virtual int64_t available_memory_bytes() const = 0;

  // ---- weights and cache
  // --------------------------------------------------------------------------------------------
  /// A builder for a [out_features, in_features] weight held as `dtype`.
  virtual absl::StatusOr<std::unique_ptr<WeightBuilder>> prepare_weight(int64_t out_features,
                                                                        int64_t in_features, DType dtype) = 0;
  virtual size_t kv_block_bytes(const KvCacheSpec& spec) const = 0;
  /// UNIMPLEMENTED where this device cannot attend over such a cache, with what it can; asked before anything
  /// is loaded.
  virtual absl::Status check_kv_cache(const KvCacheSpec& /*spec*/) const { return absl::OkStatus(); }
  /// A sentence for the user where this device attends over such a cache in a slower way than its kind can,
  /// with the reason; else empty.
  virtual std::string attention_note(const KvCacheSpec& /*spec*/) const { return ""; }
  virtual absl::StatusOr<std::unique_ptr<KvCache>> create_kv_cache(const KvCacheSpec& spec,
                                                                   int64_t num_blocks) = 0;
  /// A sentence for the user on who computes which products, where that was chosen by reserve_workspace().
  virtual std::string products_note() const { return ""; }
  /// Bytes of scratch the operations of one step of at most these sizes need beside their arguments; reserved
  /// now, so that a step allocates nothing.
  virtual absl::Status reserve_workspace(int64_t max_tokens, int64_t max_seqs, int64_t max_features,
                                         int64_t vocab_size) = 0;

  /// Kernels compiled for a shape when it was first met (oneDNN's primitives on the CPU: one for each number
  /// of rows above 32 and weight shape). Constant in a service that has seen its step sizes.
  virtual int64_t num_compiled_kernels() const = 0;

  // ---- operations; x, out: [num_tokens, features] of activation_dtype(), sums in f32
  // ----------------------------------
  /// out[t, :] = row (ids[t] - first_row) of table; zeros where that row is not in [0, table.out_features()).
  /// ids: i32 [num_tokens].
  void embedding(const Tensor& ids, const Weight& table, int64_t first_row, const Tensor& out);
  /// out = x · weight^T, plus bias where given. x: [num_tokens, in_features]; bias: f32 [out_features] or
  /// empty; out: of activation_dtype(), or f32 (logits). On the CPU a row's bits do not depend on the other
  /// rows; on CUDA they may change with the number of rows.
  void matmul(const Tensor& x, const Weight& weight, const Tensor& bias, const Tensor& out);
  /// out = x * rsqrt(mean(x^2) + eps) * weight, each row on its own. weight: f32 [features]. out may alias x.
  /// Source: arXiv:1910.07467.
  void rms_norm(const Tensor& x, const Tensor& weight, float eps, const Tensor& out);
  /// residual += x, then out = rms_norm(residual). out may alias x.
  void add_rms_norm(const Tensor& x, const Tensor& residual, const Tensor& weight, float eps,
                    const Tensor& out);
  /// x += y.
  void add(const Tensor& x, const Tensor& y);
  /// out[:, i] = silu(gate_up[:, i]) * gate_up[:, features + i]. gate_up: [num_tokens, 2 * features].
  void silu_mul(const Tensor& gate_up, const Tensor& out);
  /// Normalizes (where asked) and rotates q and k, then stores k and v at their slots of `layer`. q is
  /// changed in place; k and v may be. q: [num_tokens, num_heads * head_dim]; k, v: [num_tokens, num_kv_heads
  /// * head_dim]. Source: arXiv:2104.09864.
  void rope_and_store_kv(const Tensor& q, const Tensor& k, const Tensor& v, const RaggedBatch& batch,
                         const RopeSpec& rope, const QkNormSpec& norm, KvCache& cache, int layer);
  /// Causal grouped-query attention of q over the cache. q, out: [num_tokens, num_heads * head_dim]; query
  /// head h reads KV head h / (num_heads / num_kv_heads). A row's bits do not depend on chunking or on the
  /// rest of the batch. Source: arXiv:2309.06180 (paged), arXiv:2205.14135 (online softmax).
  void attention(const Tensor& q, const KvCache& cache, int layer, const RaggedBatch& batch,
                 const AttentionSpec& spec, const Tensor& out);
  /// out[i, :] = x[row_ids[i], :]. row_ids: i32 [out.rows].
  void gather_rows(const Tensor& x, const Tensor& row_ids, const Tensor& out);
  /// to = from, where rows may have gaps. Equal shapes and dtypes, of any kind.
  void copy(const Tensor& from, const Tensor& to);
  /// ids[t] = last_tokens[-1 - ids[t]] where ids[t] is negative. ids: i32 [num_tokens]; last_tokens: i32
  /// [num_slots].
  void resolve_last_tokens(const Tensor& last_tokens, const Tensor& ids);
  /// last_tokens[slots[i]] = max(ids[i], 0) where slots[i] is not negative. ids, slots: i32 [num_rows];
  /// last_tokens: i32 [num_slots].
  void keep_last_tokens(const Tensor& ids, const Tensor& slots, const Tensor& last_tokens);
  /// Draws a token for each row of logits. logits: f32 [num_rows, >= vocab_size] (columns beyond are padding
  /// and never drawn); rows: in the backend's memory, num_rows entries; ids: i32 [num_rows]; logprobs: f32
  /// [num_rows], the natural log of the softmax of the unmodified logits at the drawn token. A row whose
  /// logits hold a NaN, or no finite one, gives id -1. The steps of SamplingRow in their order, then one
  /// uniform of Philox4x32-10 (key: seed; counter: sample_index, output_index, 0, 0) inverts the cumulative
  /// distribution in order of token id. The logits stay as they are.
  void sample(const Tensor& logits, int64_t vocab_size, const SamplingRow* rows, const Tensor& ids,
              const Tensor& logprobs, const SamplingLists& lists = {});
  /// Log probabilities of each row of logits: natural log of the softmax. target_ids: i32 [num_rows], ids or
  /// -1; target_logprobs: f32 [num_rows], at the target (the very bits sample() gives for that id), NaN where
  /// there is none. num_top: in the backend's memory, num_rows entries in [0, top_ids.cols]; top_ids: i32,
  /// top_logprobs: f32, both [num_rows, >= the largest num_top]: the num_top most likely ids, most likely
  /// first and the lowest first among equals; -1 and NaN behind a small vocabulary's last, and throughout a
  /// row without a softmax. Entries from num_top on stay as they are.
  void logprobs(const Tensor& logits, int64_t vocab_size, const int32_t* num_top, const Tensor& target_ids,
                const Tensor& target_logprobs, const Tensor& top_ids, const Tensor& top_logprobs);
  /// Makes row `slot` of counts say which ids a prompt holds and how often each is in an output:
  /// 2 * (times in the output) + (1 where it is in the prompt). counts: i32 [num_slots, >= every id + 1];
  /// the ids are in host memory, [num_prompt] and [num_output], and may change when this returns.
  void set_token_counts(const Tensor& counts, int64_t slot, const int32_t* prompt_ids, int64_t num_prompt,
                        const int32_t* output_ids, int64_t num_output);
  /// Adds ids[i], i32 [num_rows], to the output of row slots[i] of counts. slots: in the backend's memory,
  /// num_rows entries; a negative slot or id is passed over.
  void count_tokens(const Tensor& counts, const int32_t* slots, const Tensor& ids);

 private:
  virtual void do_embedding(const Tensor& ids, const Weight& table, int64_t first_row, const Tensor& out) = 0;
  virtual void do_matmul(const Tensor& x, const Weight& weight, const Tensor& bias, const Tensor& out) = 0;
  virtual void do_rms_norm(const Tensor& x, const Tensor& weight, float eps, const Tensor& out) = 0;
  virtual void do_add_rms_norm(const Tensor& x, const Tensor& residual, const Tensor& weight, float eps,
                               const Tensor& out) = 0;
  virtual void do_add(const Tensor& x, const Tensor& y) = 0;
  virtual void do_silu_mul(const Tensor& gate_up, const Tensor& out) = 0;
  virtual void do_rope_and_store_kv(const Tensor& q, const Tensor& k, const Tensor& v,
                                    const RaggedBatch& batch, const RopeSpec& rope, const QkNormSpec& norm,
                                    KvCache& cache, int layer) = 0;
  virtual void do_attention(const Tensor& q, const KvCache& cache, int layer, const RaggedBatch& batch,
                            const AttentionSpec& spec, const Tensor& out) = 0;
  virtual void do_gather_rows(const Tensor& x, const Tensor& row_ids, const Tensor& out) = 0;
  virtual void do_copy(const Tensor& from, const Tensor& to) = 0;
  virtual void do_resolve_last_tokens(const Tensor& last_tokens, const Tensor& ids) = 0;
  virtual void do_keep_last_tokens(const Tensor& ids, const Tensor& slots, const Tensor& last_tokens) = 0;
  virtual void do_sample(const Tensor& logits, int64_t vocab_size, const SamplingRow* rows, const Tensor& ids,
                         const Tensor& logprobs, const SamplingLists& lists) = 0;
  virtual void do_logprobs(const Tensor& logits, int64_t vocab_size, const int32_t* num_top,
                           const Tensor& target_ids, const Tensor& target_logprobs, const Tensor& top_ids,
                           const Tensor& top_logprobs) = 0;
  virtual void do_set_token_counts(const Tensor& counts, int64_t slot, const int32_t* prompt_ids,
                                   int64_t num_prompt, const int32_t* output_ids, int64_t num_output) = 0;
  virtual void do_count_tokens(const Tensor& counts, const int32_t* slots, const Tensor& ids) = 0;
};

inline absl::StatusOr<Buffer> Backend::allocate_staging(size_t bytes) {
  constexpr size_t kAlign = 64;
  void* memory = std::aligned_alloc(kAlign, (bytes / kAlign + 1) * kAlign);
  if (memory == nullptr)
    return absl::ResourceExhaustedError("staging memory: wanted " + std::to_string(bytes) + " bytes");
  return Buffer(memory, bytes, [](void* data, size_t) { std::free(data); });
}

inline std::unique_ptr<Fence> Backend::create_fence() {
  class WholeFence final : public Fence {
   public:
    explicit WholeFence(Backend& backend) : backend_(backend) {}
    void record() override {}
    void wait() override { backend_.synchronize(); }

   private:
    Backend& backend_;
  };
  return std::make_unique<WholeFence>(*this);
}

struct CpuOptions {
  int num_threads = 0;  // of the one OpenMP pool; 0: all that the process may use
};

/// Never fails where the build has the CPU backend, which is always.
absl::StatusOr<std::unique_ptr<Backend>> create_cpu_backend(const CpuOptions& options);

struct CudaOptions {
  int device = 0;                             // ordinal among those the process sees
  DType activation_dtype = DType::bf16;       // of weights and KV cache, too: f32, f16 or bf16
  std::vector<std::string>* notes = nullptr;  // gets a sentence for what the user should know of the device
};

/// A backend on one NVIDIA GPU, the calling thread's current device from now on. UNIMPLEMENTED in a build
/// without CUDA, FAILED_PRECONDITION where driver, device and build do not go together (there may be none),
/// UNAVAILABLE where the device is busy, INTERNAL where it is broken. A CUDA error later on ends the process.
absl::StatusOr<std::unique_ptr<Backend>> create_cuda_backend(const CudaOptions& options);

/// GPUs that this process may see; 0 in a build without CUDA and where there is no driver. Beside
/// create_cuda_backend() in its file, so that who links one of several has both from the same.
int num_cuda_devices();

}  // namespace trireme
