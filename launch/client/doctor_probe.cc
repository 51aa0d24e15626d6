#include "launch/client/doctor_probe.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "launch/client/doctor_checks.h"

namespace trireme::client {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kDeadline{60'000};
constexpr int kConnectTimeout_ms = 3000;
constexpr int kRoundTrips = 32;
constexpr int kTransfers = 3;
constexpr size_t kTransferWords = 1 << 20;
constexpr int kPairsAlone = 16;  // ranks; more are measured several pairs at a time

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

int64_t wall_clock_ns() {
  timespec now = {};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

/// A socket that listens on a free port; the port, or 0.
class Listener {
 public:
  Listener() : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in any = {};
    any.sin_family = AF_INET;
    socklen_t length = sizeof(any);
    const bool listens = fd_ >= 0 && ::bind(fd_, reinterpret_cast<sockaddr*>(&any), length) == 0 &&
                         ::listen(fd_, 4096) == 0 &&
                         ::getsockname(fd_, reinterpret_cast<sockaddr*>(&any), &length) == 0;
    if (listens) port_ = ntohs(any.sin_port);
  }
  ~Listener() {
    if (fd_ >= 0) ::close(fd_);
  }
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;
  int port() const { return port_; }

 private:
  const int fd_;
  int port_ = 0;
};

bool can_connect(uint32_t address, int port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return false;
  sockaddr_in to = {};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = address;
  to.sin_port = htons(static_cast<uint16_t>(port));
  int error = ::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof(to)) == 0 ? 0 : errno;
  if (error == EINPROGRESS) {
    pollfd ready = {fd, POLLOUT, 0};
    socklen_t length = sizeof(error);
    error = ETIMEDOUT;
    if (::poll(&ready, 1, kConnectTimeout_ms) == 1) ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
  }
  ::close(fd);
  return error == 0;
}

/// Ranks that meet in a round of a tournament of `size` players; -1: this one rests.
int partner_in(int rank, int round, int size) {
  const int players = size + size % 2, circle = players - 1;
  int partner = circle;
  if (rank == circle) {
    partner = round;
  } else if (const int opposite = ((2 * round - rank) % circle + circle) % circle; opposite != rank) {
    partner = opposite;
  }
  return partner < size ? partner : -1;
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

/// There and back. What comes back is the peer's wall clock, unless it is `words`, transferred both ways.
absl::Status exchange(HostGroup& pair, std::vector<int32_t>& words, bool clock) {
  if (absl::Status sent = pair.broadcast(words, 0, kDeadline); !sent.ok()) return sent;
  if (clock && pair.rank() == 1) {
    const int64_t now = wall_clock_ns();
    words.resize(2);
    std::memcpy(words.data(), &now, sizeof(now));
  }
  return pair.broadcast(words, 1, kDeadline);
}

absl::Status measure(HostGroup& pair, PairResult& result) {
  std::vector<double> round_trips, rates;
  std::vector<int32_t> words(2);
  for (int i = 0; i < kRoundTrips; ++i) {
    const int64_t sent_ns = wall_clock_ns();
    const auto begin = Clock::now();
    if (absl::Status status = exchange(pair, words, true); !status.ok()) return status;
    const double seconds = seconds_since(begin);
    round_trips.push_back(seconds * 1e6);
    if (pair.rank() == 0 && words.size() == 2 && (i == 0 || seconds / 2 < result.clock_error_s)) {
      int64_t peer_ns = 0;
      std::memcpy(&peer_ns, words.data(), sizeof(peer_ns));
      result.clock_error_s = seconds / 2;
      result.clock_offset_s = static_cast<double>(peer_ns - sent_ns) * 1e-9 - seconds / 2;
    }
  }
  for (int i = 0; i < kTransfers; ++i) {
    words.assign(kTransferWords, i);
    const auto begin = Clock::now();
    if (absl::Status status = exchange(pair, words, false); !status.ok()) return status;
    rates.push_back(2e-9 * static_cast<double>(kTransferWords * sizeof(int32_t)) / seconds_since(begin));
  }
  result.link.set_round_trip_us(median(round_trips));
  result.link.set_gb_s(median(rates));
  return absl::OkStatus();
}

}  // namespace

absl::Status probe_connections(HostGroup& world, const std::string& network, v1::RankFacts& facts) {
  std::vector<int32_t> words;
  const Listener listener;
  if (world.rank() == 0) {
    words.push_back(listener.port());
    for (const v1::InterfaceFact& one : facts.interfaces()) {
      if (network.find('/') != std::string::npos && !in_network(one.address(), network)) continue;
      in_addr address = {};
      ::inet_pton(AF_INET, one.address().substr(0, one.address().find('/')).c_str(), &address);
      words.push_back(static_cast<int32_t>(address.s_addr));
    }
  }
  if (absl::Status told = world.broadcast(words, 0, kDeadline); !told.ok()) return told;
  for (size_t i = 1; world.rank() != 0 && i < words.size(); ++i) {
    const auto address = static_cast<uint32_t>(words[i]);
    if (can_connect(address, words[0])) continue;
    char text[INET_ADDRSTRLEN] = "";
    const in_addr binary = {address};
    facts.add_unreachable(::inet_ntop(AF_INET, &binary, text, sizeof(text)));
  }
  return world.barrier(kDeadline);  // the listener waits for all
}

absl::Status probe_pairs(HostGroup& world, std::vector<PairResult>& results) {
  const int size = world.size();
  for (int round = 0; size > 1 && round < size + size % 2 - 1; ++round) {
    const int partner = partner_in(world.rank(), round, size);
    const int lower = partner < 0 ? world.rank() : std::min(world.rank(), partner);
    const auto pair = world.split(lower, world.rank());
    for (int turn = 0; turn < (size <= kPairsAlone ? size : 1); ++turn) {
      if (absl::Status together = world.barrier(kDeadline); !together.ok()) return together;
      if (partner < 0 || (size <= kPairsAlone && turn != lower)) continue;
      PairResult result;
      if (absl::Status measured = measure(*pair, result); !measured.ok()) return measured;
      if (world.rank() != lower) continue;
      result.link.set_rank(lower);
      result.link.set_peer(partner);
      results.push_back(result);
    }
  }
  return world.barrier(kDeadline);
}

absl::StatusOr<std::vector<ClockOffset>> probe_timeline_clocks(HostGroup& world) {
  ClockAlignment clocks(world);
  if (absl::Status aligned = clocks.align(kDeadline); !aligned.ok()) return aligned;
  return clocks.offsets();
}

void probe_sums(HostGroup& world, v1::RankFacts& facts) {
  const auto group = create_mpi_process_group(world);
  int64_t wrong = 0;
  for (const int64_t count : {1, 1000, 300'000}) {
    std::vector<float> values(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) values[static_cast<size_t>(i)] = known_part(world.rank(), i);
    group->all_reduce_sum(Tensor(values.data(), DType::f32, 1, count));
    for (int64_t i = 0; i < count; ++i)
      wrong += values[static_cast<size_t>(i)] == known_sum(world.size(), i) ? 0 : 1;
  }
  facts.set_wrong_sums(wrong);
}

}  // namespace trireme::client
