#include "launch/client/workload.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>

#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "launch/client/sharegpt.h"

namespace trireme::client {
namespace {

using ::testing::HasSubstr;

PromptLimits limits() {
  PromptLimits limits;
  limits.vocab_size = 100;
  limits.max_context_len = 64;
  limits.avoided_ids = {0, 99};
  return limits;
}

TEST(DatasetTest, FormsAreRead) {
  const auto random = parse_dataset("random:128,64");
  ASSERT_TRUE(random.ok());
  EXPECT_EQ(random->unique_tokens, 128);
  EXPECT_EQ(random->output_tokens, 64);
  const auto prefix = parse_dataset("prefix:900,100,8,4");
  ASSERT_TRUE(prefix.ok());
  EXPECT_EQ(prefix->shared_tokens, 900);
  EXPECT_EQ(prefix->unique_tokens, 100);
  EXPECT_EQ(prefix->output_tokens, 8);
  EXPECT_EQ(prefix->num_groups, 4);
  EXPECT_EQ(parse_dataset("prefix:900,100,8")->num_groups, 1);
  EXPECT_EQ(parse_dataset("sharegpt:a:b,c.json")->file, "a:b,c.json");
}

TEST(DatasetTest, OtherFormsAreRefusedWithWhatIsWanted) {
  for (const char* text : {"", "random", "random:", "random:1", "random:1,2,3", "random:0,1", "random:1,-1",
                           "random:1,+2", "random: 1,2", "random:1,99999999999999999999", "prefix:1,2",
                           "prefix:1,2,3,4,5", "sharegpt:", "sonnet:1,2", "random:1,1048577"}) {
    const auto spec = parse_dataset(text);
    ASSERT_FALSE(spec.ok()) << text;
    EXPECT_THAT(std::string(spec.status().message()), HasSubstr("wanted random:IN,OUT")) << text;
  }
}

TEST(WorkloadTest, SameSeedSamePromptsWithinTheVocabulary) {
  const auto spec = *parse_dataset("random:40,5");
  const auto items = *make_workload(spec, limits(), 200, 1);
  const auto again = *make_workload(spec, limits(), 200, 1);
  const auto other = *make_workload(spec, limits(), 200, 2);
  std::set<int32_t> seen;
  for (size_t i = 0; i < 200; ++i) {
    EXPECT_EQ(items[i].prompt_ids, again[i].prompt_ids);
    EXPECT_NE(items[i].prompt_ids, other[i].prompt_ids);
    EXPECT_EQ(items[i].prompt_ids.size(), 40u);
    EXPECT_EQ(items[i].output_tokens, 5);
    EXPECT_EQ(items[i].seed, 1 + i);
    seen.insert(items[i].prompt_ids.begin(), items[i].prompt_ids.end());
  }
  EXPECT_EQ(*seen.begin(), 1);
  EXPECT_EQ(*seen.rbegin(), 98);
  EXPECT_EQ(seen.size(), 98u);
}

TEST(WorkloadTest, PrefixesAreSharedWithinAGroupOnly) {
  const auto items = *make_workload(*parse_dataset("prefix:30,10,2,3"), limits(), 9, 1);
  std::set<std::vector<int32_t>> prefixes, prompts;
  for (size_t i = 0; i < items.size(); ++i) {
    const auto& ids = items[i].prompt_ids;
    ASSERT_EQ(ids.size(), 40u);
    EXPECT_TRUE(std::equal(ids.begin(), ids.begin() + 30, items[i % 3].prompt_ids.begin()));
    prefixes.emplace(ids.begin(), ids.begin() + 30);
    prompts.insert(ids);
  }
  EXPECT_EQ(prefixes.size(), 3u);
  EXPECT_EQ(prompts.size(), 9u);
}

TEST(WorkloadTest, WhatDoesNotFitIsRefused) {
  const auto fits = make_workload(*parse_dataset("random:60,4"), limits(), 1, 1);
  EXPECT_TRUE(fits.ok());
  const auto longer = make_workload(*parse_dataset("random:60,5"), limits(), 1, 1);
  EXPECT_EQ(longer.status().message(),
            "dataset: got 60 prompt and 5 output tokens, wanted at most 64 together, the model's context");
  const auto many = make_workload(*parse_dataset("random:60,4"), limits(), 10'000'000, 1);
  EXPECT_THAT(std::string(many.status().message()), HasSubstr("tokens in all"));
}

class SharegptTest : public ::testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove(path_); }
  absl::StatusOr<std::vector<Conversation>> read(const std::string& text) {
    std::ofstream(path_, std::ios::binary) << text;
    return read_sharegpt(path_);
  }
  std::string error(const std::string& text) {
    const auto result = read(text);
    EXPECT_FALSE(result.ok()) << text.substr(0, 200);
    return std::string(result.status().message());
  }
  /// The begin of a list.
  static std::string list(const std::string& first, const std::string& rest) {
    return absl::StrCat("[", first, rest);
  }
  static std::string entry(const std::string& prompt, const std::string& answer) {
    return R"({"id": "x", "conversations": [{"from": "human", "value": ")" + prompt +
           R"("}, {"from": "gpt", "value": ")" + answer + R"("}, {"from": "human", "value": "more"}]})";
  }
  const std::string path_ =
      (std::filesystem::temp_directory_path() / ("sharegpt-" + std::to_string(::getpid()) + ".json"))
          .string();
};

