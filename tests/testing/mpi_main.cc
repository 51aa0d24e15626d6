#include "tests/testing/mpi_main.h"

#include <gtest/gtest.h>

#include <cstdio>

namespace trireme::testing {
namespace {
HostGroup* the_world = nullptr;
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
  return RUN_ALL_TESTS();
}
