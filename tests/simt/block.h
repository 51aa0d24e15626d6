#pragma once
// One block of a grid.

#include <cstdint>
#include <deque>
#include <memory>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "tests/simt/fiber.h"
#include "tests/simt/grid.h"

namespace simt {

/// Adds to meeting_places().
void remember_place(const std::string& place);
/// For take_failure().
void remember_failure();

/// Runs blocks, one after the other, on the thread that made it.
class BlockRunner {
 public:
  void run(const Launch& launch, const Dim3& block_index, const std::function<void()>& body);

  // Called by the running thread of the block.
  uint32_t lane_id() const { return linear(*running_) % kWarpSize; }
  void* shared_memory() const { return shared_.get(); }
  int block_barrier(bool predicate, const std::source_location& where);
  const unsigned char* warp_exchange(uint32_t mask, const void* mine, size_t bytes, const char* operation,
                                     const std::source_location& where);
  void copy_async(void* destination, const void* source, size_t bytes, size_t source_bytes);
  void copy_commit();
  void copy_wait(size_t most_pending_groups, const std::source_location& where);

  /// For a thread that has failed: ends it, and then all threads of its block.
  [[noreturn]] void give_up();
  bool in_thread() const { return running_ != nullptr; }

  /// "kernel K, block (x, y, z), thread (x, y, z)".
  std::string place() const;

 private:
  struct Copy {
    void* destination;
    const void* source;
    size_t bytes, source_bytes;
  };
  /// Where threads meet: all of those expected have to arrive before any goes on.
  struct Meeting {
    uint64_t generation = 0;
    uint32_t num_arrived = 0;
    int num_true = 0, last_num_true = 0;
    const char* operation = "";
    std::source_location where;  // of the first that arrived
  };
  struct Exchange : Meeting {
    uint32_t mask = 0;
    // By parity of the generation: a lane that is ahead writes where nobody reads any more.
    alignas(16) unsigned char values[2][kWarpSize * kMaxExchangeBytes];
  };
  struct Thread {
    Dim3 index;
    std::unique_ptr<Fiber> fiber;
    const Meeting* waits_at = nullptr;
    uint64_t waits_for = 0;                // the meeting's generation to pass
    std::deque<std::vector<Copy>> copies;  // committed groups
    std::vector<Copy> uncommitted;
  };

  /// Remembers the place. True when it is to be left out.
  bool pass_by(const std::source_location& where);
  void prepare(const Launch& launch, const Dim3& block_index, const std::function<void()>& body);
  void schedule();
  bool run_round();
  bool run_eagerly();
  bool resume(Thread& thread);
  void abandon();
  bool can_run(const Thread& thread) const;
  void arrive(Meeting& meeting, const char* operation, const std::source_location& where);
  void open(Meeting& meeting);
  void wait(Meeting& meeting, uint64_t generation);
  void thread_ended();
  Exchange& exchange(uint32_t warp, uint32_t mask);
  uint32_t linear(const Thread& thread) const { return static_cast<uint32_t>(&thread - threads_.data()); }
  [[noreturn]] void report_deadlock() const;

  const Launch* launch_ = nullptr;
  std::vector<Thread> threads_;
  size_t num_threads_ = 0;  // of the block
  size_t num_alive_ = 0;
  Thread* running_ = nullptr;
  std::unique_ptr<unsigned char, void (*)(unsigned char*)> shared_{nullptr, [](unsigned char*) {}};
  Meeting barrier_;
  bool giving_up_ = false;
  std::vector<std::vector<std::unique_ptr<Exchange>>> exchanges_;  // by warp, for each mask that occurred
  std::mt19937_64 random_;
  std::vector<uint32_t> order_;
  std::set<std::pair<const char*, uint32_t>> passed_;  // places that meeting_places() knows of already
};

}  // namespace simt
