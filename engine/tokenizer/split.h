#pragma once
// From the matches in a text to its pieces.

#include <vector>

#include "engine/tokenizer/json_node.h"
#include "engine/tokenizer/pretokenizer.h"
#include "engine/tokenizer/regex.h"

namespace trireme::tok {

/// What becomes of a delimiter: dropped, a piece of its own, part of the piece before or after it, or, with
/// its neighbours of the same sort, one piece.
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

/// The string `node`; null gives `fallback`.
SplitBehavior parse_split_behavior(const JsonNode& node, SplitBehavior fallback);

/// Appends the pieces that `spans` make of `whole`. The spans cover it from end to end, relative to its
/// begin; their matches are the delimiters. `spans` is used up.
void split_piece(const PreTokens::Piece& whole, std::vector<Span>& spans, SplitBehavior behavior,
                 std::vector<PreTokens::Piece>& pieces);

}  // namespace trireme::tok
