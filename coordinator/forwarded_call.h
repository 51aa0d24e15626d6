#pragma once
// A unary method that a replica answers.

#include <functional>
#include <memory>

#include <grpcpp/client_context.h>
#include <grpcpp/support/server_callback.h>

#include "coordinator/membership.h"

namespace trireme {

/// Passes a request on to a replica and its answer back; cancel and deadline cross. Deletes itself.
template <typename Request, typename Response>
class ForwardedCall : public grpc::ServerUnaryReactor {
 public:
  using Method = void (v1::Inference::StubInterface::async_interface::*)(grpc::ClientContext*, const Request*,
                                                                         Response*,
                                                                         std::function<void(grpc::Status)>);

  /// `edit` changes the answer on its way back. Sends at once.
  ForwardedCall(std::unique_ptr<Assignment> assignment, gpr_timespec deadline, Method method,
                const Request* request, Response* response, std::function<void(Response&)> edit = nullptr)
      : assignment_(std::move(assignment)) {
    context_.set_deadline(deadline);
    auto* stub = assignment_->link().stub->async();
    (stub->*method)(&context_, request, response,
                    [this, response, edit = std::move(edit)](const grpc::Status& status) {
                      if (status.ok() && edit) edit(*response);
                      assignment_->release();
                      Finish(status);
                    });
  }

 private:
  void OnCancel() override { context_.TryCancel(); }
  void OnDone() override { delete this; }

  std::unique_ptr<Assignment> assignment_;
  grpc::ClientContext context_;
};

}  // namespace trireme
