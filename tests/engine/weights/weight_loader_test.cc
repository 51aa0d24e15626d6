#include "engine/weights/weight_loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "tests/engine/weights/fake_backend.h"
#include "tests/engine/weights/test_checkpoint.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

TensorSlice slice(const std::string& name, int64_t rows, int64_t cols) {
  return {.name = name, .tensor_rows = rows, .tensor_cols = cols, .num_rows = rows, .num_cols = cols};
}

Parameter matrix(int64_t rows, int64_t cols, std::vector<TensorSlice> slices) {
  Parameter parameter;
  parameter.rows = rows;
  parameter.cols = cols;
  parameter.slices = std::move(slices);
  return parameter;
}

Parameter vector(int64_t rows, std::vector<TensorSlice> slices) {
  Parameter parameter = matrix(rows, 1, std::move(slices));
  parameter.kind = Parameter::Kind::vector;
  return parameter;
}

/// Two shards of mixed dtypes.
class WeightLoaderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    write_file(dir_.path("m-1.safetensors"), safetensors_bytes({{"q", "BF16", {32, 24}, 1},
                                                                {"k", "F16", {16, 24}, 2},
                                                                {"v", "F32", {16, 24}, 3},
                                                                {"down", "BF16", {6, 1200}, 4}}));
    write_file(dir_.path("m-2.safetensors"), safetensors_bytes({{"norm", "F16", {24}, 5},
                                                                {"bias", "BF16", {16}, 6},
                                                                {"lm_head.weight", "F32", {8, 24}, 7},
                                                                {"x.rotary_emb.inv_freq", "F32", {4}, 8},
                                                                {"extra", "F32", {2}, 9}}));
    nlohmann::json map;
    for (const char* name : {"q", "k", "v", "down"}) map[name] = "m-1.safetensors";
    for (const char* name : {"norm", "bias", "lm_head.weight", "x.rotary_emb.inv_freq", "extra"}) {
      map[name] = "m-2.safetensors";
    }
    write_file(dir_.path("model.safetensors.index.json"), nlohmann::json{{"weight_map", map}}.dump());
    open();
  }

  void open() {
    auto checkpoint = Checkpoint::open(dir_.path());
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    checkpoint_ = *std::move(checkpoint);
  }

  absl::Status load(const std::vector<Parameter*>& parameters, int num_threads = 3,
                    int64_t piece_elements = 100) {
    stats_ = {};
    return load_parameters(*checkpoint_, parameters, DType::bf16, backend_, num_threads, &stats_,
                           piece_elements);
  }

  TempDir dir_;
  std::unique_ptr<Checkpoint> checkpoint_;
  FakeBackend backend_;
  LoadStats stats_;
};

/// The second of two ranks' merged query, key and value.
Parameter merged_qkv() {
  TensorSlice q = slice("q", 32, 24), k = slice("k", 16, 24), v = slice("v", 16, 24);
  q.row = 16, q.num_rows = 16;
  k.row = 8, k.num_rows = 8, k.to_row = 16;
  v.row = 8, v.num_rows = 8, v.to_row = 24;
  return matrix(32, 24, {q, k, v});
}

TEST_F(WeightLoaderTest, MergedParameterTakesRowsOfTensorsOfDifferentDtypes) {
  for (const int64_t piece : {int64_t{1}, int64_t{7}, int64_t{24}, int64_t{100}, kPieceElements}) {
    Parameter qkv = merged_qkv();
    ASSERT_TRUE(load({&qkv}, 4, piece).ok());
    const FakeWeight& weight = fake(qkv);
    EXPECT_EQ(weight.dtype(), DType::bf16);
    EXPECT_THAT(weight.num_writes, Each(1));
    for (int64_t c = 0; c < 24; ++c) {
      for (int64_t r = 0; r < 16; ++r) ASSERT_EQ(weight.at(r, c), element(1, 16 + r, c));
      for (int64_t r = 0; r < 8; ++r) ASSERT_EQ(weight.at(16 + r, c), element(2, 8 + r, c));
      for (int64_t r = 0; r < 8; ++r) ASSERT_EQ(weight.at(24 + r, c), element(3, 8 + r, c));
    }
    EXPECT_EQ(stats_.bytes_read, 24u * (16 * 2 + 8 * 2 + 8 * 4));
    EXPECT_EQ(stats_.weight_bytes, 32u * 24 * 2);
  }
}

