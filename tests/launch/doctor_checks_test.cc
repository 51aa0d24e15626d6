#include "launch/client/doctor_checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace trireme::client {
namespace {

using ::testing::HasSubstr;

/// Four ranks on two hosts, nothing wrong with them.
v1::DoctorReport four_ranks() {
  v1::DoctorReport report;
  for (int i = 0; i < 4; ++i) {
    v1::RankFacts& rank = *report.add_ranks();
    rank.set_rank(i);
    rank.set_host(i < 2 ? "alpha" : "beta");
    for (int cpu = 0; cpu < 8; ++cpu) rank.add_cpus(cpu);
    rank.set_host_cpus(8);
    rank.set_isa("avx512");
    for (const char* name : {"trireme", "trireme-worker"}) {
      v1::FileFact& program = *rank.add_programs();
      program.set_name(name);
      program.set_hash("1234");
    }
    (*rank.mutable_versions())["MPI"] = "Open MPI v4.1.4";
    v1::FileFact& file = *rank.add_model_files();
    file.set_name("model.safetensors");
    file.set_bytes(1000);
    file.set_hash("abcd");
    v1::InterfaceFact& interface = *rank.add_interfaces();
    interface.set_name("eth0");
    interface.set_address(i < 2 ? "10.0.0.1/24" : "10.0.0.2/24");
    rank.set_shared_memory_bytes(int64_t{1} << 30);
    rank.set_locked_memory_bytes(-1);
    rank.set_open_files(65536);
  }
  return report;
}

v1::DoctorReport judged(v1::DoctorReport report, const std::string& network = "") {
  judge(network, report);
  return report;
}

/// The one finding there is to be.
v1::Finding only(const v1::DoctorReport& report) {
  EXPECT_EQ(report.findings_size(), 1) << report.DebugString();
  return report.findings_size() == 1 ? report.findings(0) : v1::Finding();
}

TEST(DoctorChecksTest, NothingIsFoundWhereNothingIsWrong) {
  EXPECT_EQ(judged(four_ranks()).findings_size(), 0);
  EXPECT_EQ(judged(four_ranks(), "10.0.0.0/24").findings_size(), 0);
  EXPECT_EQ(judged(four_ranks(), "eth0").findings_size(), 0);
}

TEST(DoctorChecksTest, TheRankWithAnotherCheckpointIsNamed) {
  v1::DoctorReport report = four_ranks();
  report.mutable_ranks(2)->mutable_model_files(0)->set_hash("ffff");
  const v1::Finding finding = only(judged(report));
  EXPECT_TRUE(finding.problem());
  EXPECT_EQ(finding.rank(), 2);
  EXPECT_EQ(finding.host(), "beta");
  EXPECT_EQ(finding.message(),
            "model.safetensors: got 1000 bytes, hash ffff, 3 of 4 ranks have 1000 bytes, hash abcd");
  EXPECT_FALSE(finding.advice().empty());
}

TEST(DoctorChecksTest, RankZeroIsNamedWhenItIsTheOddOne) {
  v1::DoctorReport report = four_ranks();
  report.mutable_ranks(0)->mutable_programs(1)->set_hash("9999");
  const v1::Finding finding = only(judged(report));
  EXPECT_TRUE(finding.problem());
  EXPECT_EQ(finding.rank(), 0);
  EXPECT_EQ(finding.check(), "program");
  EXPECT_THAT(finding.message(), HasSubstr("trireme-worker: got"));
}

TEST(DoctorChecksTest, OfHalvesRankZeroIsRight) {
  v1::DoctorReport report = four_ranks();
  for (int rank : {2, 3}) (*report.mutable_ranks(rank)->mutable_versions())["MPI"] = "Open MPI v5.0.1";
  report = judged(report);
  ASSERT_EQ(report.findings_size(), 2);
  EXPECT_EQ(report.findings(0).rank(), 2);
  EXPECT_EQ(report.findings(1).rank(), 3);
  EXPECT_THAT(report.findings(0).message(), HasSubstr("rank 0 has Open MPI v4.1.4"));
}

TEST(DoctorChecksTest, AModelThatCannotBeReadIsToldOnce) {
  v1::DoctorReport report = four_ranks();
  report.mutable_ranks(3)->clear_model_files();
  report.mutable_ranks(3)->set_model_error("/m/config.json: no such file");
  const v1::Finding finding = only(judged(report));
  EXPECT_EQ(finding.message(), "/m/config.json: no such file");
  EXPECT_EQ(finding.rank(), 3);
}

TEST(DoctorChecksTest, ARankWithoutAGpuIsAProblemWhereGpusAreAskedFor) {
  v1::DoctorReport report = four_ranks();
  report.set_backend("cuda");
  report.mutable_ranks(3)->mutable_device()->set_error("GPU 1: this host has 1");
  v1::Finding finding = only(judged(report));
  EXPECT_TRUE(finding.problem());
  EXPECT_EQ(finding.check(), "GPU");
  EXPECT_EQ(finding.rank(), 3);
  EXPECT_EQ(finding.message(), "GPU 1: this host has 1");
  report.set_backend("auto");
  finding = only(judged(report));
  EXPECT_FALSE(finding.problem());
}

TEST(DoctorChecksTest, WrongSumsOnAGpuNameItsRank) {
  v1::DoctorReport report = four_ranks();
  report.set_device_collectives("nccl 2.28.9");
  report.mutable_ranks(2)->mutable_device()->set_wrong_sums(17);
  const v1::Finding finding = only(judged(report));
  EXPECT_TRUE(finding.problem());
  EXPECT_EQ(finding.rank(), 2);
  EXPECT_EQ(finding.host(), "beta");
  EXPECT_EQ(finding.message(), "17 elements of the test sums are wrong (nccl 2.28.9)");
}

TEST(DoctorChecksTest, SumsThatCannotStartAreAProblem) {
  v1::DoctorReport report = four_ranks();
  report.set_device_error("rank 1: NCCL did not start: unhandled system error");
  const v1::Finding finding = only(judged(report));
  EXPECT_TRUE(finding.problem());
  EXPECT_EQ(finding.check(), "NCCL");
  EXPECT_THAT(finding.message(), HasSubstr("rank 1: NCCL did not start"));
}

TEST(DoctorChecksTest, GpusThatDoNotReachEachOtherAreToldOf) {
  v1::DoctorReport report = four_ranks();
  report.mutable_ranks(0)->mutable_device()->add_peers(1);
  report.mutable_ranks(1)->mutable_device()->add_apart(0);
  const v1::Finding finding = only(judged(report));
  EXPECT_FALSE(finding.problem());
  EXPECT_EQ(finding.rank(), 1);
  EXPECT_THAT(finding.message(), HasSubstr("cannot read the memory of those of rank 0"));
}

TEST(DoctorChecksTest, ASteadyClockThatIsHardlyKnownIsToldOf) {
  v1::DoctorReport report = four_ranks();
  report.mutable_ranks(2)->set_timeline_error_s(0.0005);
  EXPECT_EQ(judged(report).findings_size(), 0);
  report.mutable_ranks(2)->set_timeline_error_s(0.0042);
  const v1::Finding finding = only(judged(report));
  EXPECT_FALSE(finding.problem());
  EXPECT_EQ(finding.host(), "beta");
  EXPECT_THAT(finding.message(), HasSubstr("known to 4.2 ms only"));
}

TEST(DoctorChecksTest, LowMemlockMattersWhereBuffersAreLocked) {
  v1::DoctorReport report = four_ranks();
  for (int rank : {2, 3}) report.mutable_ranks(rank)->set_locked_memory_bytes(64 << 10);
  EXPECT_EQ(judged(report).findings_size(), 0);
  for (int rank : {2, 3}) report.mutable_ranks(rank)->set_infiniband(true);
  const v1::Finding finding = only(judged(report));  // once for the host
  EXPECT_TRUE(finding.problem());
  EXPECT_EQ(finding.rank(), 2);
  EXPECT_THAT(finding.message(), HasSubstr("got 64 KiB, wanted unlimited"));
}

TEST(DoctorChecksTest, SmallSharedMemoryIsAProblemOfItsHost) {
  v1::DoctorReport report = four_ranks();
  for (int rank : {0, 1}) report.mutable_ranks(rank)->set_shared_memory_bytes(15 << 20);
  const v1::Finding finding = only(judged(report));
  EXPECT_EQ(finding.host(), "alpha");
  EXPECT_THAT(finding.message(), HasSubstr("got 15 MiB free, wanted 16 MiB for 2 ranks"));
}

TEST(DoctorChecksTest, HostsOutsideTheNetworkAreNamed) {
  v1::DoctorReport report = four_ranks();
  for (int rank : {2, 3}) report.mutable_ranks(rank)->mutable_interfaces(0)->set_address("10.0.1.2/24");
  const v1::Finding finding = only(judged(report, "10.0.0.0/24"));
  EXPECT_TRUE(finding.problem());
  EXPECT_EQ(finding.host(), "beta");
  EXPECT_THAT(finding.message(), HasSubstr("it has eth0 10.0.1.2/24"));
}

TEST(DoctorChecksTest, AnAddressThatTwoHostsHaveIsWarnedOf) {
  v1::DoctorReport report = four_ranks();
  for (v1::RankFacts& rank : *report.mutable_ranks()) {
    v1::InterfaceFact& bridge = *rank.add_interfaces();
    bridge.set_name("docker0");
    bridge.set_address("172.17.0.1/16");
  }
  const v1::Finding finding = only(judged(report));
  EXPECT_FALSE(finding.problem());
  EXPECT_THAT(finding.message(), HasSubstr("2 hosts have the address 172.17.0.1/16"));
  EXPECT_EQ(judged(report, "10.0.0.0/24").findings_size(), 0);
}

TEST(DoctorChecksTest, WrongSumsAndLateClocksAreTold) {
  v1::DoctorReport report = four_ranks();
  report.mutable_ranks(1)->set_wrong_sums(3);
  for (int rank : {2, 3}) report.mutable_ranks(rank)->set_clock_offset_s(-2.5);
  report = judged(report);
  ASSERT_EQ(report.findings_size(), 2);
  EXPECT_TRUE(report.findings(0).problem());
  EXPECT_EQ(report.findings(0).rank(), 1);
  EXPECT_FALSE(report.findings(1).problem());
  EXPECT_THAT(report.findings(1).message(), HasSubstr("-2.500 s from rank 0's"));
}

TEST(DoctorChecksTest, ASlowLinkIsWarnedOf) {
  v1::DoctorReport report = four_ranks();
  for (int peer = 1; peer < 4; ++peer) {
    v1::LinkFact& link = *report.add_links();
    link.set_rank(0);
    link.set_peer(peer);
    link.set_across_hosts(true);
    link.set_gb_s(peer == 3 ? 0.1 : 1.0);
  }
  const v1::Finding finding = only(judged(report));
  EXPECT_FALSE(finding.problem());
  EXPECT_THAT(finding.message(), HasSubstr("0.100 GB/s with rank 3, the median link has 1.000"));
}

TEST(DoctorChecksTest, RanksThatShareTooFewProcessorsAreTold) {
  v1::DoctorReport report = four_ranks();
  for (int rank : {0, 1}) {
    report.mutable_ranks(rank)->clear_cpus();
    report.mutable_ranks(rank)->add_cpus(0);
  }
  report = judged(report);
  ASSERT_EQ(report.findings_size(), 3);
  EXPECT_THAT(report.findings(0).message(), HasSubstr("2 ranks share 1 processors"));
  EXPECT_THAT(report.findings(2).message(), HasSubstr("bound to one of 8 processors"));
}

TEST(InNetworkTest, PrefixesAreCompared) {
  EXPECT_TRUE(in_network("10.0.0.7", "10.0.0.0/24"));
  EXPECT_TRUE(in_network("10.0.0.7/16", "10.0.0.0/24"));
  EXPECT_FALSE(in_network("10.0.1.7", "10.0.0.0/24"));
  EXPECT_TRUE(in_network("1.2.3.4", "0.0.0.0/0"));
  EXPECT_FALSE(in_network("1.2.3.4", "1.2.3.5/32"));
  for (const char* network : {"", "10.0.0.0", "10.0.0.0/33", "10.0.0.0/x", "x/8", "10.0.0.0/-1"})
    EXPECT_FALSE(in_network("10.0.0.7", network)) << network;
  EXPECT_FALSE(in_network("x", "0.0.0.0/0"));
}

}  // namespace
}  // namespace trireme::client
