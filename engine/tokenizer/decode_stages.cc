#include "engine/tokenizer/decode_stages.h"

#include <algorithm>

#include "absl/strings/ascii.h"

namespace trireme::tok {
namespace {

// The byte of a token like "<0x4F>", or -1.
int byte_of_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  int value = 0;
  for (const char c : token.substr(3, 2)) {
    if (!absl::ascii_isxdigit(static_cast<unsigned char>(c))) return -1;
    value =
        value * 16 + (absl::ascii_isdigit(static_cast<unsigned char>(c)) ? c - '0' : (c | 0x20) - 'a' + 10);
  }
  return value;
}

}  // namespace

void ByteLevelStage::end_token() {
  std::string bytes;
  for (size_t at = 0; at < token_.size();) {
    const CodePoint c = decode_utf8(token_, at);
    const int byte = character_to_byte(c.value);
    if (byte < 0) {
      bytes = token_;
      break;
    }
    bytes += static_cast<char>(byte);
    at += c.length;
  }
  token_.clear();
  std::string out;
  utf8_.append(bytes, out);
  if (!out.empty()) next_->text(out);
}

void ByteLevelStage::finish() {
  std::string out;
  utf8_.finish(out);
  next_->text(out);
  next_->end_token();
  next_->finish();
}

void ByteFallbackStage::end_token() {
  if (const int byte = byte_of_token(token_); byte >= 0) {
    add_byte(static_cast<char>(byte));
  } else {
    flush();
    emit(token_);
  }
  token_.clear();
}

void ByteFallbackStage::emit(std::string_view piece) {
  next_->text(piece);
  next_->end_token();
}

void ByteFallbackStage::add_byte(char byte) {
  run_ += byte;
  if (!outgrown_ && run_.size() <= kMaxHeldByteTokens) return;
  outgrown_ = true;
  std::string text;
  utf8_.append(run_, text);
  run_.clear();
  if (!text.empty()) emit(text);
}

void ByteFallbackStage::flush() {
  std::string text;
  if (outgrown_) {
    utf8_.finish(text);
  } else if (is_valid_utf8(run_)) {
    text = run_;
  } else {
    for (size_t i = 0; i < run_.size(); ++i) text += kReplacementCharacter;
  }
  run_.clear();
  outgrown_ = false;
  if (!text.empty()) emit(text);
}

void ByteFallbackStage::finish() {
  flush();
  next_->finish();
}

void FuseStage::finish() {
  next_->end_token();
  next_->finish();
}

void StripStage::text(std::string_view piece) {
  if (!at_front_ && stop_ == 0) return next_->text(piece);
  std::string out;
  for (size_t at = 0; at < piece.size();) {
    const std::string_view character = piece.substr(at, decode_utf8(piece, at).length);
    at += character.size();
    if (at_front_ && stripped_ < start_ && character == content_) {
      ++stripped_;
      continue;
    }
    at_front_ = false;
    if (stop_ > 0 && character == content_) {
      if (++held_ <= stop_) continue;
      held_ = stop_;
      out += content_;
      continue;
    }
    for (; held_ > 0; --held_) out += content_;
    out += character;
  }
  if (!out.empty()) next_->text(out);
}

void StripStage::end_token() {
  stripped_ = held_ = 0;
  at_front_ = true;
  next_->end_token();
}

void ReplaceStage::text(std::string_view piece) {
  held_ += piece;
  if (!pattern_->is_literal()) return;  // what a regular expression matches may change up to the token's end
  const std::string& wanted = pattern_->text();
  std::string out;
  size_t done = 0;
  for (size_t at; (at = held_.find(wanted, done)) != std::string::npos; done = at + wanted.size()) {
    out.append(held_, done, at - done);
    out += content_;
  }
  size_t keep = std::min(wanted.size() - 1, held_.size() - done);
  while (keep > 0 && held_.compare(held_.size() - keep, keep, wanted, 0, keep) != 0) --keep;
  out.append(held_, done, held_.size() - keep - done);
  held_.erase(0, held_.size() - keep);
  if (!out.empty()) next_->text(out);
}

void ReplaceStage::replace_regex() {
  std::vector<Span> spans;
  Pattern::Search search(*pattern_);
  // A pattern beyond its limits leaves the token as it is: decoding has no error to give.
  if (held_.empty() || !search.find_all(held_, WorkLimit::for_text(held_.size()), spans).ok()) return;
  std::string out;
  for (const Span& span : spans) {
    out += span.is_match ? content_ : held_.substr(span.begin, span.end - span.begin);
  }
  held_ = std::move(out);
}

void ReplaceStage::end_token() {
  if (!pattern_->is_literal()) replace_regex();
  if (!held_.empty()) next_->text(held_);
  held_.clear();
  next_->end_token();
}

void MetaspaceStage::text(std::string_view piece) {
  std::string out;
  size_t done = 0;
  for (size_t at; (at = piece.find(replacement_, done)) != std::string_view::npos;
       done = at + replacement_.size()) {
    out += piece.substr(done, at - done);
    if (!drop_) out += ' ';
  }
  out += piece.substr(done);
  if (!out.empty()) next_->text(out);
}

void MetaspaceStage::end_token() {
  drop_ = false;
  next_->end_token();
}

void JoinStage::text(std::string_view piece) {
  if (space_due_) next_->text(" ");
  space_due_ = false;
  next_->text(piece);
}

void JoinStage::end_token() {
  space_due_ = true;
  next_->end_token();
}

}  // namespace trireme::tok
