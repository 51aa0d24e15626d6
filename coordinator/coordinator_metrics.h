#pragma once
// What a coordinator tells Prometheus.

#include "coordinator/request_record.h"
#include "proto/support/metrics_page.h"
#include "trireme/v1/cluster.pb.h"

namespace trireme {

/// All metrics of a coordinator; `status` is GetCluster's answer. The names differ from the leaders', so that
/// a sum over all processes counts nothing twice. Any thread.
void fill_metrics(const v1::GetClusterResponse& status, const RelayMetrics& metrics, rpc::MetricsPage& page);

}  // namespace trireme
