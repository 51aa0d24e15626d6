#include "kernels/cpu/onednn.h"

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "dnnl.hpp"
#include "kernels/check.h"

namespace trireme::cpu {
namespace {

using dnnl::memory;

memory::data_type data_type(DType dtype) {
  return dtype == DType::bf16 ? memory::data_type::bf16 : memory::data_type::f32;
}

memory::desc packed_desc(int64_t in, int64_t out, DType dtype) {
  return {{in, out},
          data_type(dtype),
          dtype == DType::bf16 ? memory::format_tag::BA16a64b2a : memory::format_tag::BA16a64b};
}

/// rows, in, out, dtype, bias
using Key = std::tuple<int64_t, int64_t, int64_t, DType, bool>;

struct Product {
  dnnl::matmul primitive;
  memory x, bias, out, scratch;
  size_t scratch_bytes = 0;
};

}  // namespace

struct OneDnn::Impl {
  explicit Impl(int threads_in) : threads(threads_in) {}

  Product& product(const Key& key) {
    const auto found = products.find(key);
    if (found != products.end()) return found->second;
    const auto& [rows, in, out, dtype, with_bias] = key;
    const memory::desc x({rows, in}, data_type(dtype), memory::format_tag::ab);
    const memory::desc bias({1, out}, memory::data_type::f32, memory::format_tag::ab);
    const memory::desc y({rows, out}, memory::data_type::f32, memory::format_tag::ab);
    const memory::desc weight = packed_desc(in, out, dtype);
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    const dnnl::matmul::desc desc =
        with_bias ? dnnl::matmul::desc(x, weight, bias, y) : dnnl::matmul::desc(x, weight, y);
    const dnnl::matmul::primitive_desc primitive(desc, attributes, engine);
    // Another implementation would sum in another order.
    TRIREME_CHECK(std::string_view(primitive.impl_info_str()).substr(0, 4) == "brg:");
    Product made;
    made.primitive = dnnl::matmul(primitive);
    made.x = memory(x, engine, nullptr);
    made.bias = memory(bias, engine, nullptr);
    made.out = memory(y, engine, nullptr);
    made.scratch_bytes = primitive.scratchpad_desc().get_size();
    made.scratch = memory(primitive.scratchpad_desc(), engine, nullptr);
    return products.emplace(key, std::move(made)).first->second;
  }

  int threads;
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  std::map<Key, Product> products;
  Workspace scratch;
};

OneDnn::OneDnn(int threads) : impl_(std::make_unique<Impl>(threads)) {
  // AMX sums whole tiles, in an order that our kernels do not follow: with it a row's bits would depend on
  // the number of rows. Only possible before the first product of the process; later it is done already.
  if (dnnl::get_effective_cpu_isa() == dnnl::cpu_isa::avx512_core_amx)
    dnnl::set_max_cpu_isa(dnnl::cpu_isa::avx512_core_bf16);
}
OneDnn::~OneDnn() = default;

bool OneDnn::supports(DType dtype) const {
  const dnnl::cpu_isa isa = dnnl::get_effective_cpu_isa();
  const bool bf16 = isa == dnnl::cpu_isa::avx512_core_bf16;
  const bool avx512 = bf16 || isa == dnnl::cpu_isa::avx512_core || isa == dnnl::cpu_isa::avx512_core_vnni;
  return dtype == DType::f32 ? avx512 : dtype == DType::bf16 && bf16;
}

std::string OneDnn::isa() const {
  switch (dnnl::get_effective_cpu_isa()) {
    case dnnl::cpu_isa::avx512_core:
      return "AVX-512";
    case dnnl::cpu_isa::avx512_core_vnni:
      return "AVX-512 VNNI";
    case dnnl::cpu_isa::avx512_core_bf16:
      return "AVX-512 BF16";
    default:
      return "unused";
  }
}

void OneDnn::matmul(const void* x, int64_t rows, const PackedWeight& weight, const float* bias, float* out) {
  omp_set_num_threads(impl_->threads);  // of the calling thread; oneDNN asks for it
  const PackedLayout& layout = weight.layout();
  const int64_t in = layout.padded_in();
  if (weight.onednn_memory == nullptr) {
    weight.onednn_memory = std::make_shared<memory>(packed_desc(in, layout.out_features, layout.dtype),
                                                    impl_->engine, weight.data());
  }
  Product& product = impl_->product({rows, in, layout.out_features, layout.dtype, bias != nullptr});
  product.x.set_data_handle(const_cast<void*>(x));
  product.out.set_data_handle(out);
  if (bias != nullptr) product.bias.set_data_handle(const_cast<float*>(bias));
  product.scratch.set_data_handle(impl_->scratch.get(product.scratch_bytes, impl_->threads));
  const dnnl_exec_arg_t arguments[] = {
      {DNNL_ARG_SRC, product.x.get()},
      {DNNL_ARG_WEIGHTS, static_cast<memory*>(weight.onednn_memory.get())->get()},
      {DNNL_ARG_DST, product.out.get()},
      {DNNL_ARG_SCRATCHPAD, product.scratch.get()},
      {DNNL_ARG_BIAS, product.bias.get()}};
  const dnnl_status_t status = dnnl_primitive_execute(product.primitive.get(), impl_->stream.get(),
                                                      bias != nullptr ? 5 : 4, arguments);
  CHECK_EQ(static_cast<int>(status), static_cast<int>(dnnl_success));
}

int64_t OneDnn::num_primitives() const { return static_cast<int64_t>(impl_->products.size()); }

absl::StatusOr<double> measure_product_rate(int64_t m, int64_t n, int64_t k, DType dtype, int threads) {
  OneDnn onednn(threads);
  if (!onednn.supports(dtype))
    return absl::UnimplementedError(
        absl::StrCat("oneDNN ", onednn.isa(), ": product rate of ", std::string(dtype_name(dtype))));
  const PackedLayout layout{n, k, dtype};
  absl::StatusOr<HostMemory> weight = HostMemory::allocate(layout.bytes(), threads, "the product rate probe");
  if (!weight.ok()) return weight.status();
  const PackedWeight packed(layout, *std::move(weight));
  const int64_t in = layout.padded_in();
  const std::vector<float> x(static_cast<size_t>(m * in), 0.0f);  // bf16 needs half
  std::vector<float> out(static_cast<size_t>(m * n));
  std::vector<double> seconds;
  for (int run = 0; run < 4; ++run) {  // the first makes the primitive
    const auto begin = std::chrono::steady_clock::now();
    onednn.matmul(x.data(), m, packed, nullptr, out.data());
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  std::sort(seconds.begin() + 1, seconds.end());
  return 2e-9 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k) / seconds[2];
}

}  // namespace trireme::cpu
