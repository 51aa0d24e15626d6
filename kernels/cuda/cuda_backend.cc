#include "kernels/cuda/cuda_backend.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/cuda/few_rows.h"

namespace trireme::cuda {
namespace {

constexpr int kMaxHeadDim = 256;
// What shared contexts may take: beyond it, the longest ones of a small batch are not shared out.
constexpr size_t kMostAttentionParts = size_t{256} << 20;
// Of a product that is tried out at the start; larger ones are like the largest tried.
constexpr size_t kMostMeasuredBytes = size_t{512} << 20;

// Of the calling thread; setting it again at each operation would be felt.
thread_local int current_device = -1;

std::string text_of(DType dtype) { return std::string(dtype_name(dtype)); }

}  // namespace

KvLayer CudaKvCache::layer(int index) const {
  const size_t plane = plane_bytes(spec()) * static_cast<size_t>(num_blocks());
  char* const keys = static_cast<char*>(memory_.data()) + 2 * plane * static_cast<size_t>(index);
  return {keys, keys + plane, spec().num_kv_heads, spec().head_dim, spec().block_size};
}

CudaBackend::CudaBackend(const Device& device, DType activation_dtype)
    : device_(device), dtype_(activation_dtype), uploader_(device.ordinal) {}

CudaBackend::~CudaBackend() { queue().synchronize(); }

const Stream& CudaBackend::queue() const {
  if (current_device != device_.ordinal) {
    CUDA_CHECK(cudaSetDevice(device_.ordinal));
    current_device = device_.ordinal;
  }
  return stream_;
}

std::string CudaBackend::description() const {
  return absl::StrCat(device_.name, ", compute capability ", device_.major, ".", device_.minor, ", ",
                      device_.num_multiprocessors, " multiprocessors, activations of ", text_of(dtype_));
}

absl::Status CudaBackend::check_compute_dtype(DType dtype) const {
  if (dtype == dtype_) return absl::OkStatus();
  return absl::UnimplementedError(absl::StrCat("CUDA backend: weights of ", text_of(dtype),
                                               " beside activations of ", text_of(dtype_),
                                               ", wanted the same dtype"));
}

absl::StatusOr<Buffer> CudaBackend::allocate(size_t bytes) {
  const Stream& stream = queue();
  absl::StatusOr<Memory> memory = Memory::allocate(Memory::Place::device, bytes, "a buffer");
  if (!memory.ok()) return memory.status();
  if (bytes > 0) CUDA_CHECK(cudaMemsetAsync(memory->data(), 0, bytes, stream));
  return Buffer(memory->detach(), bytes, [this](void* data, size_t) {
    queue().synchronize();
    Memory::free(data, Memory::Place::device);
  });
}

void CudaBackend::copy_to_device(void* destination, const void* source, size_t bytes) {
  const Stream& stream = queue();
  if (is_staging(source))
    CUDA_CHECK(cudaMemcpyAsync(destination, source, bytes, cudaMemcpyHostToDevice, stream));
  else
    staging_.copy_to_device(destination, source, bytes);
}

void CudaBackend::copy_to_host(void* destination, const void* source, size_t bytes) {
  const Stream& stream = queue();
  if (is_staging(destination))
    CUDA_CHECK(cudaMemcpyAsync(destination, source, bytes, cudaMemcpyDeviceToHost, stream));
  else
    staging_.copy_to_host(destination, source, bytes);
}

int64_t CudaBackend::available_memory_bytes() const {
  queue();
  return free_device_bytes();
}

void CudaBackend::synchronize() {
  queue().synchronize();
  staging_.deliver();
}

absl::StatusOr<std::unique_ptr<WeightBuilder>> CudaBackend::prepare_weight(int64_t out_features,
                                                                           int64_t in_features, DType dtype) {
  if (const absl::Status status = check_compute_dtype(dtype); !status.ok()) return status;
  CHECK_GT(out_features, 0);
  CHECK_GT(in_features, 0);
  queue();
  if (const absl::Status status = uploader_.reserve(); !status.ok()) return status;
  const size_t bytes =
      static_cast<size_t>(out_features) * static_cast<size_t>(in_features) * dtype_bytes(dtype);
  absl::StatusOr<Memory> memory =
      Memory::allocate(Memory::Place::device, bytes,
                       absl::StrCat("a ", text_of(dtype), " weight [", out_features, ", ", in_features, "]"));
  if (!memory.ok()) return memory.status();
  uploader_.zero(*memory);
  return std::make_unique<CudaWeightBuilder>(
      std::make_unique<CudaWeight>(out_features, in_features, dtype, *std::move(memory), weights_),
      uploader_);
}

size_t CudaBackend::kv_block_bytes(const KvCacheSpec& spec) const {
  return 2 * CudaKvCache::plane_bytes(spec) * static_cast<size_t>(spec.num_layers);
}

absl::Status CudaBackend::check_kv_cache(const KvCacheSpec& spec) const {
  if (spec.dtype != dtype_)
    return absl::UnimplementedError(absl::StrCat("CUDA backend: KV cache of ", text_of(spec.dtype),
                                                 ", wanted the activations' ", text_of(dtype_)));
  if (spec.head_dim > kMaxHeadDim)
    return absl::UnimplementedError(absl::StrCat("CUDA backend: attention heads of ", spec.head_dim,
                                                 " elements, wanted at most ", kMaxHeadDim));
  return absl::OkStatus();
}

std::string CudaBackend::attention_note(const KvCacheSpec& spec) const {
  const size_t wanted = tensor_attention_shared_bytes(spec.dtype, spec.head_dim);
  if (wanted <= device_.max_shared_bytes) return "";
  return absl::StrCat("attention heads of ", spec.head_dim, ": tensor cores take ", wanted,
                      " bytes of shared memory per block, GPU ", device_.ordinal, " (", device_.name,
                      ") has ", device_.max_shared_bytes, ": a plain kernel attends, which is slower");
}

absl::StatusOr<std::unique_ptr<KvCache>> CudaBackend::create_kv_cache(const KvCacheSpec& spec,
                                                                      int64_t num_blocks) {
  CHECK_GT(spec.num_layers, 0);
  CHECK_GT(spec.num_kv_heads, 0);
  CHECK_GT(spec.head_dim, 0);
  CHECK_GT(spec.block_size, 0);
  CHECK_GT(num_blocks, 0);
  if (const absl::Status status = check_kv_cache(spec); !status.ok()) return status;
  const Stream& stream = queue();
  const size_t bytes = kv_block_bytes(spec) * static_cast<size_t>(num_blocks);
  absl::StatusOr<Memory> memory =
      Memory::allocate(Memory::Place::device, bytes, absl::StrCat("a KV cache of ", num_blocks, " blocks"));
  if (!memory.ok()) return memory.status();
  CUDA_CHECK(cudaMemsetAsync(memory->data(), 0, bytes, stream));
  const size_t parts = most_attention_workspace_bytes(spec.num_kv_heads, num_blocks * spec.block_size,
                                                      spec.head_dim, device_.num_multiprocessors);
  const absl::Status reserved =
      attention_parts_.reserve(std::min(parts, kMostAttentionParts), stream, "attention");
  if (!reserved.ok()) return reserved;
  return std::make_unique<CudaKvCache>(spec, num_blocks, *std::move(memory));
}

absl::Status CudaBackend::reserve_workspace(int64_t max_tokens, int64_t max_seqs, int64_t max_features,
                                            int64_t vocab_size) {
  CHECK_GE(max_tokens, max_seqs);
  const Stream& stream = queue();
  for (const absl::Status& status :
       {staging_.reserve(static_cast<size_t>(max_tokens) * 5 * sizeof(int32_t)),
        edited_logits_.reserve(static_cast<size_t>(max_seqs * vocab_size) * sizeof(float), stream,
                               "edited logits"),
        gemm_.reserve()}) {
    if (!status.ok()) return status;
  }
  measure_products(max_tokens, max_seqs, max_features);
  choose_few_rows(max_features);
  return absl::OkStatus();
}

void CudaBackend::measure_products(int64_t max_tokens, int64_t max_seqs, int64_t max_features) {
  for (const CudaWeight* weight : weights_) {
    const Tensor matrix = weight->tensor();
    // What is wider than any layer gives logits.
    const bool is_head = matrix.rows > max_features;
    const DType out_dtype = is_head ? DType::f32 : dtype_;
    const int64_t most = Gemm::rows_of_class(is_head ? max_seqs : max_tokens);
    for (int64_t rows = Gemm::rows_of_class(kMaxFewRows + 1); rows <= most; rows *= 2) {
      const size_t x_bytes = static_cast<size_t>(rows * matrix.cols) * dtype_bytes(dtype_),
                   out_bytes = static_cast<size_t>(rows * matrix.rows) * dtype_bytes(out_dtype);
      if (x_bytes + out_bytes > kMostMeasuredBytes) break;
      if (gemm_.has_measured(matrix, rows, dtype_, out_dtype)) continue;  // for another layer
      // Without the memory the library's own choices will do.
      absl::StatusOr<Memory> x = Memory::allocate(Memory::Place::device, x_bytes, "measuring products"),
                             out = Memory::allocate(Memory::Place::device, out_bytes, "measuring products");
      if (!x.ok() || !out.ok()) return;
      CUDA_CHECK(cudaMemsetAsync(x->data(), 0, x_bytes, stream_));
      const Tensor of_x(x->data(), dtype_, rows, matrix.cols),
          of_out(out->data(), out_dtype, rows, matrix.rows);
      if (Gemm::takes(of_x, matrix, of_out)) gemm_.measure(of_x, matrix, of_out);
      stream_.synchronize();
    }
  }
}

}  // namespace trireme::cuda
