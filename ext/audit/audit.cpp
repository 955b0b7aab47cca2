#include "audit/audit.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <mutex>

#include "recorder/recorder.hpp"

#if TRACESOCK_WINDOWS
#include <process.h>
#else
#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#endif

namespace tracesock::audit {

std::atomic<unsigned> watch{0};
Published<Active> published;

namespace {

constexpr std::int64_t ms = 1'000'000;

thread_local bool exempt = false;

// Everything that is written but not read on the path of a call. Never destroyed: calls may come
// while the process ends.
struct Own {
    std::mutex mutex;  // never held over a call into the interpreter
    std::shared_ptr<Ring> ring;
    HostRegistry registry;
    std::shared_ptr<const Policy> policy;
    std::vector<std::shared_ptr<const Policy>> past;  // until nobody counts in them any more
    std::map<std::pair<std::string, Decision>, std::uint64_t> counted;
    std::uint32_t generation = 0;
    int namers = 0;
    bool forked = false;                   // the ring was the parent's
    std::atomic<std::int32_t> process{0};  // getpid(2) is a system call for each record

    // The interpreter whose objects the callables are; those under the mutex.
    std::atomic<PyInterpreterState*> interpreter{nullptr};
    PyObject* restart = nullptr;
    PyObject* context_reader = nullptr;
    std::atomic<PyObject*> trace_module{nullptr};  // "opentelemetry.trace"
};

std::int32_t asked_process_id() noexcept {
#if TRACESOCK_WINDOWS
    return ::_getpid();
#else
    return ::getpid();
#endif
}

Own& own() noexcept {
    static Own* const only = [] {
        auto made = std::make_unique<Own>();
        made->process = asked_process_id();
#if !TRACESOCK_WINDOWS
        ::pthread_atfork(
            [] {
                Own& all = own();
                all.mutex.lock();
                if (all.ring != nullptr) all.ring->lock();
            },
            [] {
                Own& all = own();
                if (all.ring != nullptr) all.ring->unlock();
                all.mutex.unlock();
            },
            [] {
                Own& all = own();
                all.process = asked_process_id();
                if (all.ring != nullptr) {
                    all.ring->unlock();
                    // The parent's: what it holds is the parent's to tell. Not freed, because its
                    // condition variables count threads that do not exist here.
                    new std::shared_ptr<Ring>(std::move(all.ring));
                    all.ring = nullptr;
                    all.forked = true;
                }
                all.mutex.unlock();
            });
#endif
        return made.release();
    }();
    return *only;
}

// --- clocks and identities
// ------------------------------------------------------------------------

std::int64_t unix_time() noexcept {
    using namespace std::chrono;
    return duration_cast<nanoseconds>(system_clock::now().time_since_epoch()).count();
}

std::int64_t monotonic() noexcept {
    using namespace std::chrono;
    return duration_cast<nanoseconds>(steady_clock::now().time_since_epoch()).count();
}

std::int32_t process_id() noexcept {
    return own().process.load(std::memory_order_relaxed);
}

std::uint64_t native_thread() noexcept {
    thread_local std::uint64_t id = 0;
    thread_local std::int32_t of_process = 0;
#if TRACESOCK_LINUX
    // The child of a fork is another thread with the same storage.
    const std::int32_t process = process_id();
    if (id == 0 || of_process != process) {
        id = static_cast<std::uint64_t>(::syscall(SYS_gettid));
        of_process = process;
    }
#else
    if (id == 0) id = PyThread_get_thread_native_id();
    (void)of_process;
#endif
    return id;
}

// --- filling an entry
// -----------------------------------------------------------------------------

void begin_entry(Entry& entry, Event event, const Socket& socket) noexcept {
    std::memset(&entry, 0, offsetof(Entry, peer));
    entry.event = event;
    entry.decision = Decision::none;
    entry.outcome = Outcome::success;
    entry.duration = unknown_duration;
    entry.time = unix_time();
    entry.thread = PyThread_get_thread_ident();
    entry.native_thread = native_thread();
    entry.pid = process_id();
    entry.family = socket.family;
    entry.type = socket.type;
    entry.protocol = socket.protocol;
    entry.descriptor = socket.handle.get();
}

void put_peer(Entry& entry, const Address& address) noexcept {
    entry.peer_size =
        static_cast<std::uint16_t>(std::min<std::size_t>(address.length, address_capacity));
    std::memcpy(entry.peer, address.bytes, entry.peer_size);
}

void put_local(Entry& entry, sys::Descriptor fd) noexcept {
    Address address;
    address.length = sizeof address.storage;
    if (::getsockname(fd, &address.header, &address.length) < 0) return;
    entry.local_size =
        static_cast<std::uint16_t>(std::min<std::size_t>(address.length, address_capacity));
    std::memcpy(entry.local, address.bytes, entry.local_size);
}

bool peer_of(sys::Descriptor fd, Address& address) noexcept {
    address.length = sizeof address.storage;
    if (::getpeername(fd, &address.header, &address.length) < 0) return false;
    address.length = std::min<socklen_t>(address.length, sizeof address.storage);
    return address.length >= offsetof(sockaddr, sa_data);
}

template <std::size_t Capacity>
std::uint16_t put_text(char (&where)[Capacity], const std::string& text) noexcept {
    const std::size_t size = std::min(text.size(), Capacity);
    std::memcpy(where, text.data(), size);
    return static_cast<std::uint16_t>(size);
}

bool in_own_interpreter() noexcept {
    return own().interpreter == PyInterpreterState_Get();
}

void remember_peer(Socket& socket, const Entry& entry) noexcept {
    SocketState* kept = socket.audit_state.make();
    auto peer = std::unique_ptr<Address>(new (std::nothrow) Address());
    if (kept == nullptr || peer == nullptr) return;
    peer->length = entry.peer_size;
    std::memcpy(peer->bytes, entry.peer, entry.peer_size);
    kept->remember(std::move(peer));
}

// The caller's trace context. Sets and clears no exception of the caller's.
void put_context(Entry& entry) noexcept {
    Own& all = own();
    if (!in_own_interpreter()) return;
    if (recorder::Recorder::get().context_variable != nullptr) {
        const recorder::TraceContext context = recorder::current_context();
        if (context.suppressed) entry.flags |= suppressed;
        if (!context.valid) return;
        entry.flags |= traced;
        entry.trace = context.trace;
        entry.span = context.span;
        return;
    }
    Ref reader;
    {
        const std::lock_guard guard(all.mutex);
        reader = Ref::borrow(all.context_reader);
    }
    if (!reader) return;
    PyObject *kind, *value, *trace;
    PyErr_Fetch(&kind, &value, &trace);
    // Not imported by the program: there is no context.
    if (Ref module{PyImport_GetModule(all.trace_module)}) {
        Ref context(PyObject_CallNoArgs(reader.get()));
        if (context && PyBytes_Check(context.get()) && PyBytes_GET_SIZE(context.get()) == 25) {
            const char* bytes = PyBytes_AS_STRING(context.get());
            std::memcpy(entry.trace.data(), bytes, 16);
            std::memcpy(entry.span.data(), bytes + 16, 8);
            const auto zero = [](unsigned char byte) { return byte == 0; };
            if (!std::all_of(entry.trace.begin(), entry.trace.end(), zero)) entry.flags |= traced;
            if (bytes[24] != 0) entry.flags |= suppressed;
        }
    }
    PyErr_Clear();
    PyErr_Restore(kind, value, trace);
}

// --- room for the record
// --------------------------------------------------------------------------

// The ring, made anew where a fork took it away. Null where no record is wanted, or `failed`, with
// an exception.
std::shared_ptr<Ring> usable_ring(bool& failed) noexcept {
    Own& all = own();
    std::unique_lock guard(all.mutex);
    if (!all.forked || all.restart == nullptr || !in_own_interpreter()) return all.ring;
    all.forked = false;
    const Ref restart = Ref::borrow(all.restart);
    guard.unlock();
    if (!Ref(PyObject_CallNoArgs(restart.get()))) {
        // Tried again by the next record.
        guard.lock();
        all.forked = true;
        failed = true;
        return nullptr;
    }
    guard.lock();
    return all.ring;
}

bool refuse_unrecorded() noexcept {
    Ref error(PyObject_CallFunction(PyExc_PermissionError, "is", EPERM,
                                    "no record of this call could be kept, and the audit log "
                                    "fails closed"));
    if (error) PyErr_SetObject(PyExc_PermissionError, error.get());
    return false;
}

// Sets room aside, waiting for it without the lock: false with an exception. `ring` stays null
// where no record is wanted.
bool reserve(std::shared_ptr<Ring>& ring) noexcept {
    bool failed = false;
    std::shared_ptr<Ring> usable = usable_ring(failed);
    if (failed) return false;
    if (usable == nullptr) return true;
    Ring::Space space = usable->reserve(0);
    while (space == Ring::Space::full) {
        if (PyErr_CheckSignals() < 0) return false;
        Unlocked unlocked;
        space = usable->reserve(100 * ms);
    }
    if (space == Ring::Space::refused) return refuse_unrecorded();
    if (space == Ring::Space::reserved) ring = std::move(usable);
    return true;
}

// For a record that is not worth failing for.
void leave(Entry& entry, bool waits) noexcept {
    PyObject *kind, *value, *trace;
    PyErr_Fetch(&kind, &value, &trace);
    bool failed = false;
    if (std::shared_ptr<Ring> ring = usable_ring(failed)) {
        Ring::Space space = ring->reserve(0);
        for (int tries = 0; space == Ring::Space::full && waits && tries < 600; ++tries) {
            Unlocked unlocked;
            space = ring->reserve(100 * ms);
        }
        if (space == Ring::Space::reserved)
            ring->commit(entry);
        else if (space != Ring::Space::closed)
            ring->lose();
    }
    PyErr_Clear();
    PyErr_Restore(kind, value, trace);
}

// --- judging
// --------------------------------------------------------------------------------------

// What Linux makes of the unspecified address: for IPv4 the address that the socket is bound to,
// for IPv6 the loopback address of the kind that it is bound to.
void resolve_wildcard(Peer& peer, sys::Descriptor fd) noexcept {
    Address bound;
    bound.length = sizeof bound.storage;
    if (::getsockname(fd, &bound.header, &bound.length) < 0) return;
    const Peer local = read_peer(bound.header, bound.length);
    if (!local.internet || local.wildcard || local.family != AF_INET) return;
    if (peer.family == AF_INET) {
        peer.ip = local.ip;
    } else {
        peer.family = AF_INET;
        peer.ip = Ip::of(std::uint32_t{INADDR_LOOPBACK});
    }
}

struct Judged {
    Decision decision = Decision::none;
    std::uint32_t generation = 0;
};

// Judges, counts, and puts into the entry what is known of the peer, as far as somebody reads it:
// a record, or the exception.
Judged judge_peer(Direction direction, const Peer& peer, Entry& entry, bool recorded) noexcept {
    Judged judged;
    const Published<Active>::Reading active(published);
    if (active.get() == nullptr) return judged;
    judged.generation = active->generation;
    const HostTable::Entry* host =
        peer.internet && active->hosts != nullptr && (watched() & naming) != 0
            ? active->hosts->find(peer.ip)
            : nullptr;
    if (host != nullptr && recorded)
        entry.host_size = put_text(entry.host, *host->latest.load(std::memory_order_acquire));
    const Policy* policy = active->policy.get();
    if (policy == nullptr || !policy->judges(direction)) return judged;
    entry.flags |= by_policy;
    const int rule = policy->find(
        direction, peer, host != nullptr && policy->has_hosts() ? host->rules.get() : nullptr);
    policy->count(rule);
    judged.decision = policy->action_of(rule) == Action::allow ? Decision::allow
                      : policy->enforced()                     ? Decision::deny
                                                               : Decision::would_deny;
    if (recorded || judged.decision == Decision::deny)
        entry.rule_size = put_text(entry.rule, policy->id_of(rule));
    return judged;
}

const char* verb_of(Event event) noexcept {
    switch (event) {
        case Event::connect:
            return "connect";
        case Event::sendmsg:
            return "sendmsg";
        case Event::send:
            return "send";
        case Event::sendfile:
            return "sendfile";
        default:
            return "sendto";
    }
}

void raise_denied(Event event, const Entry& entry, const Socket& socket,
                  const Address& address) noexcept {
    const Peer peer = read_peer(address.header, address.length);
    char where[INET6_ADDRSTRLEN + 32];
    char text[INET6_ADDRSTRLEN] = "?";
    if (peer.internet) {
        // As the caller wrote it: read_peer() has made the loopback address of the unspecified one.
        const bool inet = address.header.sa_family == AF_INET;
        const void* bytes = inet ? static_cast<const void*>(&address.inet.sin_addr)
                                 : static_cast<const void*>(&address.inet6.sin6_addr);
        ::inet_ntop(address.header.sa_family, bytes, text, sizeof text);
        PyOS_snprintf(where, sizeof where, inet ? "%s:%d" : "[%s]:%d", text,
                      static_cast<int>(peer.port));
    } else {
        PyOS_snprintf(where, sizeof where, "an address of the family %.20s", socket.row->name);
    }
    Ref rule(PyUnicode_DecodeUTF8(entry.rule, entry.rule_size, "replace"));
    Ref message(rule ? PyUnicode_FromFormat("denied by policy: rule '%U' (%s to %s)", rule.get(),
                                            verb_of(event), where)
                     : nullptr);
    Ref error(message ? PyObject_CallFunction(PyExc_PermissionError, "iO", EPERM, message.get())
                      : nullptr);
    if (!error || PyObject_SetAttrString(error.get(), "rule", rule.get()) < 0) return;
    PyErr_SetObject(PyExc_PermissionError, error.get());
}

}  // namespace

bool Call::judge(const Address& address) noexcept {
    if (exempt) return true;
    const int error = errno;
    const bool allowed = decide(address);
    errno = error;
    return allowed;
}

bool Call::decide(const Address& address) noexcept {
    entry_.flags = 0;
    entry_.rule_size = 0;
    entry_.host_size = 0;
    // Until connect(2) has succeeded, the peer is not known.
    if (SocketState* kept = socket_.audit_state.get(); kept != nullptr && event_ == Event::connect)
        kept->judged.store(0, std::memory_order_relaxed);
    Peer peer = read_peer(address.header, address.length);
    if (peer.wildcard) [[unlikely]]
        resolve_wildcard(peer, SharedHandle::Lease(socket_.handle).get());
    const bool recorded = (watched() & recording) != 0;
    const Judged judged = judge_peer(Direction::egress, peer, entry_, recorded);
    if (recorded) {
        const std::uint8_t flags = entry_.flags;
        const std::uint16_t rule_size = entry_.rule_size, host_size = entry_.host_size;
        if (!reserve(ring_)) {
            // Denied in any case: by the rule, where there is one.
            if (judged.decision == Decision::deny &&
                PyErr_ExceptionMatches(PyExc_PermissionError)) {
                PyErr_Clear();
                raise_denied(event_, entry_, socket_, address);
            }
            return false;
        }
        if (ring_ != nullptr) {
            begin_entry(entry_, event_, socket_);
            started_ = monotonic();
            entry_.flags = flags | egress;
            entry_.rule_size = rule_size;
            entry_.host_size = host_size;
            entry_.decision = judged.decision == Decision::none ? Decision::allow : judged.decision;
            put_peer(entry_, address);
            put_context(entry_);
        }
    }
    if (judged.decision != Decision::deny) {
        if (event_ == Event::connect) generation_ = judged.generation;
        return true;
    }
    if (ring_ != nullptr) {
        entry_.outcome = Outcome::denied;
        entry_.error = EPERM;
        entry_.duration = monotonic() - started_;
        ring_->commit(entry_);
        ring_ = nullptr;
    }
    raise_denied(event_, entry_, socket_, address);
    return false;
}

bool Call::judge_connected() noexcept {
    if (exempt) return true;
    std::uint32_t generation = 0;
    {
        const Published<Active>::Reading active(published);
        if (active.get() == nullptr) return true;
        generation = active->generation;
    }
    SocketState* kept = socket_.audit_state.make();
    if (kept != nullptr && generation == kept->judged.load(std::memory_order_relaxed)) return true;
    const int error = errno;
    bool allowed = true;
    // Held, or another thread could have the number closed and used again meanwhile.
    SharedHandle::Lease lease(socket_.handle);
    int type = 0;
    socklen_t size = sizeof type;
    Address peer;
    if (::getsockopt(lease.get(), SOL_SOCKET, SO_TYPE, reinterpret_cast<char*>(&type), &size) ==
        0) {
        const bool stream = type == SOCK_STREAM || type == SOCK_SEQPACKET;
        const bool connected = !stream && peer_of(lease.get(), peer);
        if (connected) allowed = decide(peer);
        if (allowed && (stream || connected) && kept != nullptr)
            kept->judged.store(generation, std::memory_order_relaxed);
    }
    errno = error;
    return allowed;
}

void Call::finish(int error) noexcept {
    const int saved = errno;
    const std::shared_ptr<Ring> ring = std::move(ring_);
    entry_.duration = monotonic() - started_;
    if (error > 0) {
        entry_.error = error;
        entry_.outcome = error == EINPROGRESS ? Outcome::in_progress : Outcome::failed;
    } else if (error < 0 && PyErr_Occurred() != nullptr) {
        entry_.outcome = Outcome::failed;
        PyObject *kind, *value, *trace;
        PyErr_Fetch(&kind, &value, &trace);
        PyErr_NormalizeException(&kind, &value, &trace);
        Ref number(value != nullptr ? PyObject_GetAttrString(value, "errno") : nullptr);
        if (number && PyLong_Check(number.get()))
            entry_.error = static_cast<std::int32_t>(PyLong_AsLong(number.get()));
        else if (PyErr_GivenExceptionMatches(kind, PyExc_TimeoutError))
            entry_.outcome = Outcome::timed_out;
        PyErr_Clear();
        PyErr_Restore(kind, value, trace);
    }
    SocketState* kept = event_ == Event::connect ? socket_.audit_state.make() : nullptr;
    if (kept != nullptr) {
        if (entry_.outcome == Outcome::in_progress)
            kept->pending.store(started_, std::memory_order_relaxed);
        if (entry_.outcome == Outcome::success) {
            kept->opened.store(started_, std::memory_order_relaxed);
            kept->established.store(true, std::memory_order_relaxed);
        }
        if (entry_.outcome == Outcome::in_progress || entry_.outcome == Outcome::success)
            remember_peer(socket_, entry_);
    }
    ring->commit(entry_);
    errno = saved;
}

// --- accept
// ---------------------------------------------------------------------------------------

void Accepting::begin() noexcept {
    if (exempt || (watched() & recording) == 0) return;
    begun_ = true;
    ring_ = usable_ring(failed_);
    if (failed_) PyErr_Clear();  // ready() has the system's EPERM for it
    begin_entry(entry_, Event::accept, listener_);
    put_context(entry_);
}

bool Accepting::prepare() noexcept {
    if (failed_) {
        errno = EPERM;
        return false;
    }
    if (ring_ == nullptr || reserved_) return true;
    switch (ring_->reserve(50 * ms)) {
        case Ring::Space::reserved:
            reserved_ = true;
            return true;
        case Ring::Space::full:
            errno = EINTR;
            return false;
        case Ring::Space::refused:
            errno = EPERM;
            return false;
        case Ring::Space::closed:
            ring_ = nullptr;
            break;
    }
    return true;
}

// Records began to be kept while accept(2) waited.
void Accepting::late() noexcept {
    std::shared_ptr<Ring> ring = current_ring();
    if (ring == nullptr) return;
    const Ring::Space space = ring->reserve(50 * ms);
    if (space == Ring::Space::full) ring->lose();
    if (space != Ring::Space::reserved) return;
    reserved_ = true;
    begin_entry(entry_, Event::accept, listener_);
    ring_ = std::move(ring);
}

bool Accepting::decide(sys::Descriptor connection, const Address& address) noexcept {
    if (exempt) return true;
    Entry& entry = entry_;
    if (!begun_ && (watched() & recording) != 0) late();
    if (ring_ == nullptr) {
        entry.flags = 0;
    } else {
        entry.time = unix_time();
        entry.flags &= static_cast<std::uint8_t>(traced | suppressed);
    }
    entry.local_size = entry.rule_size = entry.host_size = 0;
    Peer peer = read_peer(address.header, address.length);
    // An ingress rule's port is the one that was connected to.
    peer.port = 0;
    if (ring_ != nullptr || (watched() & judging) != 0) {
        Address local;
        local.length = sizeof local.storage;
        if (::getsockname(connection, &local.header, &local.length) == 0) {
            peer.port = read_peer(local.header, local.length).port;
            if (ring_ != nullptr) put_local(entry, connection);
        }
    }
    const Judged judged = judge_peer(Direction::ingress, peer, entry, ring_ != nullptr);
    const bool allowed = judged.decision != Decision::deny;
    if (ring_ != nullptr) {
        entry.decision = judged.decision == Decision::none ? Decision::allow : judged.decision;
        entry.outcome = allowed ? Outcome::success : Outcome::denied;
        entry.descriptor = allowed ? connection : sys::invalid;
        put_peer(entry, address);
        ring_->commit(entry);
        reserved_ = false;
        if (!begun_) ring_ = nullptr;
    }
    return allowed;
}

void Accepting::give_up() noexcept {
    if (reserved_) ring_->unreserve();
}

// --- the rest of a socket's life
// ------------------------------------------------------------------

void start_life(Socket& socket) noexcept {
    SocketState* kept = socket.audit_state.make();
    if (kept == nullptr) return;
    kept->opened.store(monotonic(), std::memory_order_relaxed);
    kept->pending.store(0, std::memory_order_relaxed);
    kept->sent.store(0, std::memory_order_relaxed);
    kept->received.store(0, std::memory_order_relaxed);
    // Accepted or adopted: it is told of whom it was connected to, whatever ends the connection.
    const int error = errno;
    auto peer = std::unique_ptr<Address>(new (std::nothrow) Address());
    const bool connected =
        peer != nullptr && peer_of(SharedHandle::Lease(socket.handle).get(), *peer);
    errno = error;
    kept->established.store(connected, std::memory_order_relaxed);
    if (connected) kept->remember(std::move(peer));
}

namespace {

// The peer of the connection that `lease` keeps: whether it has one now. Otherwise the one that it
// had, or none.
bool find_peer(const Socket& socket, const SharedHandle::Lease& lease, Address& peer) noexcept {
    if (peer_of(lease.get(), peer)) return true;
    const SocketState* kept = socket.audit_state.get();
    const Address* remembered =
        kept != nullptr ? kept->peer.load(std::memory_order_acquire) : nullptr;
    peer = remembered != nullptr ? *remembered : Address();
    return false;
}

// A record about the connection.
void begin_connection(Entry& entry, Event event, const Socket& socket,
                      const SharedHandle::Lease& lease, const Address& peer) noexcept {
    begin_entry(entry, event, socket);
    entry.descriptor = lease.get();
    if (peer.length != 0) {
        put_peer(entry, peer);
        const Peer known = read_peer(peer.header, peer.length);
        const Published<Active>::Reading active(published);
        if (known.internet && active.get() != nullptr && active->hosts != nullptr)
            if (const HostTable::Entry* host = active->hosts->find(known.ip))
                entry.host_size =
                    put_text(entry.host, *host->latest.load(std::memory_order_acquire));
    }
    put_local(entry, lease.get());
}

}  // namespace

void socket_listens(Socket& socket) noexcept {
    if (exempt || (watched() & recording) == 0) return;
    Entry entry;
    begin_entry(entry, Event::listen, socket);
    put_local(entry, SharedHandle::Lease(socket.handle).get());
    put_context(entry);
    leave(entry, true);
}

namespace {

// The connect that did not wait has ended: told once.
void end_pending(Socket& socket, int error) noexcept {
    SocketState* kept = socket.audit_state.get();
    if (kept == nullptr) return;
    const std::int64_t began = kept->pending.exchange(0, std::memory_order_relaxed);
    if (began == 0 || exempt || (watched() & recording) == 0) return;
    const int saved = errno;
    const SharedHandle::Lease lease(socket.handle);
    Address peer;
    find_peer(socket, lease, peer);
    Entry entry;
    begin_connection(entry, Event::connected, socket, lease, peer);
    entry.flags |= egress;
    const std::int64_t now = monotonic();
    entry.duration = now - began;
    entry.error = error;
    entry.outcome = error == 0 ? Outcome::success : Outcome::failed;
    if (error == 0) {
        kept->opened.store(began, std::memory_order_relaxed);
        kept->established.store(true, std::memory_order_relaxed);
    }
    put_context(entry);
    leave(entry, true);
    errno = saved;
}

}  // namespace

void pending_result(Socket& socket, int error) noexcept {
    const SocketState* kept = socket.audit_state.get();
    if (kept == nullptr || kept->pending.load(std::memory_order_relaxed) == 0) return;
    // No error is success only once there is a peer: a caller may ask too early.
    if (error == 0) {
        const int saved = errno;
        Address peer;
        const bool connected = peer_of(SharedHandle::Lease(socket.handle).get(), peer);
        errno = saved;
        if (!connected) return;
    }
    end_pending(socket, error);
}

void count_bytes(Socket& socket, bool outgoing, std::int64_t size) noexcept {
    if (exempt) return;
    SocketState* kept = socket.audit_state.make();
    if (kept == nullptr) return;
    if (kept->peer.load(std::memory_order_relaxed) == nullptr) {
        const int error = errno;
        if (auto peer = std::unique_ptr<Address>(new (std::nothrow) Address())) {
            // Not connected: remembered as well, or every call would ask again.
            if (!peer_of(SharedHandle::Lease(socket.handle).get(), *peer)) peer->length = 0;
            kept->remember(std::move(peer));
        }
        errno = error;
    }
    auto& count = outgoing ? kept->sent : kept->received;
    count.fetch_add(static_cast<std::uint64_t>(size), std::memory_order_relaxed);
    if (kept->pending.load(std::memory_order_relaxed) != 0) end_pending(socket, 0);
}

void socket_closes(Socket& socket, bool waits) noexcept {
    if (exempt || (watched() & recording) == 0) return;
    // Of several threads that close it one tells, and has the descriptor until it has told.
    const SharedHandle::Lease lease(socket.handle);
    SocketState* const kept = socket.audit_state.make();
    if (lease.get() == sys::invalid || (kept != nullptr && kept->closing.exchange(true))) return;
    const int saved = errno;
    Address peer;
    const bool connected = find_peer(socket, lease, peer);
    std::int64_t began = 0, opened = 0;
    std::uint64_t sent = 0, received = 0;
    bool ended = false;
    if (kept != nullptr) {
        began = kept->pending.exchange(0, std::memory_order_relaxed);
        sent = kept->sent.exchange(0, std::memory_order_relaxed);
        received = kept->received.exchange(0, std::memory_order_relaxed);
        opened = kept->opened.load(std::memory_order_relaxed);
        ended = kept->established.exchange(false, std::memory_order_relaxed);
    }
    if (connected || ended || began != 0 || sent + received != 0) {
        Entry entry;
        begin_connection(entry, Event::close, socket, lease, peer);
        entry.sent = sent;
        entry.received = received;
        const bool abandoned = began != 0 && !connected;
        if (abandoned) entry.outcome = Outcome::abandoned;
        if (abandoned || opened != 0) entry.duration = monotonic() - (abandoned ? began : opened);
        if (waits) put_context(entry);
        leave(entry, waits);
    }
    errno = saved;
}

void remember(const char* host, const Address& address) noexcept {
    const Peer peer = read_peer(address.header, address.length);
    if (!peer.internet || exempt) return;
    const int error = errno;
    try {
        std::string name = normal_host(host);
        if (!name.empty()) {
            Own& all = own();
            const std::lock_guard guard(all.mutex);
            if (const Name kept = all.registry.learn(peer.ip, std::move(name))) {
                Active* active = published.current();
                const Policy* policy = all.policy.get();
                std::vector<Word> rules(policy != nullptr ? policy->words() : 1, 0);
                if (policy != nullptr) policy->add_host_rules(*kept, rules);
                if (active != nullptr && active->hosts != nullptr && !active->hosts->full()) {
                    active->hosts->learn(peer.ip, kept, rules);
                } else {
                    auto next = std::make_unique<Active>();
                    next->policy = all.policy;
                    next->hosts = all.registry.table(policy);
                    next->generation = all.generation;
                    published.publish(std::move(next));
                }
            }
        }
    } catch (const std::bad_alloc&) {
        // A name that is not remembered satisfies no rule.
    }
    errno = error;
}

// --- what is in force
// -----------------------------------------------------------------------------

namespace {

// With the mutex held.
void update_watch(Own& all) noexcept {
    unsigned wanted = 0;
    if (all.policy != nullptr) wanted |= judging;
    const bool records = all.ring != nullptr || all.forked;
    if (records) wanted |= recording;
    if (records || all.namers > 0 || (all.policy != nullptr && all.policy->has_hosts()))
        wanted |= naming;
    watch.store(wanted, std::memory_order_relaxed);
}

void add_counts(const Policy& policy,
                std::map<std::pair<std::string, Decision>, std::uint64_t>& to) {
    for (int rule = no_rule; rule < static_cast<int>(policy.rules().size()); ++rule) {
        const std::uint64_t count = policy.count_of(rule);
        if (count == 0) continue;
        const Decision decision = policy.action_of(rule) == Action::allow ? Decision::allow
                                  : policy.enforced()                     ? Decision::deny
                                                                          : Decision::would_deny;
        to[{policy.id_of(rule), decision}] += count;
    }
}

// With the mutex held: policies that nobody uses any more are only sums.
void fold_past(Own& all) {
    std::erase_if(all.past, [&](const std::shared_ptr<const Policy>& policy) {
        if (policy.use_count() > 1) return false;
        add_counts(*policy, all.counted);
        return true;
    });
}

}  // namespace

void set_policy(std::shared_ptr<const Policy> policy) {
    Own& all = own();
    const std::lock_guard guard(all.mutex);
    auto next = std::make_unique<Active>();
    next->policy = policy;
    next->hosts = all.registry.table(policy.get());
    next->generation = ++all.generation;
    published.publish(std::move(next));
    if (all.policy != nullptr) all.past.push_back(std::move(all.policy));
    all.policy = std::move(policy);
    fold_past(all);
    update_watch(all);
}

std::map<std::pair<std::string, Decision>, std::uint64_t> decisions() {
    Own& all = own();
    const std::lock_guard guard(all.mutex);
    fold_past(all);
    auto sums = all.counted;
    for (const auto& policy : all.past) add_counts(*policy, sums);
    if (all.policy != nullptr) add_counts(*all.policy, sums);
    return sums;
}

void set_ring(std::shared_ptr<Ring> ring) {
    Own& all = own();
    std::shared_ptr<Ring> old;
    {
        const std::lock_guard guard(all.mutex);
        old = std::exchange(all.ring, std::move(ring));
        all.forked = false;
        update_watch(all);
    }
}

std::shared_ptr<Ring> current_ring() noexcept {
    Own& all = own();
    const std::lock_guard guard(all.mutex);
    return all.ring;
}

void set_restart(PyObject* callable) {
    Own& all = own();
    Ref old;
    const std::lock_guard guard(all.mutex);
    all.interpreter = PyInterpreterState_Get();
    old = Ref(std::exchange(all.restart, Py_XNewRef(callable)));
}

void set_context_reader(PyObject* callable) {
    Own& all = own();
    if (all.trace_module == nullptr)
        all.trace_module = PyUnicode_InternFromString("opentelemetry.trace");
    if (all.trace_module == nullptr) return;
    Ref old;
    const std::lock_guard guard(all.mutex);
    all.interpreter = PyInterpreterState_Get();
    old = Ref(std::exchange(all.context_reader, Py_XNewRef(callable)));
}

void want_names(bool wanted) {
    Own& all = own();
    const std::lock_guard guard(all.mutex);
    all.namers += wanted ? 1 : -1;
    update_watch(all);
}

bool leave_note(const std::string& text) noexcept {
    std::shared_ptr<Ring> ring;
    if (!reserve(ring)) return false;
    if (ring == nullptr) return true;
    Entry entry;
    static const Socket nowhere;
    begin_entry(entry, Event::note, nowhere);
    entry.text_size = static_cast<std::uint16_t>(std::min(text.size(), sizeof entry.text));
    std::memcpy(entry.text, text.data(), entry.text_size);
    ring->commit(entry);
    return true;
}

void exempt_thread() noexcept {
    exempt = true;
}

// --- names
// ----------------------------------------------------------------------------------------

const char* name_of(Event event) noexcept {
    switch (event) {
        case Event::connect:
            return "tracesock.connect";
        case Event::connected:
            return "tracesock.connected";
        case Event::sendto:
            return "tracesock.sendto";
        case Event::sendmsg:
            return "tracesock.sendmsg";
        case Event::send:
            return "tracesock.send";
        case Event::sendfile:
            return "tracesock.sendfile";
        case Event::accept:
            return "tracesock.accept";
        case Event::listen:
            return "tracesock.listen";
        case Event::close:
            return "tracesock.close";
        case Event::note:
            return "tracesock.audit";
    }
    return "tracesock.unknown";
}

const char* name_of(Decision decision) noexcept {
    switch (decision) {
        case Decision::none:
            return "";
        case Decision::allow:
            return "allow";
        case Decision::deny:
            return "deny";
        case Decision::would_deny:
            return "would_deny";
    }
    return "";
}

const char* name_of(Outcome outcome) noexcept {
    switch (outcome) {
        case Outcome::success:
            return "success";
        case Outcome::denied:
            return "denied";
        case Outcome::in_progress:
            return "in_progress";
        case Outcome::failed:
            return "error";
        case Outcome::timed_out:
            return "timed_out";
        case Outcome::abandoned:
            return "abandoned";
    }
    return "unknown";
}

}  // namespace tracesock::audit
