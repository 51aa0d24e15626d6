#include "launch/client/collective_bench.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "absl/strings/str_cat.h"
#include "engine/parallel/agreement.h"
#include "launch/client/collective_input.h"

namespace trireme::client {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::minutes kDeadline{10};
constexpr int64_t kFloatBytes = 4;
constexpr int64_t kChunk = int64_t{1} << 18;  // floats that are made or checked at a time

double microseconds_since(Clock::time_point begin) {
  const std::chrono::duration<double, std::micro> time = Clock::now() - begin;
  return std::max(time.count(), 1e-3);  // what the clock can tell
}

std::string to_bytes(const std::vector<double>& numbers) {
  return std::string(reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(double));
}

/// What one rank found in the verified call.
struct Verdict {
  int64_t wrong = 0;
  uint64_t hash = 0;  // of the result
};

class Bench {
 public:
  Bench(const CollectiveBenchOptions& options, HostGroup& world, ProcessGroup& group, Backend& backend)
      : options_(options), world_(world), group_(group), backend_(backend), chunk_(kChunk) {}

  absl::StatusOr<CollectiveBenchReport> run() {
    if (absl::Status ready = prepare(); !ready.ok()) return ready;
    for (const CollectiveOp op : options_.operations) {
      auto measured = measure_operation(op);
      if (!measured.ok()) return measured.status();
      report_.operations.push_back(*std::move(measured));
    }
    return std::move(report_);
  }

 private:
  absl::Status prepare() {
    auto placement = gather_placement(world_, kDeadline);
    if (!placement.ok()) return placement.status();
    auto seed = common_seed();
    if (!seed.ok()) return seed.status();
    report_ = {group_.name(), backend_.name(), group_.size(), *placement, *seed, {}};
    const int64_t largest = *std::max_element(options_.sizes.begin(), options_.sizes.end());
    auto message =
        group_.communication_buffer(backend_, static_cast<size_t>(rounded(CollectiveOp::gather, largest)));
    auto whole = backend_.allocate(static_cast<size_t>(rounded(CollectiveOp::gather, largest)));
    auto start = backend_.allocate(kFloatBytes);
    absl::Status mine = message.status();
    mine.Update(whole.status());
    mine.Update(start.status());
    if (absl::Status all = agree_on_success(world_, mine, kDeadline); !all.ok()) return all;
    message_ = *std::move(message);
    whole_ = *std::move(whole);
    start_ = *std::move(start);
    return absl::OkStatus();
  }

  /// Rank 0's.
  absl::StatusOr<uint64_t> common_seed() {
    uint64_t seed = options_.seed;
    std::random_device random;
    while (seed == 0) seed = random();
    std::vector<int32_t> words(2);
    std::memcpy(words.data(), &seed, sizeof(seed));
    if (absl::Status sent = world_.broadcast(words, 0, kDeadline); !sent.ok()) return sent;
    std::memcpy(&seed, words.data(), sizeof(seed));
    return seed;
  }

  /// The message size that is measured for a wanted one: what is gathered has equal parts.
  int64_t rounded(CollectiveOp op, int64_t bytes) const {
    const int64_t unit = op == CollectiveOp::gather ? kFloatBytes * group_.size() : kFloatBytes;
    return (bytes + unit - 1) / unit * unit;
  }
  /// Floats that one rank gives.
  int64_t input_count(CollectiveOp op, int64_t bytes) const {
    return bytes / kFloatBytes / (op == CollectiveOp::gather ? group_.size() : 1);
  }
  static Tensor vector(const Buffer& memory, int64_t count) {
    return Tensor(memory.data(), DType::f32, 1, count);
  }

  void call(CollectiveOp op, int64_t bytes) {
    const Tensor input = vector(message_, input_count(op, bytes));
    switch (op) {
      case CollectiveOp::all_reduce:
        return group_.all_reduce_sum(input);
      case CollectiveOp::gather:
        return group_.gather_cols(input, vector(whole_, bytes / kFloatBytes));
      case CollectiveOp::broadcast:
        return group_.broadcast(input);
    }
  }

