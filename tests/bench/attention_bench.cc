// Attention, rotary embedding and sampling of the CPU backend, heads as in Llama-3.2-1B (32 query, 8 KV, dim
// 64), in turns with the machine's read bandwidth and oneDNN's product rate.
//
//   attention_bench [--threads N] [--rounds N] [--kv-dtype bf16|f32]
//
// Prefill: milliseconds, GFLOP/s (two products over the causal triangle), and that / oneDNN's bf16 rate for
// 512 rows. Decode: microseconds, GB/s of keys and values read, and that / read bandwidth. Each step attends
// in one of 16 layers, in turn, so that the cache is cold as it is in a model.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "kernels/backend.h"
#include "kernels/cpu/onednn.h"
#include "kernels/cpu/probe.h"

namespace {

using namespace trireme;

constexpr int kHeads = 32, kKvHeads = 8, kDim = 64, kLayers = 16, kBlock = 16;

double seconds_of(const auto& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

struct Step {
  Step(int64_t num_seqs, int64_t query_len, int64_t context_len)
      : tokens(num_seqs * query_len), blocks((context_len + kBlock - 1) / kBlock) {
    cu.push_back(0);
    for (int64_t s = 0; s < num_seqs; ++s) {
      for (int64_t b = 0; b < blocks; ++b) tables.push_back(static_cast<int32_t>((s + b * num_seqs)));
      for (int64_t t = context_len - query_len; t < context_len; ++t) {
        positions.push_back(static_cast<int32_t>(t));
        slots.push_back(tables[static_cast<size_t>(s * blocks + t / kBlock)] * kBlock +
                        static_cast<int32_t>(t % kBlock));
      }
      cu.push_back(static_cast<int32_t>(positions.size()));
      contexts.push_back(static_cast<int32_t>(context_len));
    }
    batch = {vector(positions),
             vector(slots),
             vector(cu),
             vector(contexts),
             Tensor(tables.data(), DType::i32, num_seqs, blocks),
             tokens,
             num_seqs,
             query_len,
             context_len};
  }
  static Tensor vector(std::vector<int32_t>& values) {
    return {values.data(), DType::i32, 1, static_cast<int64_t>(values.size())};
  }
  int64_t tokens, blocks;
  std::vector<int32_t> positions, slots, cu, contexts, tables;
  RaggedBatch batch;
};

class Bench {
 public:
  Bench(int threads, int rounds, DType kv_dtype)
      : threads_(threads),
        rounds_(rounds),
        spec_{kLayers, kKvHeads, kDim, kBlock, kv_dtype},
        backend_(*create_cpu_backend({.num_threads = threads})),
        probe_(*cpu::ReadBandwidthProbe::create(size_t{256} << 20, threads)) {
    for (int i = 0; i < kDim / 2; ++i) frequencies_.push_back(1.0f / static_cast<float>(1 + 300 * i));
  }

  void prefill(int64_t query_len, int64_t context_len) {
    prepare(1, query_len, context_len);
    std::vector<double> ms, rate, of_product, rope_ms;
    for (int i = 0; i < rounds_; ++i) {
      const double product = cpu::measure_product_rate(512, 2048, 2048, DType::bf16, threads_).value_or(0);
      rope_ms.push_back(1e3 * seconds_of([&] { rope(i % kLayers); }));
      const double s = seconds_of([&] { attend(i % kLayers); });
      const double pairs = static_cast<double>(query_len) *
                           (static_cast<double>(context_len) - (static_cast<double>(query_len) - 1) / 2);
      ms.push_back(1e3 * s);
      rate.push_back(4e-9 * pairs * kHeads * kDim / s);
      of_product.push_back(rate.back() / product);
    }
    std::printf("prefill %5ld of %5ld: rope %6.3f ms, attention %8.3f ms, %7.1f GFLOP/s, %.2f of oneDNN\n",
                static_cast<long>(query_len), static_cast<long>(context_len), median(rope_ms), median(ms),
                median(rate), median(of_product));
  }

  void decode(int64_t num_seqs, int64_t context_len) {
    prepare(num_seqs, 1, context_len);
    std::vector<double> us, gb_s, of_read, rope_us;
    for (int i = 0; i < rounds_; ++i) {
      const double read = probe_.measure();
      rope_us.push_back(1e6 / kLayers * seconds_of([&] {
                          for (int layer = 0; layer < kLayers; ++layer) rope(layer);
                        }));
      probe_.measure();
      const double s = seconds_of([&] {
        for (int layer = 0; layer < kLayers; ++layer) attend(layer);
      });
      const double bytes = 2e-9 * static_cast<double>(num_seqs * context_len) * kKvHeads * kDim *
                           static_cast<double>(dtype_bytes(spec_.dtype) * kLayers);
      us.push_back(1e6 / kLayers * s);
      gb_s.push_back(bytes / s);
      of_read.push_back(gb_s.back() / read);
    }
    std::printf("decode %3ld x %6ld: rope %6.1f us, attention %9.1f us, %6.1f GB/s, %.2f of reading\n",
                static_cast<long>(num_seqs), static_cast<long>(context_len), median(rope_us), median(us),
                median(gb_s), median(of_read));
  }

  void sample(int64_t rows, int64_t vocab, SamplingRow prototype, const char* what) {
    std::vector<float> logits(static_cast<size_t>(rows * vocab)), logprobs(static_cast<size_t>(rows));
    uint32_t state = 1;
    for (float& x : logits) {
      float sum = 0;
      for (int i = 0; i < 4; ++i)
        sum += static_cast<float>((state = state * 1664525 + 1013904223) >> 8) * 0x1p-24f;
      x = (sum - 2) * 6;
    }
    std::vector<int32_t> ids(static_cast<size_t>(rows));
    std::vector<SamplingRow> sampling(static_cast<size_t>(rows), prototype);
    std::vector<double> ms;
    for (int i = 0; i < rounds_; ++i) {
      for (SamplingRow& row : sampling) row.output_index = static_cast<uint32_t>(i);
      ms.push_back(1e3 * seconds_of([&] {
                     backend_->sample(Tensor(logits.data(), DType::f32, rows, vocab), vocab, sampling.data(),
                                      Step::vector(ids), Tensor(logprobs.data(), DType::f32, 1, rows));
                   }));
    }
    std::printf("sample %2ld x %6ld %-22s %7.3f ms\n", static_cast<long>(rows), static_cast<long>(vocab),
                what, median(ms));
  }

 private:
  void prepare(int64_t num_seqs, int64_t query_len, int64_t context_len) {
    cache_.reset();
    step_ = std::make_unique<Step>(num_seqs, query_len, context_len);
    cache_ = *backend_->create_kv_cache(spec_, num_seqs * step_->blocks);
    q_.assign(static_cast<size_t>(step_->tokens * kHeads * kDim), 0.01f);
    k_.assign(static_cast<size_t>(step_->tokens * kKvHeads * kDim), 0.02f);
    out_ = q_;
    for (int layer = 0; layer < kLayers; ++layer) rope(layer), attend(layer);
  }
  void rope(int layer) {
    const Tensor kv(k_.data(), DType::f32, step_->tokens, kKvHeads * kDim);
    backend_->rope_and_store_kv(Tensor(q_.data(), DType::f32, step_->tokens, kHeads * kDim), kv, kv,
                                step_->batch, {Tensor(frequencies_.data(), DType::f32, 1, kDim / 2), 1, kDim},
                                {}, *cache_, layer);
  }
  void attend(int layer) {
    backend_->attention(Tensor(q_.data(), DType::f32, step_->tokens, kHeads * kDim), *cache_, layer,
                        step_->batch, {0.125f, -1, 0},
                        Tensor(out_.data(), DType::f32, step_->tokens, kHeads * kDim));
  }

  int threads_, rounds_;
  KvCacheSpec spec_;
  std::unique_ptr<Backend> backend_;
  cpu::ReadBandwidthProbe probe_;
  std::vector<float> frequencies_, q_, k_, out_;
  std::unique_ptr<Step> step_;
  std::unique_ptr<KvCache> cache_;
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Attention and sampling of the CPU backend beside the machine's ceilings");
  int threads = 2, rounds = 7;
  std::string dtype = "bf16";
  app.add_option("--threads", threads, "threads of the pool");
  app.add_option("--rounds", rounds, "rounds of each measurement");
  app.add_option("--kv-dtype", dtype, "of the KV cache")->check(CLI::IsMember({"bf16", "f32"}));
  CLI11_PARSE(app, argc, argv);
  Bench bench(threads, rounds, *parse_float_dtype(dtype));
  bench.prefill(512, 512);
  bench.prefill(512, 4096);
  bench.decode(1, 512);
  bench.decode(1, 16384);
  bench.decode(8, 512);
  bench.decode(32, 512);
  bench.decode(32, 2048);
  bench.sample(1, 128256, {}, "greedy");
  bench.sample(1, 128256, {0.8f}, "temperature");
  bench.sample(1, 128256, {0.8f, 40, 0.95f, 0.05f}, "top-k, top-p, min-p");
  bench.sample(1, 128256, {1.0f, 0, 0.95f, 0}, "top-p");
  bench.sample(32, 128256, {0.8f, 40, 0.95f, 0.05f}, "top-k, top-p, min-p");
  return 0;
}
