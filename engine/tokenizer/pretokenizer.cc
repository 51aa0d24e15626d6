#include "engine/tokenizer/pretokenizer.h"

#include <utility>

#include "engine/tokenizer/normalizer.h"
#include "engine/tokenizer/split.h"
#include "engine/tokenizer/unicode.h"

namespace trireme::tok {
namespace {

constexpr const char* kGpt2Pattern =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

// \w+|[^\w\s]+ in the regex engine that the library uses here: UTS 18's \w.
constexpr const char* kWordsPattern =
    "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200C}\\x{200D}]+|"
    "[^\\s\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200C}\\x{200D}]+";

class Identity : public PreTokenizer {
  absl::Status apply(PreTokens&, const WorkLimit&) const override { return absl::OkStatus(); }
};

class Sequence : public PreTokenizer {
 public:
  explicit Sequence(std::vector<std::unique_ptr<PreTokenizer>> parts) : parts_(std::move(parts)) {}
  absl::Status apply(PreTokens& tokens, const WorkLimit& limit) const override {
    for (const auto& part : parts_) {
      if (absl::Status status = part->apply(tokens, limit); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

 private:
  std::vector<std::unique_ptr<PreTokenizer>> parts_;
};

class Split : public PreTokenizer {
 public:
  Split(Pattern pattern, SplitBehavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}

  absl::Status apply(PreTokens& tokens, const WorkLimit& limit) const override {
    Pattern::Search search(pattern_);
    std::vector<PreTokens::Piece> pieces;
    std::vector<Span> spans;
    for (const auto& piece : tokens.pieces) {
      if (absl::Status status = search.find_all(tokens.piece(piece), limit, spans); !status.ok())
        return status;
      if (invert_) {
        for (Span& span : spans) span.is_match = !span.is_match;
      }
      split_piece(piece, spans, behavior_, pieces);
    }
    tokens.pieces = std::move(pieces);
    return absl::OkStatus();
  }

 private:
  Pattern pattern_;
  SplitBehavior behavior_;
  bool invert_;
};

// Cuts at single characters.
class CharacterSplit : public PreTokenizer {
 public:
  CharacterSplit(bool (*is_delimiter)(uint32_t), SplitBehavior behavior)
      : is_delimiter_(is_delimiter), behavior_(behavior) {}

  absl::Status apply(PreTokens& tokens, const WorkLimit&) const override {
    std::vector<PreTokens::Piece> pieces;
    std::vector<Span> spans;
    for (const auto& piece : tokens.pieces) {
      find(tokens.piece(piece), spans);
      split_piece(piece, spans, behavior_, pieces);
    }
    tokens.pieces = std::move(pieces);
    return absl::OkStatus();
  }

 private:
  void find(std::string_view text, std::vector<Span>& spans) const {
    spans.clear();
    size_t previous = 0;
    for (size_t at = 0; at < text.size();) {
      const CodePoint c = decode_utf8(text, at);
      const size_t end = at + c.length;
      if (is_delimiter_(c.value)) {
        if (at > previous) spans.push_back({previous, at, false});
        spans.push_back({at, end, true});
        previous = end;
      }
      at = end;
    }
    if (previous < text.size()) spans.push_back({previous, text.size(), false});
  }

  bool (*is_delimiter_)(uint32_t);
  SplitBehavior behavior_;
};

// Bytes become GPT-2's printable characters, after an optional leading space and an optional cut.
class ByteLevel : public PreTokenizer {
 public:
  ByteLevel(bool add_prefix_space, std::unique_ptr<Split> split)
      : add_prefix_space_(add_prefix_space), split_(std::move(split)) {}

  absl::Status apply(PreTokens& tokens, const WorkLimit& limit) const override {
    if (add_prefix_space_) prepend_spaces(tokens);
    if (split_ != nullptr) {
      if (absl::Status status = split_->apply(tokens, limit); !status.ok()) return status;
    }
    PreTokens mapped;
    mapped.text.reserve(tokens.text.size() + tokens.text.size() / 4);
    mapped.pieces.reserve(tokens.pieces.size());
    for (const auto& piece : tokens.pieces) {
      const size_t begin = mapped.text.size();
      for (const char c : tokens.piece(piece))
        append_utf8(byte_to_character(static_cast<uint8_t>(c)), mapped.text);
      mapped.pieces.push_back({begin, mapped.text.size(), piece.at_start});
    }
    tokens = std::move(mapped);
    return absl::OkStatus();
  }

 private:
  static void prepend_spaces(PreTokens& tokens) {
    PreTokens spaced;
    spaced.text.reserve(tokens.text.size() + tokens.pieces.size());
    for (const auto& piece : tokens.pieces) {
      const std::string_view text = tokens.piece(piece);
      const size_t begin = spaced.text.size();
      if (text[0] != ' ') spaced.text += ' ';
      spaced.text += text;
      spaced.pieces.push_back({begin, spaced.text.size(), piece.at_start});
    }
    tokens = std::move(spaced);
  }

  bool add_prefix_space_;
  std::unique_ptr<Split> split_;  // null: no cut
};

// Spaces become a visible character that begins each word.
class Metaspace : public PreTokenizer {
 public:
  enum class Prepend { kNever, kFirst, kAlways };
  Metaspace(std::string replacement, Prepend prepend, bool cut)
      : replacement_(std::move(replacement)), prepend_(prepend) {
    if (cut)
      split_ = std::make_unique<Split>(Pattern::literal(replacement_), SplitBehavior::kMergedWithNext, false);
  }

  absl::Status apply(PreTokens& tokens, const WorkLimit& limit) const override {
    PreTokens out;
    out.text.reserve(tokens.text.size() + tokens.text.size() / 4);
    for (const auto& piece : tokens.pieces) {
      const std::string_view text = tokens.piece(piece);
      const size_t begin = out.text.size();
      const bool wanted = prepend_ == Prepend::kAlways || (prepend_ == Prepend::kFirst && piece.at_start);
      if (wanted && text[0] != ' ' && !text.starts_with(replacement_)) out.text += replacement_;
      for (const char c : text) {
        if (c == ' ') {
          out.text += replacement_;
        } else {
          out.text += c;
        }
      }
      out.pieces.push_back({begin, out.text.size(), piece.at_start});
    }
    tokens = std::move(out);
    return split_ == nullptr ? absl::OkStatus() : split_->apply(tokens, limit);
  }

 private:
  std::string replacement_;
  Prepend prepend_;
  std::unique_ptr<Split> split_;  // null: no cut
};

// A pattern of ours, known to compile.
std::unique_ptr<Split> own_split(const char* pattern, SplitBehavior behavior, bool invert) {
  absl::StatusOr<Pattern> compiled = Pattern::regex(pattern);
  return std::make_unique<Split>(*std::move(compiled), behavior, invert);
}

std::unique_ptr<PreTokenizer> parse_metaspace(const JsonNode& node) {
  const JsonNode replacement = node.member("replacement");
  const std::string scheme = node.string_or("prepend_scheme", "always");
  auto prepend = scheme == "never"   ? Metaspace::Prepend::kNever
                 : scheme == "first" ? Metaspace::Prepend::kFirst
                                     : Metaspace::Prepend::kAlways;
  if (scheme != "always" && scheme != "first" && scheme != "never") {
    node.member("prepend_scheme").fail_kind("prepend_scheme", scheme, "always, first, never");
  }
  if (!node.bool_or("add_prefix_space", true)) prepend = Metaspace::Prepend::kNever;  // older files
  std::string character = replacement.as_character();
  if (character.empty()) character = "\xE2\x96\x81";
  return std::make_unique<Metaspace>(std::move(character), prepend, node.bool_or("split", true));
}

std::unique_ptr<PreTokenizer> parse_sequence(const JsonNode& node) {
  std::vector<std::unique_ptr<PreTokenizer>> parts;
  node.member("pretokenizers").for_each_element([&](const JsonNode& part) {
    parts.push_back(parse_pretokenizer(part));
  });
  return std::make_unique<Sequence>(std::move(parts));
}

}  // namespace

std::unique_ptr<PreTokenizer> parse_pretokenizer(const JsonNode& node) {
  if (node.is_null()) return std::make_unique<Identity>();
  const std::string kind = node.kind();
  if (!node.ok()) return std::make_unique<Identity>();
  if (kind == "Sequence") return parse_sequence(node);
  if (kind == "Metaspace") return parse_metaspace(node);
  if (kind == "Split") {
    const SplitBehavior behavior = parse_split_behavior(node.member("behavior"), SplitBehavior::kIsolated);
    return std::make_unique<Split>(parse_pattern(node.member("pattern")), behavior,
                                   node.bool_or("invert", false));
  }
  if (kind == "ByteLevel") {
    const bool cut = node.bool_or("use_regex", true);
    return std::make_unique<ByteLevel>(
        node.bool_or("add_prefix_space", true),
        cut ? own_split(kGpt2Pattern, SplitBehavior::kIsolated, false) : nullptr);
  }
  if (kind == "Digits") {
    const bool individual = node.bool_or("individual_digits", false);
    return std::make_unique<CharacterSplit>(
        is_numeric, individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous);
  }
  if (kind == "Whitespace") return own_split(kWordsPattern, SplitBehavior::kRemoved, true);
  if (kind == "WhitespaceSplit")
    return std::make_unique<CharacterSplit>(is_whitespace, SplitBehavior::kRemoved);
  if (kind == "Punctuation") {
    return std::make_unique<CharacterSplit>(
        is_punctuation, parse_split_behavior(node.member("behavior"), SplitBehavior::kIsolated));
  }
  node.fail_kind("pre-tokenizer", kind,
                 "Sequence, Split, ByteLevel, Metaspace, Digits, Whitespace, WhitespaceSplit, Punctuation");
  return std::make_unique<Identity>();
}

}  // namespace trireme::tok
