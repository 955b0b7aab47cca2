#include "recorder/recorder.hpp"

#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "recorder/digest.hpp"
#include "recorder/identifier.hpp"
#include "recorder/lookups.hpp"

namespace tracesock::recorder {

std::atomic<unsigned> wanted{0};
[[gnu::tls_model("initial-exec")]] constinit thread_local Shard* current_shard = nullptr;

namespace {

constexpr std::size_t most_names = 4096;
constexpr std::size_t most_orphans = 1024;
constexpr std::size_t most_idle = 4;  // shards that are kept for threads to come
// Nanoseconds from which a send is long enough to ask the kernel whether it waited.
constexpr std::uint64_t worth_asking = 1'000'000;
constexpr std::uint16_t overflow_labels = 200;  // TELEMETRY.md: distinct values of an attribute

std::string_view bytes_of(const Address& address) noexcept {
    return {reinterpret_cast<const char*>(address.bytes), address.length};
}

// The part of an address that a name stands for: without port, scope and flow.
std::string host_key(std::string_view encoded) {
    sockaddr_storage storage{};
    std::memcpy(&storage, encoded.data(), std::min(encoded.size(), sizeof storage));
    if (storage.ss_family == AF_INET)
        return {reinterpret_cast<const char*>(&reinterpret_cast<sockaddr_in&>(storage).sin_addr),
                4};
    if (storage.ss_family == AF_INET6)
        return {reinterpret_cast<const char*>(&reinterpret_cast<sockaddr_in6&>(storage).sin6_addr),
                16};
    return {};
}

// The same of a socket: held, or another thread could have the number closed and used again
// meanwhile.
std::string name_of(Socket& socket, NameCall call) {
    const SharedHandle::Lease lease(socket.handle);
    return recorder::name_of(lease.get(), call);
}

// Gives the thread's shard back when the thread ends. What is recorded still later in its life gets
// a shard again, which nobody gives back.
struct Membership {
    bool joined = false;
    ~Membership() {
        if (Shard* const shard = std::exchange(current_shard, nullptr))
            Recorder::get().leave(*shard);
    }
};
thread_local Membership membership;

void fill_trace(Record& record, const TraceContext& context) noexcept {
    record.trace = context.trace;
    record.parent = context.span;
    record.flags = context.flags();
    record.state = context.state;
}

// A record that makes no span, of a connection that was made in a trace.
void owned_by(Record& record, const Connection& connection) noexcept {
    record.trace = connection.trace;
    record.parent = connection.parent;
    record.flags = static_cast<std::uint8_t>(connection.context_flags | only_metric);
    record.connection = connection.number;
}

// While one lives, no connection is freed that its thread has read from a socket: where there is an
// interpreter's lock, the thread has that, and no other closes a socket meanwhile.
class Visit {
  public:
    explicit Visit(Recorder& recorder) noexcept {
        if constexpr (may_hold_lock) return;
        shard_ = &recorder.shard();
        shard_->visits.store(shard_->visits.load(std::memory_order_relaxed) + 1,
                             std::memory_order_relaxed);
        // Seen by who frees before this thread reads: see Recorder::begin_round().
        std::atomic_thread_fence(std::memory_order_seq_cst);
    }
    Visit(const Visit&) = delete;
    Visit& operator=(const Visit&) = delete;
    ~Visit() {
        if constexpr (may_hold_lock) return;
        shard_->visits.store(shard_->visits.load(std::memory_order_relaxed) - 1,
                             std::memory_order_release);
    }

  private:
    Shard* shard_ = nullptr;
};

// Adds to a count of a connection, which several threads may have in hand.
void count(std::atomic<std::uint64_t>& counter, std::uint64_t value) noexcept {
    if constexpr (may_hold_lock)
        Histogram::add(counter, value);
    else
        counter.fetch_add(value, std::memory_order_relaxed);
}

// A connection that nobody pends on any more: what became of it.
void finish_connect(Recorder& recorder, Connection& connection, std::int16_t error,
                    std::uint8_t extra) noexcept {
    if (!connection.connecting.exchange(false, std::memory_order_acq_rel)) return;
    const std::uint64_t now = Clock::ticks();
    if (error == no_error && (extra & abandoned) == 0) {
        connection.established.store(now, std::memory_order_relaxed);
        connection.connected.store(true, std::memory_order_relaxed);
    }
    Record record{};
    record.kind = Kind::connect;
    record.start = connection.connect_started;
    record.duration = now - connection.connect_started;
    record.trace = connection.trace;
    record.parent = connection.parent;
    record.flags = static_cast<std::uint8_t>(connection.context_flags | extra);
    record.state = connection.state.get();
    record.connection = connection.number;
    record.calls = 1;
    record.error = error;
    connection.named.store(true, std::memory_order_relaxed);
    recorder.push(recorder.shard(), record);
}

}  // namespace

std::string name_of(sys::Descriptor fd, NameCall call) {
    Address address;
    address.length = sizeof address.storage;
    if (call(fd, &address.header, &address.length) < 0) return {};
    address.length = std::min<socklen_t>(address.length, sizeof address.storage);
    return std::string(bytes_of(address));
}

bool tcp_info(sys::Descriptor fd, tcp_info_extended& out) noexcept {
    out = {};
    socklen_t size = sizeof out;
    return ::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &out, &size) == 0;
}

Recorder& Recorder::make() noexcept {
    // Never destroyed: threads and finalizers may record until the process is gone.
    static Recorder* const only = [] {
        auto* made = new Recorder();
        ::sem_init(&made->wake_up, 0, 0);
        made->labels.reserve(most_labels);
        Clock::start();
        // No other thread is inside the rings and tables while the process is copied.
        ::pthread_atfork(
            [] {
                get().drain_mutex.lock();
                get().mutex.lock();
                TraceStates::get().lock();
            },
            [] {
                TraceStates::get().unlock();
                get().mutex.unlock();
                get().drain_mutex.unlock();
            },
            [] {
                TraceStates::get().unlock();
                get().mutex.unlock();
                get().drain_mutex.unlock();
                get().after_fork();
            });
        instance.store(made, std::memory_order_release);
        return made;
    }();
    return *only;
}

