// From files to a Tokenizer.

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/json_document.h"
#include "engine/tokenizer/tokenizer_config.h"
#include "engine/tokenizer/tokenizer_impl.h"

namespace trireme {
namespace {

using tok::JsonNode;

constexpr uint64_t kMaxFileBytes = 256 << 20;  // the largest known tokenizer.json has 33 MB

std::string fnv1a_hex(std::string_view bytes) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char byte : bytes) hash = (hash ^ static_cast<uint8_t>(byte)) * 0x100000001b3;
  return absl::StrFormat("%016x", hash);
}

}  // namespace

void Tokenizer::Impl::read_tokenizer(const JsonNode& root) {
  normalizer = parse_normalizer(root.member("normalizer"));
  pretokenizer = parse_pretokenizer(root.member("pre_tokenizer"));
  post_processor = tok::PostProcessor::parse(root.member("post_processor"));
  decoder = tok::Decoder::parse(root.member("decoder"));
  if (root.ok()) model = tok::Bpe::parse(root.member("model"));
  const JsonNode tokens = root.member("added_tokens");
  if (tokens.is_null()) return;
  tokens.for_each_element([&](const JsonNode& node) {
    const int32_t id = static_cast<int32_t>(node.member("id").as_integer(0, tok::kMaxTokenId));
    added.add(node, tok::AddedVocabulary::parse_token(node), id, model.vocabulary());
  });
}

void Tokenizer::Impl::read_config(const JsonNode& root, bool has_post_processor) {
  tok::TokenizerConfig config = tok::TokenizerConfig::parse(root);
  const JsonNode tokens = root.member("added_tokens_decoder");
  for (auto& [id, token] : config.added_tokens) {
    const JsonNode node = tokens.member(absl::StrCat(id).c_str());
    added.add(node, std::move(token), id, model.vocabulary());
  }
  if (!root.ok()) return;
  add_named_special_tokens(config, root);
  if (!has_post_processor) apply_flags(config, root);
}

// Tokens named special ("bos_token": "<s>") that the vocabulary has, but not as added tokens, are special all
// the same. Those that no vocabulary has are left out: the model has no embedding for them.
void Tokenizer::Impl::add_named_special_tokens(const tok::TokenizerConfig& config, const JsonNode& root) {
  for (const std::string& content : config.special_tokens) {
    const int32_t id = model.vocabulary().find(content);
    if (id < 0 || added.find_id(content) >= 0) continue;
    tok::AddedToken token;
    token.content = content;
    token.special = true;
    added.add(root, std::move(token), id, model.vocabulary());
  }
}

// tokenizer.json's post-processor is the whole truth where there is one (the flags beside it are often out of
// date); without one, the flags of tokenizer_config.json say what surrounds a text.
void Tokenizer::Impl::apply_flags(const tok::TokenizerConfig& config, const JsonNode& root) {
  const auto ids_of = [&](const char* flag, std::optional<bool> wanted, const std::string& content) {
    std::vector<int32_t> ids;
    if (!wanted.value_or(false)) return ids;
    ids.push_back(find_id(content));
    if (ids[0] < 0) root.member(flag).fail(absl::StrCat("is true, but no token is \"", content, "\""));
    return ids;
  };
  post_processor =
      tok::PostProcessor::around(ids_of("add_bos_token", config.add_bos_token, config.bos_token),
                                 ids_of("add_eos_token", config.add_eos_token, config.eos_token));
}

absl::StatusOr<std::unique_ptr<Tokenizer::Impl>> Tokenizer::Impl::parse(std::string_view json,
                                                                        const std::string& where,
                                                                        std::string_view config_json,
                                                                        const std::string& config_where) {
  absl::Status status;
  auto impl = std::make_unique<Impl>();
  impl->hash = fnv1a_hex(json);
  const absl::StatusOr<nlohmann::json> document = parse_json_object(json, where);
  if (!document.ok()) return document.status();
  const JsonNode root(*document, where, &status);
  impl->read_tokenizer(root);
  if (!status.ok()) return status;
  if (!config_json.empty()) {
    const absl::StatusOr<nlohmann::json> config = parse_json_object(config_json, config_where);
    if (!config.ok()) return config.status();
    const bool has_post_processor = !root.member("post_processor").is_null();
    impl->read_config(JsonNode(*config, config_where, &status), has_post_processor);
  }
  if (!status.ok()) return status;
  status = impl->added.finish(*impl->normalizer);
  if (!status.ok()) return status;
  for (const int32_t id : impl->post_processor.ids()) {
    if (impl->decodable(id, false) == nullptr) {
      root.member("post_processor").fail(absl::StrCat("adds id ", id, ", which no token has"));
      return status;
    }
  }
  return impl;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::load(const std::string& model_dir) {
  const std::string path = model_dir + "/tokenizer.json";
  const absl::StatusOr<std::string> json = read_small_file(path, kMaxFileBytes);
  if (!json.ok()) return json.status();
  const std::string config_path = model_dir + "/tokenizer_config.json";
  absl::StatusOr<std::string> config = read_small_file(config_path, kMaxFileBytes);
  if (absl::IsNotFound(config.status())) config = std::string("{}");
  if (!config.ok()) return config.status();
  auto impl = Impl::parse(*json, path, *config, config_path);
  if (!impl.ok()) return impl.status();
  return std::unique_ptr<Tokenizer>(new Tokenizer(*std::move(impl)));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::parse(std::string_view json, const std::string& where) {
  auto impl = Impl::parse(json, where, "", "");
  if (!impl.ok()) return impl.status();
  return std::unique_ptr<Tokenizer>(new Tokenizer(*std::move(impl)));
}

}  // namespace trireme
