// The recorder as the Python layer drives it: switched on, drained, and asked about connections.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <linux/sockios.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <string_view>
#include <unordered_map>

#include "recorder/digest.hpp"
#include "recorder/lookups.hpp"
#include "recorder/module.hpp"
#include "recorder/recorder.hpp"
#include "resolver/resolver.hpp"
#include "socket/address.hpp"
#include "socket/bindings.hpp"
#include "socket/python.hpp"

namespace nb = nanobind;

namespace tracesock {
namespace {

using recorder::Connection;
using recorder::Digest;
using recorder::Kind;
using recorder::Record;
using recorder::Recorder;

nb::object bytes_or_none(const std::uint8_t* data, std::size_t size, bool present) {
    return present ? nb::object(nb::bytes(reinterpret_cast<const char*>(data), size))
                   : nb::object(nb::none());
}

// Waits until a ring fills up or the time has passed.
void wait(double seconds) {
    Recorder& own = Recorder::get();
    const Unlocked unlocked;
    own.wait(static_cast<std::int64_t>(seconds * 1e9));
    own.roused.store(false, std::memory_order_release);
}

}  // namespace

nb::tuple record_tuple(const Record& record) {
    const std::uint64_t start = recorder::Clock::unix_time(record.start);
    const bool parent = (record.flags & recorder::has_parent) != 0;
    nb::object state = nb::none();
    if (record.state != 0) {
        const std::string text = recorder::TraceStates::get().text(record.state);
        state = nb::str(text.data(), text.size());
    }
    return nb::make_tuple(static_cast<int>(record.kind), start,
                          start + recorder::Clock::duration(record.duration),
                          bytes_or_none(record.trace.data(), record.trace.size(), parent),
                          bytes_or_none(record.parent.data(), record.parent.size(), parent),
                          record.size, record.stall, record.connection, record.calls, record.error,
                          static_cast<int>(record.flags), state);
}

namespace {

// Takes at most `limit` records: a list of (kind, start, end, trace id, parent id, size, stall,
// connection, calls, error, flags, trace state), and whether that ended a round. Those that the
// digest counts are not among them; without `spans`, nobody wants any.
nb::tuple drain(std::size_t limit, bool spans) {
    Recorder& own = Recorder::get();
    recorder::Clock::calibrate();
    std::vector<Record> taken;
    bool complete = false;
    {
        const Unlocked unlocked;
        const auto make_span = [&](const Record&, const Connection&, std::string_view,
                                   recorder::OwnSpan&) {
            return spans ? recorder::Making::left : recorder::Making::done;
        };
        do {
            complete = own.drain(limit - taken.size(), [&](const Record& record) {
                if (!Digest::get().take(record, make_span)) taken.push_back(record);
            });
        } while (!complete && taken.size() < limit);
    }
    nb::list records;
    for (const Record& record : taken) records.append(record_tuple(record));
    return nb::make_tuple(records, complete);
}

nb::object decoded(const std::string& encoded, int protocol) {
    if (encoded.empty()) return nb::none();
    Address address;
    address.length = static_cast<socklen_t>(std::min(encoded.size(), sizeof address.bytes));
    std::memcpy(address.bytes, encoded.data(), address.length);
    PythonContext context("connection", protocol);
    PyObject* object = decode_address(context, address);
    if (object == nullptr) throw nb::python_error();
    return nb::steal(object);
}

nb::object server_of(const std::string& server) {
    if (server.empty()) return nb::none();
    return nb::steal(PyUnicode_DecodeUTF8(server.data(), static_cast<Py_ssize_t>(server.size()),
                                          "backslashreplace"));
}

// (family, type, protocol, peer, local, server, accepted, adopted), None where it is not known.
nb::object connection(std::uint32_t number) {
    Recorder& own = Recorder::get();
    int family = 0, type = 0, protocol = 0;
    bool accepted = false, adopted = false;
    std::string peer, local, server;
    {
        // No Python object is made under the mutex: the garbage collector may run then, and close a
        // socket, which takes the mutex.
        const std::lock_guard lock(own.mutex);
        const auto found = own.connections.find(number);
        if (found == own.connections.end()) return nb::none();
        const Connection& entry = *found->second;
        family = entry.family;
        type = entry.type;
        protocol = entry.protocol;
        accepted = entry.accepted;
        adopted = entry.adopted;
        peer = static_cast<std::string_view>(entry.peer);
        local = static_cast<std::string_view>(entry.local);
        server = static_cast<std::string_view>(entry.server);
    }
    return nb::make_tuple(family, type, protocol, decoded(peer, protocol), decoded(local, protocol),
                          server_of(server), accepted, adopted);
}

nb::bytes bytes_of_numbers(const std::vector<double>& numbers) {
    return nb::bytes(reinterpret_cast<const char*>(numbers.data()),
                     numbers.size() * sizeof(double));
}

// What was counted of connections since the last call: a list of (kind, family, type, protocol,
// peer, server, records, durations, round trips, retransmits, longest) and the numbers of those
// that have ended, as uint32. Durations and round trips are doubles in seconds, in ascending order;
// `longest` is not among them: None, or (seconds, trace id, span id, flags).
nb::tuple digest() {
    std::vector<Digest::Group> groups;
    std::vector<std::uint32_t> ended;
    {
        const Unlocked unlocked;
        const std::lock_guard lock(Recorder::get().drain_mutex);
        groups = Digest::get().take_groups();
        ended = Digest::get().take_ended();
    }
    nb::list result;
    for (const Digest::Group& group : groups) {
        nb::object longest = nb::none();
        if (group.longest.has_value()) {
            const recorder::Exemplar& one = *group.longest;
            longest = nb::make_tuple(one.seconds,
                                     bytes_or_none(one.trace.data(), one.trace.size(), one.traced),
                                     bytes_or_none(one.span.data(), one.span.size(), one.traced),
                                     static_cast<int>(one.flags));
        }
        result.append(nb::make_tuple(
            static_cast<int>(group.kind), group.socket.family, group.socket.type,
            group.socket.protocol, decoded(group.peer, group.socket.protocol),
            server_of(group.server), group.records, bytes_of_numbers(group.durations),
            bytes_of_numbers(group.round_trips), group.retransmits, longest));
    }
    return nb::make_tuple(result, nb::bytes(reinterpret_cast<const char*>(ended.data()),
                                            ended.size() * sizeof(std::uint32_t)));
}

struct Sums {
    std::uint64_t sent = 0;
    std::uint64_t received = 0;
    recorder::HistogramSum send, stall_receiver, stall_sndbuf;

