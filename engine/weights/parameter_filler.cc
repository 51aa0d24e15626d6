#include "engine/weights/parameter_filler.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>

#include "absl/strings/str_cat.h"
#include "engine/weights/float_conversion.h"
#include "kernels/check.h"

namespace trireme {
namespace {

constexpr int kDefaultThreads = 4;

class Filler {
 public:
  Filler(const std::vector<Parameter*>& parameters, const std::vector<Piece>& pieces, DType compute_dtype,
         Backend& backend, const PieceSource& source)
      : parameters_(parameters),
        pieces_(pieces),
        compute_dtype_(compute_dtype),
        backend_(backend),
        source_(source),
        states_(parameters.size()) {
    for (const Piece& piece : pieces) ++states_[piece.parameter].pieces_left;
  }

  absl::Status run(int num_threads);

 private:
  struct State {
    std::unique_ptr<WeightBuilder> builder;  // matrix
    std::vector<float> values;               // vector
    std::atomic<int64_t> pieces_left = 0;
    std::atomic<bool> begun = false;  // set under mutex_
  };

  void work();
  absl::Status fill(const Piece& piece, std::vector<char>& scratch);
  absl::Status begin(size_t index);
  absl::Status finish(size_t index);
  absl::Status fill_without_pieces();
  void write(const Piece& piece, const PieceData& data);
  void fail(const absl::Status& status);

  const std::vector<Parameter*>& parameters_;
  const std::vector<Piece>& pieces_;
  const DType compute_dtype_;
  Backend& backend_;
  const PieceSource& source_;
  std::vector<State> states_;
  std::atomic<size_t> next_ = 0;
  std::atomic<bool> failed_ = false;
  std::mutex mutex_;     // the backend and status_
  absl::Status status_;  // the first fault
};

void Filler::fail(const absl::Status& status) {
  const std::lock_guard<std::mutex> lock(mutex_);
  status_.Update(status);
  failed_ = true;
}

absl::Status Filler::begin(size_t index) {
  State& state = states_[index];
  if (state.begun) return absl::OkStatus();  // without waiting for a thread that packs another parameter
  const std::lock_guard<std::mutex> lock(mutex_);
  if (state.begun) return absl::OkStatus();
  const Parameter& parameter = *parameters_[index];
  if (parameter.kind == Parameter::Kind::vector) {
    state.values.assign(static_cast<size_t>(parameter.rows), 0.0f);
  } else {
    auto builder = backend_.prepare_weight(parameter.rows, parameter.cols, compute_dtype_);
    if (!builder.ok()) return builder.status();
    state.builder = *std::move(builder);
  }
  state.begun = true;
  return absl::OkStatus();
}

absl::Status Filler::finish(size_t index) {
  const std::lock_guard<std::mutex> lock(mutex_);
  State& state = states_[index];
  Parameter& parameter = *parameters_[index];
  if (parameter.kind == Parameter::Kind::matrix) {
    parameter.weight = state.builder->finish();
    state.builder.reset();
    return absl::OkStatus();
  }
  const size_t bytes = state.values.size() * sizeof(float);
  absl::StatusOr<Buffer> memory = backend_.allocate(bytes);
  if (!memory.ok()) return memory.status();
  backend_.copy_to_device(memory->data(), state.values.data(), bytes);
  backend_.synchronize();  // the host copy goes away
  parameter.memory = *std::move(memory);
  parameter.vector = Tensor(parameter.memory.data(), DType::f32, 1, parameter.rows);
  state.values = {};
  return absl::OkStatus();
}

void Filler::write(const Piece& piece, const PieceData& data) {
  State& state = states_[piece.parameter];
  const int64_t to_row = piece.slice->to_row + piece.row - piece.slice->row;
  const int64_t to_col = piece.slice->to_col + piece.col - piece.slice->col;
  if (state.builder != nullptr) {
    state.builder->write(to_row, piece.num_rows, to_col, piece.num_cols, data.data, data.stride, data.dtype);
    return;
  }
  CHECK_EQ(data.stride, 1);
  convert_to_f32(data.data, data.dtype, piece.num_rows, state.values.data() + to_row);
}

absl::Status Filler::fill(const Piece& piece, std::vector<char>& scratch) {
  absl::Status status = begin(piece.parameter);
  if (!status.ok()) return status;
  PieceData data;
  status = source_(piece, scratch, &data);
  if (!status.ok()) return status;
  write(piece, data);
  if (states_[piece.parameter].pieces_left.fetch_sub(1) > 1) return absl::OkStatus();
  return finish(piece.parameter);
}

void Filler::work() {
  std::vector<char> scratch;
  while (!failed_) {
    const size_t index = next_++;
    if (index >= pieces_.size()) return;
    const absl::Status status = fill(pieces_[index], scratch);
    if (!status.ok()) return fail(status);
  }
}

/// A parameter all of padding (the vocabulary's last shard can be) is zeros.
absl::Status Filler::fill_without_pieces() {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (states_[i].pieces_left > 0) continue;
    absl::Status status = begin(i);
    if (status.ok()) status = finish(i);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status Filler::run(int num_threads) {
  const absl::Status status = fill_without_pieces();
  if (!status.ok()) return status;
  const size_t wanted = static_cast<size_t>(num_threads > 0 ? num_threads : kDefaultThreads);
  std::vector<std::thread> helpers;
  // A process at its limit of threads loads with those it gets.
  try {
    while (helpers.size() + 1 < std::min(wanted, pieces_.size())) helpers.emplace_back([this] { work(); });
  } catch (const std::system_error&) {
  }
  work();
  for (std::thread& helper : helpers) helper.join();
  return status_;
}

}  // namespace

absl::Status fill_parameters(const std::vector<Parameter*>& parameters, const std::vector<Piece>& pieces,
                             DType compute_dtype, Backend& backend, int num_threads,
                             const PieceSource& source) {
  Filler filler(parameters, pieces, compute_dtype, backend, source);
  const absl::Status status = filler.run(num_threads);
  if (status.ok()) return status;
  for (Parameter* parameter : parameters) {
    parameter->weight.reset();
    parameter->memory = Buffer();
    parameter->vector = Tensor();
  }
  return status;
}

uint64_t parameter_bytes(const std::vector<Parameter*>& parameters) {
  uint64_t bytes = 0;
  for (const Parameter* parameter : parameters) {
    bytes += parameter->weight != nullptr ? parameter->weight->bytes() : 0;
    bytes += parameter->memory.bytes();
  }
  return bytes;
}

}  // namespace trireme
