#pragma once
// The parts of a loaded tokenizer.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tokenizer/added_vocabulary.h"
#include "engine/tokenizer/bpe.h"
#include "engine/tokenizer/decoder.h"
#include "engine/tokenizer/normalizer.h"
#include "engine/tokenizer/post_processor.h"
#include "engine/tokenizer/pretokenizer.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/tokenizer_config.h"

namespace trireme {

struct Tokenizer::Impl {
  std::unique_ptr<tok::Normalizer> normalizer;
  std::unique_ptr<tok::PreTokenizer> pretokenizer;
  tok::Bpe model;
  tok::AddedVocabulary added;
  tok::PostProcessor post_processor;
  tok::Decoder decoder;
  std::string hash;

  /// From the bytes of tokenizer.json and, unless empty, of tokenizer_config.json.
  static absl::StatusOr<std::unique_ptr<Impl>> parse(std::string_view json, const std::string& where,
                                                     std::string_view config_json,
                                                     const std::string& config_where);

  void read_tokenizer(const tok::JsonNode& root);
  void read_config(const tok::JsonNode& root, bool has_post_processor);
  void add_named_special_tokens(const tok::TokenizerConfig& config, const tok::JsonNode& root);
  void apply_flags(const tok::TokenizerConfig& config, const tok::JsonNode& root);

  /// Of an exact token text, or -1.
  int32_t find_id(std::string_view token) const;
  /// What the decoder gets for an id: null for unknown ids and, if asked, for special ones.
  const std::string* decodable(int32_t id, bool skip_special_tokens) const;

  /// Appends the ids of a part of the text without raw added tokens.
  absl::Status encode_part(std::string text, bool at_start, const tok::WorkLimit& limit,
                           tok::BpeScratch& scratch, std::vector<int32_t>& ids) const;
  /// ... of a normalized part without any added tokens.
  absl::Status encode_words(std::string text, bool at_start, const tok::WorkLimit& limit,
                            tok::BpeScratch& scratch, std::vector<int32_t>& ids) const;
};

}  // namespace trireme
