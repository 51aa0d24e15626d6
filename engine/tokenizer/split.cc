#include "engine/tokenizer/split.h"

#include <algorithm>

namespace trireme::tok {
namespace {

// Each rule rewrites the spans in place; from here on is_match means "to be dropped".

void merge_contiguous(std::vector<Span>& spans) {
  bool previous_match = false;
  size_t kept = 0;
  for (const Span span : spans) {
    if (span.is_match == previous_match && kept > 0) {
      spans[kept - 1].end = span.end;
    } else {
      spans[kept++] = {span.begin, span.end, false};
    }
    previous_match = span.is_match;
  }
  spans.resize(kept);
}

// A delimiter joins the span before it, unless that is a delimiter too.
void merge_with_previous(std::vector<Span>& spans) {
  bool previous_match = false;
  size_t kept = 0;
  for (const Span span : spans) {
    if (span.is_match && !previous_match && kept > 0) {
      spans[kept - 1].end = span.end;
    } else {
      spans[kept++] = {span.begin, span.end, false};
    }
    previous_match = span.is_match;
  }
  spans.resize(kept);
}

void merge_with_next(std::vector<Span>& spans) {
  bool previous_match = false;
  size_t kept = spans.size();
  for (size_t i = spans.size(); i-- > 0;) {
    const Span span = spans[i];
    if (span.is_match && !previous_match && kept < spans.size()) {
      spans[kept].begin = span.begin;
    } else {
      spans[--kept] = {span.begin, span.end, false};
    }
    previous_match = span.is_match;
  }
  spans.erase(spans.begin(), spans.begin() + static_cast<ptrdiff_t>(kept));
}

}  // namespace

SplitBehavior parse_split_behavior(const JsonNode& node, SplitBehavior fallback) {
  if (node.is_null()) return fallback;
  const std::string name = node.as_string();
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  node.fail_kind("behavior", name, "Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous");
  return fallback;
}

void split_piece(const PreTokens::Piece& whole, std::vector<Span>& spans, SplitBehavior behavior,
                 std::vector<PreTokens::Piece>& pieces) {
  switch (behavior) {
    case SplitBehavior::kRemoved:
      break;
    case SplitBehavior::kIsolated: {
      for (Span& span : spans) span.is_match = false;
      break;
    }
    case SplitBehavior::kMergedWithPrevious:
      merge_with_previous(spans);
      break;
    case SplitBehavior::kMergedWithNext:
      merge_with_next(spans);
      break;
    case SplitBehavior::kContiguous:
      merge_contiguous(spans);
      break;
  }
  for (const Span& span : spans) {
    if (span.is_match || span.begin == span.end) continue;
    pieces.push_back({whole.begin + span.begin, whole.begin + span.end, whole.at_start && span.begin == 0});
  }
}

}  // namespace trireme::tok
