// Every operation of a backend beside what its device can do, measured in turns in the same run.
//
//   kernel_bench [--backend cuda|cpu] [--device N] [--dtype bf16|f16|f32] [--tokens 1,64,8192] [--batches
//                1,32] [--contexts 512,4096,32768] [--head-dims 128] [--prefill 2048] [--hidden 4096]
//                [--intermediate 14336] [--vocab 128256]
//
// Columns: median time of a call, queued behind others like it; GB/s of what it must read and write once;
// that as a fraction of the copy (GPU) or read (CPU) bandwidth; TFLOP/s of products; that as a fraction of
// the rate of cuBLASLt or oneDNN for 2,048 rows. Operands of products and logits are drawn. Fractions above 1
// of the bandwidth are what a cache holds. The shapes are those of Llama-3.1-8B. torch_kernels.py beside this
// file sets PyTorch's own products and attention beside the table; `trireme bench collectives` measures sums.
// Exit code 0; 1 where the device cannot be used, with the reason.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "CLI/CLI.hpp"
#include "kernels/backend.h"
#include "kernels/ceilings.h"
#include "kernels/drawn_values.h"
#include "kernels/float_conversion.h"

namespace {

using namespace trireme;
using Clock = std::chrono::steady_clock;

struct Options {
  std::string backend = "cuda", dtype = "bf16";
  int device = 0;
  std::vector<int64_t> tokens = {1, 64, 8192}, batches = {1, 32}, contexts = {512, 4096, 32768},
                       head_dims = {128};
  int64_t prefill = 2048, hidden = 4096, intermediate = 14336, vocab = 128256;
  int rounds = 5;
};

constexpr int64_t kGroup = 4, kBlockSize = 16;
constexpr int64_t kPeakRows = 2048;
constexpr double kRoundSeconds = 0.02;

template <typename T>
T value_or_end(absl::StatusOr<T> result) {
  if (result.ok()) return *std::move(result);
  std::fprintf(stderr, "kernel_bench: %s\n", std::string(result.status().message()).c_str());
  std::exit(1);
}

class Bench {
 public:
  Bench(Backend& backend, Ceilings& ceilings, const Options& options)
      : backend_(backend), ceilings_(ceilings), options_(options), dtype_(backend.activation_dtype()) {}

  void run() {
    weight_dtype_ = options_.backend == "cuda" ? dtype_ : *parse_float_dtype(options_.dtype);
    std::printf("%s\n%-22s %-34s %10s %9s %8s %9s %9s\n", backend_.description().c_str(), "operation",
                "shape", "us", "GB/s", ("/" + ceilings_.memory_name()).c_str(), "TFLOP/s",
                ("/" + ceilings_.product_name()).c_str());
    for (const int64_t tokens : options_.tokens) elementwise(tokens);
    products();
    for (const int64_t head_dim : options_.head_dims) {
      for (const int64_t batch : options_.batches)
        for (const int64_t context : options_.contexts) attention(head_dim, batch, 1, context);
      attention(head_dim, 1, options_.prefill, options_.prefill);
    }
    for (const int64_t batch : options_.batches) {
      sampling(batch);
      bookkeeping(batch);
    }
  }

 private:
  Tensor tensor(DType dtype, int64_t rows, int64_t cols) {
    const size_t bytes = static_cast<size_t>(rows * cols) * dtype_bytes(dtype);
    buffers_.push_back(value_or_end(backend_.allocate(bytes)));
    return Tensor(buffers_.back().data(), dtype, rows, cols);
  }
  void* uploaded(const void* source, size_t bytes) {
    buffers_.push_back(value_or_end(backend_.allocate(bytes)));
    backend_.copy_to_device(buffers_.back().data(), source, bytes);
    backend_.synchronize();
    return buffers_.back().data();
  }
  Tensor numbers(const std::vector<int32_t>& values) {
    return Tensor(uploaded(values.data(), values.size() * sizeof(int32_t)), DType::i32, 1,
                  static_cast<int64_t>(values.size()));
  }
  /// What products are of: a GPU multiplies zeros at a higher clock.
  Tensor drawn(DType dtype, int64_t rows, int64_t cols) {
    std::vector<float> values(static_cast<size_t>(rows * cols));
    draw_values(++last_key_, 0, rows * cols, deviates_, values.data());
    std::vector<char> bytes(values.size() * dtype_bytes(dtype));
    convert_from_f32(values.data(), rows * cols, dtype, bytes.data());
    return Tensor(uploaded(bytes.data(), bytes.size()), dtype, rows, cols);
  }
  double element() const { return static_cast<double>(dtype_bytes(dtype_)); }

  double seconds_of(const std::function<void()>& call, int calls) {
    const auto begin = Clock::now();
    for (int i = 0; i < calls; ++i) call();
    backend_.synchronize();
    return std::chrono::duration<double>(Clock::now() - begin).count() / calls;
  }

