#include "kernels/cpu/probe.h"

#include <chrono>
#include <utility>

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/round_up.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/probe.cc"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace trireme::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// A value that depends on every word of [data, data + bytes); bytes is a multiple of 1024.
uint64_t read_all(const char* data, int64_t bytes) {
  const hn::ScalableTag<uint64_t> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto* words = reinterpret_cast<const uint64_t*>(data);
  auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
  for (int64_t i = 0; i < bytes / 8; i += 4 * lanes) {
    hwy::Prefetch(words + i + 512);
    hwy::Prefetch(words + i + 512 + lanes);
    hwy::Prefetch(words + i + 512 + 2 * lanes);
    hwy::Prefetch(words + i + 512 + 3 * lanes);
    s0 = hn::Xor(s0, hn::LoadU(d, words + i));
    s1 = hn::Xor(s1, hn::LoadU(d, words + i + lanes));
    s2 = hn::Xor(s2, hn::LoadU(d, words + i + 2 * lanes));
    s3 = hn::Xor(s3, hn::LoadU(d, words + i + 3 * lanes));
  }
  return hn::GetLane(hn::SumOfLanes(d, hn::Xor(hn::Xor(s0, s1), hn::Xor(s2, s3))));
}

}  // namespace trireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace trireme::cpu {
HWY_EXPORT(read_all);

namespace {
constexpr int64_t kChunk = 1024;
}

ReadBandwidthProbe::ReadBandwidthProbe(HostMemory memory, int threads)
    : memory_(std::move(memory)), threads_(threads) {}

absl::StatusOr<ReadBandwidthProbe> ReadBandwidthProbe::create(size_t bytes, int threads) {
  absl::StatusOr<HostMemory> memory =
      HostMemory::allocate(static_cast<size_t>(round_up(static_cast<int64_t>(bytes), kChunk)), threads,
                           "the read bandwidth probe");
  if (!memory.ok()) return memory.status();
  return ReadBandwidthProbe(*std::move(memory), threads);
}

double ReadBandwidthProbe::measure() const {
  const auto begin = std::chrono::steady_clock::now();
  parallel_ranges(threads_, static_cast<int64_t>(memory_.bytes()) / kChunk, 2, [&](int, Range range) {
    const char* data = static_cast<const char*>(memory_.data()) + range.begin * kChunk;
    volatile uint64_t sink = HWY_DYNAMIC_DISPATCH(read_all)(data, (range.end - range.begin) * kChunk);
    (void)sink;
  });
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  return static_cast<double>(memory_.bytes()) / seconds.count() * 1e-9;
}

}  // namespace trireme::cpu
#endif  // HWY_ONCE
