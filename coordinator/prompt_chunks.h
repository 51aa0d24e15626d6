#pragma once
// A prompt as the router sees it.

#include <cstdint>
#include <string_view>
#include <vector>

namespace trireme {

/// One number for each leading part of a prompt: of its first chunk, its first two chunks, and so on. Two
/// prompts have the same number at a place when they begin alike up to there. A chunk is 256 bytes of text or
/// 64 token ids, which is about as much text; what is left over at the end has none. At most 1,024 chunks.
/// Numbers differ from process to process, so that nobody can make prompts that collide.
using PromptChunks = std::vector<uint64_t>;

PromptChunks text_chunks(std::string_view text);
PromptChunks token_chunks(const int32_t* begin, size_t count);

}  // namespace trireme
