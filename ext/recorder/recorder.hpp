// The recorder: what the socket's calls tell, per thread, without a lock on their path.
//
// A call opens a probe; with the recorder off that is one relaxed load. The probe leaves a record
// in the thread's ring, and the thread's own counters and histograms count it whether or not it is
// traced. One background thread, the drain, reads them all.
#pragma once

#include "socket/state.hpp"
// clang-format off: state.hpp brings Python.h, which comes first
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <netinet/tcp.h>
#include <semaphore.h>

#include "recorder/clock.hpp"
#include "recorder/histogram.hpp"
#include "recorder/record.hpp"
#include "recorder/ring.hpp"
#include "recorder/short_bytes.hpp"
#include "recorder/trace_states.hpp"
// clang-format on

namespace tracesock::recorder {

// What is on; 0: nothing.
enum Want : unsigned {
    want_metrics = 1u << 0,
    want_sends = 1u << 1,           // a span for each send below a recording parent
    want_slow_sends = 1u << 2,      // only for sends that waited or took longer than the threshold
    want_failed_sends = 1u << 3,    // only for sends that failed
    want_connects = 1u << 4,        // spans of connect
    want_accepts = 1u << 5,         // spans of accept
    want_rootless_sends = 1u << 6,  // send spans without a parent too
};

extern std::atomic<unsigned> wanted;

inline unsigned active() noexcept {
    return wanted.load(std::memory_order_relaxed);
}

// A connection as telemetry knows it, from connect or accept to close. Kept until the drain has
// read the last record that names it.
//
// Without an interpreter's lock, several threads may be in calls of one socket. What is no atomic
// is then written before the socket has it, or under the recorder's mutex, under which it is read;
// a call itself reads the peer, once it was asked for, and what never changes.
//
// There is one for each socket: the members' order leaves no gaps, and what a call changes is in
// the first 64 bytes.
struct Connection {
    std::uint32_t number = 0;
    std::atomic<std::uint32_t> users{0};  // calls in progress that hold a pointer to it
    std::atomic<std::uint64_t> sent{0};
    std::atomic<std::uint64_t> received{0};
    int family = 0;
    int type = 0;
    int protocol = 0;
    std::atomic<std::uint32_t> receiver_limited{0};  // us, as TCP_INFO last said
    std::atomic<std::uint32_t> sndbuf_limited{0};
    std::uint16_t labels = 0;  // index of its attribute set (transport, network type, server)
    HeldState state;
    // Made while instrumentation was suppressed: silent for life.
    std::atomic<bool> suppressed{false};
    bool adopted = false;  // its start is not known: counts, no durations
    bool accepted = false;
    std::atomic<bool> connecting{false};
    std::atomic<bool> connected{false};
    // Whether the kernel was asked for the peer of an adopted one: before, `peer` may change.
    std::atomic<bool> asked{false};
    std::atomic<bool> listening{false};
    std::atomic<bool> first_byte_seen{false};
    std::atomic<bool> named{false};  // a record of it was written: its peer stays
    std::uint8_t context_flags = 0;
    ShortBytes<sizeof(sockaddr_in6)> peer;  // encoded addresses, as long as they are
    // Where a record tells it; else the kernel is asked when somebody asks.
    ShortBytes<sizeof(sockaddr_in6)> local;
    ShortBytes<20> server;      // the host name that was asked for, or empty
    std::uint64_t created = 0;  // ticks
    std::uint64_t connect_started = 0;
    std::atomic<std::uint64_t> established{0};
    TraceId trace{};
    SpanId parent{};
    std::shared_ptr<const std::string> origin;  // the stack that made it, where that was asked for
    Socket* socket = nullptr;                   // while it is open
    std::uint64_t closed_epoch = 0;
};
static_assert(sizeof(void*) != 8 || sizeof(Connection) <= 232);

inline bool is_tcp(const Connection& connection) noexcept {
    return connection.type == SOCK_STREAM &&
           (connection.family == AF_INET || connection.family == AF_INET6);
}

// What a call measured on its way.
struct CallStats {
    std::uint64_t started = 0;  // ticks
    std::uint64_t stalled = 0;  // ticks
    std::uint32_t calls = 0;
    std::int16_t error = no_error;
    bool refused = false;  // EAGAIN on a non-blocking socket: nothing was done, nothing is told
    bool resumes = false;  // the caller sends the rest of what was sent in part
};

// The error code of a record.
inline std::int16_t code_of(Status status, int error) noexcept {
    switch (status) {
        case Status::timed_out:
            return timed_out;
        case Status::interrupted:
            return interrupted;
        case Status::failed:
            return static_cast<std::int16_t>(error);
        case Status::done:
            break;
    }
    return no_error;
}

// The OpenTelemetry context at a call.
struct TraceContext {
    TraceId trace{};
    SpanId span{};
    bool valid = false;
    bool sampled = false;
    bool remote = false;  // of another process
    bool suppressed = false;
    TraceStates::Number state = 0;  // where sampled; held by who keeps the context