TEST_F(WeightLoaderTest, WideColumnSliceReadsNothingElse) {
  for (const int64_t piece : {int64_t{50}, int64_t{600}, int64_t{1300}, kPieceElements}) {
    TensorSlice part = slice("down", 6, 1200);
    part.col = 600, part.num_cols = 600;
    Parameter down = matrix(6, 600, {part});
    ASSERT_TRUE(load({&down}, 2, piece).ok());
    EXPECT_THAT(fake(down).num_writes, Each(1));
    for (int64_t r = 0; r < 6; ++r) {
      for (int64_t c = 0; c < 600; ++c) ASSERT_EQ(fake(down).at(r, c), element(4, r, 600 + c));
    }
    EXPECT_EQ(stats_.bytes_read, 6u * 600 * 2);
  }
}

TEST_F(WeightLoaderTest, NarrowColumnSliceOfShortRowsReadsAcrossThem) {
  TensorSlice part = slice("q", 32, 24);
  part.col = 18, part.num_cols = 6;
  Parameter narrow = matrix(32, 6, {part});
  ASSERT_TRUE(load({&narrow}, 1, kPieceElements).ok());
  for (int64_t r = 0; r < 32; ++r) {
    for (int64_t c = 0; c < 6; ++c) ASSERT_EQ(fake(narrow).at(r, c), element(1, r, 18 + c));
  }
  EXPECT_EQ(stats_.bytes_read, 2u * (31 * 24 + 6));
}

TEST_F(WeightLoaderTest, ElementsThatNoSliceCoversAreZero) {
  TensorSlice head = slice("lm_head.weight", 8, 24);
  head.row = 6, head.num_rows = 2;
  Parameter padded = matrix(16, 24, {head});
  Parameter padding = matrix(16, 24, {});
  ASSERT_TRUE(load({&padded, &padding}).ok());
  EXPECT_EQ(fake(padded).at(1, 3), element(7, 7, 3));
  EXPECT_EQ(fake(padded).at(2, 3), 0);
  EXPECT_THAT(fake(padding).values, Each(0.0f));
}

TEST_F(WeightLoaderTest, VectorsBecomeF32) {
  TensorSlice part = slice("bias", 16, 1);
  part.row = 8, part.num_rows = 8;
  TensorSlice second = part;
  second.row = 0, second.to_row = 8;
  Parameter norm = vector(24, {slice("norm", 24, 1)});
  Parameter bias = vector(16, {part, second});
  ASSERT_TRUE(load({&norm, &bias}, 2, 5).ok());
  ASSERT_EQ(norm.vector.cols, 24);
  ASSERT_EQ(norm.vector.rows, 1);
  for (int64_t i = 0; i < 24; ++i) EXPECT_EQ(norm.vector.as<float>()[i], element(5, i, 0));
  for (int64_t i = 0; i < 16; ++i) EXPECT_EQ(bias.vector.as<float>()[i], element(6, (i + 8) % 16, 0));
  EXPECT_EQ(stats_.weight_bytes, 4u * (24 + 16));
}

TEST_F(WeightLoaderTest, UnusedTensorsAreNamedUnlessKnownToBeHarmless) {
  Parameter qkv = merged_qkv();
  ASSERT_TRUE(load({&qkv}).ok());
  EXPECT_THAT(stats_.unused, ElementsAre("bias", "down", "extra", "norm"));
}