  double time_calls(CollectiveOp op, int64_t bytes, int calls) {
    // Together from the same moment, as far as a sum of one number can tell it.
    group_.all_reduce_sum(vector(start_, 1));
    backend_.synchronize();
    const auto begin = Clock::now();
    for (int i = 0; i < calls; ++i) call(op, bytes);
    backend_.synchronize();
    return microseconds_since(begin) / calls;
  }

  /// So many that a sample is not longer than wanted, by rank 0's measure; at the same time the warm-up.
  absl::StatusOr<int> choose_iterations(CollectiveOp op, int64_t bytes) {
    const double once_us = time_calls(op, bytes, options_.warmup);
    const double longest_us = std::chrono::duration<double, std::micro>(options_.longest_sample).count();
    std::vector<int32_t> words{
        static_cast<int32_t>(std::clamp<double>(longest_us / once_us, 1, options_.iterations))};
    if (absl::Status sent = world_.broadcast(words, 0, kDeadline); !sent.ok()) return sent;
    return words.at(0);
  }

  /// The figures on rank 0; elsewhere nothing but the size.
  absl::StatusOr<CollectiveFigures> measure(CollectiveOp op, int64_t wanted_bytes) {
    CollectiveFigures figures;
    figures.bytes = rounded(op, wanted_bytes);
    if (op == CollectiveOp::all_reduce) figures.algorithm = group_.all_reduce_algorithm(figures.bytes);
    fill(CollectiveInput{report_.seed, 0}, input_count(op, figures.bytes));
    auto iterations = choose_iterations(op, figures.bytes);
    if (!iterations.ok()) return iterations.status();
    figures.iterations = *iterations;
    std::vector<double> mine;
    for (int i = 0; i < options_.samples; ++i) mine.push_back(time_calls(op, figures.bytes, *iterations));
    auto all = world_.gather(to_bytes(mine), 0, kDeadline);
    if (!all.ok()) return all.status();
    if (world_.rank() == 0) set_times(op, *all, figures);
    if (absl::Status verified = verify(op, figures); !verified.ok()) return verified;
    return figures;
  }

  void set_times(CollectiveOp op, const std::vector<std::string>& of_ranks, CollectiveFigures& figures) {
    figures.samples_us.assign(static_cast<size_t>(options_.samples), 0);
    for (const std::string& bytes : of_ranks) {
      CHECK_EQ(bytes.size(), figures.samples_us.size() * sizeof(double));
      for (size_t i = 0; i < figures.samples_us.size(); ++i) {
        double time_us = 0;
        std::memcpy(&time_us, bytes.data() + i * sizeof(double), sizeof(double));
        figures.samples_us[i] = std::max(figures.samples_us[i], time_us);
      }
    }
    std::sort(figures.samples_us.begin(), figures.samples_us.end());
    figures.time_us = figures.samples_us[figures.samples_us.size() / 2];
    figures.algbw_gb_s = static_cast<double>(figures.bytes) / figures.time_us * 1e-3;
    figures.busbw_gb_s = figures.algbw_gb_s * busbw_factor(op, group_.size());
  }

  /// One more call, on inputs no call has seen.
  absl::Status verify(CollectiveOp op, CollectiveFigures& figures) {
    const CollectiveInput input{report_.seed, ++num_verified_};
    fill(input, input_count(op, figures.bytes));
    call(op, figures.bytes);
    backend_.synchronize();
    const Verdict mine = judge(op, input, figures.bytes);
    auto all = world_.gather(std::string(reinterpret_cast<const char*>(&mine), sizeof(mine)), 0, kDeadline);
    if (!all.ok()) return all.status();
    for (const std::string& bytes : *all) {
      Verdict of_rank;
      CHECK_EQ(bytes.size(), sizeof(of_rank));
      std::memcpy(&of_rank, bytes.data(), sizeof(of_rank));
      figures.wrong += of_rank.wrong;
      if (op != CollectiveOp::gather && of_rank.hash != mine.hash) figures.same_on_all_ranks = false;
    }
    return absl::OkStatus();
  }

