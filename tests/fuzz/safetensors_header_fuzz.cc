// The first two bytes are the size of the data, the rest is the header.

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "engine/weights/safetensors.h"
#include "kernels/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const uint64_t data_bytes = data[0] | data[1] << 8;
  const std::string_view header(reinterpret_cast<const char*>(data) + 2, size - 2);
  const auto entries = trireme::parse_safetensors_header(header, data_bytes, "f");
  if (!entries.ok()) {
    TRIREME_CHECK(absl::IsInvalidArgument(entries.status()));
    CHECK_LT(entries.status().message().size(), 1000u);
    return 0;
  }
  uint64_t total = 0;
  for (const auto& [name, entry] : *entries) {
    CHECK_GE(entry.offset, 8 + header.size());
    CHECK_LE(entry.offset + entry.bytes, 8 + header.size() + data_bytes);
    uint64_t elements = 1;
    for (const int64_t dimension : entry.shape) elements *= static_cast<uint64_t>(dimension);
    if (entry.dtype.has_value()) CHECK_EQ(elements * trireme::dtype_bytes(*entry.dtype), entry.bytes);
    total += entry.bytes;
  }
  CHECK_EQ(total, data_bytes);
  return 0;
}