    void add(const recorder::Cell& cell) {
        sent += cell.sent.load(std::memory_order_relaxed);
        received += cell.received.load(std::memory_order_relaxed);
        send.add(cell.send);
        stall_receiver.add(cell.stall_receiver);
        stall_sndbuf.add(cell.stall_sndbuf);
    }
};

nb::tuple histogram_tuple(const recorder::HistogramSum& sum) {
    nb::list counts;
    for (const std::uint64_t count : sum.counts) counts.append(count);
    return nb::make_tuple(counts, sum.sum, sum.smallest, sum.largest);
}

// The counters and histograms of every thread, living and gone, by attribute set: a list of
// ((family, type, protocol, server), sent, received, send, stall by receiver, stall by buffer),
// a histogram being (counts, sum, smallest, largest) in nanoseconds.
nb::list cells() {
    Recorder& own = Recorder::get();
    std::vector<recorder::Labels> labels;
    std::vector<Sums> sums;
    {
        const Unlocked unlocked;
        const std::lock_guard lock(own.mutex);
        labels = own.labels;
        sums.resize(labels.size());
        for (std::size_t i = 0; i < labels.size(); ++i) {
            for (const auto& shard : own.shards) {
                const recorder::Cell* cell = shard->cells[i].load(std::memory_order_acquire);
                if (cell != nullptr) sums[i].add(*cell);
            }
            if (own.retired[i] != nullptr) sums[i].add(*own.retired[i]);
        }
    }
    nb::list result;
    for (std::size_t i = 0; i < labels.size(); ++i)
        result.append(nb::make_tuple(
            nb::make_tuple(labels[i].family, labels[i].type, labels[i].protocol,
                           server_of(labels[i].server)),
            sums[i].sent, sums[i].received, histogram_tuple(sums[i].send),
            histogram_tuple(sums[i].stall_receiver), histogram_tuple(sums[i].stall_sndbuf)));
    return result;
}

// (written, dropped, waiting): of this process, since it began or was forked.
nb::tuple counts() {
    Recorder& own = Recorder::get();
    std::uint64_t written = 0, dropped = 0, waiting = 0;
    {
        const std::lock_guard lock(own.mutex);
        written = own.ended_written.load() - own.forked_written.load();
        dropped = own.ended_dropped.load() + own.lost.load();
        for (const auto& shard : own.shards) {
            written += shard->ring.written();
            dropped += shard->ring.dropped();
            waiting += shard->ring.written() - shard->ring.read();
        }
        const recorder::Lookups& lookups = recorder::Lookups::get();
        written += lookups.written();
        dropped += lookups.dropped();
        waiting += lookups.size();
    }
    return nb::make_tuple(written, dropped, waiting);
}

// The look-ups since the last call: a list of (kind, host, start, end, trace id, parent id, flags,
// trace state, the exception's class, its code, answers), times in nanoseconds since the Unix
// epoch.
nb::list lookups() {
    Recorder& own = Recorder::get();
    std::vector<recorder::LookupRecord> taken;
    {
        const std::lock_guard lock(own.mutex);
        taken = recorder::Lookups::get().take();
    }
    nb::list all;
    for (const recorder::LookupRecord& each : taken) {
        const bool traced = (each.flags & recorder::has_parent) != 0;
        nb::list answers;
        for (const std::string& answer : each.answers) answers.append(answer);
        const auto text = [](const std::string& value) -> nb::object {
            if (value.empty()) return nb::none();
            return nb::str(value.data(), value.size());
        };
        all.append(nb::make_tuple(each.kind, each.host, recorder::Clock::unix_time(each.start),
                                  recorder::Clock::unix_time(each.end),
                                  bytes_or_none(each.trace.data(), each.trace.size(), traced),
                                  bytes_or_none(each.parent.data(), each.parent.size(), traced),
                                  static_cast<int>(each.flags), text(each.state), text(each.error),
                                  each.code, answers));
    }
    return all;
}

// A context variable that has a value for a while; with none, nothing.
class Within {
  public:
    Within(PyObject* variable, nb::handle value)
        : variable_(value.is_none() ? nullptr : variable),
          token_(variable_ != nullptr ? PyContextVar_Set(variable_, value.ptr()) : nullptr) {
        if (variable_ != nullptr && !token_) throw nb::python_error();
    }
    Within(const Within&) = delete;
    Within& operator=(const Within&) = delete;
    ~Within() {
        if (token_ && PyContextVar_Reset(variable_, token_.get()) < 0) PyErr_Clear();
    }