  void fill(const CollectiveInput& input, int64_t count) {
    for (int64_t begin = 0; begin < count; begin += kChunk) {
      const int64_t size = std::min(kChunk, count - begin);
      for (int64_t i = 0; i < size; ++i) chunk_[i] = input.value(group_.rank(), begin + i);
      backend_.copy_to_device(static_cast<float*>(message_.data()) + begin, chunk_.data(),
                              static_cast<size_t>(size) * sizeof(float));
      backend_.synchronize();  // the chunk is used again
    }
  }

  Verdict judge(CollectiveOp op, const CollectiveInput& input, int64_t bytes) {
    Verdict verdict;
    if (op == CollectiveOp::gather && group_.rank() != 0) return verdict;
    const Buffer& result = op == CollectiveOp::gather ? whole_ : message_;
    const int64_t count = bytes / kFloatBytes;
    for (int64_t begin = 0; begin < count; begin += kChunk) {
      const int64_t size = std::min(kChunk, count - begin);
      backend_.copy_to_host(chunk_.data(), static_cast<const float*>(result.data()) + begin,
                            static_cast<size_t>(size) * sizeof(float));
      backend_.synchronize();
      for (int64_t i = 0; i < size; ++i) {
        if (!is_right(op, input, begin + i, input_count(op, bytes), chunk_[i])) ++verdict.wrong;
        uint32_t bits = 0;
        std::memcpy(&bits, &chunk_[i], sizeof(bits));
        verdict.hash = mix_bits(verdict.hash ^ bits);
      }
    }
    return verdict;
  }

  bool is_right(CollectiveOp op, const CollectiveInput& input, int64_t index, int64_t part, float got) const {
    if (op == CollectiveOp::all_reduce) return input.is_sum(group_.size(), index, got);
    if (op == CollectiveOp::broadcast) return got == input.value(0, index);
    return got == input.value(static_cast<int>(index / part), index % part);
  }

  absl::StatusOr<CollectiveReport> measure_operation(CollectiveOp op) {
    CollectiveReport operation;
    operation.op = op;
    operation.busbw_factor = busbw_factor(op, group_.size());
    auto smallest = measure(op, kFloatBytes);
    if (!smallest.ok()) return smallest.status();
    operation.latency_us = smallest->time_us;
    for (const int64_t bytes : options_.sizes) {
      auto figures = measure(op, bytes);
      if (!figures.ok()) return figures.status();
      operation.sizes.push_back(*std::move(figures));
    }
    operation.sizes.front().wrong += smallest->wrong;
    if (world_.rank() == 0) operation.fit = fit(operation.sizes);
    return operation;
  }

  absl::StatusOr<CollectiveFit> fit(const std::vector<CollectiveFigures>& sizes) const {
    if (group_.size() == 1) return absl::FailedPreconditionError("fit: one rank exchanges nothing");
    std::vector<CollectivePoint> points;
    for (const CollectiveFigures& figures : sizes) points.push_back({figures.bytes, figures.time_us});
    return fit_collective(points);
  }

  const CollectiveBenchOptions& options_;
  HostGroup& world_;
  ProcessGroup& group_;
  Backend& backend_;
  std::vector<float> chunk_;
  Buffer message_, whole_, start_;
  uint64_t num_verified_ = 0;
  CollectiveBenchReport report_;
};

}  // namespace

bool CollectiveBenchReport::all_right() const {
  for (const CollectiveReport& operation : operations) {
    for (const CollectiveFigures& size : operation.sizes) {
      if (size.wrong > 0 || !size.same_on_all_ranks) return false;
    }
  }
  return true;
}

absl::StatusOr<CollectiveBenchReport> run_collective_bench(const CollectiveBenchOptions& options,
                                                           HostGroup& world, ProcessGroup& group,
                                                           Backend& backend) {
  CHECK_EQ(world.size(), group.size());
  TRIREME_CHECK(!options.sizes.empty());
  return Bench(options, world, group, backend).run();
}

}  // namespace trireme::client
