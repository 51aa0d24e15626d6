// How fast the ranks of an idle group wake, and what idling costs them:
//   mpirun --bind-to none -np 2 idle_wake_bench [--plans N] [--idle-ms M] [--words W]
// The leader sends a plan after idling for M milliseconds, give or take a half; each follower, waiting as a
// worker does, takes the time from the leader's clock when the plan was sent to its own when it was received.
// Plans that MPI does not send eagerly (over shared memory from 4 kB on) need an answer before they are away.
// All ranks must be on one host, which has one steady clock.

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <CLI/CLI.hpp>

#include "engine/parallel/process_group.h"
#include "kernels/check.h"

namespace trireme::bench {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds kDeadline(60);

struct Options {
  int num_plans = 1000;
  int idle_ms = 20;
  int words = 256;
};

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch()).count();
}

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

void must(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "idle_wake_bench: %s\n", std::string(status.message()).c_str());
  std::exit(1);
}

double us_since(int64_t begin_ns) { return static_cast<double>(now_ns() - begin_ns) / 1000; }

/// How long it took to send each plan, in us.
std::vector<double> lead(HostGroup& world, const Options& options) {
  std::mt19937 random(1);
  std::uniform_int_distribution<int> pause_us(options.idle_ms * 500, options.idle_ms * 1500);
  std::vector<double> send_us;
  std::vector<int32_t> plan(static_cast<size_t>(options.words));
  for (int i = 0; i < options.num_plans; ++i) {
    std::this_thread::sleep_for(std::chrono::microseconds(pause_us(random)));
    const int64_t sent = now_ns();
    std::memcpy(plan.data(), &sent, sizeof(sent));
    must(world.broadcast(plan, 0, kDeadline));
    send_us.push_back(us_since(sent));
  }
  return send_us;
}

/// How long after it was sent each plan was there, in us.
std::vector<double> follow(HostGroup& world, int num_plans) {
  std::vector<double> wake_us;
  std::vector<int32_t> plan;
  for (int i = 0; i < num_plans; ++i) {
    must(world.broadcast(plan, 0, kDeadline));
    int64_t sent = 0;
    std::memcpy(&sent, plan.data(), sizeof(sent));
    wake_us.push_back(us_since(sent));
  }
  return wake_us;
}

std::string report(int rank, std::vector<double> us, double core) {
  std::sort(us.begin(), us.end());
  const auto at = [&](double part) {
    return us[static_cast<size_t>(part * static_cast<double>(us.size() - 1))];
  };
  char text[160];
  std::snprintf(text, sizeof(text), "rank %d %s P50 %.0f us, P99 %.0f us, at most %.0f us; %.2f %% of a core",
                rank, rank == 0 ? "sends within" : "wakes after", at(0.5), at(0.99), us.back(), 100 * core);
  return text;
}

int run(int argc, char** argv) {
  Options options;
  CLI::App app("How fast the ranks of an idle group wake, and what idling costs.");
  app.add_option("--plans", options.num_plans, "that the leader sends")
      ->check(CLI::Range(10, 1'000'000))
      ->capture_default_str();
  app.add_option("--idle-ms", options.idle_ms, "that it idles before each, give or take a half")
      ->check(CLI::Range(1, 2000))
      ->capture_default_str();
  app.add_option("--words", options.words, "of a plan; the default is a decode of a few sequences")
      ->check(CLI::Range(2, 1'000'000))
      ->capture_default_str();
  auto world = create_world(&argc, &argv);
  must(world.status());
  CLI11_PARSE(app, argc, argv);
  if ((*world)->size() < 2)
    must(absl::InvalidArgumentError("wanted two ranks or more: start it with mpirun -np 2"));
  must((*world)->barrier(kDeadline));
  const auto begin = Clock::now();
  const double cpu = cpu_seconds();
  const std::vector<double> us =
      (*world)->rank() == 0 ? lead(**world, options) : follow(**world, options.num_plans);
  const double core = (cpu_seconds() - cpu) / std::chrono::duration<double>(Clock::now() - begin).count();
  const auto lines = (*world)->gather(report((*world)->rank(), us, core), 0, kDeadline);
  must(lines.status());
  for (const std::string& line : *lines) std::printf("%s\n", line.c_str());
  return 0;
}

}  // namespace
}  // namespace trireme::bench

int main(int argc, char** argv) { return trireme::bench::run(argc, argv); }
