#include "tests/coordinator/fake_replica.h"

#include <algorithm>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "proto/support/endpoint.h"

namespace trireme {

const std::chrono::milliseconds kPatience = [] {
  const char* factor = std::getenv("TRIREME_TEST_TIME_FACTOR");
  return std::chrono::milliseconds(factor == nullptr ? 20'000
                                                     : static_cast<int64_t>(20'000 * std::atof(factor)));
}();

bool eventually(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

void set_patience(grpc::ClientContext& context) {
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
}

bool send_prompt(const v1::GenerateRequest& request, FakeReplica::Writer& writer) {
  v1::GenerateResponse response;
  response.mutable_prompt()->set_request_id(request.request_id());
  response.mutable_prompt()->set_seed(request.sampling().seed());
  *response.mutable_prompt()->mutable_token_ids() = request.token_ids().ids();
  return writer.Write(response);
}

bool send_token(FakeReplica::Writer& writer, int32_t token_id) {
  v1::GenerateResponse response;
  v1::Delta* delta = response.add_deltas();
  delta->add_token_ids(token_id);
  delta->set_text(absl::StrCat("t", token_id, " "));
  return writer.Write(response);
}

bool send_end(FakeReplica::Writer& writer, int num_tokens, v1::FinishReason reason) {
  v1::GenerateResponse response;
  response.add_deltas()->set_finish_reason(reason);
  response.mutable_usage()->set_completion_tokens(num_tokens);
  return writer.Write(response);
}

FakeReplica::Script send_tokens(int n) {
  return [n](grpc::ServerContext&, const v1::GenerateRequest& request, FakeReplica::Writer& writer) {
    send_prompt(request, writer);
    for (int i = 0; i < n; ++i) send_token(writer, i);
    send_end(writer, n, v1::FINISH_REASON_LENGTH);
    return grpc::Status::OK;
  };
}

FakeReplica::Script continue_to(int n) {
  return [n](grpc::ServerContext&, const v1::GenerateRequest& request, FakeReplica::Writer& writer) {
    send_prompt(request, writer);
    const v1::ResumeState none;
    const v1::ResumeState& state = request.resume_size() > 0 ? request.resume(0) : none;
    for (int i = 0; i < state.token_ids_size(); ++i) {
      if (state.token_ids(i) != i)
        return grpc::Status(grpc::StatusCode::INTERNAL, absl::StrCat("resumed with a wrong token ", i));
    }
    v1::GenerateResponse end;
    if (!state.finished()) {
      for (int i = state.token_ids_size(); i < n; ++i) send_token(writer, i);
      end.add_deltas()->set_finish_reason(v1::FINISH_REASON_LENGTH);
    }
    end.mutable_usage()->set_completion_tokens(n);
    writer.Write(end);
    return grpc::Status::OK;
  };
}

FakeReplica::Script send_then_wait(FakeReplica*& self, int n) {
  return [&self, n](grpc::ServerContext& context, const v1::GenerateRequest& request,
                    FakeReplica::Writer& writer) {
    send_prompt(request, writer);
    for (int i = 0; i < n; ++i) send_token(writer, i);
    if (!eventually([&] { return context.IsCancelled() || self->is_cancelled(request.request_id()); }))
      return grpc::Status(grpc::StatusCode::INTERNAL, "nobody cancelled");
    if (context.IsCancelled()) return grpc::Status::CANCELLED;
    send_end(writer, n, v1::FINISH_REASON_CANCELLED);
    return grpc::Status::OK;
  };
}

FakeReplica::FakeReplica(Script script) : script_(script ? std::move(script) : send_tokens(4)) {
  grpc::ServerBuilder builder;
  (void)rpc::configure_server(builder, {"127.0.0.1", 0}, false, &port_);
  builder.RegisterService(this);
  server_ = builder.BuildAndStart();
}

void FakeReplica::stop() {
  if (!server_) return;
  server_->Shutdown(std::chrono::system_clock::now());
  server_->Wait();
  server_.reset();
}

std::vector<v1::GenerateRequest> FakeReplica::requests() const {
  std::lock_guard lock(mutex_);
  return requests_;
}

std::vector<std::string> FakeReplica::cancelled_ids() const {
  std::lock_guard lock(mutex_);
  return cancelled_ids_;
}

bool FakeReplica::is_cancelled(const std::string& request_id) const {
  std::lock_guard lock(mutex_);
  return std::count(cancelled_ids_.begin(), cancelled_ids_.end(), request_id) > 0;
}

grpc::Status FakeReplica::Generate(grpc::ServerContext* context, const v1::GenerateRequest* request,
                                   Writer* writer) {
  {
    std::lock_guard lock(mutex_);
    requests_.push_back(*request);
  }
  ++num_running_;
  const grpc::Status status = script_(*context, *request, *writer);
  if (context->IsCancelled()) saw_cancelled_context_ = true;
  --num_running_;
  return status;
}

grpc::Status FakeReplica::Cancel(grpc::ServerContext*, const v1::CancelRequest* request,
                                 v1::CancelResponse*) {
  std::lock_guard lock(mutex_);
  cancelled_ids_.push_back(request->request_id());
  return grpc::Status::OK;
}

grpc::Status FakeReplica::Tokenize(grpc::ServerContext*, const v1::TokenizeRequest* request,
                                   v1::TokenizeResponse* response) {
  for (const char c : request->text()) response->add_token_ids(c);
  return grpc::Status::OK;
}

grpc::Status FakeReplica::Detokenize(grpc::ServerContext*, const v1::DetokenizeRequest* request,
                                     v1::DetokenizeResponse* response) {
  for (const int32_t id : request->token_ids()) response->mutable_text()->push_back(static_cast<char>(id));
  return grpc::Status::OK;
}

grpc::Status FakeReplica::GetModel(grpc::ServerContext*, const v1::GetModelRequest*,
                                   v1::GetModelResponse* response) {
  response->set_name("demo");
  response->set_vocab_size(1000);
  response->set_max_context_len(256);
  response->set_num_replicas(1);
  return grpc::Status::OK;
}

v1::ModelInfo demo_model() {
  v1::ModelInfo model;
  model.set_name("demo");
  model.set_architecture("LlamaForCausalLM");
  model.set_hidden_size(256);
  model.set_intermediate_size(512);
  model.set_num_layers(2);
  model.set_num_heads(8);
  model.set_num_kv_heads(4);
  model.set_head_dim(32);
  model.set_vocab_size(1000);
  model.set_weight_dtype_bytes(4);
  model.set_kv_dtype_bytes(4);
  model.set_config_hash("c0ffee");
  model.set_tokenizer_hash("70ce");
  model.set_compute_dtype("f32");
  return model;
}

v1::ReplicaRegistration registration(const std::string& replica_id, int port) {
  v1::ReplicaRegistration result;
  result.set_replica_id(replica_id);
  result.set_incarnation("i1");
  result.set_job_id("job");
  *result.mutable_model() = demo_model();
  result.set_port(port);
  result.set_max_context_len(256);
  result.set_tensor_parallel_size(1);
  result.set_backend("cpu");
  return result;
}

FakeLeader::FakeLeader(const std::string& coordinator, const v1::ReplicaRegistration& registration)
    : channel_(rpc::create_channel(coordinator)), stub_(v1::Cluster::NewStub(channel_)) {
  set_patience(context_);
  stream_ = stub_->ServeReplica(&context_);
  v1::ReplicaReport report;
  *report.mutable_registration() = registration;
  stream_->Write(report);
  reader_ = std::thread([this] { read_commands(); });
}

void FakeLeader::read_commands() {
  v1::ReplicaCommand command;
  while (stream_->Read(&command)) {
    std::lock_guard lock(mutex_);
    commands_.push_back(command.desired_state());
    changed_.notify_all();
  }
  std::lock_guard lock(mutex_);
  over_ = true;
  changed_.notify_all();
}

bool FakeLeader::was_told(v1::ReplicaState state) {
  std::unique_lock lock(mutex_);
  const auto told = [&] { return std::count(commands_.begin(), commands_.end(), state) > 0; };
  changed_.wait_for(lock, kPatience, [&] { return over_ || told(); });
  return told();
}

grpc::Status FakeLeader::hang_up() {
  if (!status_) stream_->WritesDone();
  return ended();
}

grpc::Status FakeLeader::ended() {
  if (status_) return *status_;
  reader_.join();
  status_ = stream_->Finish();
  return *status_;
}

}  // namespace trireme
