#include "engine/weights/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "tests/engine/weights/test_checkpoint.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string header_fault(const std::string& json, uint64_t data_bytes) {
  const auto entries = parse_safetensors_header(json, data_bytes, "m.safetensors");
  EXPECT_EQ(entries.status().code(), absl::StatusCode::kInvalidArgument) << json << ": " << entries.status();
  EXPECT_THAT(std::string(entries.status().message()), HasSubstr("m.safetensors: ")) << json;
  return std::string(entries.status().message());
}

TEST(SafetensorsHeaderTest, ReadsTensorsWithTheirPlaceInTheFile) {
  const std::string json =
      R"({"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[8,20]},)"
      R"("a":{"data_offsets":[0,8],"shape":[2],"dtype":"F32"},"s":{"dtype":"I64","shape":[],"data_offsets":[20,28]},)"
      R"("e":{"dtype":"F16","shape":[0,4],"data_offsets":[28,28]}}   )";
  const auto entries = parse_safetensors_header(json, 28, "f");
  ASSERT_TRUE(entries.ok()) << entries.status();
  ASSERT_EQ(entries->size(), 4u);
  const TensorEntry& b = entries->at("b");
  EXPECT_EQ(b.dtype, DType::bf16);
  EXPECT_THAT(b.shape, ElementsAre(2, 3));
  EXPECT_EQ(b.offset, 8 + json.size() + 8);
  EXPECT_EQ(b.bytes, 12u);
  EXPECT_EQ(entries->at("s").dtype, std::nullopt);
  EXPECT_EQ(entries->at("s").dtype_name, "I64");
  EXPECT_EQ(entries->at("e").bytes, 0u);
}

TEST(SafetensorsHeaderTest, EveryRuleOfTheFormatIsKept) {
  const auto tensor = [](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return "{\"t\":{\"dtype\":" + dtype + ",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}}";
  };
  const std::vector<std::pair<std::string, std::string>> bad = {
      {"", "does not begin with"},
      {" {}", "does not begin with"},
      {"[]", "does not begin with"},
      {"{", "not JSON"},
      {"{}x", "not JSON"},
      {tensor("\"F33\"", "[2]", "[0,8]"), "unknown dtype \"F33\""},
      {tensor("7", "[2]", "[0,8]"), "\"dtype\": got 7, wanted a text"},
      {tensor("null", "[2]", "[0,8]"), "got null"},
      {tensor("\"F32\"", "2", "[0,8]"), "\"shape\": got 2, wanted a list"},
      {tensor("\"F32\"", "[-2]", "[0,8]"), "got -2, wanted an integer that is not negative"},
      {tensor("\"F32\"", "[2.0]", "[0,8]"), "got 2.0"},
      {tensor("\"F32\"", "[[2]]", "[0,8]"), "got a list"},
      {tensor("\"F32\"", "[{}]", "[0,8]"), "got an object"},
      {tensor("\"F32\"", "[\"2\"]", "[0,8]"), "got \"2\""},
      {tensor("\"F32\"", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,2]", "[0,8]"), "more than 16 dimensions"},
      {tensor("\"F32\"", "[9223372036854775807,2]", "[0,8]"), "not a whole number of bytes below 2^64 bits"},
      {tensor("\"F32\"", "[4294967296,4294967296]", "[0,8]"), "not a whole number of bytes"},
      {tensor("\"F32\"", "[18446744073709551615]", "[0,8]"), "got 18446744073709551615"},
      {tensor("\"F4\"", "[3]", "[0,8]"), "not a whole number of bytes"},
      {tensor("\"F32\"", "[2]", "[0,9]"), "within 8 bytes"},
      {tensor("\"F32\"", "[2]", "[8,0]"), "within 8 bytes"},
      {tensor("\"F32\"", "[2]", "[0]"), "wanted a begin and an end"},
      {tensor("\"F32\"", "[2]", "[0,4,8]"), "more than 2 numbers"},
      {tensor("\"F32\"", "[2]", "[0,18446744073709551615]"), "within 8 bytes"},
      {tensor("\"F32\"", "[3]", "[0,8]"), "got 8 bytes, wanted 12 for [3] of F32"},
      {tensor("\"F32\"", "[1]", "[4,8]"), "begins at byte 4 of the data, wanted 0"},
      {tensor("\"F32\"", "[1]", "[0,4]"), "tensors end at byte 4 of the data, the file holds 8"},
      {"{}", "tensors end at byte 0"},
      {R"({"t":{"dtype":"F32","shape":[2]}})", "has no data_offsets"},
      {R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"more":1}})", "the field \"more\""},
      {R"({"t":{"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]}})", "\"shape\" twice"},
      {R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"t":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
       "\"t\" twice"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
       "(overlap)"},
      {R"({"t":5})", "\"t\": got 5, wanted an object"},
      {R"({"__metadata__":{"a":1}})", "wanted a text"},
      {R"({"__metadata__":{"a":{}}})", "got an object"},
      {R"({"__metadata__":{"a":"b","a":"b"}})", "twice"},
      {"{\"t\":" + std::string(100000, '['), "got a list"},
      {"{\"\xff\":{}}", "not JSON"},
  };
  for (const auto& [json, wanted] : bad) EXPECT_THAT(header_fault(json, 8), HasSubstr(wanted)) << json;
}

