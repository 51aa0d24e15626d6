#include "coordinator/transcript.h"

#include <gtest/gtest.h>

namespace trireme {
namespace {

bool append(Transcript& transcript, int index, const std::vector<int32_t>& ids, bool finished = false) {
  return transcript.append(index, ids.data(), static_cast<int>(ids.size()), finished);
}

TEST(TranscriptTest, KeepsTheTokensOfEachSample) {
  Transcript transcript(2);
  EXPECT_TRUE(append(transcript, 1, {5}));
  EXPECT_TRUE(append(transcript, 0, {3, 4}));
  EXPECT_TRUE(append(transcript, 1, {6}, true));
  EXPECT_TRUE(append(transcript, 0, {}));
  EXPECT_EQ(transcript.num_tokens(), 4);
  EXPECT_EQ(transcript.samples()[0].token_ids, (std::vector<int32_t>{3, 4}));
  EXPECT_EQ(transcript.samples()[1].token_ids, (std::vector<int32_t>{5, 6}));
  EXPECT_FALSE(transcript.samples()[0].finished);
  EXPECT_TRUE(transcript.samples()[1].finished);
}

TEST(TranscriptTest, RefusesWhatCannotBe) {
  Transcript transcript(1);
  EXPECT_FALSE(append(transcript, -1, {1}));
  EXPECT_FALSE(append(transcript, 1, {1}));
  EXPECT_TRUE(append(transcript, 0, {1}, true));
  EXPECT_FALSE(append(transcript, 0, {2}));
  EXPECT_EQ(transcript.num_tokens(), 1);
}

}  // namespace
}  // namespace trireme
