#include "engine/tokenizer/decoder.h"

#include <limits>
#include <utility>

#include "engine/tokenizer/decode_stages.h"
#include "engine/tokenizer/normalizer.h"

namespace trireme::tok {

class DecodeStream::Sink : public DecodeStage {
 public:
  void text(std::string_view piece) override { *out += piece; }
  void end_token() override {}
  void finish() override {}
  std::string* out = nullptr;
};

DecodeStream::DecodeStream(std::vector<std::unique_ptr<DecodeStage>> stages) : stages_(std::move(stages)) {
  auto sink = std::make_unique<Sink>();
  sink_ = sink.get();
  stages_.push_back(std::move(sink));
  for (size_t i = 0; i + 1 < stages_.size(); ++i) stages_[i]->set_next(stages_[i + 1].get());
}

void DecodeStream::append(std::string_view token, std::string& out) {
  sink_->out = &out;
  stages_[0]->text(token);
  stages_[0]->end_token();
}

void DecodeStream::finish(std::string& out) {
  sink_->out = &out;
  stages_[0]->finish();
}

Decoder Decoder::parse(const JsonNode& node) {
  Decoder decoder;
  if (node.is_null()) {
    decoder.stages_.push_back([] { return std::make_unique<JoinStage>(); });
  } else {
    decoder.parse_into(node);
  }
  return decoder;
}

DecodeStream Decoder::stream() const {
  std::vector<std::unique_ptr<DecodeStage>> stages;
  for (const MakeStage& make : stages_) stages.push_back(make());
  return DecodeStream(std::move(stages));
}

void Decoder::parse_into(const JsonNode& node) {
  const std::string kind = node.kind();
  if (!node.ok()) return;
  if (kind == "Sequence") {
    node.member("decoders").for_each_element([&](const JsonNode& part) { parse_into(part); });
  } else if (kind == "ByteLevel") {
    stages_.push_back([] { return std::make_unique<ByteLevelStage>(); });
  } else if (kind == "ByteFallback") {
    stages_.push_back([] { return std::make_unique<ByteFallbackStage>(); });
  } else if (kind == "Fuse") {
    stages_.push_back([] { return std::make_unique<FuseStage>(); });
  } else if (kind == "Strip") {
    constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
    const std::string content = node.member("content").as_character();
    const int64_t start = node.member("start").as_integer(0, kMax);
    const int64_t stop = node.member("stop").as_integer(0, kMax);
    stages_.push_back([=] { return std::make_unique<StripStage>(content, start, stop); });
  } else if (kind == "Replace") {
    const auto pattern = std::make_shared<const Pattern>(parse_pattern(node.member("pattern")));
    const std::string content = node.member("content").as_string();
    stages_.push_back([=] { return std::make_unique<ReplaceStage>(pattern, content); });
  } else if (kind == "Metaspace") {
    const std::string character = node.member("replacement").as_character();
    const bool prepended =
        node.string_or("prepend_scheme", "always") != "never" && node.bool_or("add_prefix_space", true);
    stages_.push_back([=] { return std::make_unique<MetaspaceStage>(character, prepended); });
  } else {
    node.fail_kind("decoder", kind, "Sequence, ByteLevel, ByteFallback, Fuse, Strip, Replace, Metaspace");
  }
}

}  // namespace trireme::tok
