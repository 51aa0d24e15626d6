#pragma once
// One running Generate or GenerateOnce, but for its gRPC reactor.

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <grpcpp/server_context.h>
#include <grpcpp/support/status.h>

#include "absl/status/status.h"
#include "trireme/v1/inference.pb.h"
#include "worker/active_requests.h"
#include "worker/leader.h"
#include "worker/outbox.h"
#include "worker/receipt.h"
#include "worker/request_builder.h"
#include "worker/response_builder.h"
#include "worker/served_model.h"
#include "worker/task_pool.h"

namespace trireme::worker {

class OpenStreams;

/// What calls use of their server; all of it outlives them.
struct CallEnvironment {
  const ServedModel& model;
  Leader& leader;
  TaskPool& pool;
  ActiveRequests& active;
  OpenStreams& streams;
  size_t max_unread_bytes;                  // of one request
  std::chrono::milliseconds write_timeout;  // for one message
};

/// The life of a request on the leader: admitted on an RPC thread, tokenized on the pool, run by the leader,
/// turned into messages on the delivery thread. Whatever ends it (its last token, Cancel, the client's
/// departure, an error) ends it once and frees its id. The reactor that derives from it does the writing.
class GenerateCall : public RequestSink,
                     public Cancellable,
                     public std::enable_shared_from_this<GenerateCall> {
 public:
  explicit GenerateCall(const CallEnvironment& environment)
      : RequestSink(environment.max_unread_bytes),
        receipt_(environment.leader.metrics(), times),
        environment_(environment) {}

  /// RPC thread, once.
  void begin(const v1::GenerateRequest& message, const grpc::CallbackServerContext& context);
  /// Delivery thread.
  void deliver() override;
  /// The Cancel RPC: the call ends in good order with what it has.
  void cancel() override;

 protected:
  /// Called with mutex_ held, whenever there may be something to write: messages of builder_, then error_, or
  /// the end of an abandoned call. Must not block.
  virtual void flush() = 0;
  /// Called with mutex_ held, before the call fails: the client does not read, so what is on its way to it
  /// must not be waited for.
  virtual void reset_stream() = 0;

  /// With mutex_ held: ends the call with an error.
  void fail(grpc::Status error);
  /// With mutex_ held: nobody listens any more.
  void abandon();
  /// With mutex_ held: the outcome is certain; frees the request id and, where it still runs, the engine's
  /// side. Idempotent.
  void release();

  std::mutex mutex_;
  Receipt receipt_;
  std::optional<ResponseBuilder> builder_;  // from admission to the engine on
  grpc::Status error_;                      // how the call ends, when not OK
  bool abandoned_ = false;

 private:
  grpc::Status identify(const grpc::CallbackServerContext& context);
  void prepare();
  grpc::Status make_builder(const Request& request, std::optional<ResponseBuilder>& builder);
  void submit(std::vector<Request> samples);
  void end_finished_samples();
  void account_end();
  void end_engine_side();

  const CallEnvironment environment_;
  AdmittedRequest admitted_;
  std::string request_id_;
  std::vector<TokenOutput> outputs_;
  std::map<uint32_t, RequestHandle> running_;  // by sample: the engine has it, for all we know
  bool id_taken_ = false;
  bool cancelled_ = false;
  bool released_ = false;
};

}  // namespace trireme::worker
