#pragma once
// For which products of few rows the library was faster than our own kernel. Pure: the times come from
// choose_few_rows.cc.

#include <bit>
#include <cstdint>
#include <map>
#include <string>
#include <tuple>

#include "kernels/dtype.h"

namespace trireme::cuda {

class FewRowsChoice {
 public:
  struct Product {
    int64_t out_features = 0, in_features = 0, rows = 0;
    DType out_dtype = DType::f32;
  };
  /// Times are for all numbers of rows of a class: 1, 2, 3 to 4, 5 to 8.
  static int64_t rows_of_class(int64_t rows) {
    return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(rows)));
  }
  /// The library must be faster than by chance: what it wins must be a twentieth of the time.
  static constexpr float kMargin = 0.95f;

  /// Times of the product with as many rows as its class has at most.
  void note(const Product& product, float own_ms, float library_ms) {
    library_is_faster_[key(product)] = library_ms < kMargin * own_ms;
  }
  bool has(const Product& product) const { return library_is_faster_.count(key(product)) > 0; }
  /// False for what was never measured.
  bool library_takes(const Product& product) const {
    const auto found = library_is_faster_.find(key(product));
    return found != library_is_faster_.end() && found->second;
  }
  /// E.g. "products of few rows: cuBLASLt is faster for 0 of 6 with 1 row, 2 of 6 with up to 4; the rest is
  /// our own kernel's". Empty where nothing was measured.
  std::string text() const;

 private:
  using Key = std::tuple<int64_t, int64_t, int64_t, DType>;
  static Key key(const Product& p) {
    return {rows_of_class(p.rows), p.out_features, p.in_features, p.out_dtype};
  }
  std::map<Key, bool> library_is_faster_;
};

}  // namespace trireme::cuda
