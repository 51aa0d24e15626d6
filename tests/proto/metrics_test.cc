// A metrics endpoint, read over plain sockets.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <string>

#include "proto/support/metrics_endpoint.h"

namespace trireme::rpc {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

/// A TCP connection to the loopback whose reads give up after 20 s.
class HttpSocket {
 public:
  explicit HttpSocket(int port) : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const timeval patience{20, 0};
    ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  }
  ~HttpSocket() { ::close(socket_); }
  HttpSocket(const HttpSocket&) = delete;
  HttpSocket& operator=(const HttpSocket&) = delete;

  bool connected() const { return connected_; }
  void send(const std::string& bytes) {
    size_t sent = 0;
    while (sent < bytes.size()) {
      const ssize_t count = ::send(socket_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
      if (count <= 0) return;  // refused in the middle: what it answers is read next
      sent += static_cast<size_t>(count);
    }
  }
  /// Everything until the other side closes.
  std::string read() {
    std::string all;
    char part[4096];
    for (ssize_t count; (count = ::recv(socket_, part, sizeof(part), 0)) > 0;) all.append(part, count);
    return all;
  }

 private:
  int socket_;
  bool connected_ = false;
};

std::string get(int port, const std::string& path = "/metrics") {
  HttpSocket socket(port);
  if (!socket.connected()) return "not connected";
  socket.send("GET " + path + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  return socket.read();
}

std::unique_ptr<MetricsEndpoint> start_or_fail(MetricsEndpoint::FillPage fill) {
  auto endpoint = MetricsEndpoint::start({"127.0.0.1", 0}, false, std::move(fill));
  EXPECT_TRUE(endpoint.ok()) << endpoint.status();
  return endpoint.ok() ? *std::move(endpoint) : nullptr;
}

TEST(MetricsPageTest, HistogramIsCumulativeAndEndsWithItsCount) {
  Histogram values({1, 2});
  for (const double value : {0.5, 1.5, 1.7, 5.0}) values.observe(value);
  MetricsPage page;
  page.histogram("h", "help", values.snapshot(), {{"rank", "0"}});
  ASSERT_EQ(page.families().size(), 1u);
  const auto& histogram = page.families()[0].metric[0].histogram;
  ASSERT_EQ(histogram.bucket.size(), 3u);
  EXPECT_EQ(histogram.bucket[0].cumulative_count, 1u);
  EXPECT_EQ(histogram.bucket[1].cumulative_count, 3u);
  EXPECT_EQ(histogram.bucket[2].cumulative_count, 4u);
  EXPECT_EQ(histogram.sample_count, 4u);
  EXPECT_DOUBLE_EQ(histogram.sample_sum, 8.7);
}

TEST(MetricsPageTest, SamplesOfOneNameShareAFamily) {
  MetricsPage page;
  page.counter("a_total", "what a counts", 1, {{"code", "OK"}});
  page.gauge("b", "what b is", 2);
  page.counter("a_total", "ignored", 3, {{"code", "CANCELLED"}});
  ASSERT_EQ(page.families().size(), 2u);
  EXPECT_EQ(page.families()[0].name, "trireme:a_total");
  EXPECT_EQ(page.families()[0].help, "what a counts");
  ASSERT_EQ(page.families()[0].metric.size(), 2u);
  EXPECT_EQ(page.families()[0].metric[1].label[0].value, "CANCELLED");
}

TEST(MetricsEndpointTest, ServesWhatIsCollectedAtEachScrape) {
  std::atomic<int> scrapes{0};
  const auto endpoint =
      start_or_fail([&](MetricsPage& page) { page.counter("scrapes_total", "so far", ++scrapes); });
  ASSERT_NE(endpoint, nullptr);
  ASSERT_GT(endpoint->address().port, 0);
  const std::string first = get(endpoint->address().port);
  EXPECT_THAT(first, HasSubstr("200 OK"));
  EXPECT_THAT(first, HasSubstr("# HELP trireme:scrapes_total so far\n"));
  EXPECT_THAT(first, HasSubstr("# TYPE trireme:scrapes_total counter\n"));
  EXPECT_THAT(first, HasSubstr("\ntrireme:scrapes_total 1"));
  EXPECT_THAT(get(endpoint->address().port), HasSubstr("\ntrireme:scrapes_total 2"));
}

TEST(MetricsEndpointTest, RefusesOpenAddressesAndTakenPorts) {
  const auto nothing = [](MetricsPage&) {};
  EXPECT_TRUE(absl::IsFailedPrecondition(MetricsEndpoint::start({"0.0.0.0", 0}, false, nothing).status()));
  EXPECT_TRUE(MetricsEndpoint::start({"0.0.0.0", 0}, true, nothing).ok());
  const auto endpoint = start_or_fail(nothing);
  ASSERT_NE(endpoint, nullptr);
  const auto second = MetricsEndpoint::start(endpoint->address(), false, nothing);
  EXPECT_TRUE(absl::IsUnavailable(second.status())) << second.status();
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(endpoint->address().text()));
}

TEST(MetricsEndpointTest, ServesOnEveryFormOfLoopback) {
  for (const char* host : {"127.0.0.1", "127.0.0.2", "localhost"}) {
    const auto endpoint = MetricsEndpoint::start({host, 0}, false, [](MetricsPage&) {});
    EXPECT_TRUE(endpoint.ok()) << host << ": " << endpoint.status();
  }
}

TEST(MetricsEndpointTest, ClientsThatHangDoNotStopTheNextScrape) {
  const auto endpoint = start_or_fail([](MetricsPage& page) {
    // More than socket buffers hold, so that an unread answer blocks its thread.
    page.gauge("big", std::string(8 << 20, 'x'), 1);
  });
  ASSERT_NE(endpoint, nullptr);
  const int port = endpoint->address().port;
  HttpSocket never_reads(port), never_asks(port), half_asks(port);
  never_reads.send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
  half_asks.send("GET /metr");
  const std::string answer = get(port);
  EXPECT_THAT(answer.substr(0, 64), HasSubstr("200 OK"));
  EXPECT_THAT(answer.substr(answer.size() - 64), HasSubstr("trireme:big 1"));
  // Now more of them than there are threads: they are thrown out, and the next scrape has its turn.
  HttpSocket another(port), one_more(port);
  another.send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
  one_more.send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_THAT(get(port).substr(0, 64), HasSubstr("200 OK"));
}

TEST(MetricsEndpointTest, HostileRequestsAreAnsweredWithErrorsAndTheNextWithMetrics) {
  const auto endpoint = start_or_fail([](MetricsPage& page) { page.gauge("alive", "yes", 1); });
  ASSERT_NE(endpoint, nullptr);
  const int port = endpoint->address().port;
  for (const std::string& request :
       {std::string("\0\0\0\0\r\n\r\n", 8), std::string("GET\r\n\r\n"),
        "GET /" + std::string(1 << 20, 'a') + " HTTP/1.1\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nX: " + std::string(1 << 20, 'b') + "\r\n\r\n",
        std::string("GET /../../../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
        std::string("POST /metrics HTTP/1.1\r\nContent-Length: -1\r\nConnection: close\r\n\r\n"),
        std::string("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")}) {
    HttpSocket socket(port);
    ASSERT_TRUE(socket.connected());
    socket.send(request);
    const std::string answer = socket.read();
    EXPECT_THAT(answer.substr(0, 64), Not(HasSubstr("200 OK"))) << request.substr(0, 40);
    EXPECT_THAT(answer, Not(HasSubstr("root:")));
    EXPECT_THAT(get(port), HasSubstr("trireme:alive 1")) << "after " << request.substr(0, 40);
  }
}

TEST(MetricsEndpointTest, EndsBesideAClientThatHangs) {
  auto endpoint = start_or_fail([](MetricsPage& page) { page.gauge("big", std::string(8 << 20, 'x'), 1); });
  ASSERT_NE(endpoint, nullptr);
  HttpSocket never_reads(endpoint->address().port);
  never_reads.send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
  std::future<void> ended = std::async(std::launch::async, [&] { endpoint.reset(); });
  EXPECT_EQ(ended.wait_for(std::chrono::seconds(20)), std::future_status::ready);
}

}  // namespace
}  // namespace trireme::rpc
