#include "kernels/cuda/weight.h"

#include <algorithm>
#include <cstring>

#include "kernels/check.h"
#include "kernels/cuda/draw.h"

namespace trireme::cuda {
namespace {

// Enough for eight threads to gather while others' copies run; a copy of this size is at full speed.
constexpr size_t kSlotBytes = size_t{1} << 20;
constexpr int kNumSlots = 8;

}  // namespace

absl::Status WeightUploader::reserve() {
  while (slots_.size() < kNumSlots) {
    absl::StatusOr<Memory> memory = Memory::allocate(Memory::Place::pinned, kSlotBytes, "loading weights");
    if (!memory.ok()) return memory.status();
    slots_.emplace_back().memory = *std::move(memory);
    give_back(&slots_.back());
  }
  if (quantiles_.data() != nullptr) return absl::OkStatus();
  absl::StatusOr<Memory> table =
      Memory::allocate(Memory::Place::device, NormalQuantiles::kCount * sizeof(float), "drawing weights");
  if (!table.ok()) return table.status();
  quantiles_ = *std::move(table);
  return absl::OkStatus();
}

void WeightUploader::zero(const Memory& memory) {
  CUDA_CHECK(cudaMemsetAsync(memory.data(), 0, memory.bytes(), stream_));
}

WeightUploader::Slot* WeightUploader::take() {
  std::unique_lock lock(mutex_);
  returned_.wait(lock, [&] { return !free_.empty(); });
  Slot* const slot = free_.front();
  free_.pop_front();
  return slot;
}

void WeightUploader::give_back(Slot* slot) {
  std::lock_guard lock(mutex_);
  free_.push_back(slot);
  returned_.notify_one();
}

void WeightUploader::write(const Tensor& matrix, int64_t row, int64_t num_rows, int64_t col, int64_t num_cols,
                           const void* source, int64_t source_stride, DType source_dtype) {
  if (num_rows == 0 || num_cols == 0) return;
  CUDA_CHECK(cudaSetDevice(device_));  // each thread has its own
  const size_t element = dtype_bytes(source_dtype);
  const int64_t slot_elements = static_cast<int64_t>(kSlotBytes / element);
  const int64_t cols = std::min(num_cols, slot_elements), rows = std::max<int64_t>(1, slot_elements / cols);
  for (int64_t r = 0; r < num_rows; r += rows) {
    for (int64_t c = 0; c < num_cols; c += cols) {
      const int64_t piece_rows = std::min(rows, num_rows - r), piece_cols = std::min(cols, num_cols - c);
      const size_t row_bytes = static_cast<size_t>(piece_cols) * element;
      Slot* const slot = take();
      slot->last_use.synchronize();
      char* to = static_cast<char*>(slot->memory.data());
      for (int64_t i = 0; i < piece_rows; ++i)
        std::memcpy(
            to + static_cast<size_t>(i) * row_bytes,
            static_cast<const char*>(source) + static_cast<size_t>((r + i) * source_stride + c) * element,
            row_bytes);
      convert_rows(stream_, to, source_dtype,
                   matrix.slice_rows(row + r, piece_rows).slice_cols(col + c, piece_cols));
      slot->last_use.record(stream_);
      give_back(slot);
    }
  }
}

const float* WeightUploader::upload_quantiles(const NormalQuantiles& quantiles) {
  std::lock_guard lock(quantiles_mutex_);
  const float* const table = static_cast<const float*>(quantiles_.data());
  if (deviation_ == quantiles.standard_deviation) return table;
  Slot* const slot = take();
  slot->last_use.synchronize();
  std::memcpy(slot->memory.data(), quantiles.values.data(), quantiles_.bytes());
  CUDA_CHECK(cudaMemcpyAsync(quantiles_.data(), slot->memory.data(), quantiles_.bytes(),
                             cudaMemcpyHostToDevice, stream_));
  slot->last_use.record(stream_);
  give_back(slot);
  deviation_ = quantiles.standard_deviation;
  return table;
}

void WeightUploader::draw(const Tensor& part, const DrawnPlace& place) {
  if (part.rows == 0 || part.cols == 0) return;
  CUDA_CHECK(cudaSetDevice(device_));
  cuda::draw(stream_, place, upload_quantiles(*place.quantiles), part);
}

CudaWeightBuilder::~CudaWeightBuilder() {
  if (weight_ != nullptr) uploader_.synchronize();
}

void CudaWeightBuilder::write(int64_t row, int64_t num_rows, int64_t col, int64_t num_cols,
                              const void* source, int64_t source_stride, DType source_dtype) {
  CHECK_GE(row, 0);
  CHECK_GE(col, 0);
  CHECK_LE(row + num_rows, weight_->out_features());
  CHECK_LE(col + num_cols, weight_->in_features());
  CHECK_GE(source_stride, num_cols);
  CHECK_NE(dtype_name(source_dtype), "i32");
  uploader_.write(weight_->tensor(), row, num_rows, col, num_cols, source, source_stride, source_dtype);
}

void CudaWeightBuilder::draw(int64_t row, int64_t num_rows, int64_t col, int64_t num_cols,
                             const DrawnPlace& place) {
  uploader_.draw(weight_->tensor().slice_rows(row, num_rows).slice_cols(col, num_cols), place);
}

std::unique_ptr<Weight> CudaWeightBuilder::finish() {
  TRIREME_CHECK(weight_ != nullptr);  // finish is called once
  uploader_.synchronize();
  return std::move(weight_);
}

}  // namespace trireme::cuda
