#include "coordinator/coordinator_metrics.h"

#include <map>
#include <string>

#include "absl/strings/strip.h"
#include "proto/support/errors.h"

namespace trireme {
namespace {

void fill_requests(const v1::GetClusterResponse& status, const RelayMetrics& metrics,
                   rpc::MetricsPage& page) {
  page.gauge("coordinator_num_requests_running", "Requests that are being relayed.",
             status.requests_running());
  for (size_t code = 0; code < metrics.ended.size(); ++code) {
    page.counter("coordinator_requests_total", "Generate requests that ended, by status code.",
                 static_cast<double>(metrics.ended[code].value()),
                 {{"code", rpc::code_name(static_cast<grpc::StatusCode>(code))}});
  }
  page.counter("coordinator_requests_failed_total", "Requests that failed by the service's own fault.",
               static_cast<double>(status.requests_failed()));
  page.counter("coordinator_requests_rejected_total", "Requests refused before a replica was chosen.",
               static_cast<double>(status.requests_rejected()));
  page.counter("coordinator_requests_cancelled_total",
               "Requests ended by Cancel, a client that left, or a deadline.",
               static_cast<double>(status.requests_cancelled()));
  page.counter("coordinator_resumes_total", "Times a request was continued on another replica.",
               static_cast<double>(metrics.resumes.value()));
  page.counter("coordinator_generation_tokens_total", "Tokens passed on to clients.",
               static_cast<double>(metrics.output_tokens.value()));
}

void fill_times(const RelayMetrics& metrics, rpc::MetricsPage& page) {
  page.histogram("coordinator_time_to_first_token_seconds",
                 "From a request's arrival to its first token's message.",
                 metrics.time_to_first_token.snapshot());
  page.histogram("coordinator_inter_token_latency_seconds",
                 "Between two tokens of a sample, as they are passed on; 0 within a message.",
                 metrics.inter_token.snapshot());
  page.histogram("coordinator_e2e_request_latency_seconds",
                 "From a request's arrival to its end; of those that ended with OK.",
                 metrics.end_to_end.snapshot());
  page.histogram("coordinator_routing_time_seconds", "From a request's arrival to the call to a replica.",
                 metrics.routing_time.snapshot());
}

void fill_replicas(const v1::GetClusterResponse& status, rpc::MetricsPage& page) {
  std::map<std::string, int> states = {{"SERVING", 0}, {"DRAINING", 0}};
  for (const v1::ReplicaStatus& replica : status.replicas()) {
    const std::string state(absl::StripPrefix(v1::ReplicaState_Name(replica.state()), "REPLICA_STATE_"));
    ++states[state];
    const rpc::MetricLabels label{{"replica", replica.replica_id()}};
    page.gauge("coordinator_replica_outstanding_calls", "Calls sent to a replica and not ended.",
               replica.outstanding_requests(), label);
    page.counter("coordinator_replica_calls_total", "Calls of any method sent to a replica since it joined.",
                 static_cast<double>(replica.routed_requests()), label);
  }
  for (const auto& [state, count] : states)
    page.gauge("coordinator_replicas", "Connected replicas by state.", count, {{"state", state}});
  page.gauge("coordinator_uptime_seconds", "Since the coordinator started.",
             static_cast<double>(status.uptime_ms()) * 1e-3);
}

}  // namespace

void fill_metrics(const v1::GetClusterResponse& status, const RelayMetrics& metrics, rpc::MetricsPage& page) {
  if (!status.model().empty()) page.label_all({{"model_name", status.model()}});
  fill_requests(status, metrics, page);
  fill_times(metrics, page);
  fill_replicas(status, page);
}

}  // namespace trireme
