#include "tests/simt/block.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <numeric>
#include <sstream>
#include <utility>

namespace simt {
namespace {

constexpr std::align_val_t kSharedAlign{128};
// What a kernel without one of its masks may overwrite behind its shared memory.
constexpr size_t kRoomForFaults = 16 * 1024;

/// Unwinds the threads of a block that cannot end in order.
struct GivenUp {};

std::string text(const Dim3& d) {
  std::ostringstream out;
  out << "(" << d.x << ", " << d.y << ", " << d.z << ")";
  return out.str();
}

std::string text(const std::source_location& where) {
  return std::string(where.file_name()) + ":" + std::to_string(where.line());
}

}  // namespace

void BlockRunner::run(const Launch& launch, const Dim3& block_index, const std::function<void()>& body) {
  prepare(launch, block_index, body);
  schedule();
}

void BlockRunner::prepare(const Launch& launch, const Dim3& block_index, const std::function<void()>& body) {
  launch_ = &launch;
  giving_up_ = false;
  num_threads_ = num_alive_ = launch.block.count();
  blockIdx = block_index;
  blockDim = launch.block;
  gridDim = launch.grid;
  if (threads_.size() < num_threads_) threads_.resize(num_threads_);
  // Not a byte more than was asked for: AddressSanitizer knows the end.
  const size_t bytes = launch.shared_bytes + (options().leaves_out_mask() ? kRoomForFaults : 0);
  auto* memory = static_cast<unsigned char*>(::operator new(bytes, kSharedAlign));
  std::memset(memory, 0xff, bytes);
  shared_ = {memory, [](unsigned char* old) { ::operator delete(old, kSharedAlign); }};
  barrier_ = Meeting{};
  exchanges_.clear();
  exchanges_.resize((num_threads_ + kWarpSize - 1) / kWarpSize);
  const Dim3& dim = launch.block;
  for (uint32_t i = 0; i < num_threads_; ++i) {
    Thread& thread = threads_[i];
    thread.index = {i % dim.x, i / dim.x % dim.y, i / dim.x / dim.y};
    thread.waits_at = nullptr;
    thread.copies.clear();
    thread.uncommitted.clear();
    if (!thread.fiber) thread.fiber = std::make_unique<Fiber>();
    thread.fiber->reset([this, &body] {
      try {
        if (giving_up_) return;
        body();
        thread_ended();
      } catch (const GivenUp&) {
      }
    });
  }
  order_.resize(num_threads_);
  std::iota(order_.begin(), order_.end(), 0);
  if (options().order == Order::reverse) std::reverse(order_.begin(), order_.end());
  random_.seed(options().seed + block_index.x + 7919 * block_index.y + 104729 * block_index.z);
}

void BlockRunner::schedule() {
  while (num_alive_ > 0) {
    const bool moved = options().order == Order::eager ? run_eagerly() : run_round();
    running_ = nullptr;
    if (moved && !giving_up_) continue;
    if (!options().has_fault()) report_deadlock();
    abandon();
  }
  launch_ = nullptr;
}

bool BlockRunner::run_round() {
  if (options().order == Order::shuffled) std::shuffle(order_.begin(), order_.end(), random_);
  bool moved = false;
  for (const uint32_t i : order_) moved = resume(threads_[i]) || moved;
  return moved;
}

bool BlockRunner::run_eagerly() {
  bool moved = false;
  for (size_t warp = 0; warp < num_threads_; warp += kWarpSize) {
    for (bool again = true; again;) {
      again = false;
      for (size_t i = warp; i < std::min(num_threads_, warp + kWarpSize); ++i)
        again = resume(threads_[i]) || again;
      moved = moved || again;
    }
  }
  return moved;
}

/// False when the thread can do nothing now.
bool BlockRunner::resume(Thread& thread) {
  if (thread.fiber->ended() || !can_run(thread)) return false;
  running_ = &thread;
  threadIdx = thread.index;
  thread.fiber->resume();
  return true;
}

void BlockRunner::abandon() {
  remember_failure();
  giving_up_ = true;
  for (size_t i = 0; i < num_threads_; ++i) {
    threads_[i].waits_at = nullptr;
    resume(threads_[i]);
  }
  running_ = nullptr;
  num_alive_ = 0;
  giving_up_ = false;
}

void BlockRunner::give_up() {
  giving_up_ = true;
  throw GivenUp();
}

bool BlockRunner::can_run(const Thread& thread) const {
  return thread.waits_at == nullptr || thread.waits_at->generation > thread.waits_for;
}

void BlockRunner::arrive(Meeting& meeting, const char* operation, const std::source_location& where) {
  if (meeting.num_arrived == 0) {
    meeting.operation = operation;
    meeting.where = where;
  } else if (std::strcmp(meeting.operation, operation) != 0 || meeting.where.line() != where.line() ||
             std::strcmp(meeting.where.file_name(), where.file_name()) != 0) {
    fail(std::string(operation) + " at " + text(where) + " meets " + meeting.operation + " at " +
         text(meeting.where));
  }
  ++meeting.num_arrived;
}

void BlockRunner::open(Meeting& meeting) {
  meeting.num_arrived = 0;
  meeting.last_num_true = std::exchange(meeting.num_true, 0);
  ++meeting.generation;
}

void BlockRunner::wait(Meeting& meeting, uint64_t generation) {
  Thread& self = *running_;
  while (meeting.generation == generation) {
    self.waits_at = &meeting;
    self.waits_for = generation;
    self.fiber->yield();
    if (giving_up_) throw GivenUp();
  }
  self.waits_at = nullptr;
}

bool BlockRunner::pass_by(const std::source_location& where) {
  if (passed_.emplace(where.file_name(), where.line()).second) remember_place(text(where));
  return !options().without.empty() && options().without == text(where);
}

int BlockRunner::block_barrier(bool predicate, const std::source_location& where) {
  if (pass_by(where)) return predicate;
  const uint64_t generation = barrier_.generation;
  arrive(barrier_, "__syncthreads", where);
  barrier_.num_true += predicate;
  if (barrier_.num_arrived == num_alive_)
    open(barrier_);
  else
    wait(barrier_, generation);
  return barrier_.last_num_true;
}

void BlockRunner::thread_ended() {
  bool pending = !running_->uncommitted.empty();
  for (const auto& group : running_->copies) pending = pending || !group.empty();
  if (pending && !options().has_fault()) fail("ends with asynchronous copies that were never waited for");
  --num_alive_;
  if (barrier_.num_arrived > 0 && barrier_.num_arrived == num_alive_) open(barrier_);
}

BlockRunner::Exchange& BlockRunner::exchange(uint32_t warp, uint32_t mask) {
  auto& of_warp = exchanges_[warp];
  for (const auto& known : of_warp)
    if (known->mask == mask) return *known;
  of_warp.push_back(std::make_unique<Exchange>());
  of_warp.back()->mask = mask;
  return *of_warp.back();
}

const unsigned char* BlockRunner::warp_exchange(uint32_t mask, const void* mine, size_t bytes,
                                                const char* operation, const std::source_location& where) {
  const uint32_t warp = linear(*running_) / kWarpSize, lane = lane_id();
  if ((mask >> lane & 1) == 0)
    fail(std::string(operation) + " at " + text(where) + ": the calling lane is not in the mask");
  // Lanes that show each other something meet in any case.
  if (bytes == 0 && pass_by(where)) return nullptr;
  Exchange& meeting = exchange(warp, mask);
  const uint64_t generation = meeting.generation;
  unsigned char* values = meeting.values[generation % 2];
  if (meeting.num_arrived == 0) std::memset(values, 0xff, sizeof meeting.values[0]);
  arrive(meeting, operation, where);
  if (bytes > 0) std::memcpy(values + lane * kMaxExchangeBytes, mine, bytes);
  if (meeting.num_arrived == static_cast<uint32_t>(__builtin_popcount(mask)))
    open(meeting);
  else
    wait(meeting, generation);
  return values;
}

void BlockRunner::copy_async(void* destination, const void* source, size_t bytes, size_t source_bytes) {
  std::memset(destination, 0xff, bytes);
  running_->uncommitted.push_back({destination, source, bytes, source_bytes});
}

void BlockRunner::copy_commit() {
  running_->copies.push_back(std::move(running_->uncommitted));
  running_->uncommitted.clear();
}

void BlockRunner::copy_wait(size_t most_pending_groups, const std::source_location& where) {
  if (pass_by(where)) return;
  while (running_->copies.size() > most_pending_groups) {
    for (const Copy& copy : running_->copies.front()) {
      std::memcpy(copy.destination, copy.source, copy.source_bytes);
      std::memset(static_cast<char*>(copy.destination) + copy.source_bytes, 0,
                  copy.bytes - copy.source_bytes);
    }
    running_->copies.pop_front();
  }
}

std::string BlockRunner::place() const {
  if (launch_ == nullptr) return "outside of a kernel";
  std::string result = "kernel " + launch_->kernel + ", block " + text(blockIdx);
  if (running_ != nullptr) result += ", thread " + text(running_->index);
  return result;
}

void BlockRunner::report_deadlock() const {
  std::ostringstream out;
  out << "no thread can go on: " << num_threads_ - num_alive_ << " of " << num_threads_ << " have ended";
  std::vector<const Meeting*> told;
  for (size_t i = 0; i < num_threads_; ++i) {
    const Meeting* meeting = threads_[i].waits_at;
    if (threads_[i].fiber->ended() || std::find(told.begin(), told.end(), meeting) != told.end()) continue;
    told.push_back(meeting);
    out << ", " << meeting->num_arrived << " wait at " << meeting->operation << " at " << text(meeting->where)
        << " (the first is thread " << text(threads_[i].index) << ")";
  }
  fail(out.str());
}

}  // namespace simt
