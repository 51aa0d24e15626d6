// After warm-up a step takes no memory. Products of more than 32 rows are oneDNN's on the CPU, which takes
// some small objects for each (Backend::num_compiled_kernels() counts the large ones): the steps here stay
// below.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

#include "tests/engine/models/reference_model.h"
#include "tests/testing/mpi_main.h"

namespace {

std::atomic<int64_t> num_allocations{0};

void* counted(size_t bytes, size_t alignment) {
  ++num_allocations;
  void* memory = nullptr;
  if (posix_memalign(&memory, std::max(alignment, sizeof(void*)), std::max<size_t>(bytes, 1)) != 0)
    std::abort();
  return memory;
}

/// Not inlined: where a compiler inlines a delete and not its new, it takes them for a mismatched pair.
[[gnu::noinline]] void release(void* memory) { std::free(memory); }

}  // namespace

// The whole program's, its libraries' included.
void* operator new(size_t bytes) { return counted(bytes, alignof(std::max_align_t)); }
void* operator new[](size_t bytes) { return counted(bytes, alignof(std::max_align_t)); }
void* operator new(size_t bytes, std::align_val_t a) { return counted(bytes, static_cast<size_t>(a)); }
void* operator new[](size_t bytes, std::align_val_t a) { return counted(bytes, static_cast<size_t>(a)); }
void operator delete(void* memory) noexcept { release(memory); }
void operator delete[](void* memory) noexcept { release(memory); }
void operator delete(void* memory, size_t) noexcept { release(memory); }
void operator delete[](void* memory, size_t) noexcept { release(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { release(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { release(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { release(memory); }
void operator delete[](void* memory, size_t, std::align_val_t) noexcept { release(memory); }

namespace trireme::testing {
namespace {

/// Six requests whose decodes cross many blocks: greedy, sampled, with penalties.
std::vector<Request> requests(const Reference& reference, RequestHandle first) {
  std::vector<Request> result;
  for (int i = 0; i < 6; ++i) {
    Request request = greedy_request(first + static_cast<RequestHandle>(i), reference.prompt_ids, 48);
    request.prompt.resize(5);  // 30 rows at once
    request.prompt[0] = static_cast<int32_t>((first + static_cast<RequestHandle>(i)) % 100);
    if (i % 3 == 1) request.sampling = {0.8f, 40, 0.9f, 0.01f, 7u + static_cast<unsigned>(i)};
    if (i % 3 == 2) request.sampling.presence_penalty = 0.5f;
    result.push_back(std::move(request));
  }
  return result;
}

/// Allocations of each step that took no new request in.
std::vector<int64_t> allocations_of_steps(Engine& engine, std::vector<Request> all) {
  for (Request& request : all) or_die(engine.submit(std::move(request)));
  std::vector<TokenOutput> outputs;
  outputs.reserve(64);
  std::vector<int64_t> counts;
  counts.reserve(1000);
  while (engine.has_work()) {
    outputs.clear();
    const int64_t before = num_allocations;
    CHECK_EQ(value_or_die(engine.step(outputs)), true);
    counts.push_back(num_allocations - before);
  }
  return counts;
}

TEST(AllocationTest, AStepTakesNoMemoryAfterWarmUp) {
  const Reference reference = load_reference("llama3_rope");
  EngineConfig config = reference_engine_config(reference);
  auto engine = value_or_die(Engine::create(config, world()));
  allocations_of_steps(*engine, requests(reference, 1));
  const std::vector<int64_t> counts = allocations_of_steps(*engine, requests(reference, 1001));
  ASSERT_GE(counts.size(), 40u);
  for (size_t step = 0; step < counts.size(); ++step) EXPECT_EQ(counts[step], 0) << "step " << step;
}

}  // namespace
}  // namespace trireme::testing
