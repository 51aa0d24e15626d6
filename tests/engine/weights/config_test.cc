#include "engine/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "nlohmann/json.hpp"

namespace trireme {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

json tiny(const std::string& architecture = "LlamaForCausalLM") {
  return {{"architectures", {architecture}},
          {"hidden_size", 64},
          {"intermediate_size", 128},
          {"num_hidden_layers", 4},
          {"num_attention_heads", 8},
          {"num_key_value_heads", 4},
          {"vocab_size", 256}};
}

ModelConfig parse(const json& object) {
  absl::StatusOr<ModelConfig> config = parse_model_config(object.dump(), "config.json");
  EXPECT_TRUE(config.ok()) << config.status();
  return config.ok() ? *config : ModelConfig{};
}

std::string fault(const json& object) {
  const absl::StatusOr<ModelConfig> config = parse_model_config(object.dump(), "dir/config.json");
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument) << config.status();
  return std::string(config.status().message());
}

// ---- configurations of published models

TEST(ModelConfigTest, ReadsLlama2) {
  const ModelConfig config = parse(json::parse(R"({
    "architectures": ["LlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
    "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 11008, "max_position_embeddings": 4096,
    "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
    "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": null, "tie_word_embeddings": false,
    "torch_dtype": "float16", "transformers_version": "4.31.0.dev0", "use_cache": true, "vocab_size": 32000})"));
  EXPECT_EQ(config.hidden_size, 4096);
  EXPECT_EQ(config.intermediate_size, 11008);
  EXPECT_EQ(config.num_layers, 32);
  EXPECT_EQ(config.num_heads, 32);
  EXPECT_EQ(config.num_kv_heads, 32);
  EXPECT_EQ(config.head_dim, 128);
  EXPECT_EQ(config.vocab_size, 32000);
  EXPECT_EQ(config.max_position_embeddings, 4096);
  EXPECT_FLOAT_EQ(config.rms_norm_eps, 1e-5f);
  EXPECT_EQ(config.rope_theta, 10000);
  EXPECT_EQ(config.rope_scaling.kind, RopeScaling::Kind::none);
  EXPECT_EQ(config.checkpoint_dtype, DType::f16);
  EXPECT_FALSE(config.tie_word_embeddings || config.attention_bias || config.mlp_bias || config.qk_norm);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(2));
  EXPECT_EQ(config.bos_token_id, 1);
}

TEST(ModelConfigTest, ReadsLlama31) {
  const ModelConfig config = parse(json::parse(R"({
    "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
    "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "hidden_act": "silu", "hidden_size": 4096,
    "intermediate_size": 14336, "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama",
    "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05,
    "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                     "original_max_position_embeddings": 8192, "rope_type": "llama3"},
    "rope_theta": 500000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16", "vocab_size": 128256})"));
  EXPECT_EQ(config.num_kv_heads, 8);
  EXPECT_EQ(config.head_dim, 128);
  EXPECT_EQ(config.rope_theta, 500000);
  EXPECT_EQ(config.rope_scaling.kind, RopeScaling::Kind::llama3);
  EXPECT_EQ(config.rope_scaling.factor, 8);
  EXPECT_EQ(config.rope_scaling.original_max_position, 8192);
  EXPECT_EQ(config.checkpoint_dtype, DType::bf16);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(128001, 128008, 128009));
}

TEST(ModelConfigTest, ReadsLlama32WithTiedEmbeddings) {
  const ModelConfig config = parse(json::parse(R"({
    "architectures": ["LlamaForCausalLM"], "bos_token_id": 128000, "eos_token_id": 128001, "head_dim": 64,
    "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 8192, "max_position_embeddings": 131072,
    "num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8, "rms_norm_eps": 1e-05,
    "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                     "original_max_position_embeddings": 8192, "rope_type": "llama3"},
    "rope_theta": 500000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16", "vocab_size": 128256})"));
  EXPECT_EQ(config.head_dim, 64);
  EXPECT_TRUE(config.tie_word_embeddings);
}