    // Of a record that is made in it.
    std::uint8_t flags() const noexcept {
        if (sampled) return remote ? has_parent | remote_parent : has_parent;
        return valid ? only_metric : 0;
    }
};

// --- the socket's hooks -------------------------------------------------------------------------

// A call that holds a pointer to a connection keeps it from being freed. Only threads with the
// interpreter's lock change the count, where there is one; elsewhere, a call begins to hold one in
// a visit (recorder.cpp).
void enter(Connection& connection) noexcept;
void leave(Connection& connection) noexcept;

// A send in progress.
class SendProbe {
  public:
    // `destination`: where one datagram goes, if the call says so.
    explicit SendProbe(Socket& socket, const Address* destination = nullptr) noexcept {
        if (active() != 0) [[unlikely]]
            begin(socket, destination);
    }
    SendProbe(const SendProbe&) = delete;
    SendProbe& operator=(const SendProbe&) = delete;
    ~SendProbe() {
        if (connection_ != nullptr) [[unlikely]] {
            leave(*connection_);
            if (state_ != 0) [[unlikely]]
                TraceStates::get().drop(state_);
        }
    }
    CallStats* stats() noexcept { return connection_ != nullptr ? &stats_ : nullptr; }
    // The bytes sent, also where an error ended a call that had sent some.
    void end(std::int64_t size) noexcept {
        if (connection_ != nullptr) [[unlikely]]
            finish(size);
    }
    // The same for the messages of a batch: each is told like a send of its own, with an equal
    // share of the time.
    struct Part {
        std::int64_t size;
        const Address* destination;  // or null
    };
    void end(std::span<const Part> parts) noexcept {
        if (connection_ != nullptr && !parts.empty()) [[unlikely]]
            finish(parts);
    }

  private:
    void begin(Socket& socket, const Address* destination) noexcept;
    void finish(std::int64_t size) noexcept;
    void finish(std::span<const Part> parts) noexcept;
    void tell(std::int64_t size, std::uint64_t duration) noexcept;

    Socket* socket_ = nullptr;
    Connection* connection_ = nullptr;
    CallStats stats_;
    TraceId trace_;  // set where `traced_`
    SpanId parent_;
    std::uint8_t flags_ = 0;
    bool traced_ = false;
    TraceStates::Number state_ = 0;  // held while there is a connection
};

// A send of `size` bytes that began at `started` ticks and was done at the first try, with the
// interpreter's lock held throughout.
void sent_at_once(Socket& socket, std::uint64_t started, std::int64_t size) noexcept;

// Counts what a receive brought; `size` < 0: nothing.
void count_received(Socket& socket, std::int64_t size) noexcept;
inline void received(Socket& socket, std::int64_t size) noexcept {
    if (active() != 0) [[unlikely]]
        count_received(socket, size);
}

// A connect in progress.
class ConnectProbe {
  public:
    ConnectProbe(Socket& socket, const Address& peer) noexcept {
        if (active() != 0) [[unlikely]]
            begin(socket, peer);
    }
    ConnectProbe(const ConnectProbe&) = delete;
    ConnectProbe& operator=(const ConnectProbe&) = delete;
    ~ConnectProbe() {
        if (connection_ != nullptr) [[unlikely]]
            leave(*connection_);
    }
    // The errno that connect ended with, 0, or a negative code of record.hpp.
    void end(int error) noexcept {
        if (connection_ != nullptr) [[unlikely]]
            finish(error);
    }

  private:
    void begin(Socket& socket, const Address& peer) noexcept;
    void finish(int error) noexcept;

