#include "kernels/cpu/cpu_backend.h"

#include <omp.h>
#include <sched.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "hwy/highway.h"
#include "kernels/cpu/few_rows.h"
#include "kernels/cpu/kv_cache.h"

namespace trireme::cpu {
namespace {

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    const size_t colon = line.find(':');
    if (line.rfind("model name", 0) == 0 && colon != std::string::npos && colon + 2 <= line.size())
      return line.substr(colon + 2);
  }
  return "unknown processor";
}

int usable_processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return omp_get_num_procs();
  return std::max(1, CPU_COUNT(&set));
}

absl::StatusOr<Buffer> buffer_of(absl::StatusOr<HostMemory> memory, size_t bytes) {
  if (!memory.ok()) return memory.status();
  const size_t mapped = memory->bytes();
  return Buffer(memory->detach(), bytes, [mapped](void* data, size_t) { HostMemory::free(data, mapped); });
}

}  // namespace

CpuBackend::CpuBackend(int threads) : threads_(threads), onednn_(threads) {
  // Until then Highway's function pointers ask the processor at every call, which is slow in virtual
  // machines.
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

std::string CpuBackend::description() const {
  return absl::StrCat(processor_name(), ", oneDNN ", onednn_.isa(), ", ", threads_,
                      threads_ == 1 ? " thread" : " threads");
}

absl::Status CpuBackend::check_compute_dtype(DType dtype) const {
  if (dtype == DType::f32) return absl::OkStatus();
  if (dtype != DType::bf16) {
    return absl::UnimplementedError(
        absl::StrCat("CPU backend: weights of ", std::string(dtype_name(dtype)), ", wanted f32 or bf16"));
  }
  if (!has_bf16_dot_product() || !onednn_.supports(DType::bf16)) {
    return absl::UnimplementedError(
        absl::StrCat("CPU backend: weights of bf16 need a processor with AVX512_BF16, got ", processor_name(),
                     "; choose f32"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Buffer> CpuBackend::allocate(size_t bytes) {
  return buffer_of(HostMemory::allocate(bytes, threads_, "a buffer"), bytes);
}

absl::StatusOr<Buffer> CpuBackend::allocate_sparse(size_t bytes) {
  return buffer_of(HostMemory::allocate_sparse(bytes, "a sparse buffer"), bytes);
}

void CpuBackend::copy_to_device(void* destination, const void* source, size_t bytes) {
  if (bytes > 0) std::memcpy(destination, source, bytes);
}

void CpuBackend::copy_to_host(void* destination, const void* source, size_t bytes) {
  if (bytes > 0) std::memcpy(destination, source, bytes);
}

int64_t CpuBackend::available_memory_bytes() const { return cpu::available_memory_bytes(); }

absl::StatusOr<std::unique_ptr<WeightBuilder>> CpuBackend::prepare_weight(int64_t out_features,
                                                                          int64_t in_features, DType dtype) {
  if (const absl::Status status = check_compute_dtype(dtype); !status.ok()) return status;
  CHECK_GT(out_features, 0);
  CHECK_GT(in_features, 0);
  const PackedLayout layout{out_features, in_features, dtype};
  absl::StatusOr<HostMemory> memory = HostMemory::allocate(
      layout.bytes(), threads_,
      absl::StrCat("a ", std::string(dtype_name(dtype)), " weight [", out_features, ", ", in_features, "]"));
  if (!memory.ok()) return memory.status();
  return std::make_unique<PackedWeightBuilder>(layout, *std::move(memory));
}

size_t CpuBackend::kv_block_bytes(const KvCacheSpec& spec) const {
  return KvLayout(spec).block_bytes() * static_cast<size_t>(spec.num_layers);
}

absl::StatusOr<std::unique_ptr<KvCache>> CpuBackend::create_kv_cache(const KvCacheSpec& spec,
                                                                     int64_t num_blocks) {
  CHECK_GT(spec.num_layers, 0);
  CHECK_GT(spec.num_kv_heads, 0);
  CHECK_GT(spec.head_dim, 0);
  CHECK_GT(spec.block_size, 0);
  CHECK_GT(num_blocks, 0);
  if (spec.dtype != DType::f32 && spec.dtype != DType::bf16) {
    return absl::UnimplementedError(absl::StrCat(
        "CPU backend: KV cache of ", std::string(dtype_name(spec.dtype)), ", wanted f32 or bf16"));
  }
  absl::StatusOr<HostMemory> memory =
      HostMemory::allocate(kv_block_bytes(spec) * static_cast<size_t>(num_blocks), threads_,
                           absl::StrCat("a KV cache of ", num_blocks, " blocks"));
  if (!memory.ok()) return memory.status();
  return std::make_unique<CpuKvCache>(spec, num_blocks, *std::move(memory));
}

absl::Status CpuBackend::reserve_workspace(int64_t max_tokens, int64_t, int64_t max_features,
                                           int64_t vocab_size) {
  const size_t row_bytes = static_cast<size_t>(max_tokens * round_up(max_features, 32)) * sizeof(float);
  if (const absl::Status status = rows_.reserve(row_bytes, threads_); !status.ok()) return status;
  return sampling_.reserve(sampling_bytes(vocab_size), threads_);
}

size_t CpuBackend::workspace_bytes() const {
  return rows_.bytes() + out_.bytes() + attention_.bytes() + attention_parts_.bytes() + sampling_.bytes();
}

}  // namespace trireme::cpu

namespace trireme {

absl::StatusOr<std::unique_ptr<Backend>> create_cpu_backend(const CpuOptions& options) {
  if (options.num_threads < 0)
    return absl::InvalidArgumentError(absl::StrCat("CPU backend: number of threads: got ",
                                                   options.num_threads, ", wanted 0 (all) or more"));
  const int threads = options.num_threads > 0 ? options.num_threads : cpu::usable_processors();
  return std::make_unique<cpu::CpuBackend>(threads);
}

}  // namespace trireme