Shard& Recorder::join() noexcept {
    membership.joined = true;
    PyObject* context = nullptr;
    {
        const std::lock_guard lock(mutex);
        if (idle.empty()) {
            shards.push_back(std::make_unique<Shard>(ring_capacity));
            idle.reserve(shards.size());
            current_shard = shards.back().get();
        } else {
            // What its thread left in it stays: the ring has one writer at a time.
            current_shard = idle.back();
            idle.pop_back();
            context = std::exchange(current_shard->context, nullptr);
        }
    }
    Py_XDECREF(context);
    return *current_shard;
}

void Recorder::leave(Shard& shard) noexcept {
    const std::lock_guard lock(mutex);
    idle.push_back(&shard);  // there is room: reserved when the shard was made
}

Cell& Recorder::make_cell(Shard& shard, std::uint16_t index) noexcept {
    shard.owned_cells.push_back(std::make_unique<Cell>());
    Cell* const cell = shard.owned_cells.back().get();
    shard.cells[index].store(cell, std::memory_order_release);
    return *cell;
}

std::uint16_t Recorder::intern(const Connection& connection) {
    Labels wanted_labels{connection.family, connection.type, connection.protocol,
                         std::string(connection.server)};
    const std::lock_guard lock(mutex);
    for (std::size_t i = 0; i < labels.size(); ++i)
        if (labels[i] == wanted_labels) return static_cast<std::uint16_t>(i);
    if (labels.size() >= overflow_labels) {
        // The rest of one transport shares a set.
        wanted_labels.server = "tracesock.overflow";
        for (std::size_t i = overflow_labels; i < labels.size(); ++i)
            if (labels[i] == wanted_labels) return static_cast<std::uint16_t>(i);
        if (labels.size() == most_labels) return most_labels - 1;
    }
    labels.push_back(std::move(wanted_labels));
    return static_cast<std::uint16_t>(labels.size() - 1);
}

Connection* Recorder::connection(Socket& socket) noexcept {
    Connection* const known = socket.connection.load(std::memory_order_acquire);
    return known != nullptr ? known : make_connection(socket, nullptr, [](Connection&) {});
}

template <class Fill>
Connection* Recorder::make_connection(Socket& socket, Connection* replaced, Fill&& fill) noexcept {
    try {
        auto made = std::make_unique<Connection>();
        Connection* const result = made.get();
        made->family = socket.family;
        made->type = socket.type;
        made->protocol = socket.protocol;
        made->created = Clock::ticks();
        fill(*made);
        made->labels = intern(*made);
        const std::lock_guard lock(mutex);
        Connection* const current = socket.connection.load(std::memory_order_relaxed);
        // Another thread made it meanwhile.
        if (replaced == nullptr && current != nullptr) return current;
        while (next_number == 0 || connections.contains(next_number)) ++next_number;
        made->number = next_number++;
        connections.emplace(made->number, std::move(made));
        if (current == replaced) {
            result->socket = &socket;
            socket.connection.store(result, std::memory_order_release);
            if (replaced != nullptr) release(*replaced);
        } else {
            // Another thread has given the socket yet another peer: this one's is for this call.
            release(*result);
        }
        return result;
    } catch (...) {
        lost.fetch_add(1, std::memory_order_relaxed);
        return nullptr;
    }
}

std::string_view Recorder::name_behind(std::string_view peer) const {
    if (names.empty()) return {};
    const auto name = names.find(host_key(peer));
    return name != names.end() ? std::string_view(name->second) : std::string_view();
}

void Recorder::learn_local(Socket& socket, Connection& connection) noexcept {
    try {
        const std::string local = name_of(socket, ::getsockname);
        const std::lock_guard lock(mutex);
        connection.local = local;
    } catch (...) {
        // Told without it then.
    }
}

void Recorder::release(Connection& connection) noexcept {
    connection.socket = nullptr;
    connection.closed_epoch = epoch + 2;
    try {
        closed.push_back(connection.number);
    } catch (...) {
        // Not freed then, which is all that happens.
    }
}

void Recorder::begin_round() {
    // Freed after the mutex is given up, which every thread that makes a socket wants.
    std::vector<decltype(connections)::node_type> freed;
    const std::lock_guard lock(mutex);
    // Not at the end of the round before: its last records were still to be named then.
    // Looked at before the calls that hold one, which are counted within a visit. A thread whose
    // visit is not seen here sees that those below are no socket's any more.
    std::atomic_thread_fence(std::memory_order_seq_cst);
    const bool visited =
        !may_hold_lock && std::any_of(shards.begin(), shards.end(), [](const auto& shard) {
            return shard->visits.load(std::memory_order_acquire) != 0;
        });
    // In the order in which they were closed; one that a call still holds waits for its end.
    for (std::size_t left = visited ? 0 : closed.size(); left != 0; --left) {
        const auto found = connections.find(closed.front());
        const bool due = found == connections.end() || found->second->socket != nullptr ||
                         found->second->closed_epoch <= epoch;
        if (!due) break;
        const std::uint32_t number = closed.front();
        closed.pop_front();
        if (found == connections.end() || found->second->socket != nullptr) continue;
        if (found->second->users.load(std::memory_order_acquire) != 0) {
            found->second->closed_epoch = epoch + 2;
            closed.push_back(number);
        } else {
            freed.push_back(connections.extract(found));
        }
    }
    TraceStates::get().begin_round(epoch);
    for (const auto& shard : shards) round_.emplace_back(shard.get(), shard->ring.written());
}

