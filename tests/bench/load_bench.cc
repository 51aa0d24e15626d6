// Loading weights beside reading and repacking the same bytes, measured in turns:
//   load_bench [--mib N] [--threads N] [--shards N] [--dtype bf16|f32] [--repeats N] [--dir DIR]
//
// The checkpoint, layers of Llama-3.2-1B's shapes, is written into a folder of its own and read from the page
// cache. "Read and repack" is what a program does that has the files and oneDNN: for each matrix it takes
// fresh memory (of the kind that the backend's weights lie in), reads the bytes into a buffer that stays,
// with as many threads, and lets oneDNN reorder them from there. Both hold the same bits in the end, or the
// benchmark fails. With --shards N both bring the last of N tensor-parallel ranks' part.

#include <fcntl.h>
#include <omp.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "dnnl.hpp"
#include "engine/weights/weight_loader.h"
#include "kernels/check.h"
#include "kernels/cpu/packed_weight.h"
#include "kernels/cpu/parallel.h"
#include "nlohmann/json.hpp"

namespace trireme::bench {
namespace {

using cpu::HostMemory;
using cpu::PackedLayout;

struct Options {
  int64_t mib = 1024;
  int threads = 2, shards = 1, repeats = 5;
  std::string dtype = "bf16", dir = std::filesystem::temp_directory_path().string();
};

template <typename T>
T must(absl::StatusOr<T> result) {
  if (!result.ok()) check_failed(__FILE__, __LINE__, std::string(result.status().message()));
  return *std::move(result);
}

double seconds_of(const auto& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// A matrix of the checkpoint and the part of it that is loaded.
struct Matrix {
  std::string name;
  int64_t rows, cols;
  bool by_columns;  // how tensor parallelism cuts it
  uint64_t offset = 0;
  int64_t row = 0, num_rows = 0, col = 0, num_cols = 0;
};

/// Layers up to `bytes`, one at least.
std::vector<Matrix> layers(int64_t bytes, int64_t element_bytes, int shards) {
  const Matrix kLayer[] = {{"qkv", 3072, 2048, false},
                           {"o", 2048, 2048, true},
                           {"gate_up", 16384, 2048, false},
                           {"down", 2048, 8192, true}};
  std::vector<Matrix> all;
  for (uint64_t end = 0; all.empty() || end < static_cast<uint64_t>(bytes);) {
    for (Matrix matrix : kLayer) {
      absl::StrAppend(&matrix.name, ".", all.size());
      matrix.offset = end;
      matrix.num_rows = matrix.by_columns ? matrix.rows : matrix.rows / shards;
      matrix.num_cols = matrix.by_columns ? matrix.cols / shards : matrix.cols;
      matrix.row = matrix.rows - matrix.num_rows;
      matrix.col = matrix.cols - matrix.num_cols;
      end += static_cast<uint64_t>(matrix.rows * matrix.cols * element_bytes);
      all.push_back(std::move(matrix));
    }
  }
  return all;
}

/// Writes them as one file and adds its header's length to their offsets.
void write_checkpoint(const std::string& path, std::vector<Matrix>& matrices, DType dtype) {
  const auto element_bytes = static_cast<int64_t>(dtype_bytes(dtype));
  nlohmann::json header;
  for (const Matrix& matrix : matrices) {
    const uint64_t bytes = static_cast<uint64_t>(matrix.rows * matrix.cols * element_bytes);
    header[matrix.name] = {{"dtype", dtype == DType::bf16 ? "BF16" : "F32"},
                           {"shape", {matrix.rows, matrix.cols}},
                           {"data_offsets", {matrix.offset, matrix.offset + bytes}}};
  }
  std::string text = header.dump();
  text.append(63 - (text.size() + 7) % 64, ' ');  // data at a multiple of 64, as writers of such files do
  const uint64_t length = text.size();
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(&length), sizeof(length)) << text;
  std::mt19937 random(1);
  std::vector<uint16_t> row(16 * 8192);
  for (Matrix& matrix : matrices) {
    matrix.offset += sizeof(length) + length;
    const int64_t row_bytes = matrix.cols * element_bytes;
    for (int64_t r = 0; r < matrix.rows; ++r) {
      // Positive numbers between 2^-15 and 2 in either dtype, another beginning for each row.
      for (size_t i = 0; r == 0 && i < row.size(); ++i)
        row[i] = static_cast<uint16_t>(0x3800 + random() % 0x7ff);
      file.write(reinterpret_cast<const char*>(row.data() + random() % 1024), row_bytes);
    }
  }
  file.close();
  if (!file) check_failed(__FILE__, __LINE__, "cannot write " + path);
}

class ReadAndRepack {
 public:
  struct Seconds {
    double allocate = 0, read = 0, repack = 0;
    double sum() const { return allocate + read + repack; }
  };

