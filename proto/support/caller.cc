#include "proto/support/caller.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "proto/support/errors.h"

namespace trireme::rpc {
namespace {

std::string without_port(const std::string& peer) {
  if (!absl::StartsWith(peer, "ipv4:") && !absl::StartsWith(peer, "ipv6:")) return peer;
  return peer.substr(0, peer.rfind(':'));
}

bool is_printable(const grpc::string_ref& text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c <= 0x7e; });
}

}  // namespace

grpc::Status identify_client(const CallMetadata& metadata, const std::string& peer, std::string& client) {
  const auto [begin, end] = metadata.equal_range(kClientKey);
  if (begin == end) {
    client = without_port(peer);
    return grpc::Status::OK;
  }
  const grpc::string_ref& name = begin->second;
  if (std::next(begin) != end) return invalid_field(kClientKey, "is there more than once");
  if (name.empty()) return invalid_field(kClientKey, "is empty");
  if (name.size() > kMaxClientBytes) {
    return invalid_field(
        kClientKey, absl::StrCat("has ", name.size(), " bytes; at most ", kMaxClientBytes, " are allowed"));
  }
  if (!is_printable(name)) return invalid_field(kClientKey, "has characters that are not printable ASCII");
  client.assign(name.data(), name.size());
  return grpc::Status::OK;
}

bool is_resumed(const CallMetadata& metadata) {
  const auto found = metadata.find(kResumesKey);
  int count = 0;
  return found != metadata.end() &&
         absl::SimpleAtoi(absl::string_view(found->second.data(), found->second.size()), &count) && count > 0;
}

}  // namespace trireme::rpc
