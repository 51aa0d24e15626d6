#pragma once
// Characters: UTF-8, the classes that pre-tokenizers ask for, and GPT-2's printable stand-ins for bytes.

#include <cstdint>
#include <string>
#include <string_view>

namespace trireme::tok {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

struct CodePoint {
  uint32_t value;
  uint32_t length;  // bytes
};

/// The character at byte `at`, which must begin one. `text` must be valid UTF-8.
CodePoint decode_utf8(std::string_view text, size_t at);
/// The character that ends at byte `end` > 0. `text` must be valid UTF-8.
CodePoint decode_utf8_before(std::string_view text, size_t end);
void append_utf8(uint32_t code_point, std::string& out);

/// `bytes` with each maximal invalid part replaced by U+FFFD (Unicode 15, section 3.9; also what Rust's
/// from_utf8_lossy and Python's errors="replace" give).
std::string valid_utf8(std::string_view bytes);
bool is_valid_utf8(std::string_view bytes);

/// The same for bytes that arrive in pieces. Holds back at most 3 of them.
class Utf8Stream {
 public:
  void append(std::string_view bytes, std::string& out);
  void finish(std::string& out);

 private:
  std::string pending_;  // a valid but incomplete beginning of a character
};

// Classes by Unicode 15 (utf8proc's tables).
bool is_whitespace(uint32_t code_point);  // property White_Space
bool is_numeric(uint32_t code_point);     // categories Nd, Nl, No
/// ASCII punctuation and symbols, categories P*. (The `tokenizers` library asks a table of Unicode 8 here,
/// which lacks 127 rare characters.)
bool is_punctuation(uint32_t code_point);
bool is_word(uint32_t code_point);  // Alphabetic, M, Nd, Pc, Join_Control: \w of UTS 18

/// GPT-2's table: each byte is one printable character, all below U+0144.
uint32_t byte_to_character(uint8_t byte);
/// The byte, or -1 for a character outside the table.
int character_to_byte(uint32_t code_point);
/// All bytes of `text` as such characters.
std::string to_byte_level(std::string_view text);

}  // namespace trireme::tok