  ReadAndRepack(const std::string& path, DType dtype, int threads)
      : file_(open(path.c_str(), O_RDONLY | O_CLOEXEC)), dtype_(dtype), threads_(threads) {
    CHECK_GE(file_, 0);
    omp_set_num_threads(threads);  // oneDNN asks for it
  }
  ~ReadAndRepack() { close(file_); }
  ReadAndRepack(const ReadAndRepack&) = delete;
  ReadAndRepack& operator=(const ReadAndRepack&) = delete;

  std::vector<HostMemory> run(const std::vector<Matrix>& matrices, Seconds& seconds) {
    std::vector<HostMemory> packed;
    for (const Matrix& matrix : matrices) {
      const PackedLayout layout{matrix.num_rows, matrix.num_cols, dtype_};
      seconds.allocate += seconds_of(
          [&] { packed.push_back(must(HostMemory::allocate(layout.bytes(), threads_, matrix.name))); });
      seconds.read += seconds_of([&] { read(matrix); });
      seconds.repack += seconds_of([&] { repack(matrix, packed.back().data()); });
    }
    return packed;
  }

 private:
  void read(const Matrix& matrix) {
    const auto element_bytes = static_cast<int64_t>(dtype_bytes(dtype_));
    const int64_t run_bytes = matrix.num_cols * element_bytes;
    const bool whole_rows = matrix.num_cols == matrix.cols;
    buffer_.resize(std::max(buffer_.size(), static_cast<size_t>(matrix.num_rows * run_bytes)));
    cpu::parallel_ranges(threads_, matrix.num_rows, 1, [&](int, cpu::Range rows) {
      const int64_t step = whole_rows ? rows.end - rows.begin : 1;
      for (int64_t r = rows.begin; r < rows.end; r += step) {
        const int64_t at = ((matrix.row + r) * matrix.cols + matrix.col) * element_bytes;
        const ssize_t got =
            pread(file_, buffer_.data() + r * run_bytes, static_cast<size_t>(step * run_bytes),
                  static_cast<off_t>(matrix.offset) + at);
        CHECK_EQ(got, step * run_bytes);
      }
    });
  }

  void repack(const Matrix& matrix, void* packed) {
    using dnnl::memory;
    const bool bf16 = dtype_ == DType::bf16;
    const memory::dims dims = {matrix.num_cols, matrix.num_rows};  // [in, out]
    const auto type = bf16 ? memory::data_type::bf16 : memory::data_type::f32;
    const auto blocked = bf16 ? memory::format_tag::BA16a64b2a : memory::format_tag::BA16a64b;
    memory from({dims, type, memory::format_tag::ba}, engine_, buffer_.data());
    memory to({dims, type, blocked}, engine_, packed);
    dnnl::reorder(from, to).execute(stream_, from, to);
    stream_.wait();
  }

