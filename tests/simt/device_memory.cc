#include "tests/simt/device_memory.h"

#include <cuda_runtime.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <map>
#include <mutex>
#include <new>

namespace simt {
namespace {

constexpr size_t kAlign = 256;

std::atomic<bool> strict = false;

/// Mapped memory with a page behind it that is never open.
struct Region {
  void* begin;
  size_t bytes;  // without that page
};

std::mutex mutex;  // of all below
int num_at_work = 0;
std::map<void*, Region>& regions() {
  static auto* all = new std::map<void*, Region>;
  return *all;
}

size_t rounded_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

void protect(const Region& region) {
  ::mprotect(region.begin, region.bytes, num_at_work > 0 ? PROT_READ | PROT_WRITE : PROT_NONE);
}

}  // namespace

void set_strict(bool on) { strict = on; }

bool is_strict() { return strict; }

bool closes_memory() {
#ifdef __SANITIZE_ADDRESS__
  return false;
#else
  return true;
#endif
}

void* take_device_memory(size_t bytes) {
  if (!strict || !closes_memory()) return ::operator new(bytes, std::align_val_t(kAlign), std::nothrow);
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t taken = rounded_up(bytes, kAlign), mapped = rounded_up(taken, page);
  void* const begin =
      ::mmap(nullptr, mapped + page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (begin == MAP_FAILED) return nullptr;
  void* const memory = static_cast<char*>(begin) + mapped - taken;
  std::lock_guard lock(mutex);
  const Region region{begin, mapped};
  regions()[memory] = region;
  protect(region);
  return memory;
}

void give_device_memory(void* memory) {
  std::lock_guard lock(mutex);
  const auto found = regions().find(memory);
  if (found == regions().end()) return ::operator delete(memory, std::align_val_t(kAlign));
  ::munmap(found->second.begin, found->second.bytes + static_cast<size_t>(::sysconf(_SC_PAGESIZE)));
  regions().erase(found);
}

DeviceAtWork::DeviceAtWork() {
  std::lock_guard lock(mutex);
  if (++num_at_work > 1) return;
  for (const auto& [memory, region] : regions()) protect(region);
}

DeviceAtWork::~DeviceAtWork() {
  std::lock_guard lock(mutex);
  if (--num_at_work > 0) return;
  for (const auto& [memory, region] : regions()) protect(region);
}

}  // namespace simt
