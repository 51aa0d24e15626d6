#pragma once
// Instructions that CUDA C++ has no name for, each with a plain twin for the tests on the processor.
// Source: PTX ISA 9.0.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#ifdef TRIREME_SIMT
#include <simt_ptx.h>
#endif

namespace trireme::cuda {

#ifdef TRIREME_SIMT

inline void copy_async_16(void* shared, const void* global, bool valid) {
  simt::copy_async(shared, global, 16, valid ? 16 : 0);
}
inline void commit_copies() { simt::copy_commit(); }
template <int kMostPending>
void wait_for_copies(std::source_location where = std::source_location::current()) {
  simt::copy_wait(kMostPending, where);
}
inline void load_matrices(uint32_t (&out)[4], const void* row,
                          std::source_location where = std::source_location::current()) {
  simt::ldmatrix_x4(out, row, false, where);
}
inline void load_matrices_transposed(uint32_t (&out)[4], const void* row,
                                     std::source_location where = std::source_location::current()) {
  simt::ldmatrix_x4(out, row, true, where);
}
template <typename T>
void multiply_add(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                  std::source_location where = std::source_location::current()) {
  simt::mma_m16n8k16<T>(c, a, b, where);
}

inline void publish(uint32_t* flag, uint32_t value) { simt::publish(flag, value); }
inline void wait_until_published(uint32_t* flag, uint32_t value) { simt::wait_until_reached(flag, value); }

#else

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

/// Starts a copy of 16 bytes to shared memory; zeros where not `valid`, and nothing is read then.
__device__ __forceinline__ void copy_async_16(void* shared, const void* global, bool valid) {
  const int source_bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
               "r"(source_bytes)
               : "memory");
}
/// Makes one group of the copies this thread started.
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits until at most kMostPending of this thread's groups are under way. Other threads see them after a
/// barrier.
template <int kMostPending>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kMostPending) : "memory");
}

/// Four 8 x 8 matrices of 16-bit elements: lane 8 m + r points to row r of matrix m, 16 bytes in shared
/// memory.
__device__ __forceinline__ void load_matrices(uint32_t (&out)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&out)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row))
               : "memory");
}

/// c += a · b by the warp's tensor core: a 16 x 16, b 16 x 8, c 16 x 8; T is __nv_bfloat16 or __half.
template <typename T>
__device__ __forceinline__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
template <>
__device__ __forceinline__ void multiply_add<__nv_bfloat16>(float (&c)[4], const uint32_t (&a)[4],
                                                            const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
template <>
__device__ __forceinline__ void multiply_add<__half>(float (&c)[4], const uint32_t (&a)[4],
                                                     const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/// Writes `value` for threads of any device: who sees it sees what this block wrote before its last barrier.
__device__ __forceinline__ void publish(uint32_t* flag, uint32_t value) {
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(flag), "r"(value) : "memory");
}
/// Waits until another thread, of any device, has published `value` or a later one of numbers that go up by
/// one (and from the last to 0).
__device__ __forceinline__ void wait_until_published(uint32_t* flag, uint32_t value) {
  uint32_t seen;
  do {
    asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(seen) : "l"(flag) : "memory");
  } while (static_cast<int32_t>(seen - value) < 0);
}

#endif

}  // namespace trireme::cuda
