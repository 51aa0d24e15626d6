#include "launch/client/status_view.h"

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"

namespace trireme::client {
namespace {

constexpr char kCoordinator[] = "";  // no replica has an empty name
constexpr int kBarWidth = 20;

std::string percent(int64_t part, int64_t whole) {
  return whole > 0 ? absl::StrFormat("%d%%", std::clamp<int64_t>(part * 100 / whole, 0, 100)) : "-";
}

std::string state_of(const v1::ReplicaStatus& replica) {
  return std::string(absl::StripPrefix(v1::ReplicaState_Name(replica.state()), "REPLICA_STATE_"));
}

int64_t blocks_in_use(const v1::ReplicaLoad& load) {
  return int64_t{load.kv_blocks_total()} - load.kv_blocks_free();
}

/// What a server says is not obeyed by the terminal.
std::string plain(const std::string& text) { return absl::Utf8SafeCEscape(text); }

std::string totals(const v1::GetClusterResponse& cluster, const std::string& rate) {
  return absl::StrFormat(
      "%d running, %d requests: %d failed, %d rejected, %d cancelled, %d resumed; %d tokens out, %s tokens/s",
      cluster.requests_running(), cluster.requests_total(), cluster.requests_failed(),
      cluster.requests_rejected(), cluster.requests_cancelled(), cluster.requests_resumed(),
      cluster.output_tokens(), rate);
}

}  // namespace

std::string bar(int64_t part, int64_t whole, int width) {
  // A little is shown as something, and only all as all.
  int64_t filled = whole > 0 ? part * width / whole : 0;
  if (part > 0) filled = std::max<int64_t>(filled, 1);
  filled = std::clamp<int64_t>(filled, 0, width);
  return absl::StrFormat("[%s%s] %4s", std::string(static_cast<size_t>(filled), '#'),
                         std::string(static_cast<size_t>(width - filled), '.'), percent(part, whole));
}

std::string clip(const std::string& line, int width) {
  int seen = 0;
  size_t last = 0;  // where the last character that is allowed begins
  for (size_t i = 0; i < line.size(); ++i) {
    if ((static_cast<unsigned char>(line[i]) & 0xC0) == 0x80) continue;
    if (++seen == width) last = i;
    if (seen > width) return line.substr(0, last) + ">";
  }
  return line;
}

std::map<std::string, std::string> StatusView::rates(const v1::GetClusterResponse& cluster,
                                                     Clock::time_point now) {
  std::map<std::string, std::string> result;
  std::map<std::string, Seen> next;
  const auto add = [&](const std::string& name, const std::string& key, int64_t tokens) {
    const auto before = seen_.find(key);
    const double seconds =
        before == seen_.end() ? 0 : std::chrono::duration<double>(now - before->second.time).count();
    const bool known = seconds > 0 && tokens >= before->second.output_tokens;
    result[name] = known ? absl::StrFormat("%.1f", (tokens - before->second.output_tokens) / seconds) : "-";
    next[key] = {now, tokens};
  };
  int64_t all = 0;
  for (const v1::ReplicaStatus& replica : cluster.replicas()) {
    const int64_t tokens = replica.load().output_tokens();
    add(replica.replica_id(), absl::StrCat(replica.replica_id(), "/", replica.incarnation()), tokens);
    all += tokens;
  }
  add(kCoordinator, kCoordinator, all);
  seen_ = std::move(next);
  return result;
}

std::vector<std::string> StatusView::frame(const std::string& address, const v1::GetClusterResponse& cluster,
                                           Clock::time_point now) {
  auto rate = rates(cluster, now);
  std::vector<std::string> lines;
  lines.push_back(absl::StrFormat("%s: coordinator %s, up %.0f s, %d replicas, model %s", address,
                                  plain(cluster.version()), cluster.uptime_ms() / 1e3,
                                  cluster.replicas_size(), plain(cluster.model())));
  lines.push_back(totals(cluster, rate[kCoordinator]));
  lines.push_back(absl::StrFormat("%-12s %-9s %4s %5s  %-*s %9s %11s %9s %8s", "REPLICA", "STATE", "RUN",
                                  "WAIT", kBarWidth + 7, "KV CACHE", "TOKENS/S", "PREFIX HITS", "PREEMPTED",
                                  "RESUMED"));
  for (const v1::ReplicaStatus& replica : cluster.replicas()) {
    const v1::ReplicaLoad& load = replica.load();
    lines.push_back(absl::StrFormat("%-12s %-9s %4d %5d  %s %9s %11s %9d %8d", plain(replica.replica_id()),
                                    state_of(replica), load.running_requests(), load.waiting_requests(),
                                    bar(blocks_in_use(load), load.kv_blocks_total(), kBarWidth),
                                    rate[replica.replica_id()],
                                    percent(load.cached_prompt_tokens(), load.prompt_tokens()),
                                    load.preemptions(), load.resumed_requests()));
  }
  return lines;
}

std::vector<std::string> StatusView::lines(const std::string& address, const v1::GetClusterResponse& cluster,
                                           Clock::time_point now) {
  auto rate = rates(cluster, now);
  std::vector<std::string> lines;
  lines.push_back(absl::StrFormat("%s: up %.0f s, %d replicas, %s", address, cluster.uptime_ms() / 1e3,
                                  cluster.replicas_size(), totals(cluster, rate[kCoordinator])));
  for (const v1::ReplicaStatus& replica : cluster.replicas()) {
    const v1::ReplicaLoad& load = replica.load();
    lines.push_back(absl::StrFormat(
        "  %s %s: %d running, %d waiting, KV cache %s, %s tokens/s, prefix hits %s, %d preempted, %d resumed",
        plain(replica.replica_id()), state_of(replica), load.running_requests(), load.waiting_requests(),
        percent(blocks_in_use(load), load.kv_blocks_total()), rate[replica.replica_id()],
        percent(load.cached_prompt_tokens(), load.prompt_tokens()), load.preemptions(),
        load.resumed_requests()));
  }
  return lines;
}

}  // namespace trireme::client
