// Against data/rope_references.json, which data/make_rope_references.py wrote with transformers.

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <set>

#include "engine/config.h"
#include "nlohmann/json.hpp"

namespace trireme {
namespace {

TEST(RopeFrequenciesTest, EqualThoseOfTransformersForEveryKind) {
  std::ifstream file(TRIREME_TEST_DATA "/data/rope_references.json");
  ASSERT_TRUE(file.good());
  const nlohmann::json cases = nlohmann::json::parse(file);
  std::set<RopeScaling::Kind> kinds;
  double worst = 0;
  for (const nlohmann::json& reference : cases) {
    SCOPED_TRACE(reference["name"].get<std::string>());
    const auto config = parse_model_config(reference["config"].dump(), "config.json");
    ASSERT_TRUE(config.ok()) << config.status();
    kinds.insert(config->rope_scaling.kind);
    float factor = 0;
    const std::vector<float> got =
        config->inverse_frequencies(reference["max_context_len"].get<int>(), &factor);
    const auto wanted = reference["inverse_frequencies"].get<std::vector<float>>();
    ASSERT_EQ(got.size(), wanted.size());
    for (size_t i = 0; i < got.size(); ++i) {
      const double error = std::abs(got[i] / static_cast<double>(wanted[i]) - 1);
      worst = std::max(worst, error);
      EXPECT_LE(error, 2e-7) << "element " << i << ": got " << got[i] << ", wanted " << wanted[i];
    }
    EXPECT_FLOAT_EQ(factor, reference["attention_factor"].get<float>());
  }
  EXPECT_EQ(kinds.size(), 5u);
  RecordProperty("worst_relative_error", std::to_string(worst));
}

TEST(RopeFrequenciesTest, DynamicNeverShrinksBelowTheModelsOwnLength) {
  ModelConfig config;
  config.head_dim = 64;
  config.max_position_embeddings = 2048;
  config.rope_scaling.kind = RopeScaling::Kind::dynamic;
  config.rope_scaling.factor = 4;
  float factor = 0;
  EXPECT_EQ(config.inverse_frequencies(100, &factor), config.inverse_frequencies(2048, &factor));
  EXPECT_LT(config.inverse_frequencies(4096, &factor).back(),
            config.inverse_frequencies(2048, &factor).back());
}

}  // namespace
}  // namespace trireme
