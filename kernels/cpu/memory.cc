#include "kernels/cpu/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/cpu/parallel.h"

namespace trireme::cpu {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

size_t page_bytes() {
  static const size_t bytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

void touch(void* data, size_t bytes, int threads) {
  const size_t page = page_bytes();
  const int64_t pages = static_cast<int64_t>((bytes + page - 1) / page);
  parallel_ranges(threads, pages, 1024, [&](int, Range range) {
    volatile char* base = static_cast<char*>(data);
    for (int64_t i = range.begin; i < range.end; ++i) base[static_cast<size_t>(i) * page] = 0;
  });
}

/// The first integer in a file; nullopt-like kUnlimited when there is none ("max", no file).
int64_t read_limit(const std::string& path) {
  std::ifstream file(path);
  int64_t value = 0;
  if (!(file >> value) || value < 0) return kUnlimited;
  return value;
}

/// The value behind `key` in lines of "key value".
int64_t read_field(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string name;
    int64_t value = 0;
    if (words >> name >> value && name == key) return value;
  }
  return -1;
}

int64_t cgroup_room(const std::string& directory, const char* limit_file, const char* usage_file,
                    const char* inactive_key) {
  const int64_t limit = read_limit(directory + limit_file);
  const int64_t usage = read_limit(directory + usage_file);
  if (limit == kUnlimited || usage == kUnlimited) return kUnlimited;
  const int64_t reclaimable = std::max<int64_t>(0, read_field(directory + "memory.stat", inactive_key));
  return std::max<int64_t>(0, limit - std::max<int64_t>(0, usage - reclaimable));
}

/// The least room of the group at `path` and of all groups above it. A path that is not there (a cgroup
/// namespace hides it) leaves the ones above.
int64_t hierarchy_room(const std::string& mount, std::string path, bool v2) {
  int64_t room = kUnlimited;
  while (true) {
    const std::string directory = mount + path + (path.empty() || path.back() != '/' ? "/" : "");
    room = std::min(room, v2 ? cgroup_room(directory, "memory.max", "memory.current", "inactive_file")
                             : cgroup_room(directory, "memory.limit_in_bytes", "memory.usage_in_bytes",
                                           "total_inactive_file"));
    if (path.empty() || path == "/") return room;
    path.resize(path.find_last_of('/') == std::string::npos ? 0 : path.find_last_of('/'));
  }
}

}  // namespace

int64_t available_memory_bytes(const std::string& root) {
  const int64_t available_kib = read_field(root + "/proc/meminfo", "MemAvailable:");
  int64_t room = available_kib < 0 ? 0 : available_kib * 1024;
  std::ifstream groups(root + "/proc/self/cgroup");
  std::string line;
  while (std::getline(groups, line)) {  // "hierarchy:controllers:path"
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = absl::StrCat(",", line.substr(first + 1, second - first - 1), ",");
    const std::string path = line.substr(second + 1);
    if (controllers == ",,") room = std::min(room, hierarchy_room(root + "/sys/fs/cgroup", path, true));
    if (controllers.find(",memory,") != std::string::npos)
      room = std::min(room, hierarchy_room(root + "/sys/fs/cgroup/memory", path, false));
  }
  return room;
}

HostMemory::HostMemory(HostMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

HostMemory& HostMemory::operator=(HostMemory&& other) noexcept {
  if (this != &other) {
    free(data_, bytes_);
    data_ = std::exchange(other.data_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
  }
  return *this;
}

HostMemory::~HostMemory() { free(data_, bytes_); }

absl::StatusOr<HostMemory> HostMemory::map(size_t bytes, const std::string& what) {
  HostMemory memory;
  memory.bytes_ = std::max<size_t>(bytes, 1);
  // Overcommit lets mmap promise what is not there, so ask first where it matters.
  const int64_t available = bytes >= kHugePage ? available_memory_bytes() : kUnlimited;
  if (bytes > static_cast<size_t>(available) || bytes > static_cast<size_t>(kUnlimited)) {
    return absl::ResourceExhaustedError(
        absl::StrCat("host memory for ", what, ": wanted ", bytes, " bytes, available ", available));
  }
  void* data = mmap(nullptr, memory.bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat("host memory for ", what, ": wanted ", bytes,
                                                     " bytes, available ", available_memory_bytes()));
  }
  memory.data_ = data;
  return memory;
}

absl::StatusOr<HostMemory> HostMemory::allocate(size_t bytes, int threads, const std::string& what) {
  absl::StatusOr<HostMemory> memory = map(bytes, what);
  if (memory.ok() && bytes >= kHugePage) {
    madvise(memory->data_, bytes, MADV_HUGEPAGE);  // a wish: fewer TLB misses where it is granted
    touch(memory->data_, bytes, threads);
  }
  return memory;
}

absl::StatusOr<HostMemory> HostMemory::allocate_sparse(size_t bytes, const std::string& what) {
  absl::StatusOr<HostMemory> memory = map(bytes, what);
  // A huge page is taken whole by its first byte.
  if (memory.ok()) madvise(memory->data_, memory->bytes_, MADV_NOHUGEPAGE);
  return memory;
}

void* HostMemory::detach() {
  bytes_ = 0;
  return std::exchange(data_, nullptr);
}

void HostMemory::free(void* data, size_t bytes) {
  if (data != nullptr) munmap(data, bytes);
}

absl::Status Workspace::reserve(size_t bytes, int threads) {
  if (bytes <= memory_.bytes()) return absl::OkStatus();
  memory_ = HostMemory();
  absl::StatusOr<HostMemory> grown = HostMemory::allocate(bytes, threads, "workspace");
  if (!grown.ok()) return grown.status();
  memory_ = *std::move(grown);
  return absl::OkStatus();
}

void* Workspace::get(size_t bytes, int threads) {
  const absl::Status status = reserve(bytes, threads);
  if (!status.ok()) check_failed(__FILE__, __LINE__, std::string(status.message()));
  return memory_.data();
}

}  // namespace trireme::cpu