  void measure(const std::string& name, const std::string& shape, double bytes, double flops,
               const std::function<void()>& call) {
    seconds_of(call, 2);
    const int calls = std::clamp(static_cast<int>(kRoundSeconds / seconds_of(call, 2)), 1, 1000);
    std::vector<double> seconds, of_memory, of_products;
    for (int round = 0; round < options_.rounds; ++round) {
      seconds.push_back(seconds_of(call, calls));
      of_memory.push_back(bytes / seconds.back() * 1e-9 / ceilings_.memory_gb_s());
      if (flops == 0) continue;
      const auto rate =
          ceilings_.product_gflop_s(kPeakRows, 2 * options_.intermediate, options_.hidden, weight_dtype_);
      of_products.push_back(rate.ok() ? flops / seconds.back() * 1e-9 / *rate : 0);
    }
    const double s = median(seconds);
    std::printf("%-22s %-34s %10.2f %9.1f %8.2f", name.c_str(), shape.c_str(), s * 1e6, bytes / s * 1e-9,
                median(of_memory));
    if (flops > 0) std::printf(" %9.2f %9.2f", flops / s * 1e-12, median(of_products));
    std::printf("\n");
    std::fflush(stdout);
  }
  static double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
  }

  void elementwise(int64_t tokens) {
    const int64_t hidden = options_.hidden, wide = options_.intermediate;
    const std::string shape = std::to_string(tokens) + " x " + std::to_string(hidden);
    const double row = static_cast<double>(tokens * hidden) * element();
    const Tensor x = tensor(dtype_, tokens, hidden), y = tensor(dtype_, tokens, hidden);
    const Tensor norm = tensor(DType::f32, 1, hidden);
    measure("add", shape, 3 * row, 0, [&] { backend_.add(x, y); });
    measure("rms_norm", shape, 2 * row, 0, [&] { backend_.rms_norm(x, norm, 1e-5f, y); });
    const Tensor residual = tensor(dtype_, tokens, hidden);
    measure("add_rms_norm", shape, 4 * row, 0, [&] { backend_.add_rms_norm(x, residual, norm, 1e-5f, y); });
    const Tensor gate_up = tensor(dtype_, tokens, 2 * wide), product = tensor(dtype_, tokens, wide);
    measure("silu_mul", std::to_string(tokens) + " x " + std::to_string(wide),
            3 * static_cast<double>(tokens * wide) * element(), 0,
            [&] { backend_.silu_mul(gate_up, product); });
    std::vector<int32_t> rows(static_cast<size_t>(tokens));
    for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int32_t>(i * 7919 % rows.size());
    const Tensor ids = numbers(rows);
    measure("gather_rows", shape, 2 * row, 0, [&] { backend_.gather_rows(x, ids, y); });
    measure("copy", shape, 2 * row, 0, [&] { backend_.copy(x, y); });
    buffers_.clear();
  }

  std::unique_ptr<Weight> drawn_weight(int64_t out, int64_t in) {
    static const NormalQuantiles quantiles(0.02f);
    auto builder = value_or_end(backend_.prepare_weight(out, in, weight_dtype_));
    builder->draw(0, out, 0, in, {1, in, 0, 0, &quantiles});
    return builder->finish();
  }

  void products() {
    for (const auto& [out, in] :
         {std::pair(options_.hidden, options_.hidden), std::pair(2 * options_.intermediate, options_.hidden),
          std::pair(options_.hidden, options_.intermediate)}) {
      const std::unique_ptr<Weight> weight = drawn_weight(out, in);
      for (const int64_t rows :
           {int64_t{1}, int64_t{2}, int64_t{4}, int64_t{8}, int64_t{32}, int64_t{256}, kPeakRows}) {
        if (rows > std::max<int64_t>(8, options_.prefill)) continue;
        const Tensor x = drawn(dtype_, rows, in), y = tensor(dtype_, rows, out);
        const double bytes =
            static_cast<double>(weight->bytes()) + static_cast<double>(rows * (in + out)) * element();
        measure("matmul", std::to_string(rows) + " x " + std::to_string(in) + " x " + std::to_string(out),
                bytes, 2.0 * static_cast<double>(rows) * static_cast<double>(in) * static_cast<double>(out),
                [&] { backend_.matmul(x, *weight, Tensor(), y); });
        buffers_.clear();
      }
    }
    head();
  }

