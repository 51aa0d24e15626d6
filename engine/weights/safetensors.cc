#include "engine/weights/safetensors.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/json_document.h"
#include "kernels/check.h"

namespace trireme {
namespace {

constexpr uint64_t kMaxIndexBytes = 100'000'000;
constexpr size_t kMaxShards = 4096;

/// NOT_FOUND, or FAILED_PRECONDITION for other reasons of the system.
absl::StatusOr<int> open_regular_file(const std::string& path, uint64_t* bytes) {
  // Not blocking: opening a pipe must not wait for its writer.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    const std::string message = absl::StrCat(path, ": ", std::strerror(errno));
    return errno == ENOENT ? absl::NotFoundError(message) : absl::FailedPreconditionError(message);
  }
  struct stat info = {};
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    close(fd);
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a regular file"));
  }
  *bytes = static_cast<uint64_t>(info.st_size);
  return fd;
}

/// Reads exactly `bytes` at `offset`; DATA_LOSS begins with `what`.
absl::Status read_exactly(int fd, uint64_t offset, void* destination, uint64_t bytes,
                          const std::string& what) {
  uint64_t done = 0;
  while (done < bytes) {
    const ssize_t got =
        pread(fd, static_cast<char*>(destination) + done, bytes - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got > 0) {
      done += static_cast<uint64_t>(got);
      continue;
    }
    return absl::DataLossError(absl::StrCat(what, ": at byte ", offset, " of the file: got ", done,
                                            " bytes, wanted ", bytes,
                                            got < 0 ? absl::StrCat(": ", std::strerror(errno)) : ""));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::map<std::string, TensorEntry>> read_header(int fd, uint64_t file_bytes,
                                                               const std::string& path) {
  unsigned char prefix[8] = {};
  if (file_bytes < sizeof(prefix)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": got ", file_bytes, " bytes, wanted at least the 8 of the header's length"));
  }
  absl::Status status = read_exactly(fd, 0, prefix, sizeof(prefix), path);
  if (!status.ok()) return status;
  uint64_t header_bytes = 0;
  for (int i = 7; i >= 0; --i) header_bytes = header_bytes << 8 | prefix[i];
  if (header_bytes > kMaxSafetensorsHeaderBytes || header_bytes > file_bytes - sizeof(prefix)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": got a header of ", header_bytes,
                                                   " bytes, wanted at most ", kMaxSafetensorsHeaderBytes,
                                                   " and no more than the file's ", file_bytes));
  }
  std::string header(header_bytes, '\0');
  status = read_exactly(fd, sizeof(prefix), header.data(), header_bytes, path);
  if (!status.ok()) return status;
  return parse_safetensors_header(header, file_bytes - sizeof(prefix) - header_bytes, path);
}

bool is_plain_file_name(const std::string& name) {
  return absl::EndsWith(name, ".safetensors") && name.size() <= 255 && name.front() != '.' &&
         name.find('/') == std::string::npos && name.find('\0') == std::string::npos;
}

absl::StatusOr<std::map<std::string, std::string>> read_index(const std::string& path) {
  absl::StatusOr<std::string> text = read_small_file(path, kMaxIndexBytes);
  if (!text.ok()) return text.status();
  return parse_safetensors_index(*text, path);
}

}  // namespace

absl::StatusOr<std::map<std::string, std::string>> parse_safetensors_index(std::string_view json,
                                                                           const std::string& where) {
  absl::StatusOr<nlohmann::json> index = parse_json_object(json, where);
  if (!index.ok()) return index.status();
  const auto weight_map = index->find("weight_map");
  if (weight_map == index->end() || !weight_map->is_object() || weight_map->empty()) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": weight_map: wanted an object with tensors"));
  }
  std::map<std::string, std::string> files;
  for (const auto& [tensor, file] : weight_map->items()) {
    if (!file.is_string() || !is_plain_file_name(file.get<std::string>())) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, ": weight_map: ", describe_json(tensor), ": got ", describe_json(file),
                       ", wanted the plain name of a .safetensors file in the same folder"));
    }
    files.emplace(tensor, file.get<std::string>());
  }
  return files;
}

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::open(const std::string& model_dir) {
  std::unique_ptr<Checkpoint> checkpoint(new Checkpoint());
  const std::string single = model_dir + "/model.safetensors";
  absl::Status status = checkpoint->add_file(single);
  if (status.ok()) return checkpoint;
  if (!absl::IsNotFound(status)) return status;

  const std::string index_path = model_dir + "/model.safetensors.index.json";
  absl::StatusOr<std::map<std::string, std::string>> index = read_index(index_path);
  if (absl::IsNotFound(index.status())) {
    return absl::NotFoundError(
        absl::StrCat(model_dir, ": neither model.safetensors nor ", "model.safetensors.index.json is there"));
  }
  if (!index.ok()) return index.status();
  std::set<std::string> files;
  for (const auto& [tensor, file] : *index) files.insert(file);
  if (files.size() > kMaxShards) {
    return absl::InvalidArgumentError(
        absl::StrCat(index_path, ": got ", files.size(), " files, wanted at most ", kMaxShards));
  }
  for (const std::string& file : files) {
    status = checkpoint->add_file(model_dir + "/" + file);
    if (!status.ok()) return status;
  }
  for (const auto& [tensor, file] : *index) {
    const auto found = checkpoint->tensors_.find(tensor);
    const std::string wanted = model_dir + "/" + file;
    if (found != checkpoint->tensors_.end() && found->second.file == wanted) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        index_path, ": ", describe_json(tensor), " is not in ", wanted,
        found == checkpoint->tensors_.end() ? "" : absl::StrCat(" but in ", found->second.file)));
  }
  return checkpoint;
}

Checkpoint::~Checkpoint() {
  for (const int fd : file_descriptors_) close(fd);
}

absl::Status Checkpoint::add_file(const std::string& path) {
  uint64_t bytes = 0;
  absl::StatusOr<int> fd = open_regular_file(path, &bytes);
  if (!fd.ok()) return fd.status();
  const int file_index = static_cast<int>(file_descriptors_.size());
  file_descriptors_.push_back(*fd);
  auto entries = read_header(*fd, bytes, path);
  if (!entries.ok()) return entries.status();
  for (auto& [name, entry] : *entries) {
    entry.file_index = file_index;
    const auto [other, added] = tensors_.emplace(name, entry);
    if (added) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": ", describe_json(name), " is in ", other->second.file, " too"));
  }
  return absl::OkStatus();
}

absl::StatusOr<const TensorEntry*> Checkpoint::find(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found != tensors_.end()) return &found->second;
  return absl::NotFoundError(
      absl::StrCat(name, ": no such tensor among the ", tensors_.size(), " of the checkpoint"));
}

absl::Status Checkpoint::read(const TensorEntry& tensor, const std::string& name, uint64_t offset,
                              void* destination, uint64_t bytes) const {
  CHECK_LE(offset, tensor.bytes);
  CHECK_LE(bytes, tensor.bytes - offset);
  return read_exactly(file_descriptors_[static_cast<size_t>(tensor.file_index)], tensor.offset + offset,
                      destination, bytes, absl::StrCat(tensor.file, ": ", name));
}

}  // namespace trireme
