#include "tests/simt/grid.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <tuple>
#include <utility>

#include "tests/simt/block.h"

namespace simt {
namespace {

Options current_options;
OtherDevices* current_others = nullptr;

BlockRunner& runner() {
  thread_local BlockRunner instance;
  return instance;
}

std::atomic<bool> failed{false};
std::mutex places_mutex;
std::set<std::string>& places() {
  static auto* all = new std::set<std::string>;
  return *all;
}
std::atomic<int> num_forgotten{0};
std::set<MaskPlace>& masks() {
  static auto* all = new std::set<MaskPlace>;
  return *all;
}

}  // namespace

void remember_place(const std::string& place) {
  std::lock_guard lock(places_mutex);
  places().insert(place);
}

std::set<std::string> meeting_places() {
  std::lock_guard lock(places_mutex);
  return places();
}

std::set<MaskPlace> mask_places() {
  std::lock_guard lock(places_mutex);
  return masks();
}
void forget_masks() {
  std::lock_guard lock(places_mutex);
  masks().clear();
  ++num_forgotten;
}

bool watched_mask(bool condition, const std::source_location& where) {
  if (current_options.leaves_out_mask()) {
    const MaskPlace& left_out = current_options.without_mask;
    // Most masks stand in other lines.
    return condition || (left_out.line == where.line() && left_out.column == where.column() &&
                         left_out.file == where.file_name());
  }
  thread_local std::set<std::tuple<const char*, uint32_t, uint32_t>> passed;
  thread_local int passed_since = 0;
  if (std::exchange(passed_since, num_forgotten) != num_forgotten) passed.clear();
  if (passed.emplace(where.file_name(), where.line(), where.column()).second) {
    std::lock_guard lock(places_mutex);
    masks().insert({where.file_name(), where.line(), where.column()});
  }
  return condition;
}

void set_options(const Options& options) {
  current_options = options;
  masks_are_watched = options.watches_masks || options.leaves_out_mask();
}
const Options& options() { return current_options; }

void set_other_devices(OtherDevices* devices) { current_others = devices; }
OtherDevices* other_devices() { return current_others; }

void remember_failure() { failed = true; }
bool take_failure() { return failed.exchange(false); }

void fail(const std::string& what) {
  if (current_options.has_fault() && runner().in_thread()) runner().give_up();
  std::fprintf(stderr, "simt: %s: %s\n", runner().place().c_str(), what.c_str());
  std::abort();
}

void run_grid(const Launch& launch, const std::function<void()>& body) {
  const uint64_t num_blocks = launch.grid.count();
  std::atomic<uint64_t> next{0};
  const auto run_blocks = [&] {
    for (uint64_t i = next++; i < num_blocks; i = next++) {
      const uint64_t b = current_options.order == Order::reverse ? num_blocks - 1 - i : i;
      const Dim3 index{static_cast<uint32_t>(b % launch.grid.x),
                       static_cast<uint32_t>(b / launch.grid.x % launch.grid.y),
                       static_cast<uint32_t>(b / launch.grid.x / launch.grid.y)};
      runner().run(launch, index, body);
    }
  };
  uint64_t num_threads = static_cast<uint64_t>(current_options.num_threads);
  if (num_threads == 0) num_threads = static_cast<uint64_t>(omp_get_num_procs());
#pragma omp parallel num_threads(static_cast <int>(std::min(num_threads, num_blocks)))
  run_blocks();
}

uint32_t lane_id() { return runner().lane_id(); }
void* shared_memory() { return runner().shared_memory(); }
int block_barrier(bool predicate, const std::source_location& where) {
  return runner().block_barrier(predicate, where);
}
const unsigned char* warp_exchange(uint32_t mask, const void* mine, size_t bytes, const char* operation,
                                   const std::source_location& where) {
  return runner().warp_exchange(mask, mine, bytes, operation, where);
}
void copy_async(void* destination, const void* source, size_t bytes, size_t source_bytes) {
  runner().copy_async(destination, source, bytes, source_bytes);
}
void copy_commit() { runner().copy_commit(); }
void copy_wait(size_t most_pending_groups, const std::source_location& where) {
  runner().copy_wait(most_pending_groups, where);
}

}  // namespace simt
