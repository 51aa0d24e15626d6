#include "tests/testing/mpi_main.h"

#include <gtest/gtest.h>

#include <cstdio>

namespace trireme::testing {
namespace {

HostGroup* the_world = nullptr;
constexpr int kSkipped = 77;  // what ctest is told in tests/CMakeLists.txt

bool all_skipped(const ::testing::UnitTest& tests) {
  return tests.successful_test_count() == 0 && tests.skipped_test_count() > 0;
}

}  // namespace

HostGroup& world() { return *the_world; }

}  // namespace trireme::testing

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  auto group = trireme::create_world(&argc, &argv);
  if (!group.ok()) {
    std::fprintf(stderr, "%s\n", group.status().ToString().c_str());
    return 2;
  }
  trireme::testing::the_world = group->get();
  const int failed = RUN_ALL_TESTS();
  return failed == 0 && trireme::testing::all_skipped(*::testing::UnitTest::GetInstance())
             ? trireme::testing::kSkipped
             : failed;
}
