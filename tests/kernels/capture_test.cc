// Steps that run ahead of the host: staging memory, fences, recorded operations.

#include <chrono>

#include "tests/kernels/backend_fixture.h"

namespace trireme::testing {
namespace {

class CaptureTest : public BackendTest {
 protected:
  Buffer staging(int64_t count) {
    auto buffer = backend().allocate_staging(static_cast<size_t>(count) * sizeof(int32_t));
    EXPECT_TRUE(buffer.ok()) << buffer.status();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % 64, 0u);
    return *std::move(buffer);
  }
};
TRIREME_INSTANTIATE_BACKENDS(CaptureTest);

TEST_P(CaptureTest, CopiesOfStagingMemoryHaveArrivedWhenTheFencePasses) {
  const Buffer in = staging(300), out = staging(300);
  const DeviceMatrix last = upload_ints(std::vector<int32_t>(300), 1, 300);
  std::vector<int32_t> slots(300);
  for (int32_t i = 0; i < 300; ++i) slots[static_cast<size_t>(i)] = 299 - i;
  const DeviceMatrix by_slot = upload_ints(slots, 1, 300);
  const Tensor ids = last.tensor();
  const DeviceMatrix kept = upload_ints(std::vector<int32_t>(300, -1), 1, 300);
  const auto fence = backend().create_fence();
  fence->wait();  // nothing was recorded
  for (int32_t round = 1; round <= 3; ++round) {
    auto* numbers = static_cast<int32_t*>(in.data());
    for (int32_t i = 0; i < 300; ++i) numbers[i] = round * 1000 + i;
    backend().copy_to_device(ids.data, in.data(), ids.bytes());
    backend().keep_last_tokens(ids, by_slot.tensor(), kept.tensor());
    backend().copy_to_host(out.data(), kept.tensor().data, ids.bytes());
    fence->record();
    fence->wait();
    for (int32_t i = 0; i < 300; ++i)
      ASSERT_EQ(static_cast<const int32_t*>(out.data())[i], round * 1000 + 299 - i);
  }
}

TEST_P(CaptureTest, ARecordedOperationReadsWhatMemoryHoldsAtEachLaunch) {
  const DeviceMatrix kept = upload_ints({0, 0, 0}, 1, 3), ids = upload_ints({1, 2, 3}, 1, 3);
  const DeviceMatrix slots = upload_ints({2, 0, -1}, 1, 3);
  const auto graph =
      backend().capture([&] { backend().keep_last_tokens(ids.tensor(), slots.tensor(), kept.tensor()); });
  if (!backend().can_capture()) {
    EXPECT_EQ(graph.status().code(), absl::StatusCode::kUnimplemented);
    return;
  }
  ASSERT_TRUE(graph.ok()) << graph.status();
  EXPECT_THAT(kept.ints(), ::testing::ElementsAre(0, 0, 0)) << "recorded, not done";
  (*graph)->launch();
  EXPECT_THAT(kept.ints(), ::testing::ElementsAre(2, 0, 1));
  const std::vector<int32_t> other = {7, 8, 9};
  backend().copy_to_device(ids.tensor().data, other.data(), 3 * sizeof(int32_t));
  (*graph)->launch();
  EXPECT_THAT(kept.ints(), ::testing::ElementsAre(8, 0, 7));
}

int64_t steady_ns() {
  const auto time = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time).count();
}

TEST_P(CaptureTest, MarksTellWhenTheDeviceCameToThem) {
  const auto marks = backend().create_marks(4);
  EXPECT_EQ(marks != nullptr, backend().can_capture());
  if (marks == nullptr) return;
  const DeviceMatrix kept = upload_ints({0, 0, 0}, 1, 3), ids = upload_ints({1, 2, 3}, 1, 3);
  const DeviceMatrix slots = upload_ints({2, 0, -1}, 1, 3);
  const auto work = [&] {
    marks->record(0);
    backend().keep_last_tokens(ids.tensor(), slots.tensor(), kept.tensor());
    marks->record(1);
    backend().keep_last_tokens(ids.tensor(), slots.tensor(), kept.tensor());
    marks->record(2);
  };
  const auto graph = backend().capture(work);
  ASSERT_TRUE(graph.ok()) << graph.status();
  const auto fence = backend().create_fence();
  // Once enqueued and twice as a graph: always the moments of the last time.
  for (int launch = 0; launch < 3; ++launch) {
    const int64_t before = steady_ns();
    if (launch == 0)
      work();
    else
      (*graph)->launch();
    fence->record();
    fence->wait();
    const int64_t after = steady_ns();
    std::vector<int64_t> moments(3);
    const int64_t error = marks->read(moments);
    EXPECT_GT(error, 0);
    EXPECT_LE(before, moments[0] + error);
    EXPECT_LE(moments[0], moments[1]);
    EXPECT_LE(moments[1], moments[2]);
    EXPECT_LE(moments[2], after + error);
  }
}

}  // namespace
}  // namespace trireme::testing