  private:
    PyObject* const variable_;
    const Ref token_;
};

// Calls `function(*arguments)` in this OpenTelemetry context, and where this is the server that a
// set-up asks for. Native, because no signal is handled between a call and what sets the context
// back: what a handler raises would keep the caller in it.
nb::object call_within(nb::handle context, nb::handle server, nb::handle function,
                       const nb::args& arguments) {
    Recorder& own = Recorder::get();
    const Within in_context(own.context_variable.load(), context);
    const Within asks_for(own.server_variable.load(), server);
    PyObject* const result = PyObject_Call(function.ptr(), arguments.ptr(), nullptr);
    // Has the exception until the variables are as before.
    if (result == nullptr) throw nb::python_error();
    return nb::steal(result);
}

// What connections() tells of one, without a Python object.
struct Open {
    std::uint32_t number = 0;
    int family = 0, type = 0, protocol = 0;
    std::string peer, local, server, origin;
    bool accepted = false, adopted = false, connecting = false, connected = false;
    bool listening = false, has_info = false;
    std::uint64_t created = 0, sent = 0, received = 0;
    recorder::TraceId trace{};
    recorder::SpanId parent{};
    sys::Descriptor descriptor = sys::invalid;
    recorder::tcp_info_extended info{};
    int queued = -1;
};

Open open_of(Connection& entry) {
    Open open{.number = entry.number,
              .family = entry.family,
              .type = entry.type,
              .protocol = entry.protocol,
              .peer = std::string(entry.peer),
              .local = std::string(entry.local),
              .server = std::string(entry.server),
              .origin = entry.origin != nullptr ? *entry.origin : std::string(),
              .accepted = entry.accepted,
              .adopted = entry.adopted,
              .connecting = entry.connecting.load(),
              .connected = entry.connected.load(),
              .listening = entry.listening.load(),
              .created = entry.created,
              .sent = entry.sent.load(),
              .received = entry.received.load(),
              .trace = entry.trace,
              .parent = entry.parent};
    const SharedHandle::Lease lease(entry.socket->handle);
    open.descriptor = lease.get();
    if (open.local.empty()) open.local = recorder::name_of(lease.get(), ::getsockname);
    open.has_info = is_tcp(entry) && recorder::tcp_info(lease.get(), open.info);
    int queued = 0;
    if (::ioctl(lease.get(), SIOCOUTQ, &queued) == 0) open.queued = queued;
    return open;
}

// The numbers of the open connections, in the order in which they were made.
std::vector<std::uint32_t> open_numbers() {
    Recorder& own = Recorder::get();
    std::vector<std::uint32_t> numbers;
    {
        const std::lock_guard lock(own.mutex);
        for (const auto& [number, entry] : own.connections)
            if (entry->socket != nullptr && !entry->suppressed) numbers.push_back(number);
    }
    std::ranges::sort(numbers);
    return numbers;
}

// Calls take(connection) for each of these that is open still, under the mutex, which is given up
// after every few: the kernel is asked about each, and other threads make and close sockets
// meanwhile.
template <class Take>
void for_each_open(const std::vector<std::uint32_t>& numbers, Take&& take) {
    constexpr std::size_t few = 64;
    Recorder& own = Recorder::get();
    for (std::size_t next = 0; next < numbers.size();) {
        const std::lock_guard lock(own.mutex);
        for (const std::size_t end = std::min(next + few, numbers.size()); next < end; ++next) {
            const auto found = own.connections.find(numbers[next]);
            if (found != own.connections.end() && found->second->socket != nullptr)
                take(*found->second);
        }
    }
}

// The state of tcp(7) that an open socket is in, or 0 for one that is no connection; what is no TCP
// has the likeness of one.
int tcp_state(Connection& entry, recorder::tcp_info_extended& info) {
    if (is_tcp(entry)) {
        const SharedHandle::Lease lease(entry.socket->handle);
        if (recorder::tcp_info(lease.get(), info))
            // A socket that was never connected is "closed" to the kernel.
            return info.base.tcpi_state == TCP_CLOSE && !entry.connected.load()
                       ? 0
                       : info.base.tcpi_state;
    }
    if (entry.listening.load()) return TCP_LISTEN;
    if (entry.connected.load()) return TCP_ESTABLISHED;
    return entry.connecting.load() ? TCP_SYN_SENT : 0;
}

// How many open connections are in each state, {state of tcp(7): number}, and the accept queues of
// the TCP listeners: (number of the connection, length, limit).
nb::tuple states() {
    struct Queue {
        std::uint32_t number, length, limit;
    };
    std::array<std::uint64_t, 16> counts{};
    std::vector<Queue> queues;
    {
        const Unlocked unlocked;
        for_each_open(open_numbers(), [&](Connection& entry) {
            recorder::tcp_info_extended info{};
            const int state = tcp_state(entry, info);
            if (state <= 0 || static_cast<std::size_t>(state) >= counts.size()) return;
            ++counts[static_cast<std::size_t>(state)];
            // Of a listening socket the kernel has the queue's depth and limit in these.
            if (state == TCP_LISTEN && is_tcp(entry))
                queues.push_back({entry.number, info.base.tcpi_unacked, info.base.tcpi_sacked});
        });
    }
    nb::dict by_state;
    for (std::size_t state = 1; state < counts.size(); ++state)
        if (counts[state] != 0) by_state[nb::int_(state)] = counts[state];
    nb::list listeners;
    for (const Queue& queue : queues)
        listeners.append(nb::make_tuple(queue.number, queue.length, queue.limit));
    return nb::make_tuple(by_state, listeners);
}

// Those of the connections with these numbers that are open: dictionaries, ready for the Python
// layer to name.
nb::list connections(const std::vector<std::uint32_t>& numbers) {
    std::vector<Open> all;
    all.reserve(numbers.size());
    // No Python object is made under the mutex: the garbage collector may run then, and close a
    // socket, which takes the mutex. The GIL stays: with it the addresses are written.
    for_each_open(numbers, [&](Connection& entry) { all.push_back(open_of(entry)); });
    const std::uint64_t now = recorder::Clock::ticks();
    nb::list result;
    for (const Open& open : all) {
        nb::dict row;
        row["number"] = open.number;
        row["family"] = open.family;
        row["type"] = open.type;
        row["protocol"] = open.protocol;
        row["peer"] = decoded(open.peer, open.protocol);
        row["local"] = decoded(open.local, open.protocol);
        row["server"] = server_of(open.server);
        row["accepted"] = open.accepted;
        row["adopted"] = open.adopted;
        row["connecting"] = open.connecting;
        row["connected"] = open.connected;
        row["listening"] = open.listening;
        row["created"] = recorder::Clock::unix_time(open.created);
        row["age"] =
            open.adopted
                ? nb::object(nb::none())
                : nb::object(nb::float_(
                      static_cast<double>(recorder::Clock::duration(now - open.created)) / 1e9));
        row["sent"] = open.sent;
        row["received"] = open.received;
        const bool traced = open.trace != recorder::TraceId{};
        row["trace_id"] = bytes_or_none(open.trace.data(), open.trace.size(), traced);
        row["span_id"] = bytes_or_none(open.parent.data(), open.parent.size(), traced);
        row["origin"] = server_of(open.origin);
        row["descriptor"] = open.descriptor;
        if (open.has_info) {
            row["tcp_state"] = static_cast<int>(open.info.base.tcpi_state);
            row["rtt"] = static_cast<double>(open.info.base.tcpi_rtt) / 1e6;
            row["retransmits"] = open.info.base.tcpi_total_retrans;
            row["unacked"] = open.info.base.tcpi_unacked;
            row["sacked"] = open.info.base.tcpi_sacked;
        }
        if (open.queued >= 0) row["queued"] = open.queued;
        result.append(row);
    }
    return result;
}

}  // namespace

// How many ephemeral ports this process has in use towards the one destination (address and port)
// towards which it has the most.
std::size_t most_ports() {
    Recorder& own = Recorder::get();
    std::unordered_map<std::string_view, std::size_t> used;
    std::size_t most = 0;
    const std::lock_guard lock(own.mutex);
    for (const auto& [number, entry] : own.connections)
        if (entry->socket != nullptr && !entry->accepted && !entry->adopted &&
            (entry->connected.load() || entry->connecting.load()) && !entry->peer.empty() &&
            (entry->family == AF_INET || entry->family == AF_INET6))
            most = std::max(most, ++used[entry->peer]);
    return most;
}

void bind_recorder(nb::module_& parent) {
    nb::module_ module = parent.def_submodule("recorder", "The recorder, driven by Python.");
    bind_otlp_drain(module);
    bind_tls(module);
    module.attr("SENDS") = static_cast<unsigned>(recorder::want_sends);
    module.attr("METRICS") = static_cast<unsigned>(recorder::want_metrics);
    module.attr("SLOW_SENDS") = static_cast<unsigned>(recorder::want_slow_sends);
    module.attr("FAILED_SENDS") = static_cast<unsigned>(recorder::want_failed_sends);
    module.attr("CONNECTS") = static_cast<unsigned>(recorder::want_connects);
    module.attr("ACCEPTS") = static_cast<unsigned>(recorder::want_accepts);
    module.attr("ROOTLESS_SENDS") = static_cast<unsigned>(recorder::want_rootless_sends);
    nb::list bounds;
    for (const std::uint64_t bound : recorder::call_bounds)
        bounds.append(static_cast<double>(bound) / 1e9);
    module.attr("CALL_BOUNDS") = nb::tuple(bounds);
    module.def(
        "start",
        [](unsigned wanted, double slow_threshold, nb::object variable, nb::object span_key,
           nb::object suppression, nb::object plain_suppression, nb::object server_variable,
           nb::object tuple_of_parts) {
            Recorder& own = Recorder::get();
            // Kept for good: another thread may be reading its context.
            if (!own.api.make(tuple_of_parts.release().ptr())) throw nb::python_error();
            own.context_variable = variable.release().ptr();
            own.span_key = span_key.release().ptr();
            own.suppression_keys[0] = suppression.release().ptr();
            own.suppression_keys[1] = plain_suppression.release().ptr();
            own.server_variable = server_variable.release().ptr();
            own.set_slow_threshold(slow_threshold);
            {
                const std::lock_guard lock(own.drain_mutex);
                Digest::get().clear();
            }
            {
                const std::lock_guard lock(own.mutex);
                own.names.clear();
            }
            recorder::wanted.store(wanted, std::memory_order_release);
        },
        nb::arg("wanted"), nb::arg("slow_threshold"), nb::arg("variable"), nb::arg("span_key"),
        nb::arg("suppression"), nb::arg("plain_suppression"), nb::arg("server_variable"),
        nb::arg("tuple_of_parts").none(),
        "Record what `wanted` says, with the caller's OpenTelemetry context.");
    module.def(
        "stop", [] { recorder::wanted.store(0, std::memory_order_release); },
        "Record nothing more.");
    module.def("active", [] { return recorder::active(); }, "What is wanted; 0: off.");
    module.def("wait", wait, nb::arg("seconds"));
    module.def("wake", [] { Recorder::get().rouse(); });
    module.def("drop_contexts", [] { Recorder::get().drop_contexts(); });
    module.def("drain", drain, nb::arg("limit"), nb::arg("spans"));
    module.def("digest", digest);
    module.def("connection", connection, nb::arg("number"));
    module.def(
        "keep_origin", [](bool keep) { Recorder::get().keep_origin.store(keep); }, nb::arg("keep"),
        "Keep the stack that makes each new socket.");
    module.def("cells", cells);
    module.def("counts", counts);
    module.def("lookups", lookups);
    module.def(
        "call_within", call_within, nb::arg("context").none(), nb::arg("server").none(),
        nb::arg("function"), nb::arg("arguments"),
        "Call `function(*arguments)` in an OpenTelemetry context, and while a set-up asks for\n"
        "the server of this name; None: as it is. No exception leaves them behind.");
    module.def(
        "suppressed", [] { return recorder::current_context().suppressed; },
        "Whether the caller's context says that nothing is to be told.");
    module.def("open_numbers", open_numbers);
    module.def("connections", connections, nb::arg("numbers"));
    module.def("most_ports", most_ports);
    module.def("states", states);
    module.def(
        "learned",
        [](nb::str host, nb::str address) {
            Address encoded;
            if (resolver::is_literal(utf8(address), encoded) && encoded.length != 0)
                recorder::learned(utf8(host), encoded);
        },
        nb::arg("host"), nb::arg("address"),
        "Who connects to this address means this host, or with \"\" the address itself; nothing\n"
        "for what is no IPv4 or IPv6 address.");
    module.def(
        "is_literal",
        [](nb::str host) {
            Address ignored;
            return resolver::is_literal(utf8(host), ignored);
        },
        nb::arg("host"), "Whether this asks nobody: an address, or nothing, in place of a name.");
    module.def("ticks", &recorder::Clock::ticks, "The recorder's clock, in its own ticks.");
    module.def("unix_time", &recorder::Clock::unix_time, nb::arg("ticks"),
               "Nanoseconds since the Unix epoch at which the clock stood at `ticks`.");
    module.def("uses_time_stamp_counter", &recorder::Clock::uses_counter);
}

}  // namespace tracesock
