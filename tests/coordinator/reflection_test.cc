// A client that was built without our schemas: it learns them from the server and calls with what it learnt.

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/dynamic_message.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include "tests/coordinator/test_cluster.h"

namespace trireme {
namespace {

namespace pb = google::protobuf;

grpc::ByteBuffer to_bytes(const pb::Message& message) {
  const grpc::Slice slice(message.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

bool from_bytes(grpc::ByteBuffer& bytes, pb::Message& message) {
  grpc::Slice slice;
  return bytes.DumpToSingleSlice(&slice).ok() &&
         message.ParseFromArray(slice.begin(), static_cast<int>(slice.size()));
}

/// The reflection protocol itself has a schema too: gRPC's reflection library, linked here, registered it.
class ReflectionClient {
 public:
  explicit ReflectionClient(const std::shared_ptr<grpc::Channel>& channel) : stub_(channel) {
    set_patience(context_);
    call_ = stub_.PrepareCall(&context_, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
                              &queue_);
    call_->StartCall(nullptr);
    wait();
  }
  ~ReflectionClient() {
    context_.TryCancel();
    grpc::Status status;
    call_->Finish(&status, nullptr);
    wait();
    queue_.Shutdown();
    void* tag;
    bool ok;
    while (queue_.Next(&tag, &ok)) {
    }
  }

  std::vector<std::string> services() {
    std::vector<std::string> names;
    const auto answer = ask("list_services", "");
    const pb::Message& list = part(*answer, "list_services_response");
    const pb::FieldDescriptor* service = field(list, "service");
    for (int i = 0; i < list.GetReflection()->FieldSize(list, service); ++i) {
      const pb::Message& entry = list.GetReflection()->GetRepeatedMessage(list, service, i);
      names.push_back(entry.GetReflection()->GetString(entry, field(entry, "name")));
    }
    return names;
  }

  /// The file that defines `symbol`, and what it imports, go into `pool`.
  void learn(const std::string& symbol, pb::DescriptorPool& pool) {
    add_files(ask("file_containing_symbol", symbol), pool);
  }

 private:
  static const pb::FieldDescriptor* field(const pb::Message& message, const std::string& name) {
    return message.GetDescriptor()->FindFieldByName(name);
  }
  static const pb::Message& part(const pb::Message& message, const std::string& name) {
    return message.GetReflection()->GetMessage(message, field(message, name));
  }
  std::unique_ptr<pb::Message> make(const std::string& name) {
    const pb::Descriptor* type =
        pb::DescriptorPool::generated_pool()->FindMessageTypeByName("grpc.reflection.v1alpha." + name);
    EXPECT_NE(type, nullptr);
    return std::unique_ptr<pb::Message>(factory_.GetPrototype(type)->New());
  }
  void wait() {
    void* tag;
    bool ok = false;
    ASSERT_TRUE(queue_.Next(&tag, &ok));
  }
  std::unique_ptr<pb::Message> ask(const std::string& what, const std::string& value) {
    const auto request = make("ServerReflectionRequest");
    request->GetReflection()->SetString(request.get(), field(*request, what), value);
    call_->Write(to_bytes(*request), nullptr);
    wait();
    grpc::ByteBuffer bytes;
    call_->Read(&bytes, nullptr);
    wait();
    auto response = make("ServerReflectionResponse");
    EXPECT_TRUE(from_bytes(bytes, *response));
    return response;
  }
  void add_files(std::unique_ptr<pb::Message> answer, pb::DescriptorPool& pool) {
    const pb::Message& files = part(*answer, "file_descriptor_response");
    const pb::FieldDescriptor* bytes = field(files, "file_descriptor_proto");
    std::map<std::string, pb::FileDescriptorProto> by_name;
    for (int i = 0; i < files.GetReflection()->FieldSize(files, bytes); ++i) {
      pb::FileDescriptorProto file;
      ASSERT_TRUE(file.ParseFromString(files.GetReflection()->GetRepeatedString(files, bytes, i)));
      by_name[file.name()] = file;
    }
    while (!by_name.empty()) {  // imports first
      const size_t before = by_name.size();
      for (auto it = by_name.begin(); it != by_name.end();) {
        bool ready = true;
        for (const std::string& import : it->second.dependency()) ready = ready && by_name.count(import) == 0;
        if (ready) {
          ASSERT_NE(pool.BuildFile(it->second), nullptr);
          it = by_name.erase(it);
        } else {
          ++it;
        }
      }
      ASSERT_LT(by_name.size(), before);
    }
  }

  grpc::GenericStub stub_;
  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
  pb::DynamicMessageFactory factory_;
};

TEST(ReflectionTest, ListsEveryService) {
  TestCluster cluster;
  std::vector<std::string> services = ReflectionClient(cluster.channel).services();
  for (const char* wanted : {"trireme.v1.Inference", "trireme.v1.Cluster", "grpc.health.v1.Health"})
    EXPECT_EQ(std::count(services.begin(), services.end(), wanted), 1) << wanted;
}

TEST(ReflectionTest, HealthIsDescribedToo) {
  TestCluster cluster;
  pb::DescriptorPool pool;
  ReflectionClient(cluster.channel).learn("grpc.health.v1.Health", pool);
  ASSERT_NE(pool.FindServiceByName("grpc.health.v1.Health"), nullptr);
}

TEST(ReflectionTest, ClientWithoutASchemaCanGenerate) {
  TestCluster cluster;
  const auto a = cluster.join("a", send_tokens(3));
  pb::DescriptorPool pool;
  ReflectionClient(cluster.channel).learn("trireme.v1.Inference", pool);
  const pb::ServiceDescriptor* service = pool.FindServiceByName("trireme.v1.Inference");
  ASSERT_NE(service, nullptr);
  const pb::MethodDescriptor* method = service->FindMethodByName("GenerateOnce");
  ASSERT_NE(method, nullptr);
  ASSERT_FALSE(method->server_streaming());
  pb::DynamicMessageFactory factory(&pool);
  const std::unique_ptr<pb::Message> request(factory.GetPrototype(method->input_type())->New());
  request->GetReflection()->SetString(request.get(), method->input_type()->FindFieldByName("text"), "hello");

  grpc::GenericStub stub(cluster.channel);
  grpc::ClientContext context;
  set_patience(context);
  grpc::CompletionQueue queue;
  const auto call =
      stub.PrepareUnaryCall(&context, "/trireme.v1.Inference/GenerateOnce", to_bytes(*request), &queue);
  call->StartCall();
  grpc::ByteBuffer bytes;
  grpc::Status status;
  call->Finish(&bytes, &status, nullptr);
  void* tag;
  bool ok = false;
  ASSERT_TRUE(queue.Next(&tag, &ok));
  ASSERT_TRUE(status.ok()) << status.error_message();

  const std::unique_ptr<pb::Message> response(factory.GetPrototype(method->output_type())->New());
  ASSERT_TRUE(from_bytes(bytes, *response));
  const pb::Reflection* reflection = response->GetReflection();
  const pb::FieldDescriptor* completions = method->output_type()->FindFieldByName("completions");
  ASSERT_EQ(reflection->FieldSize(*response, completions), 1);
  const pb::Message& completion = reflection->GetRepeatedMessage(*response, completions, 0);
  EXPECT_EQ(
      completion.GetReflection()->GetString(completion, completion.GetDescriptor()->FindFieldByName("text")),
      "t0 t1 t2 ");
}

}  // namespace
}  // namespace trireme