TEST_F(SharegptTest, TheFirstTwoTurnsOfEachEntryAreTaken) {
  const auto result =
      read(list(entry("hi", "hello there"),
                std::string(", ") +
                    R"({"conversations": [], "id": 3, "model": {"value": [1, {"conversations": 2}]}}, )" +
                    R"({"conversations": [{"value": "alone"}]}, )" + entry("", "nothing asked") + "," +
                    entry("two\\nlines", "\\u00e9") + "]"));
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->size(), 2u);
  EXPECT_EQ((*result)[0].prompt, "hi");
  EXPECT_EQ((*result)[0].answer, "hello there");
  EXPECT_EQ((*result)[1].prompt, "two\nlines");
  EXPECT_EQ((*result)[1].answer, "é");
}

TEST_F(SharegptTest, FaultsNameTheEntryAndTheField) {
  const std::string good = entry("a", "b") + ", ";
  EXPECT_THAT(error(list(good, R"({"id": 1}])")), HasSubstr("entry 1: conversations: is missing"));
  EXPECT_THAT(error(list(good, "7]")), HasSubstr("entry 1: got a number, wanted an object"));
  EXPECT_THAT(error(list(good, R"({"conversations": {}}])")),
              HasSubstr("entry 1: conversations: got an object, wanted a list"));
  EXPECT_THAT(error(list(good, R"({"conversations": null}])")), HasSubstr("conversations: got null"));
  EXPECT_THAT(error(list(good, R"({"conversations": ["hi"]}])")),
              HasSubstr("entry 1: conversations[0]: got a text, wanted an object"));
  EXPECT_THAT(error(R"([{"conversations": [{"value": "a"}, {"from": "gpt"}]}])"),
              HasSubstr("entry 0: conversations[1].value: is missing"));
  EXPECT_THAT(error(R"([{"conversations": [{"value": 5}]}])"),
              HasSubstr("entry 0: conversations[0].value: got a number, wanted a text"));
  EXPECT_THAT(error(R"([{"conversations": [{"value": {"a": "b"}}]}])"), HasSubstr(".value: got an object"));
}

TEST_F(SharegptTest, FilesOfSomethingElseAreRefused) {
  EXPECT_THAT(error(""), HasSubstr("not JSON at byte"));
  EXPECT_THAT(error(list(entry("a", "b"), "")), HasSubstr("not JSON at byte"));
  EXPECT_THAT(error(R"([{"conversations": [{"value": ")"
                    "\xff\xfe"
                    R"("}]}])"),
              HasSubstr("not JSON"));
  EXPECT_THAT(error("{}"), HasSubstr("got an object, wanted a list"));
  EXPECT_THAT(error("17"), HasSubstr("got a number, wanted a list"));
  EXPECT_THAT(error("[]"), HasSubstr("no conversation of two turns"));
  EXPECT_THAT(error(R"([{"conversations": [], "x": )" + std::string(100'000, '[')),
              HasSubstr("entry 0: nested deeper than 64 levels"));
  EXPECT_EQ(read_sharegpt("/nonexistent/file").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(read_sharegpt("/tmp").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(SharegptTest, TheWorkloadIsASeededChoiceOfWhatFits) {
  std::string text = "[";
  for (int i = 0; i < 20; ++i) text += entry(std::string(static_cast<size_t>(i + 1), 'p'), "four") + ",";
  text += entry("long", std::string(80, 'a')) + "]";  // beyond the context
  ASSERT_TRUE(read(text).ok());
  const auto count_bytes = [](const std::string& words) -> absl::StatusOr<int64_t> {
    return static_cast<int64_t>(words.size());
  };
  DatasetSpec spec = *parse_dataset("sharegpt:" + path_);
  const auto items = make_sharegpt_workload(spec, limits(), 30, 1, count_bytes);
  ASSERT_TRUE(items.ok()) << items.status();
  ASSERT_EQ(items->size(), 30u);
  std::set<std::string> different;
  for (const WorkItem& item : *items) {
    EXPECT_EQ(item.output_tokens, 4);
    different.insert(item.text);
  }
  EXPECT_EQ(different.size(), 20u);
  EXPECT_EQ((*items)[25].text, (*items)[5].text);  // from the start again
  const auto again = *make_sharegpt_workload(spec, limits(), 30, 1, count_bytes);
  const auto other = *make_sharegpt_workload(spec, limits(), 30, 2, count_bytes);
  bool differs = false;
  for (size_t i = 0; i < 30; ++i) {
    EXPECT_EQ((*items)[i].text, again[i].text);
    differs = differs || (*items)[i].text != other[i].text;
  }
  EXPECT_TRUE(differs);
  const auto refused = make_sharegpt_workload(spec, limits(), 1, 1, [](const std::string&) {
    return absl::StatusOr<int64_t>(absl::FailedPreconditionError("no tokenizer"));
  });
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace trireme::client
