#pragma once
// One stream in, one stream out. The state machine knows no gRPC, so that it can be tested on fake streams.

#include <mutex>

namespace trireme {

/// What ended a relay; the first cause is the one that counts.
enum class RelayEnd {
  upstream,      // the replica ended its stream, well or not: its status says
  client_gone,   // the client cancelled, its deadline passed, or its connection broke
  slow_client,   // the client did not take a message in time
  cancelled,     // Cancel was called, and the replica could not be told
  replica_lost,  // the replica's lease ended, and no other one goes on with the request
  malformed,     // the replica sent something that cannot be passed on
  aborted,       // the coordinator ends before the request does
};

/// The two streams, as the relay drives them. Calls come from whichever thread brought the event, never under
/// a lock. read() and write() alternate; release() follows the last of them, finish() the end of the
/// replica's stream. cancel() may come beside any of them, and right after finish().
class RelayStreams {
 public:
  virtual ~RelayStreams() = default;
  virtual void read() = 0;                // the replica's next message; on_read() answers
  virtual void write() = 0;               // passes on the message just read; on_written() answers
  virtual void cancel() = 0;              // ends the call to the replica; an open read fails soon
  virtual void release() = 0;             // once: there will be no further read; on_upstream_done() answers
  virtual void finish(RelayEnd end) = 0;  // once, and the last call
};

/// Flow control: a message is read from the replica only when the one before it was written to the client.
/// Thus at most one message is held here, and a client that does not read stops the replica's stream.
/// Thread-safe: events may come from any thread.
class Relay {
 public:
  explicit Relay(RelayStreams& streams) : streams_(streams) {}

  void start();
  void on_read(bool ok);
  void on_written(bool ok);
  void on_upstream_done();
  /// Ends the relay from outside, at any time, any number of times.
  void end(RelayEnd cause);
  /// The cause so far; `upstream` while nothing else happened.
  RelayEnd cause() const;

 private:
  bool ended_locked() const { return cause_ != RelayEnd::upstream; }

  RelayStreams& streams_;
  mutable std::mutex mutex_;
  RelayEnd cause_ = RelayEnd::upstream;
  bool done_ = false;
};

}  // namespace trireme
