#include "coordinator/prompt_chunks.h"

#include <string>

#include <gtest/gtest.h>

namespace trireme {
namespace {

TEST(PromptChunksTest, AlikeBeginningsHaveAlikeNumbers) {
  const std::string common(512, 'a');
  const PromptChunks one = text_chunks(common + std::string(256, 'b') + "x");
  const PromptChunks two = text_chunks(common + std::string(256, 'c') + std::string(256, 'd'));
  ASSERT_EQ(one.size(), 3u);
  ASSERT_EQ(two.size(), 4u);
  EXPECT_EQ(one[0], two[0]);
  EXPECT_EQ(one[1], two[1]);
  EXPECT_NE(one[2], two[2]);
  EXPECT_NE(one[0], one[1]);  // the same 256 bytes, but after others
}

TEST(PromptChunksTest, LeftOverTextHasNone) {
  EXPECT_TRUE(text_chunks("").empty());
  EXPECT_TRUE(text_chunks(std::string(255, 'a')).empty());
  EXPECT_EQ(text_chunks(std::string(511, 'a')), text_chunks(std::string(256, 'a')));
}

TEST(PromptChunksTest, IdsComeInChunksOf64) {
  const std::vector<int32_t> ids(130, 7);
  EXPECT_EQ(token_chunks(ids.data(), 63).size(), 0u);
  EXPECT_EQ(token_chunks(ids.data(), ids.size()).size(), 2u);
  // The same bytes as text are another prompt.
  const std::string bytes(reinterpret_cast<const char*>(ids.data()), 256);
  EXPECT_NE(token_chunks(ids.data(), 64), text_chunks(bytes));
}

TEST(PromptChunksTest, LongPromptsAreCut) { EXPECT_EQ(text_chunks(std::string(1 << 20, 'a')).size(), 1024u); }

}  // namespace
}  // namespace trireme
