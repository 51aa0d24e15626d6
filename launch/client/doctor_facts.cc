#include "launch/client/doctor_facts.h"

#include <arpa/inet.h>
#include <gnu/libc-version.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/config.h"
#include "engine/parallel/process_group.h"
#include "engine/weights/safetensors.h"
#include "kernels/backend.h"

namespace trireme::client {
namespace {

namespace fs = std::filesystem;

/// FNV-1a of at most `bytes` from where the file stands.
std::string hash_of(std::ifstream& file, uint64_t bytes) {
  uint64_t hash = 14695981039346656037u;
  std::vector<char> buffer(1 << 16);
  while (bytes > 0 && file) {
    file.read(buffer.data(), static_cast<std::streamsize>(std::min<uint64_t>(bytes, buffer.size())));
    const auto got = static_cast<uint64_t>(file.gcount());
    for (uint64_t i = 0; i < got; ++i) hash = (hash ^ static_cast<uint8_t>(buffer[i])) * 1099511628211u;
    bytes -= got;
    if (got == 0) break;
  }
  return absl::StrFormat("%016x", hash);
}

/// Of a checkpoint only the header counts: reading terabytes would take longer than loading them.
v1::FileFact describe(const fs::path& path) {
  v1::FileFact fact;
  fact.set_name(absl::Utf8SafeCEscape(path.filename().string()));
  std::error_code error;
  const auto size = fs::file_size(path, error);
  fact.set_bytes(error ? -1 : static_cast<int64_t>(size));
  std::ifstream file(path, std::ios::binary);
  uint64_t wanted = error ? 0 : size;
  if (path.extension() == ".safetensors") {
    std::array<unsigned char, 8> length = {};
    file.read(reinterpret_cast<char*>(length.data()), length.size());
    uint64_t header = 0;
    for (size_t i = length.size(); i > 0; --i) header = header << 8 | length[i - 1];
    wanted = std::min(header, kMaxSafetensorsHeaderBytes);
  }
  fact.set_hash(hash_of(file, wanted));
  return fact;
}

void add_programs(v1::RankFacts& facts) {
  std::error_code error;
  const fs::path self = fs::read_symlink("/proc/self/exe", error);
  *facts.add_programs() = describe(self);
  const fs::path worker = self.parent_path() / "trireme-worker";
  if (fs::exists(worker, error)) *facts.add_programs() = describe(worker);
}

void add_model(const std::string& model_dir, v1::RankFacts& facts) {
  facts.set_model_dir(model_dir);
  if (const auto config = load_model_config(absl::StrCat(model_dir, "/config.json")); !config.ok()) {
    facts.set_model_error(absl::Utf8SafeCEscape(config.status().message()));
  } else if (const auto checkpoint = Checkpoint::open(model_dir); !checkpoint.ok()) {
    facts.set_model_error(absl::Utf8SafeCEscape(checkpoint.status().message()));
  }
  std::error_code error;
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(model_dir, error)) {
    const fs::path extension = entry.path().extension();
    if (extension == ".json" || extension == ".safetensors") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  for (const fs::path& file : files) *facts.add_model_files() = describe(file);
}

void add_interfaces(v1::RankFacts& facts) {
  ifaddrs* all = nullptr;
  if (::getifaddrs(&all) != 0) return;
  for (const ifaddrs* one = all; one != nullptr; one = one->ifa_next) {
    if (one->ifa_addr == nullptr || one->ifa_addr->sa_family != AF_INET || one->ifa_netmask == nullptr)
      continue;
    if ((one->ifa_flags & IFF_UP) == 0 || (one->ifa_flags & IFF_LOOPBACK) != 0) continue;
    sockaddr_in address = {}, mask = {};
    std::memcpy(&address, one->ifa_addr, sizeof(address));
    std::memcpy(&mask, one->ifa_netmask, sizeof(mask));
    std::array<char, INET_ADDRSTRLEN> text = {};
    ::inet_ntop(AF_INET, &address.sin_addr, text.data(), text.size());
    v1::InterfaceFact& fact = *facts.add_interfaces();
    fact.set_name(one->ifa_name);
    fact.set_address(absl::StrCat(text.data(), "/", std::popcount(mask.sin_addr.s_addr)));
  }
  ::freeifaddrs(all);
}

void add_limits(v1::RankFacts& facts) {
  struct statvfs shm = {};
  if (::statvfs("/dev/shm", &shm) == 0)
    facts.set_shared_memory_bytes(static_cast<int64_t>(shm.f_bavail * shm.f_frsize));
  rlimit limit = {};
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) == 0)
    facts.set_locked_memory_bytes(limit.rlim_cur == RLIM_INFINITY ? -1
                                                                  : static_cast<int64_t>(limit.rlim_cur));
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0)
    facts.set_open_files(limit.rlim_cur == RLIM_INFINITY ? INT64_MAX : static_cast<int64_t>(limit.rlim_cur));
}

void add_devices(v1::RankFacts& facts) {
  std::error_code error;
  facts.set_infiniband(fs::exists("/dev/infiniband", error));
  for (const auto& gpu : fs::directory_iterator("/proc/driver/nvidia/gpus", error)) {
    std::ifstream file(gpu.path() / "information");
    std::string line;
    while (std::getline(file, line)) {
      if (!line.starts_with("Model:")) continue;
      const size_t begin = line.find_first_not_of(" \t", 6);
      if (begin != std::string::npos) facts.add_gpus(line.substr(begin));
    }
  }
}

}  // namespace

v1::RankFacts gather_facts(int rank, const std::string& model_dir) {
  v1::RankFacts facts;
  facts.set_rank(rank);
  std::array<char, 256> host = {};
  ::gethostname(host.data(), host.size() - 1);
  facts.set_host(host.data());
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  ::sched_getaffinity(0, sizeof(cpus), &cpus);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &cpus)) facts.add_cpus(cpu);
  }
  facts.set_host_cpus(static_cast<int32_t>(::sysconf(_SC_NPROCESSORS_ONLN)));
  if (const auto backend = create_cpu_backend({.num_threads = 1}); backend.ok()) {
    facts.set_isa((*backend)->description());
    facts.set_available_memory_bytes((*backend)->available_memory_bytes());
  }
  add_programs(facts);
  (*facts.mutable_versions())["gRPC"] = grpc::Version();
  (*facts.mutable_versions())["glibc"] = ::gnu_get_libc_version();
  (*facts.mutable_versions())["MPI"] = message_library();
  add_model(model_dir, facts);
  add_interfaces(facts);
  add_limits(facts);
  add_devices(facts);
  return facts;
}

}  // namespace trireme::client
