#pragma once
// Tokens to text: the object "decoder" of tokenizer.json, as a line of stages that each see one token at a
// time, so that a stream and a whole list give the same text by construction.

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tokenizer/json_node.h"

namespace trireme::tok {

/// One stage of one stream. A token arrives as any number of text() calls (whole characters each) and one
/// end_token(); after the last one comes finish(). A stage passes on what has become certain.
class DecodeStage {
 public:
  virtual ~DecodeStage() = default;
  virtual void text(std::string_view piece) = 0;
  virtual void end_token() = 0;
  virtual void finish() = 0;

  void set_next(DecodeStage* next) { next_ = next; }

 protected:
  DecodeStage* next_ = nullptr;
};

/// The stages of one stream and the text they have given so far. One thread.
class DecodeStream {
 public:
  explicit DecodeStream(std::vector<std::unique_ptr<DecodeStage>> stages);
  /// `token` is valid UTF-8. Appends to `out` what became certain.
  void append(std::string_view token, std::string& out);
  void finish(std::string& out);

 private:
  class Sink;
  std::vector<std::unique_ptr<DecodeStage>> stages_;  // the last one is the sink
  Sink* sink_;
};

/// Immutable; makes streams. Any number of threads may use it.
class Decoder {
 public:
  using MakeStage = std::function<std::unique_ptr<DecodeStage>()>;
  /// Null joins the tokens with spaces. An unknown kind is an error of the node's status.
  static Decoder parse(const JsonNode& node);
  DecodeStream stream() const;

 private:
  void parse_into(const JsonNode& node);
  std::vector<MakeStage> stages_;
};

/// Bytes of a run of byte tokens ("<0x41>") that are held back to see whether the run is valid UTF-8. The
/// `tokenizers` library waits for the end of the run, however far; a stream cannot (text in a script without
/// own tokens may be nothing but byte tokens). So behind this many bytes what is valid so far is given out,
/// and only from there on what is invalid becomes U+FFFD: different from the library for longer invalid runs
/// alone.
inline constexpr size_t kMaxHeldByteTokens = 64;

}  // namespace trireme::tok