TEST(ModelConfigTest, ReadsMistralWhoseEveryLayerSlides) {
  const ModelConfig config = parse(json::parse(R"({
    "architectures": ["MistralForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
    "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type": "mistral",
    "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0, "sliding_window": 4096, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
    "vocab_size": 32000})"));
  EXPECT_EQ(config.architecture, "MistralForCausalLM");
  EXPECT_EQ(config.window_of_layer(0), 4096);
  EXPECT_EQ(config.window_of_layer(31), 4096);
}

TEST(ModelConfigTest, ReadsQwen2WithBiasOnQueryKeyAndValueOnly) {
  const ModelConfig config = parse(json::parse(R"({
    "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
    "eos_token_id": 151643, "hidden_act": "silu", "hidden_size": 896, "intermediate_size": 4864,
    "max_position_embeddings": 131072, "max_window_layers": 24, "model_type": "qwen2", "num_attention_heads": 14,
    "num_hidden_layers": 24, "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
    "sliding_window": 131072, "tie_word_embeddings": true, "torch_dtype": "bfloat16", "use_mrope": false,
    "use_sliding_window": false, "vocab_size": 151936})"));
  EXPECT_EQ(config.num_heads, 14);
  EXPECT_EQ(config.num_kv_heads, 2);
  EXPECT_EQ(config.head_dim, 64);
  EXPECT_TRUE(config.attention_bias);
  EXPECT_FALSE(config.attention_out_bias);
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_EQ(config.sliding_window, 0);
}

TEST(ModelConfigTest, ReadsQwen3WhoseHeadsAreWiderThanTheHiddenSize) {
  const ModelConfig config = parse(json::parse(R"({
    "architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "bos_token_id": 151643,
    "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024,
    "intermediate_size": 3072, "max_position_embeddings": 40960, "max_window_layers": 28, "model_type": "qwen3",
    "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8, "rms_norm_eps": 1e-06,
    "rope_scaling": null, "rope_theta": 1000000, "sliding_window": null, "tie_word_embeddings": true,
    "torch_dtype": "bfloat16", "use_cache": true, "use_sliding_window": false, "vocab_size": 151936})"));
  EXPECT_EQ(config.head_dim, 128);
  EXPECT_TRUE(config.qk_norm);
  EXPECT_FALSE(config.attention_bias);
  EXPECT_EQ(config.rope_theta, 1000000);
}

// ---- defaults of transformers

TEST(ModelConfigTest, AbsentFieldsTakeTheDefaultsOfTheArchitecture) {
  const ModelConfig llama = parse(tiny());
  EXPECT_EQ(llama.max_position_embeddings, 2048);
  EXPECT_FLOAT_EQ(llama.rms_norm_eps, 1e-6f);
  EXPECT_EQ(llama.head_dim, 8);
  EXPECT_EQ(llama.checkpoint_dtype, DType::f32);
  EXPECT_THAT(llama.eos_token_ids, ElementsAre(2));
  EXPECT_EQ(parse(tiny("MistralForCausalLM")).sliding_window, 4096);
  const ModelConfig qwen3 = parse(tiny("Qwen3ForCausalLM"));
  EXPECT_EQ(qwen3.head_dim, 128);
  EXPECT_EQ(qwen3.max_position_embeddings, 32768);
  EXPECT_EQ(qwen3.bos_token_id, -1);
  EXPECT_THAT(qwen3.eos_token_ids, IsEmpty());
  for (const char* name :
       {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"}) {
    EXPECT_FALSE(parse(tiny(name)).tie_word_embeddings) << name;
  }
}

TEST(ModelConfigTest, NumberOfKvHeadsThatIsNullMeansAsManyAsQueryHeads) {
  json object = tiny("MistralForCausalLM");
  object["num_attention_heads"] = 16;
  object["num_key_value_heads"] = nullptr;
  EXPECT_EQ(parse(object).num_kv_heads, 16);
  object.erase("num_key_value_heads");
  EXPECT_EQ(parse(object).num_kv_heads, 8);
  object["architectures"] = {"LlamaForCausalLM"};
  EXPECT_EQ(parse(object).num_kv_heads, 16);
}

TEST(ModelConfigTest, BiasesFollowTheArchitecture) {
  json object = tiny();
  object["attention_bias"] = true;
  object["mlp_bias"] = true;
  const ModelConfig llama = parse(object);
  EXPECT_TRUE(llama.attention_bias && llama.attention_out_bias && llama.mlp_bias);
  object["architectures"] = {"Qwen3ForCausalLM"};
  const ModelConfig qwen3 = parse(object);
  EXPECT_TRUE(qwen3.attention_bias && qwen3.attention_out_bias);
  EXPECT_FALSE(qwen3.mlp_bias);
  object["architectures"] = {"MistralForCausalLM"};
  EXPECT_FALSE(parse(object).attention_bias);
}

TEST(ModelConfigTest, DtypeIsReadFromTheNewKeyToo) {
  json object = tiny();
  object["dtype"] = "bfloat16";
  EXPECT_EQ(parse(object).checkpoint_dtype, DType::bf16);
  object["dtype"] = "float8_e4m3fn";
  EXPECT_THAT(fault(object), AllOf(HasSubstr("dtype: got \"float8_e4m3fn\""), HasSubstr("bfloat16")));
}

TEST(ModelConfigTest, HashDependsOnEveryByte) {
  const std::string text = tiny().dump();
  const auto hash = [](const std::string& bytes) { return parse_model_config(bytes, "x")->hash; };
  EXPECT_EQ(hash(text), hash(text));
  EXPECT_NE(hash(text), hash(text + "\n"));
  EXPECT_EQ(hash(text).size(), 16u);
}

// ---- sliding windows

TEST(ModelConfigTest, QwenSlidesFromMaxWindowLayersOnWhereAskedTo) {
  json object = tiny("Qwen2ForCausalLM");
  object["sliding_window"] = 32;
  object["max_window_layers"] = 3;
  EXPECT_EQ(parse(object).window_of_layer(3), 0);
  object["use_sliding_window"] = true;
  const ModelConfig config = parse(object);
  EXPECT_EQ(config.window_of_layer(2), 0);
  EXPECT_EQ(config.window_of_layer(3), 32);
}

TEST(ModelConfigTest, LayerTypesDecideWhichLayersSlide) {
  json object = tiny("Qwen3ForCausalLM");
  object["use_sliding_window"] = true;
  object["sliding_window"] = 16;
  object["layer_types"] = {"sliding_attention", "full_attention", "sliding_attention", "full_attention"};
  const ModelConfig config = parse(object);
  EXPECT_EQ(config.window_of_layer(0), 16);
  EXPECT_EQ(config.window_of_layer(1), 0);
  EXPECT_EQ(config.window_of_layer(2), 16);

  object["use_sliding_window"] = false;
  EXPECT_THAT(fault(object), HasSubstr("no sliding_window in use"));
  object["layer_types"] = {"full_attention"};
  EXPECT_THAT(fault(object), HasSubstr("a list of 4 times"));
  object["layer_types"] = {"full_attention", "full_attention", "linear_attention", "full_attention"};
  EXPECT_THAT(fault(object), HasSubstr("\"linear_attention\""));
}

TEST(ModelConfigTest, MistralWithoutAWindowDoesNotSlide) {
  json object = tiny("MistralForCausalLM");
  object["sliding_window"] = nullptr;
  EXPECT_EQ(parse(object).window_of_layer(0), 0);
}

// ---- refusals

TEST(ModelConfigTest, UnknownArchitectureListsTheKnownOnes) {
  EXPECT_THAT(fault(tiny("GemmaForCausalLM")),
              AllOf(HasSubstr("dir/config.json: architectures: got \"GemmaForCausalLM\""),
                    HasSubstr("LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM")));
  json object = tiny();
  object["architectures"] = json::array();
  EXPECT_THAT(fault(object), HasSubstr("architectures: got []"));
  object.erase("architectures");
  EXPECT_THAT(fault(object), HasSubstr("architectures: got nothing"));
}

TEST(ModelConfigTest, QuantizedCheckpointIsRefusedByName) {
  json object = tiny();
  object["quantization_config"] = {{"quant_method", "awq"}, {"bits", 4}};
  EXPECT_THAT(fault(object), HasSubstr("quantization_config: got \"awq\", wanted none"));
}

TEST(ModelConfigTest, EveryFieldIsCheckedAndNamed) {
  const std::vector<std::pair<std::string, json>> bad = {
      {"hidden_size", nullptr},
      {"hidden_size", 0},
      {"hidden_size", "64"},
      {"hidden_size", 64.5},
      {"hidden_size", 65},
      {"hidden_size", 1e18},
      {"intermediate_size", -1},
      {"num_hidden_layers", 5000},
      {"num_attention_heads", 0},
      {"num_key_value_heads", 3},
      {"num_key_value_heads", 0},
      {"head_dim", 15},
      {"head_dim", 4096},
      {"vocab_size", 18446744073709551615u},
      {"max_position_embeddings", 0},
      {"rms_norm_eps", -1e-6},
      {"rms_norm_eps", "small"},
      {"hidden_act", "gelu"},
      {"attention_bias", 1},
      {"tie_word_embeddings", "yes"},
      {"torch_dtype", "int8"},
      {"eos_token_id", 256},
      {"eos_token_id", json::array({1, -1})},
      {"eos_token_id", "2"},
      {"bos_token_id", 1e9},
      {"rope_theta", 0},
      {"rope_theta", "big"},
      {"rope_scaling", "linear"},
      {"partial_rotary_factor", 0.5},
      {"layer_types", "full_attention"},
  };
  for (const auto& [field, value] : bad) {
    json object = tiny();
    object[field] = value;
    EXPECT_THAT(fault(object),
                AllOf(HasSubstr("dir/config.json: "), HasSubstr(field + ": got "), HasSubstr(", wanted ")))
        << field << " = " << value;
  }
}

TEST(ModelConfigTest, EveryFieldOfRopeScalingIsCheckedAndNamed) {
  const std::vector<std::pair<std::string, json>> bad = {
      {"rope_type", {{"rope_type", "longrope"}, {"factor", 2}}},
      {"type", {{"type", "su"}, {"factor", 2}}},
      {"factor", {{"rope_type", "linear"}}},
      {"factor", {{"rope_type", "linear"}, {"factor", 0.5}}},
      {"factor", {{"rope_type", "dynamic"}, {"factor", "2"}}},
      {"low_freq_factor", {{"rope_type", "llama3"}, {"factor", 8}, {"high_freq_factor", 4}}},
      {"high_freq_factor",
       {{"rope_type", "llama3"}, {"factor", 8}, {"low_freq_factor", 4}, {"high_freq_factor", 4}}},
      {"original_max_position_embeddings",
       {{"rope_type", "yarn"}, {"factor", 8}, {"original_max_position_embeddings", 0}}},
      {"beta_fast", {{"rope_type", "yarn"}, {"factor", 8}, {"beta_fast", -1}}},
      {"truncate", {{"rope_type", "yarn"}, {"factor", 8}, {"truncate", 1}}},
      {"partial_rotary_factor", {{"rope_type", "default"}, {"partial_rotary_factor", 0.25}}},
      {"full_attention", {{"full_attention", {{"rope_type", "default"}}}}},
      {"rope_scaling", {{"rope_type", "yarn"}, {"factor", 8}, {"rope_theta", 1}}},
  };
  for (const auto& [field, block] : bad) {
    json object = tiny();
    object["rope_scaling"] = block;
    EXPECT_THAT(fault(object), AllOf(HasSubstr("rope_scaling"), HasSubstr(field + ": got "))) << block;
  }
  json object = tiny();
  object["rope_scaling"] = {{"rope_type", "mrope"}};
  EXPECT_THAT(fault(object), HasSubstr("default, dynamic, linear, llama3, yarn"));
}

TEST(ModelConfigTest, TextThatIsNotAConfigIsRefused) {
  const auto refused = [](const std::string& text) {
    const absl::StatusOr<ModelConfig> config = parse_model_config(text, "c.json");
    EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument) << text.substr(0, 40);
    return std::string(config.status().message());
  };
  EXPECT_THAT(refused(""), HasSubstr("c.json: not JSON"));
  EXPECT_THAT(refused("{\"hidden_size\": 64"), HasSubstr("not JSON at byte"));
  EXPECT_THAT(refused("[1]"), HasSubstr("wanted an object"));
  EXPECT_THAT(refused("{\"a\": 1, \"a\": 2}"), HasSubstr("key \"a\" twice"));
  EXPECT_THAT(refused(std::string(100000, '[')), HasSubstr("nested deeper than 64"));
  EXPECT_THAT(refused("{\"a\": \"\xff\"}"), HasSubstr("not JSON"));
  EXPECT_THAT(refused("{\"a\": 1e999}"), HasSubstr("not JSON"));
  const std::string long_token = refused("{\"a\": \"" + std::string(100000, '\xe4'));
  EXPECT_LT(long_token.size(), 1000u);
  EXPECT_TRUE(std::all_of(long_token.begin(), long_token.end(), [](char c) { return c >= ' ' && c < 127; }));
}

TEST(ModelConfigTest, MissingFileIsNotFound) {
  const absl::Status status = load_model_config("/nonexistent/config.json").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/nonexistent/config.json"));
  EXPECT_EQ(load_model_config("/").status().code(), absl::StatusCode::kInvalidArgument);
}

// ---- generation_config.json

TEST(GenerationDefaultsTest, WithoutDoSampleTheModelIsGreedy) {
  const auto defaults =
      parse_generation_defaults(R"({"temperature": 0.6, "top_p": 0.9, "repetition_penalty": 1.1})", "g");
  ASSERT_TRUE(defaults.ok()) << defaults.status();
  EXPECT_FALSE(defaults->do_sample);
  EXPECT_EQ(defaults->temperature, std::nullopt);
  EXPECT_EQ(defaults->top_p, std::nullopt);
  EXPECT_FLOAT_EQ(defaults->repetition_penalty.value(), 1.1f);
}

TEST(GenerationDefaultsTest, WithDoSampleTheFileDecides) {
  const auto defaults = parse_generation_defaults(
      R"({"do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.01,
          "eos_token_id": [151645, 151643]})",
      "g");
  ASSERT_TRUE(defaults.ok()) << defaults.status();
  EXPECT_FLOAT_EQ(defaults->temperature.value(), 0.6f);
  EXPECT_FLOAT_EQ(defaults->top_p.value(), 0.95f);
  EXPECT_FLOAT_EQ(defaults->min_p.value(), 0.01f);
  EXPECT_EQ(defaults->top_k, 20);
  EXPECT_THAT(defaults->eos_token_ids, ElementsAre(151645, 151643));
  EXPECT_EQ(parse_generation_defaults(R"({"do_sample": true})", "g")->temperature, 1.0f);
}

TEST(GenerationDefaultsTest, BadFieldIsNamed) {
  for (const char* text :
       {R"({"temperature": -1})", R"({"top_p": 1.5})", R"({"min_p": "x"})", R"({"top_k": 1.5})",
        R"({"repetition_penalty": 0})", R"({"eos_token_id": {}})", R"({"do_sample": 3})"}) {
    const absl::Status status = parse_generation_defaults(text, "gen.json").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("gen.json: "), HasSubstr(": got ")));
  }
}

TEST(GenerationDefaultsTest, MissingFileGivesDefaults) {
  const auto defaults = load_generation_defaults("/nonexistent");
  ASSERT_TRUE(defaults.ok()) << defaults.status();
  EXPECT_EQ(defaults->temperature, std::nullopt);
}

}  // namespace
}  // namespace trireme