TEST(SafetensorsHeaderTest, HoleIsNamedWithBothOffsets) {
  EXPECT_THAT(header_fault(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                           R"("b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}})",
                           12),
              AllOf(HasSubstr("\"b\": begins at byte 8"), HasSubstr("wanted 4"), HasSubstr("(hole)")));
}

const std::vector<TestTensor> kTensors = {
    {"embed", "BF16", {8, 6}, 1}, {"norm", "F32", {6}, 2}, {"proj", "F16", {4, 6}, 3}};

TEST(CheckpointTest, ReadsPartsOfATensor) {
  const TempDir dir;
  write_file(dir.path("model.safetensors"), safetensors_bytes(kTensors));
  const auto checkpoint = Checkpoint::open(dir.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const auto entry = (*checkpoint)->find("norm");
  ASSERT_TRUE(entry.ok());
  float values[2] = {};
  ASSERT_TRUE((*checkpoint)->read(**entry, "norm", 8, values, 8).ok());
  EXPECT_THAT(values, ElementsAre(element(2, 2, 0), element(2, 3, 0)));
  EXPECT_EQ((*checkpoint)->find("nope").status().code(), absl::StatusCode::kNotFound);
}

TEST(CheckpointTest, FileCutShortIsRefusedAtEveryLength) {
  const TempDir dir;
  const std::string whole = safetensors_bytes(kTensors);
  const std::string path = dir.path("model.safetensors");
  write_file(path, whole);
  for (size_t length = whole.size(); length-- > 0;) {
    ASSERT_EQ(truncate(path.c_str(), static_cast<off_t>(length)), 0);
    const auto checkpoint = Checkpoint::open(dir.path());
    ASSERT_EQ(checkpoint.status().code(), absl::StatusCode::kInvalidArgument) << length;
    ASSERT_THAT(std::string(checkpoint.status().message()), HasSubstr(dir.path("model.safetensors")));
  }
}

TEST(CheckpointTest, FileThatShrinksAfterOpeningIsDataLoss) {
  const TempDir dir;
  const std::string path = dir.path("model.safetensors");
  write_file(path, safetensors_bytes(kTensors));
  const auto checkpoint = Checkpoint::open(dir.path());
  ASSERT_TRUE(checkpoint.ok());
  const TensorEntry& proj = *(*checkpoint)->find("proj").value();
  ASSERT_EQ(truncate(path.c_str(), static_cast<off_t>(proj.offset + 10)), 0);
  char bytes[48] = {};
  const absl::Status status = (*checkpoint)->read(proj, "proj", 0, bytes, sizeof(bytes));
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr(path + ": proj: at byte " + std::to_string(proj.offset)),
                    HasSubstr("got 10 bytes, wanted 48")));
}

TEST(CheckpointTest, EveryFlippedBitOfTheHeaderGivesAnAnswer) {
  const TempDir dir;
  const std::string whole = safetensors_bytes(kTensors);
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, whole.data(), 8);
  write_file(dir.path("model.safetensors"), whole);
  std::fstream file(dir.path("model.safetensors"), std::ios::binary | std::ios::in | std::ios::out);
  const auto put = [&](size_t byte, int value) {
    file.seekp(static_cast<std::streamoff>(byte)).put(static_cast<char>(value)).flush();
  };
  size_t refused = 0;
  for (size_t bit = 0; bit < 8 * (8 + header_bytes); ++bit) {
    if (bit >= 8 && bit % 8 == 0) put(bit / 8 - 1, whole[bit / 8 - 1]);
    put(bit / 8, whole[bit / 8] ^ 1 << bit % 8);
    const auto checkpoint = Checkpoint::open(dir.path());
    if (checkpoint.ok()) continue;  // a letter of a name, a free dtype of the same size
    ++refused;
    ASSERT_EQ(checkpoint.status().code(), absl::StatusCode::kInvalidArgument) << checkpoint.status();
  }
  EXPECT_GT(refused, 8 * header_bytes / 2);
}