    Socket* socket_ = nullptr;
    Connection* connection_ = nullptr;
};

// `adopted`: over a descriptor that was there before.
void socket_made(Socket& socket, bool adopted) noexcept;
void socket_accepted(Socket& socket, const Address& peer) noexcept;
// A TLS socket begins its handshake over the descriptor of another, whose connection it takes.
void socket_shakes_hands(Socket& socket) noexcept;
// Nothing is told of it any more.
void socket_is_silent(Socket& socket) noexcept;
void socket_listens(Socket& socket) noexcept;
// SO_ERROR was read by the caller: how a pending connect ended.
void pending_result(Socket& socket, int error) noexcept;
// A send or receive failed: an error of a connect that is pending is told to whoever asks first.
void failed_pending(Socket& socket, int error) noexcept;
inline void failed(Socket& socket, int error) noexcept {
    if (active() != 0) [[unlikely]]
        failed_pending(socket, error);
}
// Before the descriptor is closed, given away, or closed by the garbage collector.
enum class End : std::uint8_t { closed, detached, finalized };
void socket_closes(Socket& socket, End how) noexcept;

// What this process's look-up of `host` returned: how a numeric peer gets its name. An empty host
// forgets the address's name.
void learned(std::string_view host, const Address& address) noexcept;

// The caller's OpenTelemetry context; needs the lock. Good until Python code runs in this thread.
const TraceContext& current_context() noexcept;

// What the kernel tells of a TCP connection, tcp(7) TCP_INFO: the kernel's structure, of which a C
// library's header has more or less by its age. `base` is what every kernel has.
struct tcp_info_base {
    std::uint8_t tcpi_state;
    std::uint8_t tcpi_ca_state;
    std::uint8_t tcpi_retransmits;
    std::uint8_t tcpi_probes;
    std::uint8_t tcpi_backoff;
    std::uint8_t tcpi_options;
    std::uint8_t tcpi_window_scales;
    std::uint8_t tcpi_flags;
    std::uint32_t tcpi_rto;
    std::uint32_t tcpi_ato;
    std::uint32_t tcpi_snd_mss;
    std::uint32_t tcpi_rcv_mss;
    std::uint32_t tcpi_unacked;
    std::uint32_t tcpi_sacked;
    std::uint32_t tcpi_lost;
    std::uint32_t tcpi_retrans;
    std::uint32_t tcpi_fackets;
    std::uint32_t tcpi_last_data_sent;
    std::uint32_t tcpi_last_ack_sent;
    std::uint32_t tcpi_last_data_recv;
    std::uint32_t tcpi_last_ack_recv;
    std::uint32_t tcpi_pmtu;
    std::uint32_t tcpi_rcv_ssthresh;
    std::uint32_t tcpi_rtt;  // us
    std::uint32_t tcpi_rttvar;
    std::uint32_t tcpi_snd_ssthresh;
    std::uint32_t tcpi_snd_cwnd;
    std::uint32_t tcpi_advmss;
    std::uint32_t tcpi_reordering;
    std::uint32_t tcpi_rcv_rtt;
    std::uint32_t tcpi_rcv_space;
    std::uint32_t tcpi_total_retrans;
};
static_assert(sizeof(tcp_info_base) == 104);
static_assert(offsetof(tcp_info_base, tcpi_rtt) == offsetof(struct ::tcp_info, tcpi_rtt));
static_assert(offsetof(tcp_info_base, tcpi_total_retrans) ==
              offsetof(struct ::tcp_info, tcpi_total_retrans));

struct tcp_info_extended {
    tcp_info_base base;
    std::uint64_t pacing_rate;
    std::uint64_t max_pacing_rate;
    std::uint64_t bytes_acked;
    std::uint64_t bytes_received;
    std::uint32_t segs_out;
    std::uint32_t segs_in;
    std::uint32_t notsent_bytes;
    std::uint32_t min_rtt;
    std::uint32_t data_segs_in;
    std::uint32_t data_segs_out;
    std::uint64_t delivery_rate;
    std::uint64_t busy_time;       // us
    std::uint64_t rwnd_limited;    // us
    std::uint64_t sndbuf_limited;  // us
};

using NameCall = int (*)(int, sockaddr*, socklen_t*);
// What getsockname(2) or getpeername(2) tells, or nothing.
std::string name_of(sys::Descriptor fd, NameCall call);

// Whether TCP_INFO could be read.
bool tcp_info(sys::Descriptor fd, tcp_info_extended& out) noexcept;

// --- the drain's side ---------------------------------------------------------------------------

inline constexpr std::size_t most_labels = 256;
inline constexpr std::size_t ring_capacity = 1u << 14;  // records a thread: 1 MiB
inline constexpr std::uint64_t wake_every = ring_capacity / 8;

// What one thread counted for one attribute set.
struct Cell {
    std::atomic<std::uint64_t> sent{0};
    std::atomic<std::uint64_t> received{0};
    Histogram send;
    Histogram stall_receiver;
    Histogram stall_sndbuf;
};

// One thread's part of the recorder.
struct Shard {
    explicit Shard(std::size_t capacity) : ring(capacity) {}

