// The checkpoints of tests/engine/models/references, as transformers writes them: what config.json promises,
// the file holds.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "engine/config.h"
#include "engine/weights/weight_loader.h"

namespace trireme {
namespace {

using ::testing::ElementsAre;

class ReferenceCheckpointsTest : public ::testing::TestWithParam<std::string> {
 protected:
  std::string dir() const { return std::string(TRIREME_TEST_DATA) + "/../models/references/" + GetParam(); }
};

TEST_P(ReferenceCheckpointsTest, ConfigAndTensorsAgree) {
  const auto config = load_model_config(dir() + "/config.json");
  ASSERT_TRUE(config.ok()) << config.status();
  const auto checkpoint = Checkpoint::open(dir());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const auto& tensors = (*checkpoint)->tensors();
  EXPECT_EQ(dominant_dtype(**checkpoint), config->checkpoint_dtype);
  EXPECT_EQ(tensors.count("lm_head.weight"), config->tie_word_embeddings ? 0u : 1u);
  EXPECT_THAT(tensors.at("model.embed_tokens.weight").shape,
              ElementsAre(config->vocab_size, config->hidden_size));

  const int q_rows = config->num_heads * config->head_dim, kv_rows = config->num_kv_heads * config->head_dim;
  for (int layer = 0; layer < config->num_layers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    EXPECT_THAT(tensors.at(prefix + "self_attn.q_proj.weight").shape,
                ElementsAre(q_rows, config->hidden_size));
    EXPECT_THAT(tensors.at(prefix + "self_attn.v_proj.weight").shape,
                ElementsAre(kv_rows, config->hidden_size));
    EXPECT_THAT(tensors.at(prefix + "mlp.up_proj.weight").shape,
                ElementsAre(config->intermediate_size, config->hidden_size));
    EXPECT_EQ(tensors.count(prefix + "self_attn.q_proj.bias"), config->attention_bias);
    EXPECT_EQ(tensors.count(prefix + "self_attn.o_proj.bias"), config->attention_out_bias);
    EXPECT_EQ(tensors.count(prefix + "mlp.down_proj.bias"), config->mlp_bias);
    EXPECT_EQ(tensors.count(prefix + "self_attn.q_norm.weight"), config->qk_norm);
  }
  const size_t per_layer = 9 + 3 * config->attention_bias + config->attention_out_bias +
                           3 * config->mlp_bias + 2 * config->qk_norm;
  EXPECT_EQ(tensors.size(),
            2 + (config->tie_word_embeddings ? 0 : 1) + per_layer * static_cast<size_t>(config->num_layers));

  const auto defaults = load_generation_defaults(dir());
  ASSERT_TRUE(defaults.ok()) << defaults.status();
  EXPECT_FALSE(defaults->do_sample);
  EXPECT_EQ(defaults->eos_token_ids, config->eos_token_ids);
}

std::vector<std::string> names() {
  std::vector<std::string> result;
  for (const auto& entry : std::filesystem::directory_iterator(TRIREME_TEST_DATA "/../models/references")) {
    result.push_back(entry.path().filename());
  }
  return result;
}

INSTANTIATE_TEST_SUITE_P(All, ReferenceCheckpointsTest, ::testing::ValuesIn(names()),
                         [](const auto& instance) { return instance.param; });

}  // namespace
}  // namespace trireme
