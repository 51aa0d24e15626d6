#include "launch/client/rank_placement.h"

#include <limits.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <map>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "engine/parallel/agreement.h"

namespace trireme::client {
namespace {

// "host 0 1 5"; a host's name has no blank.
std::string to_text(const RankPlace& place) {
  return absl::StrCat(place.host, " ", absl::StrJoin(place.cores, " "));
}

RankPlace from_text(const std::string& text) {
  const std::vector<std::string> words = absl::StrSplit(text, ' ');
  RankPlace place;
  place.host = words.front();
  for (size_t i = 1; i < words.size(); ++i) {
    int core = 0;
    if (absl::SimpleAtoi(words[i], &core)) place.cores.insert(core);
  }
  return place;
}

/// Ranks whose sets of cores touch, directly or over others, compete for the union of them.
bool lacks_cores(const std::vector<RankPlace>& of_one_host) {
  struct Crowd {
    std::set<int> cores;
    size_t ranks = 0;
  };
  std::vector<Crowd> crowds;
  for (const RankPlace& place : of_one_host) {
    Crowd joined{place.cores, 1};
    const auto meets = [&](const Crowd& crowd) {
      return std::any_of(crowd.cores.begin(), crowd.cores.end(),
                         [&](int core) { return joined.cores.contains(core); });
    };
    for (auto crowd = crowds.begin(); crowd != crowds.end();) {
      if (!meets(*crowd)) {
        ++crowd;
        continue;
      }
      joined.cores.insert(crowd->cores.begin(), crowd->cores.end());
      joined.ranks += crowd->ranks;
      crowds.erase(crowd);
      crowd = crowds.begin();  // the union may meet what its parts did not
    }
    crowds.push_back(std::move(joined));
  }
  return std::any_of(crowds.begin(), crowds.end(),
                     [](const Crowd& crowd) { return crowd.ranks > crowd.cores.size(); });
}

}  // namespace

absl::StatusOr<RankPlace> this_place() {
  std::array<char, HOST_NAME_MAX + 1> name{};
  if (gethostname(name.data(), name.size() - 1) != 0) return absl::InternalError("gethostname failed");
  RankPlace place;
  place.host = name.data();
  for (int room = CPU_SETSIZE; room <= (1 << 20); room *= 2) {
    cpu_set_t* cores = CPU_ALLOC(room);
    const size_t bytes = CPU_ALLOC_SIZE(room);
    const bool told = sched_getaffinity(0, bytes, cores) == 0;
    for (int core = 0; told && core < room; ++core) {
      if (CPU_ISSET_S(core, bytes, cores)) place.cores.insert(core);
    }
    CPU_FREE(cores);
    if (told) return place;
  }
  return absl::InternalError("sched_getaffinity failed");
}

Placement judge_placement(const std::vector<RankPlace>& places) {
  std::map<std::string, std::vector<RankPlace>> hosts;
  for (const RankPlace& place : places) hosts[place.host].push_back(place);
  Placement placement;
  placement.num_hosts = static_cast<int>(hosts.size());
  for (const auto& [host, ranks] : hosts) {
    std::set<int> cores;
    for (const RankPlace& rank : ranks) cores.insert(rank.cores.begin(), rank.cores.end());
    placement.num_cores += static_cast<int>(cores.size());
    placement.oversubscribed = placement.oversubscribed || lacks_cores(ranks);
  }
  return placement;
}

absl::StatusOr<Placement> gather_placement(HostGroup& world, std::chrono::milliseconds deadline) {
  const auto mine = this_place();
  if (absl::Status all = agree_on_success(world, mine.status(), deadline); !all.ok()) return all;
  const auto texts = world.gather(to_text(*mine), 0, deadline);
  if (!texts.ok()) return texts.status();
  std::vector<RankPlace> places;
  for (const std::string& text : *texts) places.push_back(from_text(text));
  return judge_placement(places);
}

}  // namespace trireme::client
