#include "engine/weights/parameter_filler.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>

#include "kernels/check.h"
#include "kernels/float_conversion.h"

namespace trireme {
namespace {

constexpr int kDefaultThreads = 4;

/// The calling thread alone talks to the backend: it begins parameters in order, a few ahead of the pieces
/// being read, and finishes those whose last piece is written. In between it reads pieces like its helpers.
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
    int64_t pieces_left = 0;                 // not yet written; under mutex_
  };
  using Lock = std::unique_lock<std::mutex>;

  void help();
  void lead(size_t max_open);
  bool has_piece() const {
    return next_piece_ < pieces_.size() && pieces_[next_piece_].parameter < num_begun_;
  }
  void do_piece(Lock& lock, std::vector<char>& scratch);
  void do_begin(Lock& lock);
  void do_finish(Lock& lock);
  absl::Status begin(size_t index);
  absl::Status finish(size_t index);
  void write(const Piece& piece, const PieceData& data);

  const std::vector<Parameter*>& parameters_;
  const std::vector<Piece>& pieces_;
  const DType compute_dtype_;
  Backend& backend_;
  const PieceSource& source_;
  std::vector<State> states_;

  std::mutex mutex_;  // all below
  std::condition_variable changed_;
  size_t next_piece_ = 0;     // to be taken
  size_t num_begun_ = 0;      // parameters [0, num_begun_) have a builder
  size_t num_finished_ = 0;   // in whatever order
  std::deque<size_t> ready_;  // parameters to be finished
  absl::Status status_;       // the first fault
};

absl::Status Filler::begin(size_t index) {
  State& state = states_[index];
  const Parameter& parameter = *parameters_[index];
  if (parameter.kind == Parameter::Kind::vector) {
    state.values.assign(static_cast<size_t>(parameter.rows), 0.0f);
    return absl::OkStatus();
  }
  auto builder = backend_.prepare_weight(parameter.rows, parameter.cols, compute_dtype_);
  if (!builder.ok()) return builder.status();
  state.builder = *std::move(builder);
  return absl::OkStatus();
}

absl::Status Filler::finish(size_t index) {
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
  if (data.drawn) {
    state.builder->draw(to_row, piece.num_rows, to_col, piece.num_cols, *data.drawn);
    return;
  }
  if (state.builder != nullptr) {
    state.builder->write(to_row, piece.num_rows, to_col, piece.num_cols, data.data, data.stride, data.dtype);
    return;
  }
  CHECK_EQ(data.stride, 1);
  convert_to_f32(data.data, data.dtype, piece.num_rows, state.values.data() + to_row);
}

void Filler::do_piece(Lock& lock, std::vector<char>& scratch) {
  const Piece& piece = pieces_[next_piece_++];
  lock.unlock();
  PieceData data;
  const absl::Status status = source_(piece, scratch, &data);
  if (status.ok()) write(piece, data);
  lock.lock();
  status_.Update(status);
  if (--states_[piece.parameter].pieces_left == 0) ready_.push_back(piece.parameter);
  if (!status_.ok() || !ready_.empty()) changed_.notify_all();
}

void Filler::do_begin(Lock& lock) {
  const size_t index = num_begun_;
  lock.unlock();
  const absl::Status status = begin(index);
  lock.lock();
  status_.Update(status);
  if (!status.ok()) return;
  ++num_begun_;
  // A parameter all of padding (the vocabulary's last shard can be) has no piece: it stays zero.
  if (states_[index].pieces_left == 0) ready_.push_back(index);
  changed_.notify_all();
}

void Filler::do_finish(Lock& lock) {
  const size_t index = ready_.front();
  ready_.pop_front();
  lock.unlock();
  const absl::Status status = finish(index);
  lock.lock();
  status_.Update(status);
  ++num_finished_;
}

void Filler::help() {
  std::vector<char> scratch;
  Lock lock(mutex_);
  while (status_.ok() && next_piece_ < pieces_.size()) {
    if (has_piece()) {
      do_piece(lock, scratch);
    } else {
      changed_.wait(lock);
    }
  }
}

void Filler::lead(size_t max_open) {
  std::vector<char> scratch;
  Lock lock(mutex_);
  while (status_.ok() && num_finished_ < parameters_.size()) {
    if (!ready_.empty()) {
      do_finish(lock);
    } else if (num_begun_ < parameters_.size() && num_begun_ - num_finished_ < max_open) {
      do_begin(lock);
    } else if (has_piece()) {
      do_piece(lock, scratch);
    } else {
      changed_.wait(lock);
    }
  }
  changed_.notify_all();
}

absl::Status Filler::run(int num_threads) {
  const size_t wanted = static_cast<size_t>(num_threads > 0 ? num_threads : kDefaultThreads);
  std::vector<std::thread> helpers;
  // A process at its limit of threads loads with those it gets.
  try {
    while (helpers.size() + 1 < std::min(wanted, pieces_.size())) helpers.emplace_back([this] { help(); });
  } catch (const std::system_error&) {
  }
  lead(wanted + 1);
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
