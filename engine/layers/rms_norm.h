#pragma once

#include <string>
#include <vector>

#include "engine/layers/forward_context.h"
#include "engine/layers/parameter.h"

namespace trireme {

/// Root-mean-square normalization of rows, whole on every rank. Source: arXiv:1910.07467.
class RmsNorm {
 public:
  RmsNorm(const std::string& name, int64_t features, float eps) : eps_(eps) {
    weight_.kind = Parameter::Kind::vector;
    weight_.rows = features;
    weight_.cols = 1;
    weight_.slices.push_back({name + ".weight", features, 1, 0, features, 0, 1, 0, 0});
  }

  void forward(ForwardContext& context, const Tensor& x, const Tensor& out) const {
    context.backend.rms_norm(x, weight_.vector, eps_, out);
  }
  /// residual += x; out = norm(residual).
  void add_forward(ForwardContext& context, const Tensor& x, const Tensor& residual,
                   const Tensor& out) const {
    context.backend.add_rms_norm(x, residual, weight_.vector, eps_, out);
  }
  const Tensor& weight() const { return weight_.vector; }
  float eps() const { return eps_; }
  void collect(std::vector<Parameter*>& parameters) { parameters.push_back(&weight_); }

 private:
  Parameter weight_;
  float eps_;
};

}  // namespace trireme
