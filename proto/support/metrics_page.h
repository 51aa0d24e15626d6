#pragma once
// What a process tells Prometheus, built anew for each scrape.

#include <string>
#include <utility>
#include <vector>

#include <prometheus/metric_family.h>

#include "engine/base/histogram.h"

namespace trireme::rpc {

/// Label names and values, in the order they are shown.
using MetricLabels = std::vector<std::pair<std::string, std::string>>;

/// Metric families with their samples. Names are vLLM's behind the prefix "trireme:", so that its dashboards
/// serve here with another prefix; a counter's ends in "_total". Calls of one name add samples to one family,
/// whose help is the first call's; they must agree in type and differ in labels. One thread.
class MetricsPage {
 public:
  /// Every sample added from now on has these labels, before its own.
  void label_all(MetricLabels labels) { common_labels_ = std::move(labels); }
  void counter(const std::string& name, const std::string& help, double value, MetricLabels labels = {});
  void gauge(const std::string& name, const std::string& help, double value, MetricLabels labels = {});
  void histogram(const std::string& name, const std::string& help, const HistogramSnapshot& values,
                 MetricLabels labels = {});

  const std::vector<prometheus::MetricFamily>& families() const { return families_; }

 private:
  prometheus::ClientMetric& add(const std::string& name, const std::string& help, prometheus::MetricType type,
                                MetricLabels labels);

  MetricLabels common_labels_;
  std::vector<prometheus::MetricFamily> families_;
};

}  // namespace trireme::rpc
