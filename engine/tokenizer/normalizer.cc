#include "engine/tokenizer/normalizer.h"

#include <utf8proc.h>

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/tokenizer/unicode.h"
#include "engine/tokenizer/unicode_normalization.h"

namespace trireme::tok {
namespace {

class Identity : public Normalizer {
  absl::Status apply(std::string&, const WorkLimit&) const override { return absl::OkStatus(); }
};

class Sequence : public Normalizer {
 public:
  explicit Sequence(std::vector<std::unique_ptr<Normalizer>> parts) : parts_(std::move(parts)) {}
  absl::Status apply(std::string& text, const WorkLimit& limit) const override {
    for (const auto& part : parts_) {
      if (absl::Status status = part->apply(text, limit); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

 private:
  std::vector<std::unique_ptr<Normalizer>> parts_;
};

class Prepend : public Normalizer {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
  absl::Status apply(std::string& text, const WorkLimit&) const override {
    if (!text.empty()) text.insert(0, prefix_);
    return absl::OkStatus();
  }

 private:
  std::string prefix_;
};

class Replace : public Normalizer {
 public:
  Replace(Pattern pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  absl::Status apply(std::string& text, const WorkLimit& limit) const override {
    if (text.empty()) return absl::OkStatus();
    std::vector<Span> spans;
    Pattern::Search search(pattern_);
    if (absl::Status status = search.find_all(text, limit, spans); !status.ok()) return status;
    std::string out;
    out.reserve(text.size());
    for (const Span& span : spans) {
      out += span.is_match ? std::string_view(content_)
                           : std::string_view(text).substr(span.begin, span.end - span.begin);
    }
    text = std::move(out);
    return absl::OkStatus();
  }

 private:
  Pattern pattern_;
  std::string content_;
};

class UnicodeForm : public Normalizer {
 public:
  explicit UnicodeForm(NormalizationForm form) : form_(form) {}
  absl::Status apply(std::string& text, const WorkLimit&) const override {
    normalize_unicode(form_, text);
    return absl::OkStatus();
  }

 private:
  NormalizationForm form_;
};

class Lowercase : public Normalizer {
  absl::Status apply(std::string& text, const WorkLimit&) const override {
    std::string out;
    out.reserve(text.size());
    for (size_t at = 0; at < text.size();) {
      const CodePoint c = decode_utf8(text, at);
      at += c.length;
      if (c.value == 0x130) {  // the one character whose lower case is two
        out += "i\xCC\x87";
      } else {
        append_utf8(static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c.value))), out);
      }
    }
    text = std::move(out);
    return absl::OkStatus();
  }
};

class Strip : public Normalizer {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  absl::Status apply(std::string& text, const WorkLimit&) const override {
    size_t begin = 0;
    size_t end = text.size();
    while (right_ && end > 0 && is_whitespace(decode_utf8_before(text, end).value)) {
      end -= decode_utf8_before(text, end).length;
    }
    while (left_ && begin < end && is_whitespace(decode_utf8(text, begin).value)) {
      begin += decode_utf8(text, begin).length;
    }
    text = text.substr(begin, end - begin);
    return absl::OkStatus();
  }

 private:
  bool left_;
  bool right_;
};

class ByteLevel : public Normalizer {
  absl::Status apply(std::string& text, const WorkLimit&) const override {
    text = to_byte_level(text);
    return absl::OkStatus();
  }
};

}  // namespace

Pattern parse_pattern(const JsonNode& node) {
  const JsonNode literal = node.member("String");
  const JsonNode regex = node.member("Regex");
  if (literal.is_null() == regex.is_null()) {
    node.fail("wanted {\"String\": text} or {\"Regex\": pattern}");
  } else if (!literal.is_null()) {
    std::string text = literal.as_string();
    if (text.empty()) literal.fail("an empty string is no pattern");
    return Pattern::literal(std::move(text));
  } else if (absl::StatusOr<Pattern> pattern = Pattern::regex(regex.as_string()); pattern.ok()) {
    return *std::move(pattern);
  } else {
    regex.fail(std::string(pattern.status().message()));
  }
  return Pattern::literal(" ");
}

std::unique_ptr<Normalizer> parse_normalizer(const JsonNode& node) {
  if (node.is_null()) return std::make_unique<Identity>();
  const std::string kind = node.kind();
  if (!node.ok()) return std::make_unique<Identity>();
  if (kind == "Sequence") {
    std::vector<std::unique_ptr<Normalizer>> parts;
    node.member("normalizers").for_each_element([&](const JsonNode& part) {
      parts.push_back(parse_normalizer(part));
    });
    return std::make_unique<Sequence>(std::move(parts));
  }
  if (kind == "Prepend") return std::make_unique<Prepend>(node.member("prepend").as_string());
  if (kind == "Replace") {
    return std::make_unique<Replace>(parse_pattern(node.member("pattern")),
                                     node.member("content").as_string());
  }
  if (kind == "NFC") return std::make_unique<UnicodeForm>(NormalizationForm::kNfc);
  if (kind == "NFD") return std::make_unique<UnicodeForm>(NormalizationForm::kNfd);
  if (kind == "NFKC") return std::make_unique<UnicodeForm>(NormalizationForm::kNfkc);
  if (kind == "NFKD") return std::make_unique<UnicodeForm>(NormalizationForm::kNfkd);
  if (kind == "Lowercase") return std::make_unique<Lowercase>();
  if (kind == "Strip") {
    return std::make_unique<Strip>(node.member("strip_left").as_bool(), node.member("strip_right").as_bool());
  }
  if (kind == "ByteLevel") return std::make_unique<ByteLevel>();
  node.fail_kind("normalizer", kind,
                 "Sequence, Prepend, Replace, NFC, NFD, NFKC, NFKD, Lowercase, Strip, ByteLevel");
  return std::make_unique<Identity>();
}

}  // namespace trireme::tok