void Recorder::wait(std::int64_t nanoseconds) noexcept {
    timespec until{};
    ::clock_gettime(CLOCK_REALTIME, &until);
    const std::int64_t sum = until.tv_nsec + nanoseconds;
    until.tv_sec += sum / 1'000'000'000;
    until.tv_nsec = sum % 1'000'000'000;
    ::sem_timedwait(&wake_up, &until);
    // However often it was posted: one look at the rings answers all of them.
    while (::sem_trywait(&wake_up) == 0) {
    }
}

void Recorder::rouse() noexcept {
    roused.store(true, std::memory_order_release);
    ::sem_post(&wake_up);
}

void Recorder::drop_contexts() noexcept {
    std::vector<PyObject*> dropped;
    {
        const std::lock_guard lock(mutex);
        dropped.swap(contexts);
    }
    for (PyObject* context : dropped) Py_DECREF(context);
}

void Recorder::end_round() {
    const std::lock_guard lock(mutex);
    for (Shard* shard : idle)
        if (shard->context != nullptr) contexts.push_back(std::exchange(shard->context, nullptr));
    // Some are kept for the next threads; of the others only the counts are.
    for (std::size_t i = 0; idle.size() > most_idle && i < idle.size();) {
        Shard* const shard = idle[i];
        if (!shard->ring.empty()) {
            ++i;
            continue;
        }
        retire(*shard);
        idle.erase(idle.begin() + static_cast<std::ptrdiff_t>(i));
        std::erase_if(shards, [&](const auto& each) { return each.get() == shard; });
    }
    ++epoch;
}

void Recorder::retire(const Shard& shard) {
    TraceStates::get().drop(shard.cached.state);
    ended_written.fetch_add(shard.ring.written(), std::memory_order_relaxed);
    ended_dropped.fetch_add(shard.ring.dropped(), std::memory_order_relaxed);
    for (std::size_t i = 0; i < most_labels; ++i) {
        const Cell* cell = shard.cells[i].load(std::memory_order_acquire);
        if (cell == nullptr) continue;
        if (retired[i] == nullptr) retired[i] = std::make_unique<Cell>();
        Histogram::add(retired[i]->sent, cell->sent.load());
        Histogram::add(retired[i]->received, cell->received.load());
        retired[i]->send.merge(cell->send);
        retired[i]->stall_receiver.merge(cell->stall_receiver);
        retired[i]->stall_sndbuf.merge(cell->stall_sndbuf);
    }
}

void Recorder::set_slow_threshold(double seconds) noexcept {
    const double per_second = 1e9 / std::max(1e-9, static_cast<double>(Clock::duration(1u << 30)) /
                                                       static_cast<double>(1u << 30));
    slow_threshold.store(static_cast<std::uint64_t>(std::max(0.0, seconds) * per_second),
                         std::memory_order_relaxed);
}

void Recorder::after_fork() noexcept {
    // Only the forking thread lives on here. What it and the others had written is the parent's to
    // tell, and what was counted is the parent's count.
    ::sem_init(&wake_up, 0, 0);
    Clock::after_fork();
    round_.clear();
    Digest::get().clear();
    Lookups::get().clear();
    for (auto& shard : shards) {
        shard->ring.clear_after_fork();
        shard->woke_at = shard->ring.written();
        if (shard.get() != current_shard) shard->visits.store(0, std::memory_order_relaxed);
        for (auto& cell : shard->owned_cells) {
            cell->sent.store(0, std::memory_order_relaxed);
            cell->received.store(0, std::memory_order_relaxed);
            new (&cell->send) Histogram();
            new (&cell->stall_receiver) Histogram();
            new (&cell->stall_sndbuf) Histogram();
        }
    }
    idle.clear();
    for (auto& shard : shards)
        if (shard.get() != current_shard) idle.push_back(shard.get());
    for (auto& cell : retired) cell.reset();
    lost.store(0, std::memory_order_relaxed);
    forked_written.store(0, std::memory_order_relaxed);
    for (auto& shard : shards) forked_written.fetch_add(shard->ring.written());
    ended_written.store(0, std::memory_order_relaxed);
    ended_dropped.store(0, std::memory_order_relaxed);
    for (auto& [number, connection] : connections) {
        // The descriptor is shared now: its end here is not the connection's.
        connection->adopted = true;
        connection->connecting.store(false, std::memory_order_relaxed);
        connection->sent.store(0, std::memory_order_relaxed);
        connection->received.store(0, std::memory_order_relaxed);
        // The calls in progress were the other threads'; the forking one is in none.
        connection->users.store(0, std::memory_order_relaxed);
    }
}

// --- context ------------------------------------------------------------------------------------

bool Recorder::Api::make(PyObject* tuple_of_parts) noexcept {
    const std::pair<PyObject**, const char*> all[] = {
        {&get_span_context, "get_span_context"},
        {&trace_id, "trace_id"},
        {&span_id, "span_id"},
        {&trace_flags, "trace_flags"},
        {&is_remote, "is_remote"},
        {&trace_state, "trace_state"},
    };
    for (const auto& [place, name] : all) {
        PyObject* const text = PyUnicode_InternFromString(name);
        if (text == nullptr) return false;
        *place = text;
    }
    span_context = tuple_of_parts != Py_None ? Py_TYPE(tuple_of_parts) : nullptr;
    return true;
}

