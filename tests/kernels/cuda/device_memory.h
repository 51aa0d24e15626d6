#pragma once
// Memory of the device for DeviceTensor, with the surroundings that are asked for.

#include <cuda_runtime.h>

#include <cstddef>
#include <memory>

#include "kernels/dtype.h"

namespace trireme::testing {

/// Of elements of one type; aligned to 16 bytes at least. Gives the memory back when it ends.
class DeviceMemory {
 public:
  virtual ~DeviceMemory() = default;
  void* data() const { return data_; }

 protected:
  void* data_ = nullptr;
};

/// As the living Surroundings say; without any the bytes alone.
std::unique_ptr<DeviceMemory> make_device_memory(DType dtype, size_t bytes);

/// `value` rounded to `dtype`.
void write_element(DType dtype, void* element, float value);

/// On the default stream.
void copy_and_wait(void* destination, const void* source, size_t bytes);

}  // namespace trireme::testing
