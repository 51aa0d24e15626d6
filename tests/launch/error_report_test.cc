#include "launch/client/error_report.h"

#include <gtest/gtest.h>

#include "launch/client/commands.h"
#include "proto/support/errors.h"

namespace trireme::client {
namespace {

using grpc::StatusCode;

TEST(ErrorReportTest, NamesTheField) {
  const grpc::Status status = rpc::invalid_field("sampling.temperature", "got -1, wanted 0 to 100");
  EXPECT_NE(describe(status).find("INVALID_ARGUMENT"), std::string::npos);
  EXPECT_NE(describe(status).find("sampling.temperature"), std::string::npos);
  EXPECT_NE(describe(status).find("got -1, wanted 0 to 100"), std::string::npos);
  EXPECT_EQ(error_json(status)["field"], "sampling.temperature");
  EXPECT_EQ(error_json(status)["description"], "got -1, wanted 0 to 100");
  EXPECT_EQ(exit_code_for(status), kExitInvalid);
}

TEST(ErrorReportTest, SaysWhenToRetry) {
  const grpc::Status status =
      rpc::retry_after(StatusCode::RESOURCE_EXHAUSTED, "queue is full", std::chrono::milliseconds(1500));
  EXPECT_EQ(describe(status), "RESOURCE_EXHAUSTED: queue is full [retry in 1500 ms]");
  EXPECT_EQ(error_json(status)["retry_delay_ms"], 1500);
  EXPECT_EQ(exit_code_for(status), kExitUnavailable);
}

TEST(ErrorReportTest, SaysHowManyTokensWereSent) {
  const grpc::Status status =
      rpc::with_info(StatusCode::UNAVAILABLE, "replica r0 is gone", "REPLICA_LOST", {{"tokens_sent", "17"}});
  EXPECT_EQ(describe(status), "UNAVAILABLE: replica r0 is gone [tokens_sent 17]");
  EXPECT_EQ(error_json(status)["reason"], "REPLICA_LOST");
  EXPECT_EQ(error_json(status)["metadata"]["tokens_sent"], "17");
}

TEST(ErrorReportTest, IsOneLineWhateverTheServerWrote) {
  const std::string line = describe({StatusCode::INTERNAL, "first\nsecond\r\nthird"});
  EXPECT_EQ(line.find_first_of("\r\n"), std::string::npos);
}

TEST(ErrorReportTest, ExitCodesAreTheDocumentedOnes) {
  EXPECT_EQ(exit_code_for(grpc::Status::OK), 0);
  EXPECT_EQ(exit_code_for({StatusCode::INTERNAL, ""}), 1);
  EXPECT_EQ(exit_code_for({StatusCode::NOT_FOUND, ""}), 2);
  EXPECT_EQ(exit_code_for({StatusCode::ALREADY_EXISTS, ""}), 2);
  EXPECT_EQ(exit_code_for({StatusCode::UNAVAILABLE, ""}), 3);
  EXPECT_EQ(exit_code_for({StatusCode::DEADLINE_EXCEEDED, ""}), 4);
}

TEST(ErrorReportTest, UndefinedCodesKeepTheirNumber) {
  EXPECT_EQ(code_name(static_cast<StatusCode>(99)), "CODE_99");
  EXPECT_EQ(code_name(StatusCode::UNAUTHENTICATED), "UNAUTHENTICATED");
}

}  // namespace
}  // namespace trireme::client
