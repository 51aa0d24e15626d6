#include <gtest/gtest.h>

#include "tests/e2e/service_fixture.h"

namespace trireme::testing {
namespace {

class IdleE2eTest : public ServiceFixture {};

TEST_F(IdleE2eTest, AnIdleReplicaLeavesTheCoresAlone) {
  start_coordinator();
  start_job(4, {"--tensor-parallel", "4"});
  wait_serving(4);
  ASSERT_EQ(generate({"--prompt", "In the beginning", "--max-tokens", "8"}).exit_code,
            0);  // idle after work, too
  const std::vector<Rank> all = ranks();
  ASSERT_EQ(all.size(), 4);
  std::vector<double> before;
  for (const Rank& rank : all) before.push_back(read_process(rank.pid).cpu_seconds);
  const auto begin = SteadyClock::now(), end = begin + std::chrono::seconds(4);
  while (SteadyClock::now() < end)
    std::this_thread::sleep_until(end);  // a measurement, nothing is waited for
  const double seconds = std::chrono::duration<double>(SteadyClock::now() - begin).count();
  for (size_t i = 0; i < all.size(); ++i) {
    const double used = (read_process(all[i].pid).cpu_seconds - before[i]) / seconds;
    EXPECT_LT(used, 0.05) << "rank " << all[i].rank << " used " << 100 * used << " % of a core";
  }
}

}  // namespace
}  // namespace trireme::testing
