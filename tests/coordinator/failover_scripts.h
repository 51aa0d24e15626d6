#pragma once
// Streams that break off, and what they add up to.

#include <numeric>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/coordinator/test_cluster.h"

namespace trireme {

inline constexpr int kTokens = 8;

inline std::vector<int32_t> count_to(int n) {
  std::vector<int32_t> ids(static_cast<size_t>(n));
  std::iota(ids.begin(), ids.end(), 0);
  return ids;
}

inline grpc::Status wait_for_the_end(grpc::ServerContext& context) {
  EXPECT_TRUE(eventually([&] { return context.IsCancelled(); }));
  return grpc::Status::CANCELLED;
}

/// Sends a part of a stream of kTokens tokens, whatever Cancel says, and dies when it is stopped.
inline FakeReplica::Script send_part(bool prompt, int num_tokens, bool finish, bool usage) {
  return [=](grpc::ServerContext& context, const v1::GenerateRequest& request, FakeReplica::Writer& writer) {
    if (prompt) send_prompt(request, writer);
    for (int i = 0; i < num_tokens; ++i) send_token(writer, i);
    v1::GenerateResponse end;
    if (finish) end.add_deltas()->set_finish_reason(v1::FINISH_REASON_LENGTH);
    if (usage) end.mutable_usage()->set_completion_tokens(num_tokens);
    if (finish || usage) writer.Write(end);
    return wait_for_the_end(context);
  };
}

inline std::string text_of(int num_tokens) {
  std::string text;
  for (int i = 0; i < num_tokens; ++i) absl::StrAppend(&text, "t", i, " ");
  return text;
}

inline void expect_whole(Stream& stream) {
  const grpc::Status status = stream.finish();
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(stream.tokens, count_to(kTokens));
  EXPECT_EQ(stream.text, text_of(kTokens));
  EXPECT_EQ(stream.num_prompts, 1);
  EXPECT_EQ(stream.finish_reason, v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(stream.usage.completion_tokens(), kTokens);
}

inline grpc::Status cancel(TestCluster& cluster, const std::string& request_id) {
  grpc::ClientContext context;
  set_patience(context);
  v1::CancelRequest request;
  request.set_request_id(request_id);
  v1::CancelResponse response;
  return cluster.inference->Cancel(&context, request, &response);
}

}  // namespace trireme