TEST_F(WeightLoaderTest, FewParametersAreHalfFilledAtATime) {
  std::vector<Parameter> parameters;
  for (int i = 0; i < 20; ++i) parameters.push_back(matrix(32, 24, {slice("q", 32, 24)}));
  std::vector<Parameter*> pointers;
  for (Parameter& parameter : parameters) pointers.push_back(&parameter);
  ASSERT_TRUE(load(pointers, 3, 24).ok());
  EXPECT_LE(backend_.max_open, 4);
  EXPECT_EQ(backend_.num_prepared, 20);
  for (const Parameter& parameter : parameters) EXPECT_THAT(fake(parameter).num_writes, Each(1));
}

TEST_F(WeightLoaderTest, FaultsAreListedBeforeAnythingIsRead) {
  Parameter wrong_shape = matrix(32, 12, {slice("q", 32, 12)});
  Parameter wrong_rank = matrix(24, 1, {slice("norm", 24, 1)});
  Parameter missing = vector(4, {slice("gone", 4, 1)});
  const absl::Status status = load({&wrong_shape, &wrong_rank, &missing});
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(
      std::string(status.message()),
      AllOf(HasSubstr("3 faults"),
            HasSubstr("q in " + dir_.path("m-1.safetensors") + ": got shape [32, 24], wanted [32, 12]"),
            HasSubstr("norm in " + dir_.path("m-2.safetensors") + ": got shape [24], wanted [24, 1]"),
            HasSubstr("gone: not in the checkpoint")));
  EXPECT_EQ(backend_.num_prepared, 0);
}

TEST_F(WeightLoaderTest, OnlyTheFirstTenFaultsAreListed) {
  std::vector<Parameter> parameters;
  for (int i = 0; i < 13; ++i) {
    parameters.push_back(vector(4, {slice("gone." + std::to_string(i) + ".end", 4, 1)}));
  }
  std::vector<Parameter*> pointers;
  for (Parameter& parameter : parameters) pointers.push_back(&parameter);
  EXPECT_THAT(std::string(load(pointers).message()),
              AllOf(HasSubstr("13 faults"), HasSubstr("gone.9.end"), Not(HasSubstr("gone.10.end")),
                    HasSubstr("and 3 more")));
}

TEST_F(WeightLoaderTest, DtypeThatCannotBeComputedWithIsRefused) {
  write_file(dir_.path("model.safetensors"),
             with_header(R"({"ids":{"dtype":"I64","shape":[2],"data_offsets":[0,16]}})", 16));
  open();
  Parameter ids = vector(2, {slice("ids", 2, 1)});
  EXPECT_THAT(std::string(load({&ids}).message()), HasSubstr("got dtype I64, wanted F32, F16 or BF16"));
}

TEST_F(WeightLoaderTest, FileThatShrinksIsAnErrorAndLeavesNothing) {
  const TensorEntry& down = *checkpoint_->find("down").value();
  Parameter q = matrix(32, 24, {slice("q", 32, 24)});
  Parameter norm = vector(24, {slice("norm", 24, 1)});
  Parameter last = matrix(6, 1200, {slice("down", 6, 1200)});
  ASSERT_EQ(truncate(down.file.c_str(), static_cast<off_t>(down.offset + 4999)), 0);
  const absl::Status status = load({&q, &norm, &last}, 4, 1200);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr(down.file + ": down: at byte "), HasSubstr("wanted 2400")));
  EXPECT_TRUE(q.weight == nullptr && norm.memory.data() == nullptr && last.weight == nullptr);
}

TEST_F(WeightLoaderTest, BackendWithoutMemoryIsAnErrorAtWhicheverAllocation) {
  for (int allocations = 0; allocations < 4; ++allocations) {
    backend_.allocations_left = allocations;
    Parameter q = matrix(32, 24, {slice("q", 32, 24)});
    Parameter norm = vector(24, {slice("norm", 24, 1)});
    Parameter padding = matrix(8, 8, {});
    const absl::Status status = load({&q, &norm, &padding});
    EXPECT_EQ(status.code(), allocations < 3 ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kOk);
    EXPECT_EQ(q.weight == nullptr, allocations < 3);
  }
}

