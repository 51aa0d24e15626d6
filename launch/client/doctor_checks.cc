#include "launch/client/doctor_checks.h"

#include <arpa/inet.h>

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace trireme::client {
namespace {

constexpr int64_t kMiB = 1 << 20;
constexpr int64_t kSharedMemoryPerRank = 8 * kMiB;  // Open MPI takes 4 MiB
constexpr double kClockTolerance_s = 0.5;
constexpr double kTimelineTolerance_s = 0.001;
constexpr double kSlowLink = 4;  // times the median of its kind

class Judge {
 public:
  Judge(const std::string& network, v1::DoctorReport& report) : network_(network), report_(report) {}

  void run() {
    programs_and_versions();
    model();
    processors();
    limits();
    networks();
    clocks();
    links();
    sums();
    devices();
    std::stable_sort(report_.mutable_findings()->begin(), report_.mutable_findings()->end(),
                     [](const v1::Finding& a, const v1::Finding& b) { return a.problem() > b.problem(); });
  }

 private:
  void add(bool problem, const char* check, const v1::RankFacts& rank, const std::string& message,
           const std::string& advice) {
    v1::Finding& finding = *report_.add_findings();
    finding.set_problem(problem);
    finding.set_check(check);
    finding.set_rank(rank.rank());
    finding.set_host(rank.host());
    finding.set_message(message);
    finding.set_advice(advice);
  }
  void problem(const char* check, const v1::RankFacts& rank, const std::string& message,
               const std::string& advice) {
    add(true, check, rank, message, advice);
  }
  void warn(const char* check, const v1::RankFacts& rank, const std::string& message,
            const std::string& advice) {
    add(false, check, rank, message, advice);
  }

  using Value = std::function<std::optional<std::string>(const v1::RankFacts&)>;

  /// Tells every rank whose value is not that of most; nullopt: nothing can be said of that rank.
  void compare(bool is_problem, const char* check, const std::string& what, const Value& value,
               const std::string& advice) {
    std::map<std::string, int> counts;
    std::string wanted;  // rank 0's, or that of the first rank that has one
    for (const v1::RankFacts& rank : report_.ranks()) {
      const auto text = value(rank);
      if (!text) continue;
      if (counts.empty()) wanted = *text;
      ++counts[*text];
    }
    if (counts.size() < 2) return;
    const int most = std::max_element(counts.begin(), counts.end(), [](const auto& a, const auto& b) {
                       return a.second < b.second;
                     })->second;
    const bool one_most =
        std::count_if(counts.begin(), counts.end(), [&](const auto& c) { return c.second == most; }) == 1;
    for (const auto& [text, count] : counts) {
      if (one_most && count == most) wanted = text;
    }
    const auto shown = [](const std::string& text) { return text.empty() ? std::string("none") : text; };
    const std::string who = one_most ? absl::StrCat(most, " of ", report_.ranks_size(), " ranks have ")
                                     : std::string("rank 0 has ");
    for (const v1::RankFacts& rank : report_.ranks()) {
      const auto text = value(rank);
      if (!text || *text == wanted) continue;
      add(is_problem, check, rank, absl::StrCat(what, ": got ", shown(*text), ", ", who, shown(wanted)),
          advice);
    }
  }

  /// The first rank of each host.
  std::vector<const v1::RankFacts*> hosts() const {
    std::set<std::string> seen;
    std::vector<const v1::RankFacts*> result;
    for (const v1::RankFacts& rank : report_.ranks()) {
      if (seen.insert(rank.host()).second) result.push_back(&rank);
    }
    return result;
  }
  int ranks_on(const std::string& host) const {
    return static_cast<int>(std::count_if(report_.ranks().begin(), report_.ranks().end(),
                                          [&](const v1::RankFacts& rank) { return rank.host() == host; }));
  }

  template <typename Files>
  static std::string file_text(const Files& files, const std::string& name) {
    for (const v1::FileFact& file : files) {
      if (file.name() == name) return absl::StrCat(file.bytes(), " bytes, hash ", file.hash());
    }
    return "";
  }

  void programs_and_versions() {
    for (const char* name : {"trireme", "trireme-worker"}) {
      compare(
          true, "program", name,
          [name](const v1::RankFacts& rank) { return file_text(rank.programs(), name); },
          "put the same build on every host");
    }
    std::set<std::string> libraries;
    for (const v1::RankFacts& rank : report_.ranks()) {
      for (const auto& [library, version] : rank.versions()) libraries.insert(library);
    }
    for (const std::string& library : libraries) {
      compare(
          library == "MPI", "version", library,
          [&library](const v1::RankFacts& rank) {
            const auto found = rank.versions().find(library);
            return found == rank.versions().end() ? std::string() : found->second;
          },
          "install the same version on every host");
    }
    compare(
        false, "processor", "instruction set", [](const v1::RankFacts& rank) { return rank.isa(); },
        "ranks of one replica should be alike: sums are rounded otherwise, and the slowest sets the pace");
  }

  void model() {
    std::set<std::string> names;
    for (const v1::RankFacts& rank : report_.ranks()) {
      if (!rank.model_error().empty())
        problem("model", rank, rank.model_error(), "make the model readable there, at the path of --model");
      for (const v1::FileFact& file : rank.model_files()) names.insert(file.name());
    }
    for (const std::string& name : names) {
      compare(
          true, "model", name,
          [&name](const v1::RankFacts& rank) -> std::optional<std::string> {
            if (rank.model_files_size() == 0) return std::nullopt;  // told already, and in better words
            return file_text(rank.model_files(), name);
          },
          "copy the model from a host that is right: ranks must hold parts of the same one");
    }
  }

  void processors() {
    for (const v1::RankFacts* host : hosts()) {
      const int ranks = ranks_on(host->host());
      std::set<int> cpus;
      for (const v1::RankFacts& rank : report_.ranks()) {
        if (rank.host() == host->host()) cpus.insert(rank.cpus().begin(), rank.cpus().end());
      }
      if (static_cast<int>(cpus.size()) < ranks && host->gpus().empty())
        warn("processors", *host, absl::StrCat(ranks, " ranks share ", cpus.size(), " processors"),
             "give this host fewer slots");
    }
    for (const v1::RankFacts& rank : report_.ranks()) {
      if (rank.cpus_size() == 1 && rank.host_cpus() > ranks_on(rank.host()))
        warn("processors", rank, absl::StrCat("bound to one of ", rank.host_cpus(), " processors"),
             "mpirun --bind-to none");
    }
  }

  void limits() {
    for (const v1::RankFacts* host : hosts()) {
      const int ranks = ranks_on(host->host());
      const int64_t wanted = ranks * kSharedMemoryPerRank;
      if (ranks > 1 && host->shared_memory_bytes() < wanted)
        problem("shared memory", *host,
                absl::StrFormat("/dev/shm: got %d MiB free, wanted %d MiB for %d ranks",
                                host->shared_memory_bytes() / kMiB, wanted / kMiB, ranks),
                "docker run --shm-size 1g, or remount /dev/shm larger");
      const int64_t locked = host->locked_memory_bytes();
      if (host->infiniband() && locked >= 0 && locked < 64 * kMiB)
        problem(
            "locked memory", *host,
            absl::StrFormat("RLIMIT_MEMLOCK: got %d KiB, wanted unlimited: InfiniBand locks its buffers",
                            locked / 1024),
            "ulimit -l unlimited, in /etc/security/limits.conf and for the daemon that starts ranks there");
      if (host->open_files() < 1024)
        warn("open files", *host,
             absl::StrFormat("RLIMIT_NOFILE: got %d, wanted at least 1024", host->open_files()),
             "ulimit -n 65536");
    }
  }

  void networks() {
    std::map<std::string, std::set<std::string>> owners;
    for (const v1::RankFacts* host : hosts()) {
      bool found = network_.empty();
      std::vector<std::string> has;
      for (const v1::InterfaceFact& one : host->interfaces()) {
        owners[one.address()].insert(host->host());
        has.push_back(absl::StrCat(one.name(), " ", one.address()));
        found = found || one.name() == network_ || in_network(one.address(), network_);
      }
      std::string list;
      for (const std::string& text : has) absl::StrAppend(&list, list.empty() ? "" : ", ", text);
      if (!found)
        problem(
            "network", *host,
            absl::StrCat("no interface in --network ", network_, "; it has ", list.empty() ? "none" : list),
            "name a network that all hosts are in");
    }
    for (const auto& [address, names] : owners) {
      if (names.size() > 1 && network_.empty())
        warn("network", report_.ranks(0),
             absl::StrCat(names.size(), " hosts have the address ", address, ", a network of each one's own"),
             "name the network between the hosts by --network");
    }
    std::set<std::string> told;
    for (const v1::RankFacts& rank : report_.ranks()) {
      for (const std::string& address : rank.unreachable()) {
        if (told.insert(rank.host() + address).second)
          add(!network_.empty(), "network", rank, absl::StrCat("no TCP connection to rank 0 at ", address),
              "open the ports from 1024 between the hosts, or name another network by --network");
      }
    }
  }

  void clocks() {
    for (const v1::RankFacts* host : hosts()) {
      if (std::abs(host->clock_offset_s()) - host->clock_error_s() < kClockTolerance_s) continue;
      warn("clock", *host,
           absl::StrFormat("%+.3f s from rank 0's (error %.6f s)", host->clock_offset_s(),
                           host->clock_error_s()),
           "run chrony or ntpd: times in logs will not fit together");
    }
    for (const v1::RankFacts* host : hosts()) {
      if (host->timeline_error_s() <= kTimelineTolerance_s) continue;
      warn(
          "clock", *host,
          absl::StrFormat("its steady clock is known to %.1f ms only", host->timeline_error_s() * 1e3),
          "traces and waiting times of collectives are no better than that: look for a busy host or network");
    }
  }

  void links() {
    for (const bool across : {false, true}) {
      std::vector<double> rates;
      for (const v1::LinkFact& link : report_.links()) {
        if (link.across_hosts() == across) rates.push_back(link.gb_s());
      }
      if (rates.size() < 3) continue;
      std::nth_element(rates.begin(), rates.begin() + static_cast<ptrdiff_t>(rates.size() / 2), rates.end());
      const double median = rates[rates.size() / 2];
      for (const v1::LinkFact& link : report_.links()) {
        if (link.across_hosts() != across || link.gb_s() * kSlowLink >= median) continue;
        warn("link", report_.ranks(link.rank()),
             absl::StrFormat("%.3f GB/s with rank %d, the median link has %.3f", link.gb_s(), link.peer(),
                             median),
             "look for a busy host, a slow port or a bad cable; then ask again");
      }
    }
  }

  void sums() {
    for (const v1::RankFacts& rank : report_.ranks()) {
      if (rank.wrong_sums() > 0)
        problem("all-reduce", rank, absl::StrCat(rank.wrong_sums(), " elements of the test sums are wrong"),
                "this host's memory, network card or MPI library corrupts data: take it out");
    }
  }

  void devices() {
    const bool wanted = report_.backend() == "cuda";
    for (const v1::RankFacts& rank : report_.ranks()) {
      const v1::DeviceFacts& device = rank.device();
      if (!device.error().empty())
        add(wanted, "GPU", rank, device.error(),
            wanted ? "give this host no more slots than GPUs that can be used, or --backend cpu"
                   : "all ranks of its replica will take the CPU: give this host fewer slots");
      if (device.wrong_sums() > 0)
        problem("GPU all-reduce", rank,
                absl::StrCat(device.wrong_sums(), " elements of the test sums are wrong (",
                             report_.device_collectives(), ")"),
                "take the host out and test its links: nvidia-smi nvlink -e, dcgmi diag -r 3");
      if (device.apart_size() > 0)
        warn("peer access", rank,
             absl::StrCat("its GPU cannot read the memory of those of rank ",
                          absl::StrJoin(device.apart(), ", ")),
             "sums go through host memory there, and take longer; nvidia-smi topo -p2p r tells why");
    }
    if (!report_.device_error().empty())
      problem("NCCL", report_.ranks(0), report_.device_error(), "NCCL_DEBUG=INFO tells more");
  }

  const std::string network_;
  v1::DoctorReport& report_;
};

}  // namespace

bool in_network(const std::string& address, const std::string& network) {
  const size_t slash = network.find('/');
  int bits = 0;
  if (slash == std::string::npos || !absl::SimpleAtoi(network.substr(slash + 1), &bits) || bits < 0 ||
      bits > 32)
    return false;
  in_addr one = {}, base = {};
  if (::inet_pton(AF_INET, address.substr(0, address.find('/')).c_str(), &one) != 1 ||
      ::inet_pton(AF_INET, network.substr(0, slash).c_str(), &base) != 1)
    return false;
  const uint32_t mask = bits == 0 ? 0 : ~uint32_t{0} << (32 - bits);
  return (ntohl(one.s_addr) & mask) == (ntohl(base.s_addr) & mask);
}

void judge(const std::string& network, v1::DoctorReport& report) { Judge(network, report).run(); }

}  // namespace trireme::client
