#include <cstddef>
#include <cstdint>
#include <string_view>

#include "engine/weights/safetensors.h"
#include "kernels/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto files = trireme::parse_safetensors_index(text, "f");
  if (!files.ok()) {
    TRIREME_CHECK(absl::IsInvalidArgument(files.status()));
    return 0;
  }
  for (const auto& [tensor, file] : *files) {
    CHECK_EQ(file.find('/'), std::string::npos);
    CHECK_NE(file.front(), '.');
  }
  return 0;
}
