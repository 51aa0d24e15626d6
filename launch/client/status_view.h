#pragma once
// A cluster's status as lines of text, with rates between one look and the next.

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "trireme/v1/cluster.pb.h"

namespace trireme::client {

/// Keeps the last status to tell rates from. One thread.
class StatusView {
 public:
  using Clock = std::chrono::steady_clock;

  /// Two lines for the coordinator, one of column titles, one per replica. Tokens per second are those since
  /// the last call; "-" where there is nothing to compare with, as for a replica that has started anew.
  std::vector<std::string> frame(const std::string& address, const v1::GetClusterResponse& cluster,
                                 Clock::time_point now);
  /// The same for a log: one line for the coordinator and one per replica, without titles and bars.
  std::vector<std::string> lines(const std::string& address, const v1::GetClusterResponse& cluster,
                                 Clock::time_point now);

 private:
  struct Seen {
    Clock::time_point time;
    int64_t output_tokens = 0;
  };

  /// By name; forgets what is not there any more.
  std::map<std::string, std::string> rates(const v1::GetClusterResponse& cluster, Clock::time_point now);

  std::map<std::string, Seen> seen_;
};

/// "[######..............]  30%" of `part` in `whole`.
std::string bar(int64_t part, int64_t whole, int width);

/// At most `width` characters of UTF-8, the last a '>' where some are missing.
std::string clip(const std::string& line, int width);

}  // namespace trireme::client