TEST_F(WeightLoaderTest, OverlappingSlicesAbort) {
  Parameter twice = matrix(32, 24, {slice("q", 32, 24), slice("k", 16, 24)});
  EXPECT_DEATH((void)load({&twice}), "overlap");
  Parameter q = matrix(32, 24, {slice("q", 32, 24)});
  EXPECT_DEATH((void)load({&q, &q}), "check failed");
}

TEST_F(WeightLoaderTest, HalfPrecisionSpecialValuesConvertExactly) {
  const auto bits = [](float value) { return std::bit_cast<uint32_t>(value); };
  EXPECT_EQ(bits(f16_to_f32(0x0001)), bits(0x1p-24f));
  EXPECT_EQ(bits(f16_to_f32(0x83ff)), bits(-0x3ffp-24f));
  EXPECT_EQ(bits(f16_to_f32(0x7bff)), bits(65504.0f));
  EXPECT_EQ(bits(f16_to_f32(0xfc00)), 0xff800000u);
  EXPECT_EQ(bits(f16_to_f32(0x8000)), 0x80000000u);
  EXPECT_EQ(bits(f16_to_f32(0x3555)), bits(0x1.554p-2f));
  EXPECT_EQ(bits(bf16_to_f32(0x7fc1)), 0x7fc10000u);
}

// ---- choice of the dtype

TEST_F(WeightLoaderTest, DtypeFollowsCheckpointAndBackend) {
  std::string note;
  const auto chosen = [&](const std::string& wanted, DType checkpoint) {
    return choose_compute_dtype(wanted, checkpoint, backend_, &note);
  };
  EXPECT_EQ(*chosen("auto", DType::f32), DType::f32);
  EXPECT_EQ(note, "");
  EXPECT_EQ(*chosen("auto", DType::bf16), DType::bf16);
  EXPECT_EQ(note, "");
  EXPECT_EQ(*chosen("auto", DType::f16), DType::bf16);
  EXPECT_EQ(note, "weights of f16 are held as bf16");
  EXPECT_EQ(*chosen("f32", DType::bf16), DType::f32);
  EXPECT_EQ(note, "weights of bf16 are held as f32");
  EXPECT_EQ(chosen("f16", DType::f16).status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(chosen("f8", DType::f16).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(chosen("f8", DType::f16).status().message(), "dtype: got \"f8\", wanted auto, f32, bf16 or f16");
  backend_.can_f16 = true;
  for (const char* wanted : {"auto", "f16"}) {
    EXPECT_EQ(*chosen(wanted, DType::f16), DType::f16);
    EXPECT_EQ(note, "");
    EXPECT_EQ(wanted_compute_dtype(wanted, DType::f16), DType::f16);
  }
  EXPECT_EQ(*chosen("f16", DType::bf16), DType::f16);
  EXPECT_EQ(note, "weights of bf16 are held as f16");
  EXPECT_EQ(*chosen("auto", DType::bf16), DType::bf16);
  EXPECT_EQ(wanted_compute_dtype("auto", DType::bf16), DType::bf16);
  EXPECT_EQ(wanted_compute_dtype("f32", DType::f16), DType::f32);
  backend_.can_f16 = false;
  backend_.can_bf16 = false;
  EXPECT_EQ(*chosen("auto", DType::bf16), DType::f32);
  EXPECT_THAT(note, HasSubstr("fake cannot multiply bf16: no such unit"));
  EXPECT_EQ(chosen("bf16", DType::bf16).status().code(), absl::StatusCode::kUnimplemented);
}

TEST_F(WeightLoaderTest, DominantDtypeCountsBytes) { EXPECT_EQ(dominant_dtype(*checkpoint_), DType::bf16); }

}  // namespace
}  // namespace trireme
