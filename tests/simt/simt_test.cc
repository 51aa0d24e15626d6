// The stand-in itself: what CUDA promises holds, and what CUDA leaves undefined is noticed.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "tests/simt/device_memory.h"
#include "tests/simt/run.h"

namespace trireme::testing {

// Kernels have names that a message can show, so they are not in an anonymous namespace.

__global__ void write_indices(int* out) {
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  out[block * blockDim.x * blockDim.y * blockDim.z + thread] = static_cast<int>(block * 1000 + thread);
}

template <typename T>
T* dynamic_shared() {
  return static_cast<T*>(simt::shared_memory());
}

/// The sum of a block's values, by a tree in shared memory. `kBarriers` false: one is forgotten.
template <bool kBarriers>
__global__ void block_sum(const int* in, int* out) {
  int* shared = dynamic_shared<int>();
  shared[threadIdx.x] = in[blockIdx.x * blockDim.x + threadIdx.x];
  __syncthreads();
  for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
    if (kBarriers) __syncthreads();
  }
  if (threadIdx.x == 0) out[blockIdx.x] = shared[0];
}

/// Each thread copies what its neighbour will read. `kWait` false: the copy is not waited for.
template <bool kWait>
__global__ void copy_through_shared(const float* in, float* out) {
  float* shared = dynamic_shared<float>();
  simt::copy_async(shared + threadIdx.x, in + threadIdx.x, sizeof(float), sizeof(float));
  simt::copy_commit();
  if (kWait) simt::copy_wait(0);
  __syncthreads();
  out[threadIdx.x] = shared[(threadIdx.x + 1) % blockDim.x];
  simt::copy_wait(0);
}

__global__ void divergent_barrier() {
  if (threadIdx.x == 3) __syncwarp(1u << 3 | 1u << 4);
  __syncthreads();
}

__global__ void barriers_of_two_places() {
  if (threadIdx.x % 2 == 0)
    __syncthreads();
  else
    __syncthreads();
}

__global__ void read_uninitialized(float* out) { out[threadIdx.x] = dynamic_shared<float>()[threadIdx.x]; }

__global__ void shuffles(int* out) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  int* mine = out + threadIdx.x * 5;
  mine[0] = __shfl_xor_sync(0xffffffffu, lane, 5);
  mine[1] = __shfl_down_sync(0xffffffffu, lane, 3);
  mine[2] = __shfl_up_sync(0xffffffffu, lane, 1, 8);
  mine[3] = __shfl_sync(0xffffffffu, lane, 2, 16);
  mine[4] = static_cast<int>(__ballot_sync(0xffffffffu, lane % 3 == 0));
}

__global__ void half_warps(int* out) {
  // Two halves that meet independently of one another, a different number of times.
  const uint32_t mask = threadIdx.x < 16 ? 0x0000ffffu : 0xffff0000u;
  int value = static_cast<int>(threadIdx.x);
  for (unsigned i = 0; i < (threadIdx.x < 16 ? 1u : 3u); ++i) value = __shfl_xor_sync(mask, value, 1);
  out[threadIdx.x] = value;
}

__global__ void absent_lane() { __shfl_xor_sync(0xffffffffu, 1, 1); }

__global__ void early_return(int* out) {
  if (threadIdx.x >= 40) return;
  out[threadIdx.x] = __syncthreads_count(threadIdx.x % 4 == 0);
}

__global__ void add_all(int* total, float* sum) {
  atomicAdd(total, 1);
  atomicAdd(sum, 0.5f);
}

__global__ void write_beyond(int* out) { dynamic_shared<int>()[blockDim.x] = out[0] = 1; }

/// One element of memory of the device, `offset` from its beginning.
__global__ void write_at(int* memory, int offset) { memory[offset] = 1; }
__global__ void read_at(const int* memory, int offset, int* out) { *out = memory[offset]; }

