#include "proto/support/metrics_page.h"

#include <algorithm>
#include <limits>

#include "kernels/check.h"

namespace trireme::rpc {
namespace {

constexpr char kPrefix[] = "trireme:";

}  // namespace

prometheus::ClientMetric& MetricsPage::add(const std::string& name, const std::string& help,
                                           prometheus::MetricType type, MetricLabels labels) {
  const std::string full_name = kPrefix + name;
  auto family = std::find_if(families_.begin(), families_.end(),
                             [&](const prometheus::MetricFamily& other) { return other.name == full_name; });
  if (family == families_.end()) {
    family = families_.insert(families_.end(), prometheus::MetricFamily());
    family->name = full_name;
    family->help = help;
    family->type = type;
  }
  CHECK_EQ(static_cast<int>(family->type), static_cast<int>(type));
  prometheus::ClientMetric& metric = family->metric.emplace_back();
  for (const auto& [label, value] : common_labels_) metric.label.push_back({label, value});
  for (auto& [label, value] : labels) metric.label.push_back({std::move(label), std::move(value)});
  return metric;
}

void MetricsPage::counter(const std::string& name, const std::string& help, double value,
                          MetricLabels labels) {
  add(name, help, prometheus::MetricType::Counter, std::move(labels)).counter.value = value;
}

void MetricsPage::gauge(const std::string& name, const std::string& help, double value, MetricLabels labels) {
  add(name, help, prometheus::MetricType::Gauge, std::move(labels)).gauge.value = value;
}

void MetricsPage::histogram(const std::string& name, const std::string& help, const HistogramSnapshot& values,
                            MetricLabels labels) {
  auto& histogram = add(name, help, prometheus::MetricType::Histogram, std::move(labels)).histogram;
  uint64_t below = 0;
  for (size_t i = 0; i < values.upper_bounds.size(); ++i) {
    below += static_cast<uint64_t>(values.counts[i]);
    histogram.bucket.push_back({below, values.upper_bounds[i]});
  }
  // Of the buckets, not a count of its own: the two must agree whatever is being added meanwhile.
  histogram.sample_count = below + static_cast<uint64_t>(values.counts.back());
  histogram.bucket.push_back({histogram.sample_count, std::numeric_limits<double>::infinity()});
  histogram.sample_sum = values.sum;
}

}  // namespace trireme::rpc
