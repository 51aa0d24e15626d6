#include "coordinator/prompt_chunks.h"

#include <algorithm>

#include "absl/hash/hash.h"

namespace trireme {
namespace {

constexpr size_t kChunkBytes = 256;
constexpr size_t kChunkIds = 64;
constexpr size_t kMaxChunks = 1024;

PromptChunks chunks_of(std::string_view bytes, size_t chunk_bytes, uint64_t kind) {
  PromptChunks chunks(std::min(bytes.size() / chunk_bytes, kMaxChunks));
  uint64_t before = kind;
  for (size_t i = 0; i < chunks.size(); ++i)
    before = chunks[i] = absl::HashOf(before, bytes.substr(i * chunk_bytes, chunk_bytes));
  return chunks;
}

}  // namespace

PromptChunks text_chunks(std::string_view text) { return chunks_of(text, kChunkBytes, 1); }

PromptChunks token_chunks(const int32_t* begin, size_t count) {
  const std::string_view bytes(reinterpret_cast<const char*>(begin), count * sizeof(int32_t));
  return chunks_of(bytes, kChunkIds * sizeof(int32_t), 2);
}

}  // namespace trireme