namespace {

// Ends an exception that came up while telemetry ran code of Python's. It is no failure of that
// code where the handler of a signal ran in it and raised KeyboardInterrupt or SystemExit, which
// are the program's to see: raised once more as soon as the interpreter goes on.
void end_exception() noexcept {
    if (PyErr_Occurred() == nullptr) return;
    if (PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_Clear();
        return;
    }
    PyObject *kind, *error, *trace;
    PyErr_Fetch(&kind, &error, &trace);
    PyErr_NormalizeException(&kind, &error, &trace);
    Py_XDECREF(trace);
    const auto raise = [](void* held) {
        const Ref again(static_cast<PyObject*>(held));
        PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(again.get())), again.get());
        return -1;
    };
    // Pending calls are the main thread's, and so are the handlers of signals.
    if (::gettid() == ::getpid() && Py_AddPendingCall(raise, Py_XNewRef(error)) < 0)
        Py_XDECREF(error);
    else if (::gettid() != ::getpid())
        PyThreadState_SetAsyncExc(PyThread_get_thread_ident(), kind);
    Py_XDECREF(error);
    Py_XDECREF(kind);
}

// What a context has under `key`, or none.
Ref item(PyObject* context, PyObject* key) noexcept {
    if (key == nullptr) return Ref();
#if PY_VERSION_HEX >= 0x030D0000
    PyObject* value = nullptr;
    PyDict_GetItemRef(context, key, &value);
    return Ref(value);
#else
    return Ref::borrow(PyDict_GetItemWithError(context, key));
#endif
}

// The state of a trace, held.
TraceStates::Number read_state(Recorder& recorder, PyObject* state) noexcept {
    // Most have none, and then all the same object.
    if (state == recorder.empty_state.load(std::memory_order_relaxed)) return 0;
    const Py_ssize_t size = PyObject_Size(state);
    if (size == 0) {
        PyObject* none = nullptr;
        if (recorder.empty_state.compare_exchange_strong(none, state)) Py_INCREF(state);
    }
    if (size <= 0) return 0;
    const Ref text(PyObject_CallMethod(state, "to_header", nullptr));
    Py_ssize_t length = 0;
    const char* data = text ? PyUnicode_AsUTF8AndSize(text.get(), &length) : nullptr;
    return data != nullptr ? TraceStates::get().hold({data, static_cast<std::size_t>(length)}) : 0;
}

// An attribute of a span context. Those of the API's own class are the items of a tuple, behind
// properties of Python's.
Ref part(const Recorder::Api& api, PyObject* span_context, PyObject* name,
         Py_ssize_t index) noexcept {
    if (Py_TYPE(span_context) == api.span_context && PyTuple_GET_SIZE(span_context) > index)
        return Ref::borrow(PyTuple_GET_ITEM(span_context, index));
    return Ref(PyObject_GetAttr(span_context, name));
}

// The state is held.
TraceContext read_context(Recorder& recorder, PyObject* context) noexcept {
    TraceContext result;
    if (!PyDict_Check(context)) return result;
    for (const auto& key : recorder.suppression_keys) {
        const Ref value = item(context, key);
        if (value && PyObject_IsTrue(value.get()) == 1) result.suppressed = true;
    }
    const Ref span = item(context, recorder.span_key);
    if (!span) return result;
    const Recorder::Api& api = recorder.api;
    const Ref own(PyObject_CallMethodNoArgs(span.get(), api.get_span_context));
    if (!own) return result;
    const Ref trace = part(api, own.get(), api.trace_id, 0);
    const Ref id = trace ? part(api, own.get(), api.span_id, 1) : Ref();
    const Ref flags = id ? part(api, own.get(), api.trace_flags, 3) : Ref();
    if (!flags || !read_identifier(trace.get(), result.trace) ||
        !read_identifier(id.get(), result.span))
        return result;
    result.valid = result.trace != TraceId{} && result.span != SpanId{};
    result.sampled = result.valid && (PyLong_AsLong(flags.get()) & 1) != 0;
    // Other classes than the API's need not have these two.
    const Ref remote = part(api, own.get(), api.is_remote, 2);
    if (!remote) end_exception();
    result.remote = remote && PyObject_IsTrue(remote.get()) == 1;
    if (!result.sampled) return result;
    const Ref state = part(api, own.get(), api.trace_state, 4);
    if (state) result.state = read_state(recorder, state.get());
    return result;
}

// The name that the set-up asks for in which this thread is, or empty.
std::string asked_server(Recorder& recorder) {
    PyObject* const variable = recorder.server_variable.load(std::memory_order_relaxed);
    PyObject* value = nullptr;
    if (variable == nullptr) return {};
    if (PyContextVar_Get(variable, nullptr, &value) < 0) PyErr_Clear();
    const Ref name(value);
    if (!name) return {};
    const Ref text(PyUnicode_AsEncodedString(name.get(), "utf-8", "backslashreplace"));
    if (!text) {
        PyErr_Clear();
        return {};
    }
    return {PyBytes_AS_STRING(text.get()), static_cast<std::size_t>(PyBytes_GET_SIZE(text.get()))};
}

// A context that is not the thread's last one: read through the caller's own objects, whose failure
// is not the caller's.
[[gnu::noinline]] const TraceContext& new_context(Recorder& recorder, Shard& shard,
                                                  Ref context) noexcept {
    PyObject *kind, *error, *trace;
    PyErr_Fetch(&kind, &error, &trace);
    const TraceContext read = read_context(recorder, context.get());
    end_exception();
    // Reading it, and the end of the old one, may run code that records, and leaves its own here.
    while (shard.context != nullptr) Ref old(std::exchange(shard.context, nullptr));
    PyErr_Restore(kind, error, trace);
    shard.context = context.release();
    TraceStates::get().drop(shard.cached.state);
    shard.cached = read;
    return shard.cached;
}

}  // namespace

