// A management library with one device, for tests.

#include <cstdio>
#include <cstring>

namespace {
int the_device;
int num_users = 0;
bool is_ours(void* device) { return num_users > 0 && device == &the_device; }
constexpr int kOk = 0, kNotSupported = 3, kNotFound = 6;
}  // namespace

extern "C" {

int nvmlInit_v2() { return ++num_users, kOk; }
int nvmlShutdown() { return --num_users, kOk; }
int fake_num_users() { return num_users; }

int nvmlDeviceGetHandleByPciBusId_v2(const char* id, void** device) {
  if (std::strcmp(id, "0000:1b:00.0") != 0) return kNotFound;
  *device = &the_device;
  return kOk;
}
int nvmlSystemGetDriverVersion(char* text, unsigned bytes) {
  return std::snprintf(text, bytes, "580.65.06") > 0 ? kOk : kNotFound;
}
int nvmlDeviceGetUtilizationRates(void* device, unsigned* percents) {
  if (!is_ours(device)) return kNotFound;
  percents[0] = 97;
  percents[1] = 61;
  return kOk;
}
int nvmlDeviceGetPowerUsage(void*, unsigned*) { return kNotSupported; }
int nvmlDeviceGetTotalEccErrors(void* device, int kind, int counter, unsigned long long* errors) {
  if (!is_ours(device) || kind != 1 || counter != 0) return kNotFound;
  *errors = 5;
  return kOk;
}

}  // extern "C"