  /// What makes and takes the ids of the vocabulary.
  void head() {
    const int64_t in = options_.hidden, out = options_.vocab;
    const std::unique_ptr<Weight> weight = drawn_weight(out, in);
    for (const int64_t rows : options_.batches) {
      const Tensor x = drawn(dtype_, rows, in), logits = tensor(DType::f32, rows, out);
      const double bytes =
          static_cast<double>(weight->bytes()) + static_cast<double>(x.bytes() + logits.bytes());
      measure("matmul, f32 logits",
              std::to_string(rows) + " x " + std::to_string(in) + " x " + std::to_string(out), bytes,
              2.0 * static_cast<double>(rows * in) * static_cast<double>(out),
              [&] { backend_.matmul(x, *weight, Tensor(), logits); });
      buffers_.clear();
    }
    for (const int64_t tokens : options_.tokens) {
      std::vector<int32_t> ids(static_cast<size_t>(tokens));
      for (size_t i = 0; i < ids.size(); ++i)
        ids[i] = static_cast<int32_t>(static_cast<int64_t>(i) * 7919 % out);
      const Tensor which = numbers(ids), y = tensor(dtype_, tokens, in);
      measure("embedding", std::to_string(tokens) + " x " + std::to_string(in),
              2 * static_cast<double>(tokens * in) * element(), 0,
              [&] { backend_.embedding(which, *weight, 0, y); });
      buffers_.clear();
    }
  }

  void attention(int64_t head_dim, int64_t batch, int64_t queries, int64_t context) {
    const int64_t kv_heads = std::max<int64_t>(1, options_.hidden / head_dim / kGroup),
                  heads = kv_heads * kGroup;
    const int64_t blocks = (context + kBlockSize - 1) / kBlockSize;
    const auto cache =
        value_or_end(backend_.create_kv_cache({1, static_cast<int>(kv_heads), static_cast<int>(head_dim),
                                               static_cast<int>(kBlockSize), weight_dtype_},
                                              batch * blocks));
    std::vector<int32_t> positions, slots, cu_lens{0}, lens, tables;
    for (int64_t s = 0; s < batch; ++s) {
      for (int64_t b = 0; b < blocks; ++b)
        tables.push_back(static_cast<int32_t>(b * batch + s));  // far apart
      for (int64_t q = context - queries; q < context; ++q) {
        positions.push_back(static_cast<int32_t>(q));
        slots.push_back(static_cast<int32_t>((q / kBlockSize * batch + s) * kBlockSize + q % kBlockSize));
      }
      cu_lens.push_back(static_cast<int32_t>((s + 1) * queries));
      lens.push_back(static_cast<int32_t>(context));
    }
    RaggedBatch ragged;
    ragged.positions = numbers(positions), ragged.slots = numbers(slots),
    ragged.cu_query_lens = numbers(cu_lens);
    ragged.context_lens = numbers(lens);
    const Tensor flat = numbers(tables);
    ragged.block_tables = Tensor(flat.data, DType::i32, batch, blocks);
    ragged.num_tokens = batch * queries, ragged.num_seqs = batch;
    ragged.max_query_len = queries, ragged.max_context_len = context;
    const Tensor q = drawn(dtype_, ragged.num_tokens, heads * head_dim), out = tensor(dtype_, q.rows, q.cols);
    // Those of a prefill fill the cache, too.
    const Tensor k = drawn(dtype_, q.rows, kv_heads * head_dim), v = drawn(dtype_, q.rows, k.cols);
    const RopeSpec rope{tensor(DType::f32, 1, head_dim / 2), 1, static_cast<int>(head_dim)};
    const std::string shape = std::to_string(batch) + " x " + std::to_string(queries) + " of " +
                              std::to_string(context) + ", " + std::to_string(heads) + " heads";
    const double kv = 2.0 * static_cast<double>(batch * context * kv_heads * head_dim) *
                      static_cast<double>(dtype_bytes(weight_dtype_));
    const double token_bytes = static_cast<double>(q.size() + k.size()) * 2 * element();
    measure("rope_and_store_kv", shape, token_bytes, 0,
            [&] { backend_.rope_and_store_kv(q, k, v, ragged, rope, {}, *cache, 0); });
    AttentionSpec spec;
    spec.scale = 1 / std::sqrt(static_cast<float>(head_dim));
    const double seen = static_cast<double>(queries) *
                        (static_cast<double>(context) - 0.5 * static_cast<double>(queries - 1));
    measure("attention, heads " + std::to_string(head_dim), shape,
            kv + 2 * static_cast<double>(q.size()) * element(),
            4.0 * static_cast<double>(batch * heads * head_dim) * seen,
            [&] { backend_.attention(q, *cache, 0, ragged, spec, out); });
    buffers_.clear();
  }

