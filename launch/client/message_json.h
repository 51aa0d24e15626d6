#pragma once

#include <google/protobuf/message.h>
#include <nlohmann/json.hpp>

namespace trireme::client {

/// Every field of a message under its proto name, null where unset; 64-bit integers as numbers (protobuf's
/// own JSON quotes them), enums by name, a map as an array of {key, value}.
nlohmann::json message_json(const google::protobuf::Message& message);

}  // namespace trireme::client