namespace {

class SimtTest : public ::testing::TestWithParam<simt::Order> {
 protected:
  void SetUp() override { simt::set_options({GetParam(), 7, 0}); }
  void TearDown() override { simt::set_options({}); }
};

TEST_P(SimtTest, EachThreadOfTheGridRunsOnce) {
  std::vector<int> out(3 * 2 * 2 * 24, -1);
  run(write_indices, config({3, 2, 2}, {4, 3, 2}), out.data());
  for (size_t i = 0; i < out.size(); ++i) EXPECT_EQ(out[i], static_cast<int>(i / 24 * 1000 + i % 24));
}

TEST_P(SimtTest, ABarrierOrdersSharedMemory) {
  std::vector<int> in(5 * 256), out(5);
  std::iota(in.begin(), in.end(), 1);
  run(block_sum<true>, config(5, 256, 256 * sizeof(int)), in.data(), out.data());
  for (int b = 0; b < 5; ++b) EXPECT_EQ(out[b], std::accumulate(&in[b * 256], &in[b * 256] + 256, 0));
}

TEST_P(SimtTest, ACopyArrivesAtItsWait) {
  std::vector<float> in(64), out(64);
  std::iota(in.begin(), in.end(), 1.0f);
  run(copy_through_shared<true>, config(1, 64, 64 * sizeof(float)), in.data(), out.data());
  for (int i = 0; i < 64; ++i) EXPECT_EQ(out[i], in[(i + 1) % 64]);
  run(copy_through_shared<false>, config(1, 64, 64 * sizeof(float)), in.data(), out.data());
  EXPECT_TRUE(std::any_of(out.begin(), out.end(), [](float value) { return std::isnan(value); }))
      << "no copy was missing although none was waited for";
}

TEST_P(SimtTest, SharedMemoryStartsPoisoned) {
  std::vector<float> out(32, 0.0f);
  run(read_uninitialized, config(1, 32, 32 * sizeof(float)), out.data());
  for (const float value : out) EXPECT_TRUE(std::isnan(value));
}

TEST_P(SimtTest, LanesShowEachOtherTheirValues) {
  std::vector<int> out(64 * 5);
  run(shuffles, config(1, 64), out.data());
  for (int thread = 0; thread < 64; ++thread) {
    const int lane = thread % 32;
    EXPECT_EQ(out[thread * 5 + 0], lane ^ 5);
    EXPECT_EQ(out[thread * 5 + 1], lane + 3 < 32 ? lane + 3 : lane);
    EXPECT_EQ(out[thread * 5 + 2], lane % 8 == 0 ? lane : lane - 1);
    EXPECT_EQ(out[thread * 5 + 3], lane / 16 * 16 + 2);
    EXPECT_EQ(static_cast<uint32_t>(out[thread * 5 + 4]), 0x49249249u);
  }
}

TEST_P(SimtTest, PartsOfAWarpMeetByThemselves) {
  std::vector<int> out(32);
  run(half_warps, config(1, 32), out.data());
  for (int i = 0; i < 32; ++i) EXPECT_EQ(out[i], i ^ 1);
}

TEST_P(SimtTest, ThreadsThatHaveEndedAreNotWaitedFor) {
  std::vector<int> out(64, -1);
  run(early_return, config(1, 64), out.data());
  for (int i = 0; i < 40; ++i) EXPECT_EQ(out[i], 10);
  EXPECT_EQ(out[40], -1);
}

TEST_P(SimtTest, AtomicsOfManyBlocksAdd) {
  int total = 0;
  float sum = 0;
  run(add_all, config(64, 128), &total, &sum);
  EXPECT_EQ(total, 64 * 128);
  EXPECT_EQ(sum, 64 * 128 * 0.5f);
}

std::string order_name(const ::testing::TestParamInfo<simt::Order>& order) {
  constexpr const char* kNames[] = {"forward", "reverse", "shuffled", "eager"};
  return kNames[static_cast<int>(order.param)];
}

INSTANTIATE_TEST_SUITE_P(Orders, SimtTest, ::testing::ValuesIn(simt::kOrders), order_name);

TEST(SimtGuardTest, AForgottenBarrierIsWrongInSomeOrder) {
  std::vector<int> in(256), out(1);
  std::iota(in.begin(), in.end(), 1);
  int num_wrong = 0;
  for (const simt::Order order : simt::kOrders) {
    simt::set_options({order, 7, 0});
    run(block_sum<false>, config(1, 256, 256 * sizeof(int)), in.data(), out.data());
    num_wrong += out[0] != std::accumulate(in.begin(), in.end(), 0);
  }
  simt::set_options({});
  EXPECT_GT(num_wrong, 0);
}

TEST(SimtGuardDeathTest, ADeadlockNamesKernelAndPlaces) {
  EXPECT_DEATH(run(divergent_barrier, config(1, 32)),
               "kernel trireme::testing::divergent_barrier, block \\(0, 0, 0\\): no thread can go on: 0 of "
               "32 have ended, 31 wait at "
               "__syncthreads at .*simt_test.cc:[0-9]+ .*, 1 wait at __syncwarp at .*simt_test.cc");
}

TEST(SimtGuardDeathTest, BarriersOfTwoPlacesDoNotMeet) {
  EXPECT_DEATH(run(barriers_of_two_places, config(1, 32)),
               "block \\(0, 0, 0\\), thread \\(1, 0, 0\\): __syncthreads at .* meets __syncthreads at");
}

TEST(SimtGuardDeathTest, ALaneThatIsNotThereIsMissed) {
  EXPECT_DEATH(run(absent_lane, config(1, 16)), "no thread can go on: .*16 wait at __shfl_xor_sync");
}

#if defined(__SANITIZE_ADDRESS__)
TEST(SimtGuardDeathTest, SharedMemoryHasAnEnd) {
  int out = 0;
  EXPECT_DEATH(run(write_beyond, config(1, 32, 32 * sizeof(int)), &out), "heap-buffer-overflow");
}

TEST(SimtGuardDeathTest, GlobalMemoryHasABeginningAndAnEnd) {
  constexpr int kCount = 100;
  void* memory = nullptr;
  ASSERT_EQ(cudaMalloc(&memory, kCount * sizeof(int)), cudaSuccess);
  int* const ints = static_cast<int*>(memory);
  int out = 0;
  for (const int inside : {0, kCount - 1}) {
    run(write_at, config(1, 1), ints, inside);
    run(read_at, config(1, 1), ints, inside, &out);
    EXPECT_EQ(out, 1);
  }
  for (const int outside : {-1, kCount}) {
    EXPECT_DEATH(run(write_at, config(1, 1), ints, outside), "heap-buffer-overflow") << outside;
    EXPECT_DEATH(run(read_at, config(1, 1), ints, outside, &out), "heap-buffer-overflow") << outside;
  }
  ASSERT_EQ(cudaFree(memory), cudaSuccess);
  EXPECT_DEATH(run(write_at, config(1, 1), ints, 0), "heap-use-after-free");
}
#endif

TEST(SimtRuntimeTest, WorkIsDoneWhenItIsWaitedFor) {
  cudaStream_t stream;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  int source = 5, destination = 0;
  ASSERT_EQ(cudaMemcpyAsync(&destination, &source, sizeof source, cudaMemcpyHostToDevice, stream),
            cudaSuccess);
  EXPECT_EQ(destination, 0);
  ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  EXPECT_EQ(destination, 5);
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
}

/// Captures `work` on a stream of its own. Null where the capture is invalid.
template <typename Work>
cudaGraphExec_t captured(cudaStream_t stream, Work&& work) {
  EXPECT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  work();
  cudaGraph_t graph = nullptr;
  const cudaError_t error = cudaStreamEndCapture(stream, &graph);
  EXPECT_EQ(error == cudaSuccess, graph != nullptr);
  if (error != cudaSuccess) {
    EXPECT_EQ(error, cudaErrorStreamCaptureInvalidated);
    EXPECT_EQ(cudaGetLastError(), error);
    return nullptr;
  }
  cudaGraphExec_t executable = nullptr;
  EXPECT_EQ(cudaGraphInstantiate(&executable, graph), cudaSuccess);
  EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  return executable;
}

__global__ void add_to(int* sum, const int* value) { *sum += *value; }

TEST(SimtRuntimeTest, CapturedWorkIsDoneAtEachLaunchWithWhatMemoryHoldsThen) {
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  int sum = 0, copy = -1, value = 0;
  const cudaGraphExec_t executable = captured(stream, [&] {
    cudaLaunchConfig_t how = config(1, 1);
    how.stream = stream;
    int* by_value = &sum;
    EXPECT_EQ(cudaLaunchKernelEx(&how, add_to, by_value, &value), cudaSuccess);
    by_value = nullptr;  // arguments are kept as they were
    EXPECT_EQ(cudaMemcpyAsync(&copy, &sum, sizeof sum, cudaMemcpyDefault, stream), cudaSuccess);
  });
  ASSERT_NE(executable, nullptr);
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  EXPECT_EQ(copy, -1) << "recorded, not done";
  for (value = 1; value <= 3; ++value) {
    EXPECT_EQ(cudaGraphLaunch(executable, stream), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    EXPECT_EQ(copy, value * (value + 1) / 2);
  }
  EXPECT_EQ(cudaGraphExecDestroy(executable), cudaSuccess);
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
}

TEST(SimtRuntimeTest, WaitingOrTakingMemorySpoilsACapture) {
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  EXPECT_EQ(captured(stream, [&] { EXPECT_NE(cudaStreamSynchronize(stream), cudaSuccess); }), nullptr);
  void* memory = nullptr;
  EXPECT_EQ(captured(stream, [&] { EXPECT_NE(cudaMalloc(&memory, 16), cudaSuccess); }), nullptr);
  ASSERT_EQ(cudaMalloc(&memory, 16), cudaSuccess) << "and afterwards all is as it was";
  EXPECT_EQ(captured(stream, [&] { EXPECT_NE(cudaFree(memory), cudaSuccess); }), nullptr);
  EXPECT_EQ(cudaFree(memory), cudaSuccess);
  EXPECT_NE(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeThreadLocal), cudaSuccess)
      << "the default stream cannot be captured";
  cudaGetLastError();
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
}

TEST(SimtRuntimeTest, AnExternalEventHasTheTimeOfEachLaunch) {
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  cudaEvent_t begin = nullptr, end = nullptr, edge = nullptr, untimed = nullptr;
  for (cudaEvent_t* event : {&begin, &end, &edge})
    ASSERT_EQ(cudaEventCreateWithFlags(event, cudaEventDefault), cudaSuccess);
  ASSERT_EQ(cudaEventCreateWithFlags(&untimed, cudaEventDisableTiming), cudaSuccess);
  const auto elapsed = [](cudaEvent_t from, cudaEvent_t to, float* milliseconds) {
    const cudaError_t error = cudaEventElapsedTime(milliseconds, from, to);
    cudaGetLastError();
    return error;
  };
  float milliseconds = -1;
  EXPECT_EQ(elapsed(begin, end, &milliseconds), cudaErrorInvalidResourceHandle) << "never recorded";
  EXPECT_EQ(cudaEventRecordWithFlags(begin, stream, cudaEventRecordExternal), cudaErrorInvalidValue)
      << "outside of a capture";
  cudaGetLastError();
  std::vector<int> out(32 * 64);
  const cudaGraphExec_t executable = captured(stream, [&] {
    EXPECT_EQ(cudaEventRecordWithFlags(begin, stream, cudaEventRecordExternal), cudaSuccess);
    EXPECT_EQ(cudaEventRecord(edge, stream), cudaSuccess);
    cudaLaunchConfig_t how = config(64, 32);
    how.stream = stream;
    EXPECT_EQ(cudaLaunchKernelEx(&how, write_indices, out.data()), cudaSuccess);
    EXPECT_EQ(cudaEventRecordWithFlags(end, stream, cudaEventRecordExternal), cudaSuccess);
  });
  ASSERT_NE(executable, nullptr);
  EXPECT_EQ(elapsed(begin, end, &milliseconds), cudaErrorInvalidResourceHandle) << "recorded, not launched";
  for (int launch = 0; launch < 2; ++launch) {
    EXPECT_EQ(cudaGraphLaunch(executable, stream), cudaSuccess);
    EXPECT_EQ(elapsed(begin, end, &milliseconds), cudaErrorNotReady);
    EXPECT_EQ(cudaEventSynchronize(end), cudaSuccess);
    EXPECT_EQ(elapsed(begin, end, &milliseconds), cudaSuccess);
    EXPECT_GT(milliseconds, 0);
    EXPECT_EQ(elapsed(edge, end, &milliseconds), cudaErrorInvalidValue) << "an edge has no time";
  }
  EXPECT_EQ(cudaEventRecord(untimed, stream), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  EXPECT_EQ(elapsed(untimed, end, &milliseconds), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(cudaGraphExecDestroy(executable), cudaSuccess);
  for (const cudaEvent_t event : {begin, end, edge, untimed}) EXPECT_EQ(cudaEventDestroy(event), cudaSuccess);
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
}

TEST(SimtRuntimeTest, LaunchesBeyondTheLimitsAreRefused) {
  const auto launch = [](const cudaLaunchConfig_t& how) {
    return cudaLaunchKernelEx(&how, divergent_barrier);
  };
  EXPECT_EQ(launch(config(0, 32)), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch(config(1, 1025)), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch(config({1, 65536}, 32)), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch(config(1, 32, 48 * 1024 + 1)), cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  EXPECT_EQ(cudaFuncSetAttribute(divergent_barrier, cudaFuncAttributeMaxDynamicSharedMemorySize, 228 * 1024),
            cudaErrorInvalidValue);
  EXPECT_EQ(cudaFuncSetAttribute(read_uninitialized, cudaFuncAttributeMaxDynamicSharedMemorySize, 200 * 1024),
            cudaSuccess);
  std::vector<float> out(32);
  run(read_uninitialized, config(1, 32, 200 * 1024), out.data());
}

class SimtStrictTest : public ::testing::Test {
 protected:
  SimtStrictTest() { simt::set_strict(true); }
  ~SimtStrictTest() override { simt::set_strict(false); }
};
using SimtStrictDeathTest = SimtStrictTest;

TEST_F(SimtStrictTest, AThreadSaysWhichDeviceItWorksOn) {
  std::vector<cudaError_t> got;
  std::thread([&got] {
    void* memory = nullptr;
    cudaStream_t stream = nullptr;
    got = {cudaMalloc(&memory, 8), cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
           cudaSetDevice(0), cudaMalloc(&memory, 8), cudaFree(memory)};
  }).join();
  EXPECT_EQ(got, (std::vector<cudaError_t>{cudaErrorInvalidDevice, cudaErrorInvalidDevice, cudaSuccess,
                                           cudaSuccess, cudaSuccess}));
}

TEST_F(SimtStrictDeathTest, MemoryOfTheDeviceIsClosedToTheHost) {
  if (!simt::closes_memory()) GTEST_SKIP() << "the sanitizer looks at each access";
  ASSERT_EQ(cudaSetDevice(0), cudaSuccess);
  void* memory = nullptr;
  ASSERT_EQ(cudaMalloc(&memory, 300), cudaSuccess);
  volatile char* const bytes = static_cast<char*>(memory);
  EXPECT_DEATH(bytes[0] = 1, "");
  int value = 0;
  ASSERT_EQ(cudaMemsetAsync(memory, 7, 300, nullptr), cudaSuccess);
  ASSERT_EQ(cudaMemcpyAsync(&value, memory, 4, cudaMemcpyDefault, nullptr), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(nullptr), cudaSuccess);
  EXPECT_EQ(value, 0x07070707) << "the device's own work is let in";
  const simt::DeviceAtWork at_work;
  bytes[511] = 1;  // as allocations are aligned
  EXPECT_DEATH(bytes[512] = 1, "");
  EXPECT_EQ(cudaFree(memory), cudaSuccess);
}

TEST(SimtTypesTest, ConversionsRoundToNearestEven) {
  EXPECT_EQ(__float2bfloat16(1.00390625f).bits, 0x3f80);  // a tie, down to even
  EXPECT_EQ(__float2bfloat16(1.01171875f).bits, 0x3f82);  // a tie, up to even
  EXPECT_EQ(__float2half(1.00048828125f).bits, 0x3c00);
  EXPECT_EQ(__float2half(1.00146484375f).bits, 0x3c02);
  EXPECT_TRUE(std::isnan(__bfloat162float(__float2bfloat16(std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_TRUE(std::isinf(__half2float(__float2half(65520.0f))));
  std::mt19937 random(3);
  for (int i = 0; i < 10000; ++i) {
    const float value = std::ldexp(std::uniform_real_distribution<float>(-1, 1)(random),
                                   static_cast<int>(random() % 30) - 15);
    EXPECT_LE(std::abs(__bfloat162float(__float2bfloat16(value)) - value), std::abs(value) / 256);
  }
}

}  // namespace
}  // namespace trireme::testing