namespace {

[[gnu::always_inline]] inline const TraceContext& context_in(Recorder& recorder,
                                                             Shard& shard) noexcept {
    static constexpr TraceContext none;
    PyObject* const variable = recorder.context_variable.load(std::memory_order_relaxed);
    if (variable == nullptr) return none;
    PyObject* value = nullptr;
    if (PyContextVar_Get(variable, nullptr, &value) < 0) {
        PyErr_Clear();
        return none;
    }
    if (value == nullptr) return none;
    if (value == shard.context) [[likely]] {
        Py_DECREF(value);  // the shard has a reference of its own
        return shard.cached;
    }
    return new_context(recorder, shard, Ref(value));
}

}  // namespace

const TraceContext& current_context() noexcept {
    Recorder& recorder = Recorder::get();
    return context_in(recorder, recorder.shard());
}

// --- hooks --------------------------------------------------------------------------------------

namespace {

std::uint64_t inode_of(sys::Descriptor fd) noexcept {
    struct stat status{};
    return ::fstat(fd, &status) == 0 ? static_cast<std::uint64_t>(status.st_ino) : 0;
}

// Gives a socket that took over a descriptor the connection that was known of it; whether there was
// one.
bool readopt(Recorder& recorder, Socket& socket) noexcept {
    const sys::Descriptor fd = socket.handle.get();
    const std::lock_guard lock(recorder.mutex);
    if (recorder.orphans.empty()) return false;
    const auto orphan = recorder.orphans.find(fd);
    if (orphan == recorder.orphans.end()) return false;
    const Recorder::Orphan known = orphan->second;
    recorder.orphans.erase(orphan);
    const auto found = recorder.connections.find(known.number);
    if (found == recorder.connections.end() || known.inode == 0 || inode_of(fd) != known.inode)
        return false;
    // Another thread knows it already.
    if (socket.connection.load(std::memory_order_relaxed) != nullptr) return true;
    found->second->socket = &socket;
    found->second->closed_epoch = 0;
    socket.connection.store(found->second.get(), std::memory_order_release);
    return true;
}

[[gnu::noinline]] Connection* first_use(Recorder& recorder, Socket& socket) noexcept {
    Connection* connection = socket.connection.load(std::memory_order_acquire);
    if (connection == nullptr) [[unlikely]] {
        // A TLS socket is made over the descriptor before its transport gives that up.
        if (readopt(recorder, socket))
            connection = socket.connection.load(std::memory_order_acquire);
        if (connection == nullptr)
            connection = recorder.make_connection(socket, nullptr,
                                                  [](Connection& made) { made.adopted = true; });
        if (connection == nullptr) return nullptr;
    }
    if (connection->suppressed.load(std::memory_order_relaxed)) return nullptr;
    if (!connection->asked.load(std::memory_order_acquire)) {
        const int error = errno;
        try {
            const std::string peer = name_of(socket, ::getpeername);
            const std::lock_guard lock(recorder.mutex);
            if (!connection->asked.load(std::memory_order_relaxed)) {
                if (connection->peer.empty()) {
                    connection->peer = peer;
                    if (!peer.empty()) connection->connected.store(true);
                }
                connection->asked.store(true, std::memory_order_release);
            }
        } catch (...) {
        }
        errno = error;
    }
    return connection;
}

// The connection of a socket that is about to be used: null where it is to be silent. One that was
// not seen being made has come from elsewhere.
inline Connection* used_connection(Recorder& recorder, Socket& socket) noexcept {
    Connection* const connection = socket.connection.load(std::memory_order_acquire);
    if (connection == nullptr || connection->suppressed.load(std::memory_order_relaxed) ||
        !connection->asked.load(std::memory_order_acquire)) [[unlikely]]
        return first_use(recorder, socket);
    return connection;
}

}  // namespace

void socket_shakes_hands(Socket& socket) noexcept {
    Recorder& recorder = Recorder::get();
    const Visit visit(recorder);
    used_connection(recorder, socket);
}

void socket_is_silent(Socket& socket) noexcept {
    Recorder& recorder = Recorder::get();
    const Visit visit(recorder);
    Connection* const connection = recorder.connection(socket);
    if (connection != nullptr) connection->suppressed.store(true, std::memory_order_relaxed);
}

template <class Fill>
Connection* Recorder::renew(Socket& socket, Connection* connection, std::uint32_t held,
                            Fill&& fill) noexcept {
    // In place only where no other thread can be looking at it.
    if (may_hold_lock && !connection->named.load(std::memory_order_relaxed) &&
        connection->users.load(std::memory_order_relaxed) == held) {
        try {
            if (fill(*connection)) connection->labels = intern(*connection);
            return connection;
        } catch (...) {
            lost.fetch_add(1, std::memory_order_relaxed);
            return nullptr;
        }
    }
    return make_connection(socket, connection, [&](Connection& entry) {
        {
            const std::lock_guard lock(mutex);
            entry.origin = connection->origin;
            entry.local = connection->local;
        }
        entry.created = connection->created;
        entry.adopted = connection->adopted;
        entry.suppressed.store(connection->suppressed.load());
        entry.asked.store(connection->asked.load());
        entry.sent.store(connection->sent.load());
        entry.received.store(connection->received.load());
        fill(entry);
    });
}

Connection* Recorder::towards(Socket& socket, Connection* connection, const Address& destination,
                              std::uint32_t held) noexcept {
    if (connection->peer == bytes_of(destination)) return connection;
    if (connection->connected.load(std::memory_order_relaxed)) return connection;
    Connection* const entry = renew(socket, connection, held, [&](Connection& made) {
        const std::lock_guard lock(mutex);
        made.peer = bytes_of(destination);
        const std::string_view server = name_behind(made.peer);
        if (made.server == server) return false;
        made.server = server;
        return true;
    });
    return entry != nullptr ? entry : connection;
}

void enter(Connection& connection) noexcept {
    if constexpr (may_hold_lock)
        connection.users.store(connection.users.load(std::memory_order_relaxed) + 1,
                               std::memory_order_relaxed);
    else
        connection.users.fetch_add(1, std::memory_order_relaxed);
}

