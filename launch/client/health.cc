#include "launch/client/health.h"

#include <array>
#include <future>

#include <google/protobuf/empty.pb.h>
#include <google/protobuf/unknown_field_set.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/impl/codegen/proto_utils.h>

#include "proto/support/errors.h"

namespace trireme::client {

absl::StatusOr<std::string> check_health(const std::shared_ptr<grpc::Channel>& channel,
                                         grpc::ClientContext& context) {
  // Debian's gRPC serves the health protocol but ships no schema of it. The request is empty for "the whole
  // server", and the response is one enum in field 1: Empty carries both, the enum as an unknown field.
  using google::protobuf::Empty;
  grpc::TemplatedGenericStub<Empty, Empty> stub(channel);
  const Empty request;
  Empty response;
  std::promise<grpc::Status> done;
  stub.UnaryCall(&context, "/grpc.health.v1.Health/Check", grpc::StubOptions(), &request, &response,
                 [&done](grpc::Status status) { done.set_value(std::move(status)); });
  if (const grpc::Status status = done.get_future().get(); !status.ok()) return rpc::from_grpc(status);
  static constexpr std::array<const char*, 4> kNames = {"UNKNOWN", "SERVING", "NOT_SERVING",
                                                        "SERVICE_UNKNOWN"};
  uint64_t value = 0;
  const auto& fields = response.GetReflection()->GetUnknownFields(response);
  for (int i = 0; i < fields.field_count(); ++i) {
    const auto& field = fields.field(i);
    if (field.number() == 1 && field.type() == google::protobuf::UnknownField::TYPE_VARINT)
      value = field.varint();
  }
  return kNames[value < kNames.size() ? value : 0];
}

}  // namespace trireme::client
