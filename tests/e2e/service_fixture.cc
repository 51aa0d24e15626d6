#include "tests/e2e/service_fixture.h"

#include <algorithm>
#include <fstream>
#include <stdexcept>

#include "proto/support/caller.h"
#include "proto/support/collect.h"
#include "proto/support/endpoint.h"

namespace trireme::testing {

namespace fs = std::filesystem;

namespace {

void set_timeout(grpc::ClientContext& context, double seconds) {
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000)));
}

}  // namespace

fs::path ServiceFixture::program(const std::string& name) { return fs::path(TRIREME_BIN_DIR) / name; }

fs::path ServiceFixture::source(const std::string& path) { return fs::path(TRIREME_SOURCE_DIR) / path; }

fs::path ServiceFixture::endless_model() {
  const fs::path folder = this->folder() / "endless-model";
  if (fs::exists(folder)) return folder;
  fs::create_directory(folder);
  for (const char* name :
       {"generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}) {
    fs::create_symlink(demo_model() / name, folder / name);
  }
  nlohmann::json config = nlohmann::json::parse(std::ifstream(demo_model() / "config.json"));
  config["max_position_embeddings"] = 98304;
  std::ofstream(folder / "config.json") << config;
  return folder;
}

Process& ServiceFixture::start_coordinator(std::vector<std::string> options) {
  options.insert(options.begin(), {program("trireme-coordinator"), "--listen", "127.0.0.1:0"});
  Process& process = start(options);
  jobs_.clear();  // those of another coordinator are no longer waited for
  const std::string said = "listening on ";
  EXPECT_TRUE(process.wait_for_output("\n", deadline_in(20))) << process.output();
  const std::string output = process.standard_output();
  const size_t place = output.find(said);
  if (place == std::string::npos) {
    ADD_FAILURE() << "the coordinator did not say where it listens:\n" << process.output();
    return process;
  }
  address_ = output.substr(place + said.size(), output.find('\n', place) - place - said.size());
  return process;
}

Process& ServiceFixture::start_job(int num_ranks, std::vector<std::string> options, fs::path model) {
  std::vector<std::string> command = {"mpirun",
                                      "-np",
                                      std::to_string(num_ranks),
                                      "--oversubscribe",
                                      "--bind-to",
                                      "none",
                                      "--mca",
                                      "btl",
                                      "self,vader",
                                      program("trireme-worker"),
                                      "--model",
                                      model,
                                      "--threads",
                                      "1",
                                      "--compute-dtype",
                                      "f32",
                                      "--kv-memory",
                                      "256MiB"};
  if (!address_.empty()) command.insert(command.end(), {"--coordinator", address_});
  command.insert(command.end(), options.begin(), options.end());
  jobs_.push_back(&start(command));
  return *jobs_.back();
}

void ServiceFixture::wait_serving(int num_ranks) {
  const auto deadline = deadline_in(60);
  Process& status = start({program("trireme"), "status", "--address", address_, "--wait-for-ranks",
                           std::to_string(num_ranks), "--timeout", "3600"});
  std::string problem;
  while (problem.empty() && status.running()) {
    if (const Process* ended = first_ended_job()) {
      problem = "a job has ended:\n" + ended->output();
    } else if (SteadyClock::now() >= deadline) {
      problem = "they do not serve in time";
    } else {
      status.wait(std::min(deadline, SteadyClock::now() + std::chrono::milliseconds(100)));
    }
  }
  if (problem.empty() && status.wait(SteadyClock::now()) == 0) return;
  status.kill_session();
  throw std::runtime_error("waiting for " + std::to_string(num_ranks) + " ranks: " + problem + "\n" +
                           status.output());
}

void ServiceFixture::await_dead_job() {
  const auto deadline = deadline_in(20);
  while (first_ended_job() == nullptr && SteadyClock::now() < deadline) cluster();
  EXPECT_NE(first_ended_job(), nullptr) << "the job goes on";
  std::erase_if(jobs_, [](Process* job) { return !job->running(); });
}

const Process* ServiceFixture::first_ended_job() const {
  for (Process* job : jobs_) {
    if (!job->running()) return job;
  }
  return nullptr;
}

CommandResult ServiceFixture::run_trireme(std::vector<std::string> arguments, double seconds) {
  arguments.insert(arguments.begin(), program("trireme"));
  Process& process = start(arguments);
  CommandResult result;
  result.exit_code = process.wait(deadline_in(seconds)).value_or(-1);
  result.output = process.output();
  result.json = nlohmann::json::parse(process.standard_output(), nullptr, false);
  return result;
}

CommandResult ServiceFixture::generate(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {"generate", "--json", "--address", address_});
  if (std::find(arguments.begin(), arguments.end(), "--temperature") == arguments.end()) {
    arguments.insert(arguments.end(), {"--temperature", "0"});
  }
  return run_trireme(arguments);
}

