#include "proto/support/errors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "google/rpc/status.pb.h"

namespace trireme::rpc {
namespace {

TEST(ErrorsTest, CodesCrossUnchanged) {
  for (int code = 0; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "why");
    const grpc::Status wire = to_grpc(status);
    EXPECT_EQ(static_cast<int>(wire.error_code()), code);
    EXPECT_EQ(from_grpc(wire), status);
  }
}

TEST(ErrorsTest, InvalidFieldNamesTheField) {
  const grpc::Status status = invalid_field("sampling.top_p", "is 2; wanted at most 1");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(status.error_message(), "sampling.top_p is 2; wanted at most 1");
  const auto detail = bad_request(status);
  ASSERT_TRUE(detail.has_value());
  ASSERT_EQ(detail->field_violations_size(), 1);
  EXPECT_EQ(detail->field_violations(0).field(), "sampling.top_p");
  EXPECT_FALSE(retry_info(status).has_value());
  EXPECT_FALSE(error_info(status).has_value());
}

TEST(ErrorsTest, DetailsAreAGoogleRpcStatus) {
  const grpc::Status status = unknown_resource("model", "gpt", "no such model");
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  EXPECT_EQ(details.code(), 5);
  EXPECT_EQ(details.message(), "no such model");
  ASSERT_EQ(details.details_size(), 1);
  EXPECT_EQ(details.details(0).type_url(), "type.googleapis.com/google.rpc.ResourceInfo");
}

TEST(ErrorsTest, RetryDelayKeepsMilliseconds) {
  const grpc::Status status =
      retry_after(grpc::StatusCode::UNAVAILABLE, "busy", std::chrono::milliseconds(2345));
  const auto detail = retry_info(status);
  ASSERT_TRUE(detail.has_value());
  EXPECT_EQ(detail->retry_delay().seconds(), 2);
  EXPECT_EQ(detail->retry_delay().nanos(), 345'000'000);
}

TEST(ErrorsTest, InfoCarriesMetadata) {
  const grpc::Status status =
      with_info(grpc::StatusCode::UNAVAILABLE, "lost", "REPLICA_LOST", {{"tokens_sent", "17"}});
  const auto detail = error_info(status);
  ASSERT_TRUE(detail.has_value());
  EXPECT_EQ(detail->reason(), "REPLICA_LOST");
  EXPECT_EQ(detail->domain(), "trireme");
  EXPECT_EQ(detail->metadata().at("tokens_sent"), "17");
}

TEST(ErrorsTest, BytesThatAreNoDetailsAreNone) {
  EXPECT_FALSE(bad_request(grpc::Status(grpc::StatusCode::UNKNOWN, "x")).has_value());
  EXPECT_FALSE(bad_request(grpc::Status(grpc::StatusCode::UNKNOWN, "x", "\xff\xff\xff")).has_value());
}

TEST(ErrorsTest, LongMessagesStayUnderTheMetadataCapAndWhole) {
  std::string long_name;
  for (int i = 0; i < 100'000; ++i) long_name += "é";
  const grpc::Status status = unknown_resource("model", long_name, "no model " + long_name);
  EXPECT_LT(3 * status.error_message().size() + 4 * status.error_details().size() / 3, 16u * 1024);
  EXPECT_EQ(status.error_message().substr(status.error_message().size() - 5), "é...");
  EXPECT_LT(to_grpc(absl::InternalError(long_name)).error_message().size(), 1100u);
}

}  // namespace
}  // namespace trireme::rpc