void leave(Connection& connection) noexcept {
    if constexpr (may_hold_lock)
        connection.users.store(connection.users.load(std::memory_order_relaxed) - 1,
                               std::memory_order_release);
    else
        connection.users.fetch_sub(1, std::memory_order_release);
}

void SendProbe::begin(Socket& socket, const Address* destination) noexcept {
    Recorder& recorder = Recorder::get();
    const Visit visit(recorder);
    const TraceContext& context = current_context();
    if (context.suppressed) return;
    if (context.sampled) {
        traced_ = true;
        trace_ = context.trace;
        parent_ = context.span;
        flags_ = context.flags();
    }
    Connection* connection = used_connection(recorder, socket);
    if (connection == nullptr) return;
    if (destination != nullptr && destination->length != 0)
        connection = recorder.towards(socket, connection, *destination);
    socket_ = &socket;
    connection_ = connection;
    enter(*connection);
    if (context.state != 0) [[unlikely]] {
        state_ = context.state;
        TraceStates::get().hold(state_);
    }
    stats_.started = Clock::ticks();
}

namespace {

// How long a send waited, in nanoseconds: told to the histogram of what it waited for, which is the
// peer's window or this side's buffer. The kernel counts both, and also what a send that blocks
// inside the kernel has waited.
[[gnu::noinline]] std::uint64_t tell_stall(Socket& socket, Connection& connection, Cell& cell,
                                           std::uint64_t nanoseconds,
                                           std::uint64_t stall) noexcept {
    Histogram* histogram = &cell.stall_receiver;
    tcp_info_extended info;
    if (is_tcp(connection) && tcp_info(SharedHandle::Lease(socket.handle).get(), info)) {
        const auto receiver = static_cast<std::uint32_t>(info.rwnd_limited);
        const auto sndbuf = static_cast<std::uint32_t>(info.sndbuf_limited);
        const std::uint32_t by_receiver = receiver - connection.receiver_limited.exchange(receiver);
        const std::uint32_t by_sndbuf = sndbuf - connection.sndbuf_limited.exchange(sndbuf);
        if (by_receiver < by_sndbuf) histogram = &cell.stall_sndbuf;
        if (stall == 0)
            stall = std::min(nanoseconds, (std::uint64_t{by_receiver} + by_sndbuf) * 1000);
    }
    if (stall != 0) histogram->record(stall);
    return stall;
}

// What a send that is over leaves: counts, and the record of a span where one is wanted. `parent`
// is that of a sampled context, or null.
[[gnu::always_inline]] inline void tell_send(Recorder& recorder, Shard& shard, Socket& socket,
                                             Connection& connection, const CallStats& stats,
                                             std::uint64_t duration, std::uint64_t bytes,
                                             const TraceId* trace, const SpanId* parent,
                                             std::uint8_t flags,
                                             TraceStates::Number state) noexcept {
    Cell& cell = recorder.cell(shard, connection.labels);
    if (bytes != 0) {
        Histogram::add(cell.sent, bytes);
        count(connection.sent, bytes);
        if (connection.connecting.load(std::memory_order_relaxed)) [[unlikely]]
            finish_connect(recorder, connection, no_error, 0);
    }
    const std::uint64_t nanoseconds = Clock::duration(duration);
    cell.send.record(nanoseconds);
    std::uint64_t stall = stats.stalled != 0 ? Clock::duration(stats.stalled) : 0;
    // A send that waited inside the kernel, where nobody has measured it.
    const bool may_have_waited = nanoseconds >= worth_asking && is_tcp(connection) &&
                                 !stats.resumes &&
                                 socket.timeout.load(std::memory_order_relaxed) != 0;
    if (stall != 0 || may_have_waited) [[unlikely]]
        stall = tell_stall(socket, connection, cell, nanoseconds, stall);
    const unsigned want = active();
    bool span = (want & want_sends) != 0;
    if (!span && (want & want_failed_sends) != 0) span = stats.error != no_error;
    if (!span && (want & want_slow_sends) != 0)
        span = stall != 0 || duration >= recorder.slow_threshold.load(std::memory_order_relaxed);
    if (!span || (trace == nullptr && (want & want_rootless_sends) == 0)) return;
    connection.named.store(true, std::memory_order_relaxed);
    recorder.write(shard, [&](Record& record) {
        record.start = stats.started;
        record.duration = duration;
        record.flags = 0;
        if (trace != nullptr) {
            record.trace = *trace;
            record.parent = *parent;
            record.flags = flags;
        }
        record.size = bytes;
        record.stall = static_cast<std::uint32_t>(std::min<std::uint64_t>(stall / 1000, ~0u));
        record.connection = connection.number;
        record.calls = static_cast<std::uint16_t>(std::min<std::uint32_t>(stats.calls, 0xffff));
        record.error = stats.error;
        record.kind = Kind::send;
        record.state = trace != nullptr ? state : TraceStates::Number{0};
    });
}

}  // namespace

void SendProbe::finish(std::int64_t size) noexcept {
    if (stats_.refused && size <= 0) return;
    tell(size, Clock::ticks() - stats_.started);
}

void SendProbe::finish(std::span<const Part> parts) noexcept {
    Recorder& recorder = Recorder::get();
    const std::uint64_t share = (Clock::ticks() - stats_.started) / parts.size();
    stats_.stalled /= parts.size();
    stats_.calls = 1;
    for (const Part& part : parts) {
        if (part.destination != nullptr) {
            const Visit visit(recorder);
            Connection* const next = recorder.towards(*socket_, connection_, *part.destination, 1);
            enter(*next);
            leave(*std::exchange(connection_, next));
        }
        tell(part.size, share);
        stats_.started += share;
    }
}

