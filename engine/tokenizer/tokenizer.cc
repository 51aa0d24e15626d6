#include "engine/tokenizer/tokenizer.h"

#include <algorithm>
#include <utility>

#include "engine/tokenizer/tokenizer_impl.h"
#include "engine/tokenizer/unicode.h"

namespace trireme {

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;

absl::Status Tokenizer::Impl::encode_words(std::string text, bool at_start, const tok::WorkLimit& limit,
                                           tok::BpeScratch& scratch, std::vector<int32_t>& ids) const {
  tok::PreTokens tokens;
  tokens.pieces.push_back({0, text.size(), at_start});
  tokens.text = std::move(text);
  if (absl::Status status = pretokenizer->apply(tokens, limit); !status.ok()) return status;
  for (const auto& piece : tokens.pieces) {
    if (absl::Status status = model.encode(tokens.piece(piece), scratch, ids); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status Tokenizer::Impl::encode_part(std::string text, bool at_start, const tok::WorkLimit& limit,
                                          tok::BpeScratch& scratch, std::vector<int32_t>& ids) const {
  if (absl::Status status = normalizer->apply(text, limit); !status.ok()) return status;
  std::vector<tok::AddedVocabulary::Part> parts;
  added.find(text, true, parts);
  for (const auto& part : parts) {
    if (part.id >= 0) {
      ids.push_back(part.id);
      continue;
    }
    absl::Status status = encode_words(text.substr(part.begin, part.end - part.begin),
                                       at_start && part.begin == 0, limit, scratch, ids);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  std::vector<int32_t> ids;
  const std::string valid = tok::valid_utf8(text);
  const tok::WorkLimit limit = tok::WorkLimit::for_text(valid.size());
  tok::BpeScratch scratch;
  std::vector<tok::AddedVocabulary::Part> parts;
  impl_->added.find(valid, false, parts);
  for (const auto& part : parts) {
    if (part.id >= 0) {
      ids.push_back(part.id);
      continue;
    }
    absl::Status status = impl_->encode_part(valid.substr(part.begin, part.end - part.begin), part.begin == 0,
                                             limit, scratch, ids);
    if (!status.ok()) return status;
  }
  impl_->post_processor.apply(ids, add_special_tokens);
  return ids;
}

const std::string* Tokenizer::Impl::decodable(int32_t id, bool skip_special_tokens) const {
  if (const tok::AddedToken* token = added.token(id)) {
    return skip_special_tokens && token->special ? nullptr : &token->normalized_content;
  }
  return model.vocabulary().contains(id) ? &model.vocabulary().token(id) : nullptr;
}

std::string Tokenizer::decode(const std::vector<int32_t>& ids, bool skip_special_tokens) const {
  std::string text;
  tok::DecodeStream stream = impl_->decoder.stream();
  for (const int32_t id : ids) {
    if (const std::string* token = impl_->decodable(id, skip_special_tokens)) stream.append(*token, text);
  }
  stream.finish(text);
  return text;
}

int32_t Tokenizer::vocab_size() const {
  return std::max(impl_->model.vocabulary().size(), impl_->added.size());
}

bool Tokenizer::is_special(int32_t id) const {
  const tok::AddedToken* token = impl_->added.token(id);
  return token != nullptr && token->special;
}

int32_t Tokenizer::Impl::find_id(std::string_view token) const {
  const int32_t id = added.find_id(token);
  return id >= 0 ? id : model.vocabulary().find(token);
}

int32_t Tokenizer::token_to_id(std::string_view token) const { return impl_->find_id(token); }

std::string Tokenizer::id_to_token(int32_t id) const {
  if (const tok::AddedToken* token = impl_->added.token(id)) return token->content;
  return impl_->model.vocabulary().contains(id) ? impl_->model.vocabulary().token(id) : "";
}

const std::string& Tokenizer::hash() const { return impl_->hash; }

}  // namespace trireme