    Ring ring;
    std::array<std::atomic<Cell*>, most_labels> cells{};
    std::vector<std::unique_ptr<Cell>> owned_cells;
    std::uint64_t woke_at = 0;    // records that the drain was woken for, or has read
    PyObject* context = nullptr;  // owned: the cache's key
    TraceContext cached;
    // How deep the thread is in code that reads connections, where no lock keeps them.
    std::atomic<std::uint32_t> visits{0};
};

// The calling thread's shard, once it has one. In the module's own part of the thread's memory: the
// general way to a thread-local variable of a shared library is a call.
[[gnu::tls_model("initial-exec")]] extern constinit thread_local Shard* current_shard;

// The attribute set of a connection's metrics.
struct Labels {
    int family = 0;
    int type = 0;
    int protocol = 0;
    std::string server;

    bool operator==(const Labels&) const = default;
};

class Recorder {
  public:
    static Recorder& get() noexcept {
        Recorder* const made = instance.load(std::memory_order_acquire);
        return made != nullptr ? *made : make();
    }

    // The calling thread's.
    Shard& shard() noexcept {
        Shard* const own = current_shard;
        return own != nullptr ? *own : join();
    }
    // The thread of this shard has ended: another may have it.
    void leave(Shard& shard) noexcept;
    Cell& cell(Shard& shard, std::uint16_t labels) noexcept {
        Cell* const cell = shard.cells[labels].load(std::memory_order_relaxed);
        return cell != nullptr ? *cell : make_cell(shard, labels);
    }
    // The socket's connection, made when there is none; null where memory is short.
    Connection* connection(Socket& socket) noexcept;
    // A connection that `fill` has prepared, before another thread sees it: the socket's from now
    // on if it still has `replaced`, which may be none. If it has another, that one in place of
    // none, otherwise the new one for this call only. Null where memory is short.
    template <class Fill>
    Connection* make_connection(Socket& socket, Connection* replaced, Fill&& fill) noexcept;
    std::uint16_t intern(const Connection& connection);
    // A record in the thread's ring: `fill` writes it where it is to be.
    template <class Fill>
    void write(Shard& shard, Fill&& fill) noexcept {
        Record* const slot = shard.ring.reserve();
        if (slot == nullptr) [[unlikely]] {
            ::sem_post(&wake_up);
            return;
        }
        fill(*slot);
        const std::uint64_t written = shard.ring.commit();
        if (written - shard.woke_at >= wake_every) [[unlikely]] {
            // Not for what has been read meanwhile.
            const std::uint64_t read = shard.ring.read();
            const bool due = written - read >= wake_every;
            shard.woke_at = due ? written : read;
            if (due) ::sem_post(&wake_up);
        }
    }
    void push(Shard& shard, const Record& record) noexcept {
        write(shard, [&](Record& slot) { slot = record; });
    }
    // The socket's entry for what it sends to `destination`: its own, or one in its place when it
    // last sent to another.
    // `held`: of the connection's users, how many are the caller itself.
    Connection* towards(Socket& socket, Connection* connection, const Address& destination,
                        std::uint32_t held = 0) noexcept;
    // The socket's entry for another peer: its own where no record and no call names it, otherwise
    // one in its place. `fill` gives it that peer, and says whether its labels changed. Null where
    // memory is short.
    template <class Fill>
    Connection* renew(Socket& socket, Connection* connection, std::uint32_t held,
                      Fill&& fill) noexcept;
    // The host name by which an encoded address was found, or empty; under the mutex.
    std::string_view name_behind(std::string_view peer) const;
    // Asks the kernel for the connection's own address.
    void learn_local(Socket& socket, Connection& connection) noexcept;
    void after_fork() noexcept;
    // Gives `take` at most `limit` records, oldest first in each thread's ring, and frees what no
    // record names any more. Whether that ended a round, in which each ring is read to where it was
    // at the round's start: however fast a thread writes, the others' turn comes. `take` must not
    // need the interpreter's lock.
    template <class Take>
    bool drain(std::size_t limit, Take&& take) {
        const std::lock_guard reading(drain_mutex);
        if (round_.empty()) begin_round();
        while (!round_.empty() && limit != 0) {
            auto& [shard, head] = round_.back();
            shard->ring.prepare(wake_every);
            if (shard->ring.drain(head, limit, take)) round_.pop_back();
        }
        if (!round_.empty()) return false;
        end_round();
        return true;
    }
    // Until a ring fills up, somebody wakes the drain, or the time in nanoseconds has passed.
    void wait(std::int64_t nanoseconds) noexcept;
    // Wakes the drain, also out of what it does by itself.
    void rouse() noexcept;
    // Gives the contexts of threads that are gone back; needs the interpreter's lock.
    void drop_contexts() noexcept;
    void set_slow_threshold(double seconds) noexcept;