v1::GetClusterResponse ServiceFixture::cluster() {
  grpc::ClientContext context;
  set_timeout(context, 20);
  context.set_wait_for_ready(true);  // a busy machine may take its time to accept
  v1::GetClusterResponse response;
  const grpc::Status status =
      v1::Cluster::NewStub(rpc::create_channel(address_))->GetCluster(&context, {}, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return response;
}

std::vector<ServiceFixture::Rank> ServiceFixture::ranks() const {
  std::vector<Rank> result;
  for (const ProcessEntry& entry : processes("trireme-worker")) {
    const std::string rank = environment_of(entry.pid, "OMPI_COMM_WORLD_RANK");
    if (!rank.empty()) result.push_back({entry.pid, std::stoi(rank), entry.session});
  }
  std::sort(result.begin(), result.end(), [](const Rank& a, const Rank& b) {
    return std::pair(a.session, a.rank) < std::pair(b.session, b.rank);
  });
  return result;
}

std::unique_ptr<v1::Inference::Stub> ServiceFixture::inference_stub() const {
  return v1::Inference::NewStub(rpc::create_channel(address_));
}

Stream::Stream(v1::Inference::Stub& stub, const v1::GenerateRequest& request, double timeout_s,
               const std::string& client)
    : num_samples_(request.output().has_n() ? request.output().n() : 1) {
  set_timeout(context_, timeout_s);
  if (!client.empty()) context_.AddMetadata(rpc::kClientKey, client);
  reader_ = stub.Generate(&context_, request);
  thread_ = std::thread([this] { read_all(); });
}

Stream::~Stream() {
  context_.TryCancel();
  thread_.join();
}

void Stream::read_all() {
  v1::GenerateResponse message;
  while (reader_->Read(&message)) {
    const std::lock_guard lock(mutex_);
    EXPECT_TRUE(rpc::collect(message, num_samples_, result_));
    for (const v1::Delta& delta : message.deltas()) {
      token_ids_.insert(token_ids_.end(), delta.token_ids().begin(), delta.token_ids().end());
    }
    changed_.notify_all();
  }
  const grpc::Status status = reader_->Finish();
  const std::lock_guard lock(mutex_);
  status_ = status;
  finished_ = true;
  changed_.notify_all();
}

bool Stream::read_tokens(int count) {
  std::unique_lock lock(mutex_);
  const auto enough = [&] { return static_cast<int>(token_ids_.size()) >= count; };
  changed_.wait_until(lock, deadline_in(60), [&] { return finished_ || enough(); });
  return enough();
}

grpc::Status Stream::finish() {
  std::unique_lock lock(mutex_);
  if (changed_.wait_until(lock, deadline_in(60), [&] { return finished_; })) return status_;
  return {grpc::StatusCode::UNKNOWN, "the stream did not end within 60 s"};
}

v1::GenerateOnceResponse Stream::result() const {
  const std::lock_guard lock(mutex_);
  return result_;
}

std::vector<int> Stream::token_ids() const {
  const std::lock_guard lock(mutex_);
  return token_ids_;
}

v1::GenerateRequest greedy_request(const std::string& prompt, int max_tokens) {
  v1::GenerateRequest request;
  request.set_text(prompt);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stopping()->set_max_tokens(max_tokens);
  request.mutable_stopping()->set_ignore_eos(true);
  return request;
}

}  // namespace trireme::testing
