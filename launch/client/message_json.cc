#include "launch/client/message_json.h"

namespace trireme::client {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

/// One value; `index` is -1 for a field that is not repeated.
nlohmann::json value_json(const Message& message, const FieldDescriptor* field, int index) {
  const auto* reflection = message.GetReflection();
  const bool repeated = index >= 0;
#define TRIREME_VALUE(Type) \
  (repeated ? reflection->GetRepeated##Type(message, field, index) : reflection->Get##Type(message, field))
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return TRIREME_VALUE(Int32);
    case FieldDescriptor::CPPTYPE_INT64:
      return TRIREME_VALUE(Int64);
    case FieldDescriptor::CPPTYPE_UINT32:
      return TRIREME_VALUE(UInt32);
    case FieldDescriptor::CPPTYPE_UINT64:
      return TRIREME_VALUE(UInt64);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return TRIREME_VALUE(Double);
    case FieldDescriptor::CPPTYPE_FLOAT:
      return TRIREME_VALUE(Float);
    case FieldDescriptor::CPPTYPE_BOOL:
      return TRIREME_VALUE(Bool);
    case FieldDescriptor::CPPTYPE_ENUM:
      return TRIREME_VALUE(Enum)->name();
    case FieldDescriptor::CPPTYPE_STRING:
      return TRIREME_VALUE(String);
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return message_json(TRIREME_VALUE(Message));
  }
#undef TRIREME_VALUE
  return nullptr;
}

}  // namespace

nlohmann::json message_json(const Message& message) {
  nlohmann::json object = nlohmann::json::object();
  const auto* descriptor = message.GetDescriptor();
  const auto* reflection = message.GetReflection();
  for (int i = 0; i < descriptor->field_count(); ++i) {
    const FieldDescriptor* field = descriptor->field(i);
    nlohmann::json& value = object[field->name()];
    if (!field->is_repeated()) {
      // What the server left unset is null, not a zero it never said.
      if (!field->has_presence() || reflection->HasField(message, field))
        value = value_json(message, field, -1);
      continue;
    }
    value = nlohmann::json::array();
    for (int k = 0; k < reflection->FieldSize(message, field); ++k)
      value.push_back(value_json(message, field, k));
  }
  return object;
}

}  // namespace trireme::client
