// What serving costs without a model: tokens of a null engine through leader and coordinator to many
// connections, in turns with a bare gRPC relay, in messages per second and per second of processor time.

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <grpcpp/grpcpp.h>
#include <spdlog/spdlog.h>
#include <CLI/CLI.hpp>

#include "absl/strings/str_format.h"
#include "coordinator/coordinator.h"
#include "kernels/check.h"
#include "proto/support/endpoint.h"
#include "tests/bench/bare_relay.h"
#include "tests/bench/null_engine.h"
#include "worker/leader_process.h"

namespace trireme::bench {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int32_t kEndless = 1 << 23;

struct Flags {
  int streams = 256, repeats = 5;
  double seconds = 1.0;
  std::vector<uint32_t> windows = {1, 32};
};

[[noreturn]] void run_coordinator(Pace& pace) {
  CoordinatorOptions options;
  options.listen = {"127.0.0.1", 0};
  auto coordinator = Coordinator::start(options);
  CHECK_EQ(coordinator.ok(), true);
  pace.port = rpc::parse_address((*coordinator)->address())->port;
  for (;;) pause();
}

[[noreturn]] void run_replica(Pace& ends, Pace& pace, int coordinator_port) {
  NullEngine engine(pace);
  worker::ServedModel model;
  model.name = model.architecture = "null";
  model.compute_dtype = "f32";
  model.backend = "cpu";
  model.vocab_size = 32000;
  model.max_context_len = kEndless + 16;
  worker::LeaderProcessOptions options;
  options.coordinator = "127.0.0.1:" + std::to_string(coordinator_port);
  options.leader.queue = {4096, 1 << 20, 0};  // all streams are one client's
  v1::ReplicaRegistration& registration = options.registration;
  registration.set_replica_id("null-0");
  registration.set_incarnation("1");
  registration.set_job_id("null");
  v1::ModelInfo& info = *registration.mutable_model();
  info.set_name(model.name);
  info.set_architecture(model.architecture);
  info.set_hidden_size(64);
  info.set_intermediate_size(128);
  info.set_num_layers(1);
  info.set_num_heads(1);
  info.set_num_kv_heads(1);
  info.set_head_dim(64);
  info.set_vocab_size(model.vocab_size);
  info.set_weight_dtype_bytes(4);
  info.set_kv_dtype_bytes(4);
  info.set_config_hash("0");
  info.set_tokenizer_hash("0");
  info.set_compute_dtype(model.compute_dtype);
  registration.set_max_context_len(model.max_context_len);
  registration.set_tensor_parallel_size(1);
  registration.set_backend(model.backend);
  const absl::Status status = run_leader_process(
      engine, [] { return uint64_t{0}; }, model, options, worker::StopSignal::install(),
      [&ends](const worker::LeaderAddresses& addresses) { ends.port = addresses.inference.port; });
  std::fprintf(stderr, "relay_bench: the replica ended: %s\n", std::string(status.message()).c_str());
  _exit(1);
}

/// A process that runs `body`, ended with this one.
class Child {
 public:
  explicit Child(const std::function<void()>& body) : pid_(fork()) {
    CHECK_GE(pid_, 0);
    if (pid_ != 0) return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setenv("GRPC_VERBOSITY", "NONE", 0);
    spdlog::set_level(spdlog::level::err);
    body();
    _exit(0);
  }
  ~Child() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  /// User and system time of all its threads.
  double cpu_seconds() const {
    clockid_t clock;
    timespec time{};
    CHECK_EQ(clock_getcpuclockid(pid_, &clock), 0);
    CHECK_EQ(clock_gettime(clock, &time), 0);
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
  }

