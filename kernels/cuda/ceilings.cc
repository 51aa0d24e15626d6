// A GPU's copy bandwidth and cuBLASLt's rate.

#include "kernels/ceilings.h"

#include <set>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/draw.h"
#include "kernels/cuda/gemm.h"
#include "kernels/drawn_values.h"

namespace trireme {
namespace cuda {
namespace {

constexpr int kCopies = 4, kProducts = 4;
constexpr size_t kAlign = 256;

class CudaCeilings final : public Ceilings {
 public:
  CudaCeilings(int device, Memory memory) : device_(device), memory_(std::move(memory)) {}

  /// Fills the memory with drawn numbers: products of zeros, which switch few of a GPU's transistors, run at
  /// a higher clock than others. As f32 or f16 the bits of bf16 are finite numbers, too.
  absl::Status reserve() {
    constexpr int64_t kCols = 8192;
    const NormalQuantiles quantiles(0.02f);
    auto table = Memory::allocate(Memory::Place::device, sizeof quantiles.values, "measuring ceilings");
    if (!table.ok()) return table.status();
    CUDA_CHECK(cudaMemsetAsync(memory_.data(), 0, memory_.bytes(), stream_));
    CUDA_CHECK(cudaMemcpyAsync(table->data(), quantiles.values.data(), table->bytes(), cudaMemcpyHostToDevice,
                               stream_));
    const auto rows = static_cast<int64_t>(memory_.bytes() / (kCols * dtype_bytes(DType::bf16)));
    draw(stream_, {1, kCols, 0, 0, &quantiles}, static_cast<const float*>(table->data()),
         Tensor(memory_.data(), DType::bf16, rows, kCols));
    stream_.synchronize();  // the table goes
    return gemm_.reserve();
  }

  std::string memory_name() const override { return "copy"; }
  std::string product_name() const override { return "cuBLASLt"; }

  double memory_gb_s() override {
    CUDA_CHECK(cudaSetDevice(device_));
    const size_t half = memory_.bytes() / 2;
    char* const data = static_cast<char*>(memory_.data());
    const double seconds = seconds_of(kCopies, [&] {
      CUDA_CHECK(cudaMemcpyAsync(data, data + half, half, cudaMemcpyDeviceToDevice, stream_));
    });
    return 2e-9 * static_cast<double>(half) / seconds;
  }

  absl::StatusOr<double> product_gflop_s(int64_t rows, int64_t out, int64_t in, DType dtype) override {
    CUDA_CHECK(cudaSetDevice(device_));
    size_t used = 0;
    const auto place = [&](int64_t matrix_rows, int64_t cols) {
      const Tensor matrix(static_cast<char*>(memory_.data()) + used, dtype, matrix_rows, cols);
      used += (matrix.bytes() + kAlign - 1) / kAlign * kAlign;
      return matrix;
    };
    const Tensor weight = place(out, in), x = place(rows, in), product = place(rows, out);
    if (used > memory_.bytes())
      return absl::ResourceExhaustedError(
          absl::StrCat("cuBLASLt's rate: wanted ", used, " bytes, the buffer has ", memory_.bytes()));
    if (!Gemm::takes(x, weight, product))
      return absl::UnimplementedError(absl::StrCat("cuBLASLt's rate: rows of ", in, " or ", out,
                                                   " elements do not begin at multiples of 16 bytes"));
    if (measured_.insert({rows, out, in, dtype}).second) gemm_.measure(x, weight, product);
    const double seconds =
        seconds_of(kProducts, [&] { gemm_.multiply(x, weight, /*accumulate=*/false, product); });
    return 2e-9 * static_cast<double>(rows) * static_cast<double>(out) * static_cast<double>(in) / seconds;
  }

 private:
  /// Of one of `count` calls, without what the first one has to set up.
  template <typename Call>
  double seconds_of(int count, Call call) {
    call();
    begin_.record(stream_);
    for (int i = 0; i < count; ++i) call();
    end_.record(stream_);
    end_.synchronize();
    return end_.milliseconds_since(begin_) * 1e-3 / count;
  }

  const int device_;
  Memory memory_;
  Stream stream_;
  Event begin_{true}, end_{true};
  Gemm gemm_{stream_};
  std::set<std::tuple<int64_t, int64_t, int64_t, DType>> measured_;
};

}  // namespace
}  // namespace cuda

absl::StatusOr<std::unique_ptr<Ceilings>> create_cuda_ceilings(int device, size_t bytes) {
  CUDA_CHECK(cudaSetDevice(device));
  auto memory = cuda::Memory::allocate(cuda::Memory::Place::device, bytes, "measuring ceilings");
  if (!memory.ok()) return memory.status();
  auto ceilings = std::make_unique<cuda::CudaCeilings>(device, *std::move(memory));
  if (absl::Status reserved = ceilings->reserve(); !reserved.ok()) return reserved;
  return ceilings;
}

}  // namespace trireme
