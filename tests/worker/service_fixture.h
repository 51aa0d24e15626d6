#pragma once
// A leader with a scripted engine behind a real gRPC server on the loopback.

#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "proto/support/endpoint.h"
#include "tests/worker/byte_tokenizer.h"
#include "tests/worker/fake_engine.h"
#include "worker/leader.h"
#include "worker/replica_server.h"

namespace trireme::worker {

class ServiceFixture : public testing::Test {
 protected:
  ServiceFixture() {
    model.name = "bytes";
    model.architecture = "LlamaForCausalLM";
    model.compute_dtype = "f32";
    model.backend = "cpu";
    model.vocab_size = kByteVocabSize;
    model.max_context_len = 1 << 24;
    model.eos_token_ids = {kEndToken};
    model.tokenizer = tokenizer.get();
  }

  ~ServiceFixture() override {
    if (!leader) return;
    if (leader_thread.joinable()) {
      engine->let_go();
      leader->stop(std::chrono::steady_clock::now());
      leader_thread.join();
    }
    if (server) server->shutdown(std::chrono::seconds(1));
  }

  /// The engine says `text`, then ends.
  static FakeEngine::Script saying(const std::string& text) {
    FakeEngine::Script script;
    script.token = [text](const Request&, int32_t n) { return nth_byte(text, n); };
    return script;
  }

  void start(FakeEngine::Script script, GenerateServiceOptions options = {},
             LeaderOptions leader_options = {}) {
    engine = std::make_unique<FakeEngine>(std::move(script));
    leader = std::make_unique<Leader>(*engine, delivery, leader_options);
    leader_thread = std::thread([this] { leader_result = leader->run(); });
    auto started = ReplicaServer::start({"127.0.0.1", 0}, false, model, *leader, options);
    ASSERT_TRUE(started.ok()) << started.status();
    server = *std::move(started);
    stub = v1::Inference::NewStub(rpc::create_channel(server->address().text()));
  }

  static v1::GenerateRequest request(const std::string& text = "hi", int32_t max_tokens = 1 << 20) {
    v1::GenerateRequest made;
    made.set_text(text);
    made.mutable_stopping()->set_max_tokens(max_tokens);
    return made;
  }

  /// A context with a deadline: a test that waits in vain fails.
  static std::unique_ptr<grpc::ClientContext> context(int seconds = 20) {
    auto made = std::make_unique<grpc::ClientContext>();
    made->set_deadline(gpr_time_from_seconds(seconds, GPR_TIMESPAN));
    return made;
  }

  using Receipt = std::map<std::string, std::string>;
  /// Of a call that has ended.
  static Receipt receipt_of(const grpc::ClientContext& ended) {
    Receipt receipt;
    for (const auto& [key, value] : ended.GetServerTrailingMetadata()) {
      const std::string name(key.data(), key.size());
      if (name.rfind("trireme-", 0) == 0) receipt[name] = std::string(value.data(), value.size());
    }
    return receipt;
  }

  struct Stream {
    std::vector<v1::GenerateResponse> messages;
    std::string text;
    std::vector<int32_t> token_ids;
    v1::FinishReason finish_reason = v1::FINISH_REASON_UNSPECIFIED;
    grpc::Status status;
    Receipt receipt;
  };
  Stream generate(const v1::GenerateRequest& asked) {
    auto call_context = context();
    auto reader = stub->Generate(call_context.get(), asked);
    Stream stream = read_all(*reader);
    stream.receipt = receipt_of(*call_context);
    return stream;
  }
  static Stream read_all(grpc::ClientReader<v1::GenerateResponse>& reader) {
    Stream stream;
    v1::GenerateResponse message;
    while (reader.Read(&message)) {
      stream.messages.push_back(message);
      for (const v1::Delta& delta : message.deltas()) {
        stream.text += delta.text();
        stream.token_ids.insert(stream.token_ids.end(), delta.token_ids().begin(), delta.token_ids().end());
        if (delta.has_finish_reason()) stream.finish_reason = delta.finish_reason();
      }
    }
    stream.status = reader.Finish();
    return stream;
  }

  std::unique_ptr<Tokenizer> tokenizer = byte_tokenizer();
  ServedModel model;
  Delivery delivery;
  std::unique_ptr<FakeEngine> engine;
  std::unique_ptr<Leader> leader;
  std::thread leader_thread;
  absl::Status leader_result;
  std::unique_ptr<ReplicaServer> server;
  std::unique_ptr<v1::Inference::Stub> stub;
};

}  // namespace trireme::worker