 private:
  const pid_t pid_;
};

bool eventually(const std::function<bool()>& condition) {
  const auto deadline = Clock::now() + std::chrono::seconds(20);
  while (!condition()) {
    if (Clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

int await_port(const Pace& pace) {
  CHECK_EQ(eventually([&pace] { return pace.port != 0; }), true);
  return pace.port;
}

/// One client on one connection.
class Reader final : public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  Reader(Pace& pace, int index, int port)
      : pace_(pace),
        index_(index),
        stub_(v1::Inference::NewStub(rpc::create_channel("127.0.0.1:" + std::to_string(port)))) {}

  void start() {
    context_ = std::make_unique<grpc::ClientContext>();
    context_->set_deadline(gpr_time_from_seconds(300, GPR_TIMESPAN));
    context_->set_wait_for_ready(true);
    v1::GenerateRequest request;
    request.mutable_token_ids()->add_ids(index_);
    request.mutable_stopping()->set_max_tokens(kEndless);
    request.mutable_stopping()->set_ignore_eos(true);
    request_ = request;
    messages = tokens = 0;
    done = false;
    stub_->async()->Generate(context_.get(), &request_, this);
    StartRead(&message_);
    StartCall();
  }
  void cancel() { context_->TryCancel(); }

  std::atomic<int64_t> messages{0}, tokens{0};
  std::atomic<bool> done{false};
  std::string error;  // when it ended by itself

 private:
  void OnReadDone(bool ok) override {
    if (!ok) return;
    uint32_t count = 0;
    for (const v1::Delta& delta : message_.deltas()) count += static_cast<uint32_t>(delta.token_ids_size());
    if (count > 0) {
      messages.fetch_add(1, std::memory_order_relaxed);
      tokens.fetch_add(count, std::memory_order_relaxed);
      pace_.receive(index_, count);
    }
    StartRead(&message_);
  }
  void OnDone(const grpc::Status& status) override {
    if (status.error_code() != grpc::StatusCode::CANCELLED) error = status.error_message();
    done = true;
  }

  Pace& pace_;
  const int index_;
  std::unique_ptr<v1::Inference::Stub> stub_;
  std::unique_ptr<grpc::ClientContext> context_;
  v1::GenerateRequest request_;
  v1::GenerateResponse message_;
};

struct Figures {
  double messages_per_s = 0, tokens_per_message = 0;
  double front_us = 0, back_us = 0;  // processor time per message: of the relay, and of what is behind it
  double messages_per_core_s() const { return 1e6 / (front_us + back_us); }
  double tokens_per_core_s() const { return messages_per_core_s() * tokens_per_message; }
};

/// A relay, what serves behind it, and the clients of both.
class Chain {
 public:
  Chain(Pace& pace, const Child& front, const Child& back, int port, int streams)
      : pace_(pace), front_(front), back_(back) {
    for (int i = 0; i < streams; ++i) readers_.push_back(std::make_unique<Reader>(pace, i, port));
  }

  Figures measure(uint32_t window, double seconds) {
    pace_.set(static_cast<int>(readers_.size()), window);
    for (auto& reader : readers_) reader->start();
    const bool running = eventually([this] {
      return std::all_of(readers_.begin(), readers_.end(), [](auto& reader) { return reader->tokens > 2; });
    });
    if (!running) fail("not every stream has begun");
    const auto begin = Clock::now();
    const double front = front_.cpu_seconds(), back = back_.cpu_seconds();
    const int64_t messages = sum(&Reader::messages), tokens = sum(&Reader::tokens);
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
    const auto num_messages = static_cast<double>(sum(&Reader::messages) - messages);
    const auto num_tokens = static_cast<double>(sum(&Reader::tokens) - tokens);
    Figures figures;
    figures.front_us = (front_.cpu_seconds() - front) / num_messages * 1e6;
    figures.back_us = (back_.cpu_seconds() - back) / num_messages * 1e6;
    figures.messages_per_s = num_messages / std::chrono::duration<double>(Clock::now() - begin).count();
    figures.tokens_per_message = num_tokens / num_messages;
    stop();
    return figures;
  }

 private:
  int64_t sum(std::atomic<int64_t> Reader::*count) const {
    int64_t result = 0;
    for (const auto& reader : readers_) result += (*reader).*count;
    return result;
  }
  void stop() {
    for (auto& reader : readers_) {
      if (reader->done) fail("a stream has ended: " + reader->error);
      reader->cancel();
    }
    const bool over = eventually([this] {
      return std::all_of(readers_.begin(), readers_.end(), [](auto& r) { return r->done.load(); });
    });
    if (!over) fail("a stream does not end");
    // What still runs behind the relay must not run on into the next measurement.
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  [[noreturn]] static void fail(const std::string& what) {
    std::fprintf(stderr, "relay_bench: %s\n", what.c_str());
    _exit(1);
  }

  Pace& pace_;
  const Child& front_;
  const Child& back_;
  std::vector<std::unique_ptr<Reader>> readers_;
};

Figures median(std::vector<Figures> all) {
  const auto of = [&all](double Figures::*value) {
    std::sort(all.begin(), all.end(),
              [=](const Figures& a, const Figures& b) { return a.*value < b.*value; });
    return all[all.size() / 2].*value;
  };
  return {of(&Figures::messages_per_s), of(&Figures::tokens_per_message), of(&Figures::front_us),
          of(&Figures::back_us)};
}

void print(const char* name, const Figures& f) {
  std::printf("%-30s %11.0f %11.2f %11.1f %11.1f %13.0f %13.0f\n", name, f.messages_per_s,
              f.tokens_per_message, f.front_us, f.back_us, f.messages_per_core_s(), f.tokens_per_core_s());
}

/// "0.93 (0.88 to 1.01)": median, least and most.
std::string spread(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return absl::StrFormat("%.2f (%.2f to %.2f)", values[values.size() / 2], values.front(), values.back());
}

int run(const Flags& flags) {
  // All processes are forked before gRPC starts a thread here.
  Pace* const paces[] = {Pace::create(), Pace::create(), Pace::create(), Pace::create()};
  for (Pace* pace : paces) CHECK_EQ(pace != nullptr, true);
  Pace &bare = *paces[0], &bare_front = *paces[1], &ours = *paces[2], &ours_front = *paces[3];
  Pace& replica_end = *Pace::create();
  const Child server([&] { run_bare_server(bare); });
  const Child relay([&] { run_bare_relay(bare_front, await_port(bare)); });
  const Child coordinator([&] { run_coordinator(ours_front); });
  const Child replica([&] { run_replica(replica_end, ours, await_port(ours_front)); });
  await_port(replica_end);
  Chain bare_chain(bare, relay, server, await_port(bare_front), flags.streams);
  Chain our_chain(ours, coordinator, replica, await_port(ours_front), flags.streams);
  const auto joined = eventually([&] {
    auto stub = v1::Inference::NewStub(rpc::create_channel("127.0.0.1:" + std::to_string(ours_front.port)));
    grpc::ClientContext context;
    context.set_deadline(gpr_time_from_seconds(5, GPR_TIMESPAN));
    v1::GetModelResponse model;
    return stub->GetModel(&context, {}, &model).ok();
  });
  CHECK_EQ(joined, true);
  std::printf("%d streams on as many connections; medians of %d runs of %.1f s in turns\n", flags.streams,
              flags.repeats, flags.seconds);
  for (const uint32_t window : flags.windows) {
    std::vector<Figures> bare_runs, our_runs;
    std::vector<double> messages, tokens, relay_alone;
    for (int i = 0; i < flags.repeats; ++i) {
      const Figures& other = bare_runs.emplace_back(bare_chain.measure(window, flags.seconds));
      const Figures& own = our_runs.emplace_back(our_chain.measure(window, flags.seconds));
      messages.push_back(own.messages_per_core_s() / other.messages_per_core_s());
      tokens.push_back(own.tokens_per_core_s() / other.tokens_per_core_s());
      relay_alone.push_back(other.front_us / own.front_us);
    }
    std::printf("\nat most %u tokens of a stream on their way\n", window);
    std::printf("%-30s %11s %11s %11s %11s %13s %13s\n", "", "messages/s", "tokens per", "us of CPU,",
                "us of CPU,", "messages per", "tokens per");
    std::printf("%-30s %11s %11s %11s %11s %13s %13s\n", "", "", "message", "relay", "server", "core and s",
                "core and s");
    print("bare relay and server", median(bare_runs));
    print("coordinator and null replica", median(our_runs));
    std::printf("ours over bare: messages per core and second %s; tokens %s; messages, the relay alone %s\n",
                spread(messages).c_str(), spread(tokens).c_str(), spread(relay_alone).c_str());
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace trireme::bench

int main(int argc, char** argv) {
  trireme::bench::Flags flags;
  CLI::App app(
      "Messages per second and core of a null-engine replica behind a coordinator, and of a bare relay.");
  app.add_option("--streams", flags.streams, "each on a connection of its own")
      ->check(CLI::Range(1, trireme::bench::Pace::kMostStreams))
      ->capture_default_str();
  app.add_option("--repeats", flags.repeats)->check(CLI::Range(1, 1000))->capture_default_str();
  app.add_option("--seconds", flags.seconds, "per run")->check(CLI::Range(0.1, 600.0))->capture_default_str();
  app.add_option(
         "--window", flags.windows,
         "tokens of a stream that may be on their way; 1: each is a message, more: a writer that lags "
         "coalesces")
      ->delimiter(',')
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  return trireme::bench::run(flags);
}