TEST(CheckpointTest, HeaderLengthIsBounded) {
  const TempDir dir;
  for (const uint64_t length : {uint64_t{100'000'001}, UINT64_MAX, UINT64_MAX - 7, uint64_t{1} << 63}) {
    std::string bytes(64, ' ');
    std::memcpy(bytes.data(), &length, 8);
    write_file(dir.path("model.safetensors"), bytes);
    EXPECT_THAT(std::string(Checkpoint::open(dir.path()).status().message()),
                HasSubstr("got a header of " + std::to_string(length)));
  }
}

void write_index(const TempDir& dir, const nlohmann::json& weight_map) {
  write_file(dir.path("model.safetensors.index.json"),
             nlohmann::json{{"metadata", {{"total_size", 1}}}, {"weight_map", weight_map}}.dump());
}

TEST(CheckpointTest, ReadsShardsThroughSymbolicLinks) {
  const TempDir dir;
  mkdir(dir.path("blobs").c_str(), 0700);
  write_file(dir.path("blobs/1234"), safetensors_bytes({kTensors[0]}));
  write_file(dir.path("m-2.safetensors"), safetensors_bytes({kTensors[1], kTensors[2]}));
  ASSERT_EQ(symlink("blobs/1234", dir.path("m-1.safetensors").c_str()), 0);
  write_index(dir, {{"embed", "m-1.safetensors"}, {"norm", "m-2.safetensors"}, {"proj", "m-2.safetensors"}});
  const auto checkpoint = Checkpoint::open(dir.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ((*checkpoint)->tensors().size(), 3u);
  uint16_t value = 0;
  ASSERT_TRUE((*checkpoint)->read(*(*checkpoint)->find("embed").value(), "embed", 2, &value, 2).ok());
  EXPECT_EQ(std::bit_cast<float>(static_cast<uint32_t>(value) << 16), element(1, 0, 1));
}

TEST(CheckpointTest, IndexMayNameOnlyPlainFiles) {
  for (const std::string name : {"../m.safetensors", "/etc/m.safetensors", "a/b.safetensors", "", "..",
                                 "m.bin", "m\0.safetensors", ".safetensors"}) {
    const TempDir dir;
    write_index(dir, {{"embed", name}});
    const absl::Status status = Checkpoint::open(dir.path()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(std::string(status.message()), HasSubstr("wanted the plain name")) << name;
  }
  const TempDir dir;
  write_index(dir, {{"embed", std::string("m\0.safetensors", 14)}});
  EXPECT_EQ(Checkpoint::open(dir.path()).status().code(), absl::StatusCode::kInvalidArgument);
  write_index(dir, {{"embed", std::string(64000, 'm') + ".safetensors"}});
  EXPECT_EQ(Checkpoint::open(dir.path()).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(CheckpointTest, IndexAndShardsMustAgree) {
  const TempDir dir;
  write_file(dir.path("a.safetensors"), safetensors_bytes({kTensors[0]}));
  write_index(dir, {{"embed", "a.safetensors"}, {"norm", "a.safetensors"}});
  EXPECT_THAT(std::string(Checkpoint::open(dir.path()).status().message()), HasSubstr("\"norm\" is not in"));

  write_index(dir, {{"embed", "a.safetensors"}, {"norm", "b.safetensors"}});
  const absl::Status missing = Checkpoint::open(dir.path()).status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.message()), HasSubstr(dir.path("b.safetensors")));

  write_file(dir.path("b.safetensors"), safetensors_bytes({kTensors[0], kTensors[1]}));
  EXPECT_THAT(std::string(Checkpoint::open(dir.path()).status().message()),
              AllOf(HasSubstr("\"embed\" is in"), HasSubstr("too")));

  write_file(dir.path("model.safetensors.index.json"), "{\"weight_map\": []}");
  EXPECT_EQ(Checkpoint::open(dir.path()).status().code(), absl::StatusCode::kInvalidArgument);
  write_file(dir.path("model.safetensors.index.json"), std::string(100000, '['));
  EXPECT_EQ(Checkpoint::open(dir.path()).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(CheckpointTest, FolderWithoutACheckpointIsNotFound) {
  const TempDir dir;
  EXPECT_EQ(Checkpoint::open(dir.path()).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Checkpoint::open(dir.path("nope")).status().code(), absl::StatusCode::kNotFound);
}

TEST(CheckpointTest, PipeInPlaceOfAFileDoesNotHang) {
  const TempDir dir;
  ASSERT_EQ(mkfifo(dir.path("model.safetensors").c_str(), 0600), 0);
  EXPECT_THAT(std::string(Checkpoint::open(dir.path()).status().message()), HasSubstr("not a regular file"));
}

}  // namespace
}  // namespace trireme
