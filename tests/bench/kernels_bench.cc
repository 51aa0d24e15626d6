// Kernels of the CPU backend beside what the machine can do, measured in turns: shared machines drift by a
// quarter, so only figures of one round are compared and the medians of their ratios count.
//
//   kernels_bench [--threads N] [--rounds N] [--rows 1,2,4,8,16,512] [--dtype bf16|f32]
//
// Columns: rows; GB/s of weights read by Backend::matmul; that / read bandwidth; GFLOP/s; that / oneDNN's for
// as many rows; that / oneDNN's for 512 rows. Weights are four layers of Llama-3.2-1B, more than any cache.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "kernels/backend.h"
#include "kernels/cpu/onednn.h"
#include "kernels/cpu/packed_weight.h"
#include "kernels/cpu/probe.h"

namespace {

using namespace trireme;

double seconds_of(const auto& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

struct Shape {
  int64_t out, in;
};
constexpr Shape kLayer[] = {
    {3072, 2048}, {2048, 2048}, {16384, 2048}, {2048, 8192}};  // qkv, o, gate+up, down
constexpr int64_t kLayers = 4, kWidest = 16384;

std::vector<std::unique_ptr<Weight>> make_weights(Backend& backend, DType dtype) {
  std::vector<std::unique_ptr<Weight>> weights;
  std::vector<float> row(8192);
  for (size_t i = 0; i < row.size(); ++i) row[i] = static_cast<float>(i % 7) * 0.01f - 0.03f;
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    for (const Shape& shape : kLayer) {
      auto builder = *backend.prepare_weight(shape.out, shape.in, dtype);
      for (int64_t r = 0; r < shape.out; ++r)
        builder->write(r, 1, 0, shape.in, row.data(), shape.in, DType::f32);
      weights.push_back(builder->finish());
    }
  }
  return weights;
}

struct Round {
  double read_gb_s, ours_s, onednn_s, onednn_512_gflop_s;
};

class Bench {
 public:
  Bench(int threads, DType dtype)
      : backend_(*create_cpu_backend({.num_threads = threads})),
        onednn_(threads),
        probe_(*cpu::ReadBandwidthProbe::create(size_t{512} << 20, threads)),
        weights_(make_weights(*backend_, dtype)),
        x_(512 * 8192, 0.5f),
        out_(512 * kWidest) {
    for (const auto& weight : weights_) {
      elements_ += static_cast<double>(weight->out_features()) * static_cast<double>(weight->in_features());
      bytes_ += static_cast<double>(weight->bytes());
    }
  }

  void run(int64_t rows, int rounds) {
    ours(rows);
    onednn(rows);
    onednn(512, 4);
    std::vector<double> gb_s, of_read, gflop_s, of_onednn, of_peak;
    for (int i = 0; i < rounds; ++i) {
      const double read = probe_.measure();
      const double ours_s = seconds_of([&] { ours(rows); }), onednn_s = seconds_of([&] { onednn(rows); });
      const double peak_s = seconds_of([&] { onednn(512, 4); });
      const double flops = 2e-9 * elements_ * static_cast<double>(rows);
      const double peak = 2e-9 * elements_ / kLayers * 512 / peak_s;
      gb_s.push_back(bytes_ / ours_s * 1e-9);
      of_read.push_back(gb_s.back() / read);
      gflop_s.push_back(flops / ours_s);
      of_onednn.push_back(onednn_s / ours_s);
      of_peak.push_back(gflop_s.back() / peak);
    }
    std::printf("%5ld  %7.1f  %5.2f  %8.1f  %5.2f  %5.2f\n", static_cast<long>(rows), median(gb_s),
                median(of_read), median(gflop_s), median(of_onednn), median(of_peak));
    std::fflush(stdout);
  }

 private:
  void ours(int64_t rows) {
    for (const auto& w : weights_) {
      backend_->matmul(Tensor(x_.data(), DType::f32, rows, w->in_features()), *w, Tensor(),
                       Tensor(out_.data(), DType::f32, rows, w->out_features()));
    }
  }
  void onednn(int64_t rows, size_t count = 1000) {
    for (size_t i = 0; i < std::min(count, weights_.size()); ++i)
      onednn_.matmul(x_.data(), rows, static_cast<const cpu::PackedWeight&>(*weights_[i]), nullptr,
                     out_.data());
  }

  std::unique_ptr<Backend> backend_;
  cpu::OneDnn onednn_;
  cpu::ReadBandwidthProbe probe_;
  std::vector<std::unique_ptr<Weight>> weights_;
  std::vector<float> x_, out_;
  double elements_ = 0, bytes_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Kernels of the CPU backend beside the machine's ceilings");
  int threads = 2, rounds = 7;
  std::vector<int64_t> rows = {1, 2, 3, 4, 6, 8, 12, 16, 32, 64, 512};
  std::string dtype = "bf16";
  app.add_option("--threads", threads, "threads of the pool");
  app.add_option("--rounds", rounds, "rounds of each measurement");
  app.add_option("--rows", rows, "numbers of rows")->delimiter(',')->check(CLI::Range(1, 512));
  app.add_option("--dtype", dtype, "of the weights")->check(CLI::IsMember({"bf16", "f32"}));
  CLI11_PARSE(app, argc, argv);
  Bench bench(threads, *parse_float_dtype(dtype));
  std::printf("%s weights, %d threads\n rows     GB/s  /read   GFLOP/s  /same  /512\n", dtype.c_str(),
              threads);
  for (const int64_t count : rows) bench.run(count, rounds);
  return 0;
}
