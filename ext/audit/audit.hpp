// The audit as the socket's calls see it: may this go out, and what came of it.
//
// A call that is judged makes a Call, asks whether it allows the encoded address that the kernel is
// about to get, and lets the Call end when the outcome is known. With no policy and no record
// wanted, that is one relaxed load.
#pragma once

#include "socket/state.hpp"
// clang-format off: state.hpp brings Python.h, which comes first
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "audit/entry.hpp"
#include "audit/hosts.hpp"
#include "audit/policy.hpp"
#include "audit/published.hpp"
#include "audit/ring.hpp"
// clang-format on

namespace tracesock::audit {

enum Watch : unsigned {
    judging = 1u << 0,    // a policy is in force
    recording = 1u << 1,  // records are kept
    naming = 1u << 2,     // somebody asks for the host name of an address
};
extern std::atomic<unsigned> watch;

inline unsigned watched() noexcept {
    return watch.load(std::memory_order_relaxed);
}

// --- for the socket's calls: all need the interpreter's lock but where it is said
// -----------------

class Call {
  public:
    Call(Event event, Socket& socket) noexcept : socket_(socket), event_(event) {}
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;
    // The record says what the pending exception tells, or success.
    ~Call() {
        if (ring_ != nullptr) [[unlikely]]
            finish();
    }

    // Whether the call may go to `peer`: false with PermissionError (or what a signal handler
    // raised while a record waited for room).
    bool allows(const Address& peer) noexcept { return watched() == 0 || judge(peer); }
    // The same for a call that names no peer, on a socket that may have one already. A peer is
    // judged once; where the socket is a stream, its connection was.
    bool allows_connected() noexcept { return (watched() & judging) == 0 || judge_connected(); }
    // The errno that the call ended with, or 0; negative: as the pending exception tells.
    void end(int error) noexcept {
        // What a connect has reached need not be judged again by a send.
        if (error == 0 && generation_ != 0) [[unlikely]]
            if (SocketState* kept = socket_.audit_state.make())
                kept->judged.store(generation_, std::memory_order_relaxed);
        if (ring_ != nullptr) [[unlikely]]
            finish(error);
    }

    // No record is left: what comes of the call is not known here.
    void withdraw() noexcept {
        if (ring_ == nullptr) return;
        ring_->unreserve();
        ring_ = nullptr;
    }

  private:
    bool judge(const Address& peer) noexcept;
    bool judge_connected() noexcept;
    bool decide(const Address& address) noexcept;
    void finish(int error = -1) noexcept;

    Socket& socket_;
    const Event event_;
    std::uint32_t generation_ = 0;  // of the policy that allowed a connect
    std::shared_ptr<Ring> ring_;    // where there is room for the record
    std::int64_t started_;
    Entry entry_;
};

// An accept(2) in progress.
class Accepting {
  public:
    explicit Accepting(Socket& listener) noexcept : listener_(listener) {
        if (watched() != 0) [[unlikely]]
            begin();
    }
    Accepting(const Accepting&) = delete;
    Accepting& operator=(const Accepting&) = delete;
    ~Accepting() {
        if (ring_ != nullptr) [[unlikely]]
            give_up();
    }

    // Neither of these needs the interpreter's lock.
    // Before each accept(2): false with errno, EINTR to try again.
    bool ready() noexcept { return !begun_ || prepare(); }
    // Whether the new connection may stay. A policy counts that came while accept(2) waited.
    bool admits(sys::Descriptor connection, const Address& peer) noexcept {
        return watched() == 0 || decide(connection, peer);
    }

  private:
    void begin() noexcept;
    bool prepare() noexcept;
    bool decide(sys::Descriptor connection, const Address& peer) noexcept;
    void give_up() noexcept;
    void late() noexcept;

    Socket& listener_;
    bool begun_ = false;
    bool failed_ = false;  // no ring could be made after a fork
    bool reserved_ = false;
    std::shared_ptr<Ring> ring_;
    Entry entry_;
};

// Bytes that a call moved. Needs no lock.
void count_bytes(Socket& socket, bool outgoing, std::int64_t size) noexcept;
inline void moved(Socket& socket, bool outgoing, std::int64_t size) noexcept {
    if ((watched() & recording) != 0 && size > 0) [[unlikely]]
        count_bytes(socket, outgoing, size);
}

void start_life(Socket& socket) noexcept;
inline void socket_made(Socket& socket) noexcept {
    if (SocketState* kept = socket.audit_state.get()) [[unlikely]] {
        kept->judged.store(0, std::memory_order_relaxed);
        kept->closing.store(false, std::memory_order_relaxed);
    }
    if ((watched() & recording) != 0) [[unlikely]]
        start_life(socket);
}
void socket_listens(Socket& socket) noexcept;
// The caller read SO_ERROR: how a connect that did not wait ended.
void pending_result(Socket& socket, int error) noexcept;
// Before the descriptor is closed; `waits`: whether the caller may wait for room.
void socket_closes(Socket& socket, bool waits) noexcept;

// What this process's look-up of `host` returned.
void remember(const char* host, const Address& address) noexcept;
inline void learned(const char* host, const Address& address) noexcept {
    if ((watched() & naming) != 0) [[unlikely]]
        remember(host, address);
}

// --- for the bindings
// -----------------------------------------------------------------------------

// What is in force: read without a lock.
struct Active {
    std::shared_ptr<const Policy> policy;
    std::unique_ptr<HostTable> hosts;
    std::uint32_t generation = 0;
};
extern Published<Active> published;

// Puts a policy into force, or none.
void set_policy(std::shared_ptr<const Policy> policy);
// How often each rule has decided since the process began, by its id and the decision.
std::map<std::pair<std::string, Decision>, std::uint64_t> decisions();

// Where records go; null stops them.
void set_ring(std::shared_ptr<Ring> ring);
std::shared_ptr<Ring> current_ring() noexcept;
// Called, with the lock, by the first record after a fork: sets a ring anew, or raises.
void set_restart(PyObject* callable);
// Called for the OpenTelemetry context where no instrumentation has set the recorder's up: returns
// None or bytes: trace id, span id, and one that is not 0 where instrumentation is suppressed.
void set_context_reader(PyObject* callable);
// Somebody asks for names, or no longer does.
void want_names(bool wanted);
// Leaves a note, a JSON object: false with an exception.
bool leave_note(const std::string& text) noexcept;
// The calling thread's calls are neither judged nor recorded: for the threads of sinks.
void exempt_thread() noexcept;

// The names of the values in records.
const char* name_of(Event event) noexcept;
const char* name_of(Decision decision) noexcept;
const char* name_of(Outcome outcome) noexcept;

}  // namespace tracesock::audit
