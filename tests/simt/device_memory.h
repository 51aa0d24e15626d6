#pragma once
// The device's memory in the stand-in: memory of the host, and from set_strict() on closed to it.

#include <cstddef>

namespace simt {

/// Whether strictness closes memory: not under AddressSanitizer, which looks at each access by itself.
bool closes_memory();

/// 256-byte aligned; null where there is none. Taken while strict, it is closed to the host but while the
/// device works, and an access beyond its end ends the process.
void* take_device_memory(size_t bytes);
void give_device_memory(void* memory);

/// As long as one lives the device works: its memory is open.
class DeviceAtWork {
 public:
  DeviceAtWork();
  ~DeviceAtWork();
  DeviceAtWork(const DeviceAtWork&) = delete;
  DeviceAtWork& operator=(const DeviceAtWork&) = delete;
};

}  // namespace simt
