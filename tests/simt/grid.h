#pragma once
// Runs the threads of a CUDA grid on the processor: each thread is a fiber, a block's fibers share one thread
// of the host, blocks are spread over several. Fibers run in the order the options say and stop only where
// CUDA lets them meet, so that what a missing barrier would leave to chance is wrong each time in at least
// one order.

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <set>
#include <source_location>
#include <string>

namespace simt {

struct Dim3 {
  uint32_t x = 1, y = 1, z = 1;
  uint64_t count() const { return uint64_t{x} * y * z; }
};

/// forward, reverse, shuffled: each thread goes on until it has to wait, then the next. eager: a warp goes as
/// far as it can before the next one is looked at, so that it runs ahead of threads that have not left a
/// barrier yet.
enum class Order { forward, reverse, shuffled, eager };
inline constexpr Order kOrders[] = {Order::forward, Order::reverse, Order::shuffled, Order::eager};

/// Where a mask stands in a source; without a file nowhere.
struct MaskPlace {
  std::string file;
  uint32_t line = 0, column = 0;
  auto operator<=>(const MaskPlace&) const = default;
};

/// Of all launches from now on, process-wide; set it while no grid runs.
struct Options {
  Order order = Order::forward;
  uint64_t seed = 1;    // of Order::shuffled
  int num_threads = 0;  // host threads; 0: one for each processor
  /// A fault on purpose: the barrier, or the wait for copies, at this "file:line" does nothing.
  std::string without = {};
  /// Another: the mask at this place lets everything through.
  MaskPlace without_mask = {};
  bool watches_masks = false;  // for mask_places(): takes time, since some stand in inner loops

  bool leaves_out_mask() const { return !without_mask.file.empty(); }
  bool has_fault() const { return !without.empty() || leaves_out_mask(); }
};
void set_options(const Options& options);
const Options& options();

struct Launch {
  std::string kernel;  // for messages
  Dim3 grid, block;
  size_t shared_bytes = 0;
};

/// Where the threads of all kernels run so far met or waited for copies, as "file:line". What is left out of
/// these one after the other (Options::without) must make a test fail, or it was not needed.
std::set<std::string> meeting_places();

/// The masks that kernels came to while Options::watches_masks; the same of them and Options::without_mask.
std::set<MaskPlace> mask_places();
void forget_masks();

/// Runs `body` once for each thread of the grid and returns when all have ended. Shared memory holds bytes of
/// 0xff at the start of each block. A block whose threads can no longer meet is a failure.
void run_grid(const Launch& launch, const std::function<void()>& body);

/// Says which kernel, block and thread, and ends the process. With a fault on purpose the block is given up
/// instead.
[[noreturn]] void fail(const std::string& what);

/// Whether blocks have been given up since it was last asked.
bool take_failure();

/// What other devices do when the threads of a kernel tell them something, or wait for them. Called by those
/// threads, on several of the host's at once.
class OtherDevices {
 public:
  virtual ~OtherDevices() = default;
  /// `value` has just been published at `flag`.
  virtual void told(const uint32_t* flag, uint32_t value) = 0;
  /// `value` has not yet been published at `flag`. What is not there on return never comes.
  virtual void awaited(uint32_t* flag, uint32_t value) = 0;
};
/// In the place of other grids; nullptr: those. Process-wide; set it while no grid runs.
void set_other_devices(OtherDevices* devices);

// ---- in a kernel ----

/// Set by set_options().
inline bool masks_are_watched = false;
bool watched_mask(bool condition, const std::source_location& where);

/// The condition, or true where the mask at this place is left out.
inline bool mask(bool condition, const std::source_location& where) {
  return masks_are_watched ? watched_mask(condition, where) : condition;
}

OtherDevices* other_devices();

constexpr int kWarpSize = 32;
constexpr size_t kMaxExchangeBytes = 64;

void* shared_memory();

/// A barrier of all threads of the block that have not ended. Returns how many gave a true `predicate`.
int block_barrier(bool predicate, const std::source_location& where);

/// The lanes of `mask` meet and show each other `bytes` bytes. Returns where lane i's are: bytes [i *
/// kMaxExchangeBytes, ...), until this lane's next exchange with the same mask.
const unsigned char* warp_exchange(uint32_t mask, const void* mine, size_t bytes, const char* operation,
                                   const std::source_location& where);
uint32_t lane_id();

/// cp.async: the destination holds 0xff until this thread waits for the group the copy was committed to.
void copy_async(void* destination, const void* source, size_t bytes, size_t source_bytes);
void copy_commit();
void copy_wait(size_t most_pending_groups,
               const std::source_location& where = std::source_location::current());

}  // namespace simt

// CUDA's built-in variables, of the thread that runs.
inline constinit thread_local ::simt::Dim3 threadIdx, blockIdx, blockDim, gridDim;