void SendProbe::tell(std::int64_t size, std::uint64_t duration) noexcept {
    const int error = errno;
    Recorder& recorder = Recorder::get();
    tell_send(recorder, recorder.shard(), *socket_, *connection_, stats_, duration,
              size > 0 ? static_cast<std::uint64_t>(size) : 0, traced_ ? &trace_ : nullptr,
              &parent_, flags_, state_);
    errno = error;
}

void sent_at_once(Socket& socket, std::uint64_t started, std::int64_t size) noexcept {
    CallStats stats;
    stats.started = started;
    stats.calls = 1;
    const std::uint64_t duration = Clock::ticks() - started;
    Recorder& recorder = Recorder::get();
    const Visit visit(recorder);
    Shard& shard = recorder.shard();
    const TraceContext& context = context_in(recorder, shard);
    if (context.suppressed) return;
    Connection* connection = used_connection(recorder, socket);
    if (connection == nullptr) return;
    tell_send(recorder, shard, socket, *connection, stats, duration,
              static_cast<std::uint64_t>(size), context.sampled ? &context.trace : nullptr,
              &context.span, context.flags(), context.state);
}

void count_received(Socket& socket, std::int64_t size) noexcept {
    if (size < 0) return;
    Recorder& recorder = Recorder::get();
    const Visit visit(recorder);
    Shard& shard = recorder.shard();
    if (context_in(recorder, shard).suppressed) return;
    Connection* connection = used_connection(recorder, socket);
    if (connection == nullptr) return;
    const auto bytes = static_cast<std::uint64_t>(size);
    Histogram::add(recorder.cell(shard, connection->labels).received, bytes);
    count(connection->received, bytes);
    if (connection->first_byte_seen.load(std::memory_order_relaxed) ||
        connection->first_byte_seen.exchange(true, std::memory_order_relaxed))
        return;
    if (connection->connecting.load(std::memory_order_relaxed))
        finish_connect(recorder, *connection, no_error, 0);
    const std::uint64_t established = connection->established.load(std::memory_order_relaxed);
    if (bytes == 0 || established == 0 || connection->accepted) return;
    Record record{};
    record.kind = Kind::first_byte;
    record.start = established;
    record.duration = Clock::ticks() - established;
    owned_by(record, *connection);
    recorder.push(shard, record);
}

void ConnectProbe::begin(Socket& socket, const Address& peer) noexcept {
    Recorder& recorder = Recorder::get();
    const Visit visit(recorder);
    const TraceContext context = current_context();
    Connection* connection = recorder.connection(socket);
    if (connection == nullptr || connection->suppressed.load(std::memory_order_relaxed)) return;
    if (context.suppressed) {
        connection->suppressed.store(true, std::memory_order_relaxed);
        return;
    }
    // Connecting again is how a caller may ask for the result of a pending connect.
    if (connection->connecting.load(std::memory_order_relaxed)) {
        socket_ = &socket;
        connection_ = connection;
        enter(*connection);
        return;
    }
    connection = recorder.renew(socket, connection, 0, [&](Connection& made) {
        const std::string asked_for = asked_server(recorder);
        const std::lock_guard lock(recorder.mutex);
        made.peer = bytes_of(peer);
        made.server =
            asked_for.empty() ? recorder.name_behind(made.peer) : std::string_view(asked_for);
        made.trace = context.trace;
        made.parent = context.span;
        made.context_flags = context.flags();
        made.state.reset(context.state);
        made.connected.store(false);
        made.first_byte_seen.store(false);
        return true;
    });
    if (connection == nullptr) return;
    socket_ = &socket;
    connection_ = connection;
    enter(*connection);
    connection->connect_started = Clock::ticks();
    connection->connecting.store(true, std::memory_order_release);
}

void ConnectProbe::finish(int error) noexcept {
    const int saved = errno;
    // Still on its way: it ends when the caller asks for SO_ERROR, connects again, sends,
    // receives or closes.
    if (error == EINPROGRESS || error == EALREADY ||
        (error == EWOULDBLOCK && socket_->timeout.load(std::memory_order_relaxed) == 0 &&
         connection_->family != AF_UNIX)) {
        errno = saved;
        return;
    }
    if (error == EISCONN && connection_->connecting.load()) error = 0;
    if (error == 0 && !connection_->adopted && (active() & want_connects) != 0)
        Recorder::get().learn_local(*socket_, *connection_);
    finish_connect(Recorder::get(), *connection_, static_cast<std::int16_t>(error), 0);
    errno = saved;
}

void pending_result(Socket& socket, int error) noexcept {
    Recorder& recorder = Recorder::get();
    const Visit visit(recorder);
    Connection* const connection = socket.connection.load(std::memory_order_acquire);
    if (connection == nullptr || !connection->connecting.load(std::memory_order_relaxed)) return;
    // No error is success only once there is a peer: a caller may ask too early.
    if (error == 0) {
        try {
            if (name_of(socket, ::getpeername).empty()) return;
        } catch (...) {
        }
        recorder.learn_local(socket, *connection);
    }
    finish_connect(recorder, *connection, static_cast<std::int16_t>(error), 0);
}

void failed_pending(Socket& socket, int error) noexcept {
    const Visit visit(Recorder::get());
    const Connection* const connection = socket.connection.load(std::memory_order_acquire);
    if (connection == nullptr || !connection->connecting.load(std::memory_order_relaxed)) return;
    // These say that it is pending still, or that its result was taken already.
    if (would_block(error) || error == EINTR || error == ENOTCONN || error == EPIPE) return;
    const int saved = errno;
    pending_result(socket, error);
    errno = saved;
}