    std::mutex drain_mutex;  // held by who reads the rings; taken before the other
    std::mutex mutex;        // guards what follows; never held over a blocking call
    std::vector<std::unique_ptr<Shard>> shards;
    std::vector<Shard*> idle;         // those whose threads have ended
    std::vector<PyObject*> contexts;  // references of theirs
    std::vector<Labels> labels;
    std::array<std::unique_ptr<Cell>, most_labels> retired;
    std::unordered_map<std::uint32_t, std::unique_ptr<Connection>> connections;
    std::deque<std::uint32_t> closed;  // numbers of those that wait to be freed, oldest first
    std::unordered_map<std::string, std::string> names;  // address bytes without port: host
    // Descriptors that were given away, with the socket's inode: a TLS socket takes its
    // transport's.
    struct Orphan {
        std::uint64_t inode = 0;
        std::uint32_t number = 0;
    };
    std::unordered_map<sys::Descriptor, Orphan> orphans;
    std::uint32_t next_number = 1;
    std::uint64_t epoch = 0;                       // how often the drain has read every ring
    std::atomic<std::uint64_t> forked_written{0};  // records that a parent process wrote
    std::atomic<std::uint64_t> lost{0};            // records for which there was no memory
    std::atomic<std::uint64_t> ended_written{0};   // of shards that are gone
    std::atomic<std::uint64_t> ended_dropped{0};
    std::atomic<std::uint64_t> slow_threshold{0};  // ticks
    std::atomic<bool> keep_origin{false};
    // The OpenTelemetry context variable and its keys; set before anything is wanted.
    std::atomic<PyObject*> context_variable{nullptr};
    std::atomic<PyObject*> span_key{nullptr};
    std::atomic<PyObject*> server_variable{nullptr};  // has the name that a set-up asks for
    std::atomic<PyObject*> empty_state{nullptr};      // the SDK has one for all; kept for good
    std::array<std::atomic<PyObject*>, 2> suppression_keys{};
    // What the API's spans are read by; set with the keys.
    struct Api {
        PyObject* get_span_context = nullptr;
        PyObject* trace_id = nullptr;
        PyObject* span_id = nullptr;
        PyObject* trace_flags = nullptr;
        PyObject* is_remote = nullptr;
        PyObject* trace_state = nullptr;
        // The class of span contexts that are tuples of the five above, in the API's order; or
        // none.
        PyTypeObject* span_context = nullptr;

        // `tuple_of_parts` is one, or None. False with an exception set.
        bool make(PyObject* tuple_of_parts) noexcept;
    } api;
    sem_t wake_up;
    std::atomic<bool> roused{false};

    // Marks a connection as one that is not its socket's any more; under the mutex.
    void release(Connection& connection) noexcept;

  private:
    static Recorder& make() noexcept;
    Shard& join() noexcept;
    Cell& make_cell(Shard& shard, std::uint16_t labels) noexcept;
    void begin_round();
    void end_round();
    // Keeps the counts of a shard that goes; under the mutex.
    void retire(const Shard& shard);

    static inline std::atomic<Recorder*> instance{nullptr};
    std::vector<std::pair<Shard*, std::uint64_t>> round_;  // what is left of it: rings, and how far
};

}  // namespace tracesock::recorder