  void sampling(int64_t rows) {
    const Tensor logits = drawn(DType::f32, rows, options_.vocab), ids = tensor(DType::i32, 1, rows);
    const Tensor logprobs = tensor(DType::f32, 1, rows);
    const double bytes = static_cast<double>(logits.size()) * sizeof(float);
    std::vector<SamplingRow> how(static_cast<size_t>(rows));
    const std::string shape = std::to_string(rows) + " x " + std::to_string(options_.vocab);
    const auto measure_rows = [&](const std::string& name) {
      const auto* const on_device =
          static_cast<const SamplingRow*>(uploaded(how.data(), how.size() * sizeof(SamplingRow)));
      measure(name, shape, bytes, 0,
              [&] { backend_.sample(logits, options_.vocab, on_device, ids, logprobs); });
    };
    measure_rows("sample, greedy");
    for (SamplingRow& row : how) row.temperature = 1, row.top_p = 0.9f;
    measure_rows("sample, top-p");
    for (SamplingRow& row : how) row.top_p = 1, row.top_k = 50, row.min_p = 0.05f;
    measure_rows("sample, top-k, min-p");
    constexpr int64_t kTop = 20;
    const Tensor num_top = numbers(std::vector<int32_t>(how.size(), kTop)),
                 targets = tensor(DType::i32, 1, rows);
    const Tensor top_ids = tensor(DType::i32, rows, kTop), top = tensor(DType::f32, rows, kTop);
    measure("logprobs, top 20", shape, bytes, 0, [&] {
      backend_.logprobs(logits, options_.vocab, num_top.as<const int32_t>(), targets, logprobs, top_ids, top);
    });
    buffers_.clear();
  }

  /// Of a step's tokens, by slot.
  void bookkeeping(int64_t rows) {
    std::vector<int32_t> all(static_cast<size_t>(rows));
    for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int32_t>(i);
    const Tensor slots = numbers(all), ids = numbers(all), last = tensor(DType::i32, 1, rows);
    const Tensor counts = tensor(DType::i32, rows, options_.vocab);
    const std::string shape = std::to_string(rows) + " ids";
    const double bytes = 3.0 * static_cast<double>(rows) * sizeof(int32_t);
    measure("resolve_last_tokens", shape, bytes, 0, [&] { backend_.resolve_last_tokens(last, ids); });
    measure("keep_last_tokens", shape, bytes, 0, [&] { backend_.keep_last_tokens(ids, slots, last); });
    measure("count_tokens", shape, bytes, 0,
            [&] { backend_.count_tokens(counts, slots.as<const int32_t>(), ids); });
    measure("set_token_counts", "2,048 of " + std::to_string(options_.vocab),
            static_cast<double>(options_.vocab) * sizeof(int32_t), 0,
            [&] { backend_.set_token_counts(counts, 0, prompt_.data(), 1024, prompt_.data() + 1024, 1024); });
    buffers_.clear();
  }

  Backend& backend_;
  Ceilings& ceilings_;
  const Options& options_;
  const DType dtype_;
  DType weight_dtype_ = DType::f32;
  std::vector<Buffer> buffers_;
  const NormalQuantiles deviates_{1.0f};
  uint64_t last_key_ = 0;
  const std::vector<int32_t> prompt_ = std::vector<int32_t>(2048, 0);
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Every operation of a backend beside what its device can do");
  Options options;
  app.add_option("--backend", options.backend)->check(CLI::IsMember({"cuda", "cpu"}))->capture_default_str();
  app.add_option("--device", options.device)->check(CLI::Range(0, 1023));
  app.add_option("--dtype", options.dtype, "of weights and cache")
      ->check(CLI::IsMember({"bf16", "f16", "f32"}));
  for (auto& [name, list] :
       {std::pair("--tokens", &options.tokens), std::pair("--batches", &options.batches),
        std::pair("--contexts", &options.contexts), std::pair("--head-dims", &options.head_dims)})
    app.add_option(name, *list)->delimiter(',')->check(CLI::Range(1, 1 << 20))->capture_default_str();
  for (auto& [name, size] :
       {std::pair("--prefill", &options.prefill), std::pair("--hidden", &options.hidden),
        std::pair("--intermediate", &options.intermediate), std::pair("--vocab", &options.vocab)})
    app.add_option(name, *size)->check(CLI::Range(1, 1 << 20))->capture_default_str();
  app.add_option("--rounds", options.rounds)->check(CLI::Range(1, 100))->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  const bool cuda = options.backend == "cuda";
  const int threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  const auto backend =
      value_or_end(cuda ? create_cuda_backend({options.device, *parse_float_dtype(options.dtype)})
                        : create_cpu_backend({threads}));
  // Room for the largest product, and more than a cache.
  const size_t probe_bytes =
      (size_t{512} << 20) + static_cast<size_t>(8 * options.intermediate * options.hidden);
  const auto ceilings = value_or_end(cuda ? create_cuda_ceilings(options.device, probe_bytes)
                                          : create_cpu_ceilings(size_t{256} << 20, threads));
  Bench(*backend, *ceilings, options).run();
  return 0;
}
