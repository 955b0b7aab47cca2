// tracesock._native.audit: what the Python layer of the audit is built on.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <chrono>
#include <cmath>

#include "audit/audit.hpp"
#include "audit/guard.hpp"
#include "audit/hook.hpp"
#include "audit/line.hpp"
#include "families/family.hpp"
#include "socket/address.hpp"
#include "socket/python.hpp"

namespace nb = nanobind;

namespace tracesock::audit {
namespace {

std::int64_t nanoseconds(double seconds) {
    if (std::isnan(seconds) || seconds <= 0) return 0;
    return seconds >= 9e9 ? std::int64_t{9'000'000'000} * 1'000'000'000
                          : static_cast<std::int64_t>(seconds * 1e9);
}

Prefix prefix_of(const std::string& text) {
    Prefix prefix;
    if (!parse_prefix(text, prefix)) {
        const std::string message = "not an IPv4 or IPv6 prefix: " + text;
        throw nb::value_error(message.c_str());
    }
    return prefix;
}

using RuleTuple =
    std::tuple<std::string, bool, bool, std::vector<std::string>, std::vector<std::string>,
               std::vector<std::tuple<int, int>>, std::vector<int>>;

Rule rule_of(const RuleTuple& given) {
    const auto& [id, denies, ingress, hosts, prefixes, ports, families] = given;
    Rule rule;
    rule.id = id;
    rule.action = denies ? Action::deny : Action::allow;
    rule.direction = ingress ? Direction::ingress : Direction::egress;
    rule.hosts = hosts;
    for (const std::string& text : prefixes) rule.prefixes.push_back(prefix_of(text));
    for (const auto& [first, last] : ports) {
        if (first < 0 || last > 0xffff || first > last)
            throw nb::value_error("not a range of ports");
        rule.ports.push_back({static_cast<std::uint16_t>(first), static_cast<std::uint16_t>(last)});
    }
    rule.families = families;
    return rule;
}

// A policy as Python holds it.
struct Held {
    std::shared_ptr<const Policy> policy;
};

int judge(const Held& held, bool ingress, nb::bytes address, int port,
          const std::vector<std::string>& names) {
    Address encoded;
    if (address.size() > sizeof encoded.bytes) throw nb::value_error("longer than any address");
    std::memcpy(encoded.bytes, address.data(), address.size());
    encoded.length = static_cast<socklen_t>(address.size());
    Peer peer = read_peer(encoded.header, encoded.length);
    if (port >= 0) peer.port = static_cast<std::uint16_t>(port);
    const Policy& policy = *held.policy;
    std::vector<Word> set(policy.words(), 0);
    for (const std::string& name : names) policy.add_host_rules(normal_host(name), set);
    std::vector<std::atomic<Word>> hosts(policy.words());
    for (std::size_t i = 0; i < set.size(); ++i) hosts[i].store(set[i]);
    return policy.find(ingress ? Direction::ingress : Direction::egress, peer, hosts.data());
}

// --- the ring
// -------------------------------------------------------------------------------------

struct HeldRing {
    std::shared_ptr<Ring> ring;
};

HeldRing open_ring(const std::string& path, std::uint32_t capacity, const std::string& source) {
    if (capacity < 16 || capacity > (1u << 20))
        throw nb::value_error("capacity: between 16 and 1048576 records");
    int error = 0;
    HeldRing held{Ring::open(path, capacity, source, error)};
    if (held.ring == nullptr) {
        errno = error;
        PyErr_SetFromErrnoWithFilename(PyExc_OSError, path.empty() ? nullptr : path.c_str());
        throw nb::python_error();
    }
    return held;
}

int checked(int sink) {
    if (sink < 0 || static_cast<std::size_t>(sink) >= most_sinks)
        throw nb::index_error("no such sink");
    return sink;
}

nb::tuple take(HeldRing& held, int sink, std::size_t most, double wait) {
    const std::size_t size = std::min<std::size_t>(most, 256);
    const auto entries = std::make_unique_for_overwrite<Entry[]>(size);
    std::uint64_t before = 0;
    std::size_t count = 0;
    {
        const Unlocked unlocked;
        count = held.ring->take(checked(sink), {entries.get(), size}, nanoseconds(wait), before);
    }
    nb::list list;
    for (std::size_t i = 0; i < count; ++i)
        list.append(nb::bytes(reinterpret_cast<const char*>(&entries[i]), sizeof(Entry)));
    return nb::make_tuple(before, list);
}

nb::dict stats(const HeldRing& held) {
    const RingHeader& header = held.ring->header();
    nb::dict all;
    all["emitted"] = header.emitted.load();
    all["refused"] = header.refused.load();
    all["lost"] = header.lost.load();
    nb::list sinks;
    for (const auto& sink : header.sinks) {
        nb::dict one;
        one["in_use"] = sink.in_use.load() != 0;
        one["taken"] = sink.taken.load();
        one["delivered"] = sink.delivered.load();
        one["dropped"] = sink.dropped.load();
        sinks.append(one);
    }
    all["sinks"] = sinks;
    return all;
}

nb::bytes part(const void* data, std::size_t size, std::size_t capacity) {
    return nb::bytes(static_cast<const char*>(data), std::min(size, capacity));
}

// --- costs
// ----------------------------------------------------------------------------------------

template <class Body>
double nanoseconds_of(std::uint64_t count, Body&& body) {
    const auto begin = std::chrono::steady_clock::now();
    for (std::uint64_t i = 0; i < count; ++i) body();
    const std::chrono::duration<double, std::nano> taken = std::chrono::steady_clock::now() - begin;
    return taken.count() / static_cast<double>(std::max<std::uint64_t>(count, 1));
}

// What asking for leave costs a call to `address`: ns.
double cost_of_call(nb::handle object, nb::handle address, std::uint64_t count) {
    Interpreter* own = interpreter();
    if (own == nullptr) throw nb::python_error();
    if (!PyObject_TypeCheck(object.ptr(), own->native_type))
        throw nb::type_error("a socket of tracesock is needed");
    Socket& socket = state_of(object.ptr());
    Address encoded;
    if (!encode(socket, address.ptr(), "cost_of_call", encoded)) throw nb::python_error();
    return nanoseconds_of(count, [&] {
        Call call(Event::sendto, socket);
        if (!call.allows(encoded)) PyErr_Clear();
    });
}

// What raising an event as a socket does costs: ns.
double cost_of_event(const std::string& event, nb::handle object, nb::handle address,
                     std::uint64_t count) {
    return nanoseconds_of(count, [&] {
        if (!announce(event.c_str(), object.ptr(), address.ptr())) PyErr_Clear();
    });
}

// The values of an entry, of this process or out of a spool: sizes are not trusted.
nb::tuple decode_entry(nb::bytes data) {
    if (data.size() != sizeof(Entry)) throw nb::value_error("an entry has 1024 bytes");
    Entry entry;
    std::memcpy(&entry, data.data(), sizeof entry);
    const bool note = entry.event == Event::note;
    const nb::object trace =
        (entry.flags & traced) != 0 ? nb::object(part(entry.trace.data(), 16, 16)) : nb::none();
    const nb::object span =
        (entry.flags & traced) != 0 ? nb::object(part(entry.span.data(), 8, 8)) : nb::none();
    return nb::make_tuple(
        entry.number, name_of(entry.event), entry.time, entry.duration, name_of(entry.decision),
        name_of(entry.outcome), entry.error, static_cast<int>(entry.flags), entry.family,
        entry.type, entry.protocol, entry.descriptor, entry.pid, entry.thread, entry.native_thread,
        entry.sent, entry.received, trace, span,
        note ? nb::bytes("", 0) : part(entry.peer, entry.peer_size, address_capacity),
        note ? nb::bytes("", 0) : part(entry.local, entry.local_size, address_capacity),
        note ? nb::bytes("", 0) : part(entry.rule, entry.rule_size, rule_capacity),
        note ? nb::bytes("", 0) : part(entry.host, entry.host_size, host_capacity),
        note ? part(entry.text, entry.text_size, sizeof entry.text) : nb::bytes("", 0));
}

// The text of a dictionary's value, or `otherwise`.
std::string text_at(const nb::dict& texts, nb::handle key, std::string_view otherwise) {
    PyObject* found = PyDict_GetItemWithError(texts.ptr(), key.ptr());
    if (found == nullptr && PyErr_Occurred() != nullptr) throw nb::python_error();
    return found == nullptr ? std::string(otherwise) : nb::cast<std::string>(nb::handle(found));
}

// The lines of entries from the one at `from` on, each sealed with its hash and its end, until one
// that only Python can write: (lines, how many, the last one's hash).
nb::tuple lines(const std::vector<nb::bytes>& entries, std::size_t from, std::uint64_t sequence,
                std::string hash, const std::string& source, const nb::dict& names,
                const nb::dict& errors) {
    if (hash.size() != no_hash.size()) throw nb::value_error("a hash has 64 digits");
    struct Given {
        Entry entry;
        std::string thread_name;
        std::string error;
    };
    std::vector<Given> all;
    for (std::size_t i = from; i < entries.size(); ++i) {
        if (entries[i].size() != sizeof(Entry)) throw nb::value_error("an entry has 1024 bytes");
        Given& given = all.emplace_back();
        std::memcpy(&given.entry, entries[i].data(), sizeof given.entry);
        const Entry& entry = given.entry;
        given.thread_name = text_at(names, nb::int_(entry.thread), "\"\"");
        if (entry.error != 0)
            given.error = text_at(errors, nb::int_(entry.error), std::to_string(entry.error));
    }
    std::string written;
    std::size_t count = 0;
    {
        const Unlocked unlocked;
        for (const Given& given : all) {
            const LineContext context{.sequence = sequence + count,
                                      .source = source,
                                      .thread_name = given.thread_name,
                                      .error = given.error};
            std::optional<std::string> line = line_of(given.entry, context);
            if (!line.has_value()) break;
            seal(*line, hash);
            written += *line;
            ++count;
        }
    }
    return nb::make_tuple(nb::bytes(written.data(), written.size()), count, hash);
}

// What a spool's first page says; raises ValueError for a page that is none.
nb::dict decode_header(nb::bytes data) {
    if (data.size() < sizeof(RingHeader)) throw nb::value_error("shorter than a spool's header");
    RingHeader header;
    std::memcpy(static_cast<void*>(&header), data.data(), sizeof header);
    if (std::memcmp(header.magic, ring_magic, sizeof ring_magic) != 0 ||
        header.entry_size != sizeof(Entry))
        throw nb::value_error("not a spool of this version");
    nb::dict all;
    all["capacity"] = header.capacity;
    all["pid"] = header.pid;
    all["source"] = part(header.source, source_size, source_size);
    all["emitted"] = header.emitted.load();
    all["lost"] = header.lost.load();
    nb::list sinks;
    for (const auto& sink : header.sinks) {
        nb::dict one;
        one["in_use"] = sink.in_use.load() != 0;
        one["taken"] = sink.taken.load();
        one["delivered"] = sink.delivered.load();
        one["dropped"] = sink.dropped.load();
        sinks.append(one);
    }
    all["sinks"] = sinks;
    return all;
}

}  // namespace
}  // namespace tracesock::audit

namespace tracesock {

void bind_audit(nb::module_& parent) {
    using namespace audit;
    nb::module_ module = parent.def_submodule("audit", "Policy, records and subscriptions.");

    nb::class_<Held>(module, "Policy", "A compiled policy.")
        .def(
            "__init__",
            [](Held* self, const std::vector<RuleTuple>& rules, bool denies, bool enforced) {
                std::vector<Rule> all;
                all.reserve(rules.size());
                for (const RuleTuple& rule : rules) all.push_back(rule_of(rule));
                new (self) Held{std::make_shared<const Policy>(
                    std::move(all), denies ? Action::deny : Action::allow, enforced)};
            },
            nb::arg("rules"), nb::arg("denies"), nb::arg("enforced"))
        .def("judge", &judge, nb::arg("ingress"), nb::arg("address"), nb::arg("port"),
             nb::arg("names"),
             "The index of the rule that decides on an encoded address, -1 for the default. "
             "`port` replaces the address's own unless negative.")
        .def("judges_ingress",
             [](const Held& self) { return self.policy->judges(Direction::ingress); });

    module.def("normal_host", [](const std::string& host) { return normal_host(host); });
    module.def("check_prefix", [](const std::string& text) { prefix_of(text); });
    module.def(
        "set_policy",
        [](nb::object policy) {
            set_policy(policy.is_none() ? nullptr : nb::cast<Held&>(policy).policy);
        },
        nb::arg("policy").none());
    module.def(
        "guard", [](bool process) { guard(process ? Guard::process : Guard::tracesock); },
        nb::arg("process"),
        "Judge calls that go past tracesock's methods too: of tracesock's sockets, or of all.");
    module.def("decisions", [] {
        nb::list all;
        for (const auto& [key, count] : decisions())
            all.append(nb::make_tuple(key.first, name_of(key.second), count));
        return all;
    });
    module.def("watched", &watched);

    nb::class_<HeldRing>(module, "Ring", "Where records wait for their sinks.")
        .def(
            "__init__",
            [](HeldRing* self, const std::string& path, std::uint32_t capacity,
               const std::string& source) {
                new (self) HeldRing(open_ring(path, capacity, source));
            },
            nb::arg("path"), nb::arg("capacity"), nb::arg("source"))
        .def("add_sink",
             [](HeldRing& self, int when_full) {
                 if (when_full < 0 || when_full > 2) throw nb::value_error("when_full: 0, 1 or 2");
                 return self.ring->add_sink(static_cast<WhenFull>(when_full));
             })
        .def("remove_sink", [](HeldRing& self, int sink) { self.ring->remove_sink(checked(sink)); })
        .def("take", &take, nb::arg("sink"), nb::arg("most"), nb::arg("wait"))
        .def("delivered", [](HeldRing& self, int sink,
                             std::uint64_t before) { self.ring->delivered(checked(sink), before); })
        .def("set_failing", [](HeldRing& self, int sink,
                               bool failing) { self.ring->set_failing(checked(sink), failing); })
        .def("flush",
             [](HeldRing& self, int sink, double wait) {
                 const Unlocked unlocked;
                 return self.ring->flush(checked(sink), nanoseconds(wait));
             })
        .def("close", [](HeldRing& self) { self.ring->close(); })
        .def("interrupt", [](HeldRing& self) { self.ring->interrupt(); })
        .def("stats", &stats)
        .def(
            "use", [](HeldRing& self) { set_ring(self.ring); },
            "Let calls leave their records here.");
    module.def("stop_recording", [] { set_ring(nullptr); });
    module.def(
        "set_restart",
        [](nb::object callable) { set_restart(callable.is_none() ? nullptr : callable.ptr()); },
        nb::arg("callable").none());
    module.def(
        "set_context_reader",
        [](nb::object callable) {
            set_context_reader(callable.is_none() ? nullptr : callable.ptr());
        },
        nb::arg("callable").none());
    module.def("note", [](const std::string& text) {
        if (!leave_note(text)) throw nb::python_error();
    });
    module.def("exempt_thread", &exempt_thread);
    module.def("decode", &decode_entry, nb::arg("entry"));
    module.def("lines", &lines, nb::arg("entries"), nb::arg("start"), nb::arg("sequence"),
               nb::arg("hash"), nb::arg("source"), nb::arg("names"), nb::arg("errors"),
               "The chain's lines that formats.jsonl() makes of entries from `start` on, until one "
               "that only Python can write: see line_of(). `names`: those of threads, in JSON; "
               "`errors`: errno.errorcode. Returns (lines, how many, the last one's hash).");
    module.def("decode_header", &decode_header, nb::arg("page"));
    module.attr("ENTRY_SIZE") = sizeof(Entry);
    module.attr("HEADER_SIZE") = header_size;
    module.attr("NOTE_CAPACITY") = sizeof(Entry{}.text);

    module.def("cost_of_call", &cost_of_call, nb::arg("socket"), nb::arg("address"),
               nb::arg("count"));
    module.def("cost_of_event", &cost_of_event, nb::arg("event"), nb::arg("socket"),
               nb::arg("address"), nb::arg("count"));

    nb::list events;
    for (const char* event : documented_events) events.append(event);
    module.attr("EVENTS") = nb::tuple(events);
    module.def(
        "subscribe",
        [](nb::callable callback, unsigned events, const std::vector<std::string>& prefixes,
           const std::vector<std::string>& hosts) {
            PeerFilter peers;
            for (const std::string& text : prefixes) peers.prefixes.push_back(prefix_of(text));
            peers.hosts = hosts;
            return subscribe(callback.ptr(), events, std::move(peers));
        },
        nb::arg("callback"), nb::arg("events"), nb::arg("prefixes"), nb::arg("hosts"));
    module.def("unsubscribe", &unsubscribe, nb::arg("number"));
    module.def("subscriptions", &subscriptions);

    nb::dict families;
    for (const Family* family : all_families()) {
        // Not the rows of one protocol, nor those that only say what the platform lacks.
        if (family->protocol == any_protocol && std::strstr(family->name, "unsupported") == nullptr)
            families[family->name] = family->family;
    }
    module.attr("FAMILIES") = families;
}

}  // namespace tracesock
