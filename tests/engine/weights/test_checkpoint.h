#pragma once
// Writes safetensors files whose every element is known.

#include <bit>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "nlohmann/json.hpp"

namespace trireme {

/// A folder of its own per test, removed with it.
class TempDir {
 public:
  TempDir() {
    std::string name = (std::filesystem::temp_directory_path() / "trireme_XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) std::abort();
    path_ = name;
  }
  ~TempDir() { std::filesystem::remove_all(path_); }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  std::string path(const std::string& file = "") const { return file.empty() ? path_ : path_ + "/" + file; }

 private:
  std::string path_;
};

inline void write_file(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

/// A value that F32, F16 and BF16 all hold exactly: it tells tensors, rows and columns apart in most cases.
inline float element(int tensor, int64_t row, int64_t col) {
  return static_cast<float>((tensor * 37 + row * 11 + col * 3) % 251 - 125) / 4;
}

struct TestTensor {
  std::string name;
  std::string dtype;  // F32, F16, BF16
  std::vector<int64_t> shape;
  int id = 0;
};

inline std::string encode(float value, const std::string& dtype) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if (dtype == "F32") return std::string(reinterpret_cast<const char*>(&bits), 4);
  uint16_t half = static_cast<uint16_t>(bits >> 16);
  if (dtype == "F16") {
    const uint32_t exponent = bits >> 23 & 0xff;
    half = static_cast<uint16_t>(
        (bits >> 16 & 0x8000) |
        (value == 0 ? 0 : (exponent - 112) << 10 | (bits >> 13 & 0x3ff)));  // normal numbers only
  }
  return std::string(reinterpret_cast<const char*>(&half), 2);
}

/// The file: 8 bytes of length, header, data.
inline std::string safetensors_bytes(const std::vector<TestTensor>& tensors) {
  std::string data;
  nlohmann::ordered_json header;
  header["__metadata__"] = {{"format", "pt"}};
  for (const TestTensor& tensor : tensors) {
    const size_t begin = data.size();
    const int64_t rows = tensor.shape.at(0);
    const int64_t cols = tensor.shape.size() > 1 ? tensor.shape[1] : 1;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) data += encode(element(tensor.id, r, c), tensor.dtype);
    }
    header[tensor.name] = {
        {"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {begin, data.size()}}};
  }
  const std::string text = header.dump();
  const uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + text + data;
}

/// Text with its length before it, and `data_bytes` zeros after it.
inline std::string with_header(const std::string& text, size_t data_bytes) {
  const uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + text + std::string(data_bytes, '\0');
}

}  // namespace trireme
