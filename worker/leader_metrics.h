#pragma once
// What a leader tells Prometheus.

#include "proto/support/metrics_page.h"
#include "worker/leader.h"
#include "worker/serving_metrics.h"

namespace trireme::worker {

/// All metrics of a leader. Reads snapshots only: nothing waits for it. Any thread.
void fill_metrics(const LeaderStatus& status, const ServingMetrics& metrics, rpc::MetricsPage& page);

/// Requests that were cancelled, refused before the engine had them, and resumed.
struct RequestTotals {
  int64_t cancelled = 0, rejected = 0, resumed = 0;
};
RequestTotals request_totals(const ServingMetrics& metrics);

}  // namespace trireme::worker
