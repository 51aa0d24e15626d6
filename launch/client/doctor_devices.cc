#include "launch/client/doctor_devices.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "engine/backend_choice.h"
#include "engine/device_placement.h"
#include "engine/parallel/agreement.h"
#include "engine/parallel/collectives.h"
#include "kernels/backend.h"
#include "kernels/peer_access.h"
#include "launch/client/doctor_probe.h"

namespace trireme::client {
namespace {

constexpr std::chrono::milliseconds kDeadline{60'000};
constexpr int64_t kSums[] = {1, 1000, 300'000, 4'000'000};  // elements

/// The GPU that a worker would take, and with how many others; where there is none, opening one tells why.
absl::StatusOr<DevicePlacement> place(HostGroup& world) {
  const auto seen = agree_on_placement(world, "auto", "auto", /*first=*/0, kDeadline);
  if (!seen.ok()) return seen.status();
  if (*seen) return **seen;
  const int num_devices = num_cuda_devices();
  if (num_devices == 0) return DevicePlacement{world.local_rank(), 1};
  return *place_on_device(/*first=*/0, world.local_rank(), world.local_size(), num_devices,
                          /*may_share=*/true);
}

/// Every rank's error, empty where it has a GPU; `backend` gets this rank's.
absl::StatusOr<std::vector<std::string>> open_devices(HostGroup& world, int device,
                                                      std::unique_ptr<Backend>& backend) {
  std::vector<std::string> notes;
  auto opened = create_cuda_backend({device, DType::f32, &notes});
  std::string error;
  if (opened.ok())
    backend = *std::move(opened);
  else
    error = absl::Utf8SafeCEscape(opened.status().message());
  return share_bytes(world, error, kDeadline);
}

/// facts.device.peers and apart.
absl::Status find_peers(HostGroup& world, int device, v1::RankFacts& facts) {
  const auto own = gpu_address(device);
  auto addresses = share_bytes(world, own.value_or(""), kDeadline);
  if (!addresses.ok()) return addresses.status();
  auto hosts = share_bytes(world, facts.host(), kDeadline);
  if (!hosts.ok()) return hosts.status();
  v1::DeviceFacts& found = *facts.mutable_device();
  for (int rank = 0; rank < world.size(); ++rank) {
    const auto index = static_cast<size_t>(rank);
    if (rank == world.rank() || (*hosts)[index] != facts.host()) continue;
    const bool direct = can_access_peer(device, (*addresses)[index]).value_or(false);
    direct ? found.add_peers(rank) : found.add_apart(rank);
  }
  return absl::OkStatus();
}

/// How many elements of sums in the device's memory are wrong.
absl::StatusOr<int64_t> count_wrong_sums(HostGroup& world, ProcessGroup& group, Backend& backend) {
  const int64_t most = *std::max_element(std::begin(kSums), std::end(kSums));
  auto memory = group.communication_buffer(backend, static_cast<size_t>(most) * sizeof(float));
  if (absl::Status all = agree_on_success(world, memory.status(), kDeadline); !all.ok()) return all;
  std::vector<float> values(static_cast<size_t>(most));
  int64_t wrong = 0;
  for (const int64_t count : kSums) {
    const size_t bytes = static_cast<size_t>(count) * sizeof(float);
    for (int64_t i = 0; i < count; ++i) values[static_cast<size_t>(i)] = known_part(world.rank(), i);
    backend.copy_to_device(memory->data(), values.data(), bytes);
    group.all_reduce_sum(Tensor(memory->data(), DType::f32, 1, count));
    backend.copy_to_host(values.data(), memory->data(), bytes);
    backend.synchronize();
    for (int64_t i = 0; i < count; ++i)
      wrong += values[static_cast<size_t>(i)] == known_sum(world.size(), i) ? 0 : 1;
  }
  return wrong;
}

}  // namespace

absl::Status probe_devices(HostGroup& world, const std::string& wish, v1::RankFacts& facts,
                           v1::DoctorReport& report) {
  report.set_backend(wish);
  if (wish == "cpu") {
    report.set_devices_skipped("--backend cpu");
    return absl::OkStatus();
  }
  const auto placement = place(world);
  if (!placement.ok()) return placement.status();
  std::unique_ptr<Backend> backend;
  const auto errors = open_devices(world, placement->device, backend);
  if (!errors.ok()) return errors.status();
  const auto num_without =
      std::count_if(errors->begin(), errors->end(), [](const std::string& error) { return !error.empty(); });
  if (num_without == world.size() && wish == "auto") {
    report.set_devices_skipped(absl::StrCat("no rank has one: ", errors->front()));
    return absl::OkStatus();
  }
  facts.mutable_device()->set_error((*errors)[static_cast<size_t>(world.rank())]);
  if (backend != nullptr) facts.mutable_device()->set_description(backend->description());
  if (num_without > 0) {
    report.set_devices_skipped(absl::StrCat(num_without, " of ", world.size(), " ranks have none"));
    return absl::OkStatus();
  }
  if (absl::Status found = find_peers(world, placement->device, facts); !found.ok()) return found;
  const auto group = create_process_group("auto", world, *backend, placement->num_sharers > 1, kDeadline);
  if (!group.ok()) {
    report.set_device_error(absl::Utf8SafeCEscape(group.status().message()));
    return absl::OkStatus();
  }
  report.set_device_collectives(describe_all_reduce(**group));
  const auto wrong = count_wrong_sums(world, **group, *backend);
  if (!wrong.ok())
    report.set_device_error(absl::Utf8SafeCEscape(wrong.status().message()));
  else
    facts.mutable_device()->set_wrong_sums(*wrong);
  return absl::OkStatus();
}

}  // namespace trireme::client
