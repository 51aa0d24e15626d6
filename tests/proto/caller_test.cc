#include "proto/support/caller.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proto/support/errors.h"

namespace trireme::rpc {
namespace {

using ::testing::HasSubstr;

std::string client_of(const CallMetadata& metadata, const std::string& peer) {
  std::string client;
  const grpc::Status status = identify_client(metadata, peer, client);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return client;
}

TEST(CallerTest, AClientIsItsAddressWhateverItsPort) {
  EXPECT_EQ(client_of({}, "ipv4:10.0.0.7:41234"), "ipv4:10.0.0.7");
  EXPECT_EQ(client_of({}, "ipv6:%5B2001:db8::1%5D:443"), "ipv6:%5B2001:db8::1%5D");
  EXPECT_EQ(client_of({}, "ipv6:[::1]:443"), "ipv6:[::1]");
  EXPECT_EQ(client_of({}, "unix:/run/a:1"), "unix:/run/a:1");
  EXPECT_EQ(client_of({}, "unix:"), "unix:");
}

TEST(CallerTest, OrWhatItIsCalled) {
  EXPECT_EQ(client_of({{"x-trireme-client", "user 17"}}, "ipv4:10.0.0.7:41234"), "user 17");
  const std::string longest(kMaxClientBytes, 'a');
  EXPECT_EQ(client_of({{"x-trireme-client", longest}}, "ipv4:10.0.0.7:41234"), longest);
}

TEST(CallerTest, ANameThatIsNoneIsRefused) {
  const auto refusal = [](const CallMetadata& metadata) {
    std::string client;
    const grpc::Status status = identify_client(metadata, "ipv4:10.0.0.7:41234", client);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(bad_request(status).value().field_violations(0).field(), "x-trireme-client");
    return status.error_message();
  };
  const std::string long_name(kMaxClientBytes + 1, 'a');
  EXPECT_THAT(refusal({{"x-trireme-client", long_name}}), HasSubstr("129 bytes"));
  EXPECT_THAT(refusal({{"x-trireme-client", ""}}), HasSubstr("empty"));
  EXPECT_THAT(refusal({{"x-trireme-client", "a\n"}}), HasSubstr("printable"));
  EXPECT_THAT(refusal({{"x-trireme-client", "\xc3\xa9"}}), HasSubstr("printable"));
  EXPECT_THAT(refusal({{"x-trireme-client", "a"}, {"x-trireme-client", "b"}}), HasSubstr("more than once"));
}

TEST(CallerTest, ResumedIsWhatWasLostBefore) {
  EXPECT_FALSE(is_resumed({}));
  EXPECT_FALSE(is_resumed({{"x-trireme-resumes", "0"}}));
  EXPECT_TRUE(is_resumed({{"x-trireme-resumes", "1"}}));
  EXPECT_FALSE(is_resumed({{"x-trireme-resumes", "-1"}}));
  EXPECT_FALSE(is_resumed({{"x-trireme-resumes", "yes"}}));
}

}  // namespace
}  // namespace trireme::rpc