namespace {

// The stack that makes a socket, as text; empty where it cannot be had.
std::string current_stack() noexcept {
    PyObject *kind, *error, *trace;
    PyErr_Fetch(&kind, &error, &trace);
    std::string result;
    Ref module(PyImport_ImportModule("traceback"));
    Ref lines(module ? PyObject_CallMethod(module.get(), "format_stack", nullptr) : nullptr);
    Ref empty(PyUnicode_FromString(""));
    Ref text(lines && empty ? PyUnicode_Join(empty.get(), lines.get()) : nullptr);
    const char* data = text ? PyUnicode_AsUTF8(text.get()) : nullptr;
    if (data != nullptr) result = data;
    end_exception();
    PyErr_Restore(kind, error, trace);
    return result;
}

}  // namespace

void socket_made(Socket& socket, bool adopted) noexcept {
    Recorder& recorder = Recorder::get();
    const bool suppressed = current_context().suppressed;
    const bool keep_origin = recorder.keep_origin.load(std::memory_order_relaxed);
    // One that was there before is looked at when it is used: it may be known already.
    if (adopted && (readopt(recorder, socket) || (!suppressed && !keep_origin))) return;
    recorder.make_connection(socket, nullptr, [&](Connection& made) {
        made.adopted = adopted;
        made.asked.store(!adopted, std::memory_order_relaxed);
        made.suppressed.store(suppressed, std::memory_order_relaxed);
        if (keep_origin && !suppressed)
            made.origin = std::make_shared<const std::string>(current_stack());
    });
}

void socket_accepted(Socket& socket, const Address& peer) noexcept {
    Recorder& recorder = Recorder::get();
    const Visit visit(recorder);
    const TraceContext context = current_context();
    const std::uint64_t established = Clock::ticks();
    const auto fill = [&](Connection& made) {
        made.peer = bytes_of(peer);
        made.suppressed.store(context.suppressed, std::memory_order_relaxed);
        made.accepted = true;
        made.adopted = false;
        made.connected.store(true);
        made.established.store(established, std::memory_order_relaxed);
        made.trace = context.trace;
        made.parent = context.span;
        made.context_flags = context.flags();
        made.state.reset(context.state);
        made.asked.store(true, std::memory_order_release);
    };
    Connection* connection = socket.connection.load(std::memory_order_acquire);
    if (connection == nullptr) {
        connection = recorder.make_connection(socket, nullptr, fill);
        if (connection == nullptr) return;
    } else {
        try {
            const std::lock_guard lock(recorder.mutex);
            fill(*connection);
        } catch (...) {
            recorder.lost.fetch_add(1, std::memory_order_relaxed);
            return;
        }
    }
    if (context.suppressed || (active() & want_accepts) == 0) return;
    Record record{};
    record.kind = Kind::accept;
    record.start = established;
    fill_trace(record, context);
    record.connection = connection->number;
    recorder.push(recorder.shard(), record);
}

void socket_listens(Socket& socket) noexcept {
    Recorder& recorder = Recorder::get();
    const Visit visit(recorder);
    Connection* const connection = recorder.connection(socket);
    if (connection == nullptr) return;
    connection->listening.store(true);
    recorder.learn_local(socket, *connection);
}

void socket_closes(Socket& socket, End how) noexcept {
    const bool detached = how == End::detached;
    Recorder& recorder = Recorder::get();
    const Visit visit(recorder);
    // First: who finds no connection closes the descriptor, or gives it away.
    const SharedHandle::Lease lease(socket.handle);
    const sys::Descriptor fd = lease.get();
    Connection* const connection = socket.connection.exchange(nullptr, std::memory_order_acq_rel);
    if (connection == nullptr) return;
    const int saved = errno;
    // One that never had a peer has nothing to tell.
    const bool used =
        connection->connecting.load(std::memory_order_relaxed) ||
        connection->connected.load(std::memory_order_relaxed) ||
        (connection->asked.load(std::memory_order_acquire) && !connection->peer.empty());
    if (used && !connection->suppressed.load(std::memory_order_relaxed) && active() != 0) {
        if (connection->connecting.load(std::memory_order_relaxed))
            finish_connect(recorder, *connection, no_error,
                           how == End::closed ? abandoned : only_metric | abandoned);
        Record record{};
        record.kind = Kind::closed;
        owned_by(record, *connection);
        SocketKind{connection->family, connection->type, connection->protocol}.put(record);
        const std::uint64_t established = connection->established.load(std::memory_order_relaxed);
        if (!detached && !connection->adopted && established != 0) {
            record.start = established;
            record.duration = Clock::ticks() - established;
        }
        tcp_info_extended info;
        if (is_tcp(*connection) && !detached && !connection->listening.load() &&
            tcp_info(fd, info)) {
            record.stall = info.base.tcpi_rtt;
            record.size = info.base.tcpi_total_retrans;
        }
        recorder.push(recorder.shard(), record);
    }
    const std::uint64_t inode = detached ? inode_of(fd) : 0;
    const std::lock_guard lock(recorder.mutex);
    recorder.release(*connection);
    try {
        if (inode != 0 && recorder.orphans.size() < most_orphans)
            recorder.orphans[fd] = {inode, connection->number};
        else
            recorder.orphans.erase(fd);
    } catch (...) {
        recorder.lost.fetch_add(1, std::memory_order_relaxed);
    }
    errno = saved;
}

void learned(std::string_view host, const Address& address) noexcept {
    Recorder& recorder = Recorder::get();
    try {
        std::string key = host_key(bytes_of(address));
        if (key.empty()) return;
        const std::lock_guard lock(recorder.mutex);
        if (recorder.names.size() >= most_names) recorder.names.clear();
        if (host.empty()) {
            recorder.names.erase(key);
        } else {
            recorder.names.insert_or_assign(std::move(key), std::string(host));
        }
    } catch (...) {
        recorder.lost.fetch_add(1, std::memory_order_relaxed);
    }
}

}  // namespace tracesock::recorder
