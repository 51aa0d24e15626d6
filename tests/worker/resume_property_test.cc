// Samples cut anywhere and taken up by another builder: together the two give what one gives.

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "tests/testing/property.h"
#include "tests/worker/byte_tokenizer.h"
#include "worker/response_builder.h"

namespace trireme::worker {
namespace {

template <typename T>
rc::Gen<T> full(rc::Gen<T> gen) {
  return rc::gen::resize(rc::kNominalSize, std::move(gen));
}

int any_of(int first, int last) { return *full(rc::gen::inRange(first, last + 1)); }

// Few bytes, so that stops are met and half met; among them whole, half and wrong characters.
std::string any_text(int most) {
  static const std::string kBytes = "aab\xC3\xA9\xE2\x82\xAC";
  std::string text;
  for (int i = any_of(0, most); i > 0; --i)
    text += kBytes[static_cast<size_t>(any_of(0, static_cast<int>(kBytes.size()) - 1))];
  return text;
}

struct Said {
  std::vector<int32_t> token_ids;
  std::string text;
  v1::FinishReason finish_reason = v1::FINISH_REASON_UNSPECIFIED;
};

class Run {
 public:
  Run(const Tokenizer& tokenizer, const ResponseOptions& options, size_t num_samples)
      : said(num_samples), builder(&tokenizer, options, {}, static_cast<int32_t>(num_samples)) {}

  /// What the engine gives for tokens [begin, end) of a sample whose outputs these are.
  void append(size_t sample, const std::vector<int32_t>& outputs, size_t begin, size_t end,
              const StoppingParams& stopping) {
    for (size_t i = begin; i < end; ++i) {
      TokenOutput output;
      output.sample_index = static_cast<uint32_t>(sample);
      output.token_id = outputs[i];
      output.finish = stop_reason(stopping, static_cast<int32_t>(i) + 1, outputs[i]);
      builder.append(output);
      if (output.finish != FinishReason::none) return;
    }
  }
  void take() {
    v1::GenerateResponse message;
    for (; builder.next(message); message.Clear()) {
      for (const v1::Delta& delta : message.deltas()) {
        Said& sample = said[static_cast<size_t>(delta.index())];
        sample.text += delta.text();
        sample.token_ids.insert(sample.token_ids.end(), delta.token_ids().begin(), delta.token_ids().end());
        if (delta.has_finish_reason()) sample.finish_reason = delta.finish_reason();
      }
      if (message.has_usage()) completion_tokens = message.usage().completion_tokens();
    }
  }

  std::vector<Said> said;
  int32_t completion_tokens = 0;
  ResponseBuilder builder;
};

RC_GTEST_PROP(ResumePropertyTest, TwoReplicasSayWhatOneSays, ()) {
  static const std::unique_ptr<Tokenizer> tokenizer = byte_tokenizer();
  const auto num_samples = static_cast<size_t>(any_of(1, 4));
  ResponseOptions options;
  for (int i = any_of(0, 3); i > 0; --i) {
    options.stop.push_back(any_text(3));
    options.stop.back() += 'a';
  }
  options.min_tokens = any_of(0, 6);
  StoppingParams stopping;
  stopping.max_tokens = any_of(1, 25);
  stopping.min_tokens = options.min_tokens;
  stopping.stop_token_ids = {kEndToken};

  std::vector<std::vector<int32_t>> outputs(num_samples);
  for (std::vector<int32_t>& ids : outputs) {
    for (const char byte : any_text(25)) ids.push_back(static_cast<unsigned char>(byte));
    if (ids.size() >= 6) ids.push_back(kEndToken);
    ids.resize(static_cast<size_t>(stopping.max_tokens), 'b');
  }

  Run unbroken(*tokenizer, options, num_samples);
  for (size_t i = 0; i < num_samples; ++i) unbroken.append(i, outputs[i], 0, outputs[i].size(), stopping);
  unbroken.take();
  RC_ASSERT(unbroken.builder.complete());

  // The first replica dies when each sample is somewhere; its successor gets what was passed on.
  Run first(*tokenizer, options, num_samples);
  for (size_t i = 0; i < num_samples; ++i) {
    const int cut = any_of(0, static_cast<int>(unbroken.said[i].token_ids.size()));
    first.append(i, outputs[i], 0, static_cast<size_t>(cut), stopping);
  }
  first.take();
  std::vector<ResumeFields> states;
  bool any_finished = false;
  for (size_t i = 0; i < num_samples; ++i) {
    const bool finished = first.said[i].finish_reason != v1::FINISH_REASON_UNSPECIFIED;
    states.push_back({static_cast<int32_t>(i), first.said[i].token_ids, finished});
    any_finished = any_finished || finished;
  }
  RC_CLASSIFY(any_finished, "a sample had ended");
  Run second(*tokenizer, options, num_samples);
  RC_ASSERT(!second.builder.resume(states, stopping));
  for (size_t i = 0; i < num_samples; ++i)
    second.append(i, outputs[i], states[i].token_ids.size(), outputs[i].size(), stopping);
  second.take();
  RC_ASSERT(second.builder.complete());
  RC_ASSERT(second.completion_tokens == unbroken.completion_tokens);

  for (size_t i = 0; i < num_samples; ++i) {
    Said together = first.said[i];
    const Said& rest = second.said[i];
    together.text += rest.text;
    together.token_ids.insert(together.token_ids.end(), rest.token_ids.begin(), rest.token_ids.end());
    if (together.finish_reason == v1::FINISH_REASON_UNSPECIFIED) together.finish_reason = rest.finish_reason;
    RC_ASSERT(together.text == unbroken.said[i].text);
    RC_ASSERT(together.token_ids == unbroken.said[i].token_ids);
    RC_ASSERT(together.finish_reason == unbroken.said[i].finish_reason);
  }
}

}  // namespace
}  // namespace trireme::worker
