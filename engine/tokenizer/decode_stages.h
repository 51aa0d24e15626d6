#pragma once
// The kinds of decoders, one stage each. Semantics are those of the `tokenizers` library.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tokenizer/decoder.h"
#include "engine/tokenizer/regex.h"
#include "engine/tokenizer/unicode.h"

namespace trireme::tok {

/// GPT-2's characters back to bytes, all tokens as one text; a token with any other character stands for its
/// own bytes. Holds back at most 3 bytes; invalid UTF-8 becomes U+FFFD.
class ByteLevelStage : public DecodeStage {
 public:
  void text(std::string_view piece) override { token_ += piece; }
  void end_token() override;
  void finish() override;

 private:
  std::string token_;
  Utf8Stream utf8_;
};

/// Runs of tokens "<0x41>" to their characters, or, when a run is no valid UTF-8, one U+FFFD for each. What
/// is held back is bounded by kMaxHeldByteTokens.
class ByteFallbackStage : public DecodeStage {
 public:
  void text(std::string_view piece) override { token_ += piece; }
  void end_token() override;
  void finish() override;

 private:
  void add_byte(char byte);
  void flush();
  void emit(std::string_view piece);

  std::string token_;
  std::string run_;
  Utf8Stream utf8_;  // takes the run once it has outgrown its bound
  bool outgrown_ = false;
};

/// All tokens become one.
class FuseStage : public DecodeStage {
 public:
  void text(std::string_view piece) override { next_->text(piece); }
  void end_token() override {}
  void finish() override;
};

/// Takes up to `start` characters `content` off the front of each token and up to `stop` off its end.
class StripStage : public DecodeStage {
 public:
  StripStage(std::string content, int64_t start, int64_t stop)
      : content_(std::move(content)), start_(start), stop_(stop) {}
  void text(std::string_view piece) override;
  void end_token() override;
  void finish() override { next_->finish(); }

 private:
  const std::string content_;
  const int64_t start_;
  const int64_t stop_;
  int64_t stripped_ = 0;
  int64_t held_ = 0;  // characters `content` at the end so far
  bool at_front_ = true;
};

/// Replaces a text inside of each token; holds back what may be its beginning.
class ReplaceStage : public DecodeStage {
 public:
  /// The pattern must outlive the stage.
  ReplaceStage(std::shared_ptr<const Pattern> pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  void text(std::string_view piece) override;
  void end_token() override;
  void finish() override { next_->finish(); }

 private:
  void replace_regex();

  const std::shared_ptr<const Pattern> pattern_;
  const std::string content_;
  std::string held_;
};

/// The visible space to a space; in the first token to nothing, when a space was put there by the encoder.
class MetaspaceStage : public DecodeStage {
 public:
  MetaspaceStage(std::string replacement, bool drop_in_first)
      : replacement_(std::move(replacement)), drop_(drop_in_first) {}
  void text(std::string_view piece) override;
  void end_token() override;
  void finish() override { next_->finish(); }

 private:
  const std::string replacement_;
  bool drop_;
};

/// Without a decoder: tokens with spaces between them.
class JoinStage : public DecodeStage {
 public:
  void text(std::string_view piece) override;
  void end_token() override;
  void finish() override { next_->finish(); }

 private:
  bool space_due_ = false;
};

}  // namespace trireme::tok