  int file_;
  DType dtype_;
  int threads_;
  std::vector<char> buffer_;
  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
};

std::vector<Parameter> parameters_of(const std::vector<Matrix>& matrices) {
  std::vector<Parameter> parameters;
  for (const Matrix& m : matrices) {
    Parameter& parameter = parameters.emplace_back();
    parameter.rows = m.num_rows;
    parameter.cols = m.num_cols;
    parameter.slices = {{m.name, m.rows, m.cols, m.row, m.num_rows, m.col, m.num_cols, 0, 0}};
  }
  return parameters;
}

void expect_same(const std::vector<Parameter>& loaded, const std::vector<HostMemory>& packed) {
  for (size_t i = 0; i < loaded.size(); ++i) {
    const auto& weight = static_cast<const cpu::PackedWeight&>(*loaded[i].weight);
    CHECK_EQ(weight.bytes(), packed[i].bytes());
    CHECK_EQ(std::memcmp(weight.data(), packed[i].data(), weight.bytes()), 0);
  }
}

void measure(const Options& options, const std::string& folder) {
  const DType dtype = *parse_float_dtype(options.dtype);
  const std::string path = folder + "/model.safetensors";
  auto matrices = layers(options.mib << 20, static_cast<int64_t>(dtype_bytes(dtype)), options.shards);
  write_checkpoint(path, matrices, dtype);
  const auto checkpoint = must(Checkpoint::open(folder));
  const auto backend = must(create_cpu_backend({.num_threads = options.threads}));
  ReadAndRepack plain(path, dtype, options.threads);
  std::vector<double> allocate, read, repack, plain_s, load_s, ratio;
  LoadStats stats;
  for (int i = -1; i < options.repeats; ++i) {  // the first warms up
    ReadAndRepack::Seconds seconds;
    const std::vector<HostMemory> packed = plain.run(matrices, seconds);
    std::vector<Parameter> parameters = parameters_of(matrices);
    std::vector<Parameter*> pointers;
    for (Parameter& parameter : parameters) pointers.push_back(&parameter);
    const double load = seconds_of([&] {
      const absl::Status loaded =
          load_parameters(*checkpoint, pointers, dtype, *backend, options.threads, &stats);
      if (!loaded.ok()) check_failed(__FILE__, __LINE__, std::string(loaded.message()));
    });
    expect_same(parameters, packed);
    if (i < 0) continue;
    allocate.push_back(seconds.allocate);
    read.push_back(seconds.read);
    repack.push_back(seconds.repack);
    plain_s.push_back(seconds.sum());
    load_s.push_back(load);
    ratio.push_back(load / seconds.sum());
  }
  const double gb = 1e-9 * static_cast<double>(stats.bytes_read);
  std::printf("%.2f GB of %s, shard %d of %d, %d threads, medians of %d in turns\n", gb,
              options.dtype.c_str(), options.shards, options.shards, options.threads, options.repeats);
  std::printf("read and repack: %.3f s, %.2f GB/s (allocate %.3f s, read %.3f s, repack %.3f s)\n",
              median(plain_s), gb / median(plain_s), median(allocate), median(read), median(repack));
  const auto [least, most] = std::minmax_element(ratio.begin(), ratio.end());
  std::printf("load:            %.3f s, %.2f GB/s, %.2f of that (%.2f to %.2f)\n", median(load_s),
              gb / median(load_s), median(ratio), *least, *most);
}

int run(int argc, char** argv) {
  Options options;
  CLI::App app("Loading weights beside reading and repacking the same bytes.");
  app.add_option("--mib", options.mib, "of checkpoint")->check(CLI::Range(1, 100'000))->capture_default_str();
  app.add_option("--threads", options.threads, "of either")->check(CLI::Range(1, 256))->capture_default_str();
  app.add_option("--shards", options.shards, "tensor-parallel size")
      ->check(CLI::IsMember({1, 2, 4, 8, 16}))
      ->capture_default_str();
  app.add_option("--repeats", options.repeats, "after one to warm up")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--dtype", options.dtype, "stored and computed")
      ->check(CLI::IsMember({"bf16", "f32"}))
      ->capture_default_str();
  app.add_option("--dir", options.dir, "where the checkpoint's folder is made")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  std::string folder = options.dir + "/load_bench_XXXXXX";
  if (mkdtemp(folder.data()) == nullptr) check_failed(__FILE__, __LINE__, "cannot make " + folder);
  measure(options, folder);
  std::filesystem::remove_all(folder);
  return 0;
}

}  // namespace
}  // namespace trireme::bench

int main(int argc, char** argv) { return trireme::bench::run(argc, argv); }
