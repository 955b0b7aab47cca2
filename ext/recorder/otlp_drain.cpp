// Records straight into OTLP: the drain of a process whose sends all become spans. It holds the
// interpreter's lock only to hand over what it does not encode itself.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "families/inet.hpp"
#include "recorder/digest.hpp"
#include "recorder/module.hpp"
#include "recorder/otlp.hpp"
#include "recorder/recorder.hpp"
#include "socket/python.hpp"

namespace nb = nanobind;

namespace tracesock {
namespace {

using recorder::Connection;
using recorder::Digest;
using recorder::Kind;
using recorder::Record;
using recorder::Recorder;
using namespace recorder::otlp;

// The sends of one connection in one trace beyond the limit.
struct Fold {
    recorder::SpanId parent{};
    std::uint64_t start = ~std::uint64_t{0};  // ns since the Unix epoch
    std::uint64_t end = 0;
    std::uint64_t sends = 0;
    std::uint64_t calls = 0;
    std::uint64_t size = 0;
    std::uint64_t stall = 0;    // us
    std::uint64_t longest = 0;  // ns
    std::string state;          // of the trace
};

// What one connection sent in one trace.
struct InTrace {
    recorder::TraceId trace{};
    std::uint32_t spans = 0;
    Fold fold;
};

// What the sends of one connection have in common.
struct Template {
    std::string name;
    std::string attributes;       // encoded
    std::vector<InTrace> traces;  // lately, the current one last

    InTrace& in(const recorder::TraceId& trace) {
        for (std::size_t i = traces.size(); i-- != 0;)
            if (traces[i].trace == trace) {
                if (i + 1 != traces.size()) std::swap(traces[i], traces.back());
                return traces.back();
            }
        return traces.emplace_back(InTrace{.trace = trace, .fold = {}});
    }

    void named() {
        if (name.empty()) name = "socket send unknown";
    }
};

// Random span identifiers: splitmix64 from a seed of the system's.
class Identifiers {
  public:
    recorder::SpanId next() noexcept {
        if (state_ == 0 || pid_ != ::getpid()) seed();
        std::uint64_t z = 0;
        do {
            state_ += 0x9e3779b97f4a7c15;
            z = state_;
            z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
            z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
            z ^= z >> 31;
        } while (z == 0);
        recorder::SpanId id;
        std::memcpy(id.data(), &z, sizeof z);
        return id;
    }

  private:
    // A forked child must not repeat its parent's identifiers.
    void seed() noexcept {
        pid_ = ::getpid();
        if (::getrandom(&state_, sizeof state_, 0) != sizeof state_)
            state_ = recorder::Clock::ticks() ^ static_cast<std::uint64_t>(pid_) << 32;
    }

    std::uint64_t state_ = 0;
    pid_t pid_ = 0;
};

class OtlpDrain {
  public:
    OtlpDrain(nb::bytes resource, const std::string& resource_schema_url,
              const std::string& scope_name, const std::string& scope_version,
              const std::string& scope_schema_url, std::uint32_t most_in_trace,
              std::size_t request_size, bool samples_roots)
        : encoder_({.resource = {resource.c_str(), resource.size()},
                    .resource_schema_url = resource_schema_url,
                    .scope_name = scope_name,
                    .scope_version = scope_version,
                    .scope_schema_url = scope_schema_url}),
          most_in_trace_(most_in_trace),
          request_size_(request_size),
          samples_roots_(samples_roots),
          batch_(std::clamp(request_size / usual_span, std::size_t{64}, std::size_t{4096})) {}

    void connection(std::uint32_t number, std::string name, nb::bytes attributes) {
        const std::lock_guard lock(mutex());
        Template& entry = templates_[number];
        entry.name = std::move(name);
        entry.attributes.assign(attributes.c_str(), attributes.size());
    }

    // The name and attributes of connects as that of this connection: all of the latter but its own
    // address.
    void connects(std::uint32_t number, std::string name, nb::bytes attributes) {
        const std::lock_guard lock(mutex());
        const std::lock_guard own(Recorder::get().mutex);
        const auto found = Recorder::get().connections.find(number);
        if (found == Recorder::get().connections.end()) return;
        if (connects_.size() >= most_connects) connects_.clear();
        std::string identity;
        recorder::append_identity(identity, *found->second);
        Connects& entry = connects_[std::move(identity)];
        entry.name = std::move(name);
        entry.attributes.assign(attributes.c_str(), attributes.size());
    }

    void forget(std::uint32_t number) {
        const std::lock_guard lock(mutex());
        end(number);
    }

    // Encodes what was folded: everything, or that to which no send was added for a while.
    void flush_folds(double idle) {
        const std::lock_guard lock(mutex());
        const std::uint64_t until = recorder::Clock::unix_time(recorder::Clock::ticks()) -
                                    static_cast<std::uint64_t>(idle * 1e9);
        for (auto& [number, entry] : templates_)
            for (InTrace& in_trace : entry.traces)
                if (idle <= 0 || in_trace.fold.end < until) put_fold(entry, in_trace);
    }

    // In a forked child: forgets what is the parent's to tell.
    void clear() {
        const std::lock_guard lock(mutex());
        left_.clear();
        unknown_.clear();
        unknown_connects_.clear();
        templates_.clear();
        connects_.clear();
        encoder_.clear();
        lost_ = 0;
    }

    // Sends for which a request had no room, which are more than a request has bytes.
    std::uint64_t take_lost() {
        const std::lock_guard lock(mutex());
        return std::exchange(lost_, 0);
    }

    // Encodes what comes, without the interpreter's lock, for at most `seconds`: until a request is
    // large enough, there is something for Python, or somebody wakes it.
    void pump(double seconds) {
        const Unlocked unlocked;
        Recorder& own = Recorder::get();
        const std::int64_t end = sys::monotonic() + static_cast<std::int64_t>(seconds * 1e9);
        for (std::int64_t now = sys::monotonic(); now < end; now = sys::monotonic()) {
            own.wait(end - now);
            if (own.roused.exchange(false, std::memory_order_acq_rel)) return;
            recorder::Clock::calibrate();
            while (!own.drain(batch_, [&](const Record& record) { take(record); })) {
                if (is_ready()) return;
            }
            if (is_ready()) return;
        }
    }

    // Encodes until a round has ended, a request is large enough, or there is something for Python:
    // (records that are not encoded here, connections whose sends, and those as whose connects, are
    // not known yet, whether a round has ended). What these sent, and their connects, are kept for
    // `resume`.
    nb::tuple run() {
        bool complete = false;
        recorder::Clock::calibrate();
        {
            const Unlocked unlocked;
            do {
                complete =
                    Recorder::get().drain(batch_, [&](const Record& record) { take(record); });
            } while (!complete && !is_ready());
        }
        std::vector<Record> left;
        std::unordered_set<std::uint32_t> unknown, unknown_connects;
        {
            const std::lock_guard lock(mutex());
            left = std::exchange(left_, {});
            for (const Record& record : unknown_) unknown.insert(record.connection);
            for (const auto& [identity, records] : unknown_connects_)
                unknown_connects.insert(records.front().connection);
        }
        return nb::make_tuple(listed(left), numbers_of(unknown), numbers_of(unknown_connects),
                              complete);
    }

    // Encodes what waited for its connection to become known.
    nb::list resume() {
        std::vector<Record> left;
        {
            const std::lock_guard lock(mutex());
            for (const Record& record : std::exchange(unknown_, {})) {
                // Of a connection that nobody knows any more: told without its peer.
                templates_.try_emplace(record.connection).first->second.named();
                take(record);
            }
            for (const auto& [identity, records] : std::exchange(unknown_connects_, {}))
                for (const Record& record : records) digest(record, false);
            left = std::exchange(left_, {});
        }
        return listed(left);
    }

    nb::object take_request() {
        std::unique_lock lock(mutex());
        const std::string_view request = encoder_.finish();
        PyObject* result =
            PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(request.size()));
        if (result == nullptr) throw nb::python_error();
        {
            const Unlocked unlocked;
            std::memcpy(PyBytes_AS_STRING(result), request.data(), request.size());
            encoder_.clear();
            // Before the interpreter's lock is waited for.
            lock.unlock();
        }
        return nb::steal(result);
    }

    std::size_t count() const {
        const std::lock_guard lock(mutex());
        return encoder_.count();
    }

  private:
    static constexpr std::size_t usual_span = 256;  // bytes of one

    static nb::list numbers_of(const std::unordered_set<std::uint32_t>& numbers) {
        nb::list list;
        for (const std::uint32_t number : numbers) list.append(number);
        return list;
    }

    static nb::list listed(const std::vector<Record>& records) {
        nb::list list;
        for (const Record& record : records) list.append(record_tuple(record));
        return list;
    }

    // Guards everything here, as it guards the rings, also while the process is copied.
    static std::mutex& mutex() { return Recorder::get().drain_mutex; }

    bool is_ready() const {
        const std::lock_guard lock(mutex());
        return !left_.empty() || !unknown_.empty() || !unknown_connects_.empty() ||
               encoder_.size() >= request_size_ || Digest::get().size() >= most_digested;
    }

    void take(const Record& record) {
        if (record.kind != Kind::send) {
            take_of_connection(record);
            return;
        }
        // A parent of another process may have a sampler of its own.
        if (record.error != recorder::no_error || record.flags != recorder::has_parent) {
            left_.push_back(record);
            return;
        }
        const auto found = templates_.find(record.connection);
        if (found == templates_.end()) {
            unknown_.push_back(record);
            return;
        }
        Template& entry = found->second;
        const std::uint64_t start = recorder::Clock::unix_time(record.start);
        const std::uint64_t duration = recorder::Clock::duration(record.duration);
        if (most_in_trace_ != 0) {
            InTrace& in_trace = entry.in(record.trace);
            if (in_trace.spans >= most_in_trace_) {
                Fold& fold = in_trace.fold;
                fold.parent = record.parent;
                fold.start = std::min(fold.start, start);
                fold.end = std::max(fold.end, start + duration);
                ++fold.sends;
                fold.calls += record.calls;
                fold.size += record.size;
                fold.stall += record.stall;
                fold.longest = std::max(fold.longest, duration);
                fold.state = recorder::TraceStates::get().text(record.state);
                return;
            }
            ++in_trace.spans;
            // Of those before the last few only the count goes, and a trace that comes back after
            // them may have as many again.
            if (entry.traces.size() > most_traces) {
                put_fold(entry, entry.traces.front());
                entry.traces.erase(entry.traces.begin());
            }
        }
        put(entry, record.trace,
            {.parent = record.parent,
             .start = start,
             .end = start + duration,
             .sends = 1,
             .calls = record.calls,
             .size = record.size,
             .stall = record.stall,
             .longest = 0,
             .state = recorder::TraceStates::get().text(record.state)});
    }

    void take_of_connection(const Record& record) {
        if (record.kind == Kind::closed) {
            // Its sends, which are not encoded yet, come before its end.
            for (const Record& send : unknown_)
                if (send.connection == record.connection) {
                    left_.push_back(record);
                    return;
                }
            end(record.connection);
        }
        digest(record);
    }

    void digest(const Record& record, bool may_wait = true) {
        const auto make_span = [&](const Record& connect, const Connection& connection,
                                   std::string_view identity, recorder::OwnSpan& made) {
            return put_connect(connect, connection, identity, made, may_wait);
        };
        if (!Digest::get().take(record, make_span)) left_.push_back(record);
    }

    // Whether a connect's span needs no Python, as far as the record tells.
    bool encodes(const Record& record) const noexcept {
        return record.error == recorder::no_error &&
               (record.flags == recorder::has_parent || (record.flags == 0 && samples_roots_));
    }

    // Encodes a connect; it may be kept until Python has named those like it.
    recorder::Making put_connect(const Record& record, const Connection& connection,
                                 std::string_view identity, recorder::OwnSpan& made,
                                 bool may_wait) {
        if (!encodes(record)) return recorder::Making::left;
        const bool root = record.flags == 0;
        const auto found = connects_.find(identity);
        if (found == connects_.end()) {
            if (!may_wait) return recorder::Making::left;
            unknown_connects_[std::string(identity)].push_back(record);
            return recorder::Making::waiting;
        }
        char address[INET6_ADDRSTRLEN + 1];
        std::array<Attribute, 2> own;
        std::size_t count = 0;
        if (!print_local(connection, address, own, count)) return recorder::Making::left;
        made = {.made = true, .trace = record.trace, .id = identifiers_.next()};
        if (root) {
            const recorder::SpanId high = identifiers_.next(), low = identifiers_.next();
            std::ranges::copy(high, made.trace.begin());
            std::ranges::copy(low, made.trace.begin() + high.size());
        }
        const std::string state = recorder::TraceStates::get().text(record.state);
        Span span;
        span.trace = made.trace;
        span.id = made.id;
        if (!root) span.parent = record.parent;
        span.trace_state = state;
        span.name = found->second.name;
        span.start = recorder::Clock::unix_time(record.start);
        span.end = span.start + recorder::Clock::duration(record.duration);
        span.encoded_attributes = found->second.attributes;
        span.attributes = {own.data(), count};
        if (!encoder_.span(span)) ++lost_;
        return recorder::Making::done;
    }

    // The attributes of its own address, as far as it has any: false where Python has to.
    static bool print_local(const Connection& connection, char* text,
                            std::array<Attribute, 2>& attributes, std::size_t& count) {
        const std::string_view bytes(connection.local);
        if (bytes.empty()) return true;
        const auto put = [&](std::uint16_t port) {
            attributes[count++] = {"network.local.address", std::string_view(text)};
            if (port != 0)
                attributes[count++] = {"network.local.port", static_cast<std::int64_t>(port)};
        };
        if (connection.family == AF_INET && bytes.size() >= sizeof(sockaddr_in)) {
            sockaddr_in local;
            std::memcpy(&local, bytes.data(), sizeof local);
            print_inet(local.sin_addr, text);
            put(ntohs(local.sin_port));
            return true;
        }
        if (connection.family == AF_INET6 && bytes.size() >= sizeof(sockaddr_in6)) {
            sockaddr_in6 local;
            std::memcpy(&local, bytes.data(), sizeof local);
            // A zone has a name.
            if (local.sin6_scope_id != 0 ||
                ::inet_ntop(AF_INET6, &local.sin6_addr, text, INET6_ADDRSTRLEN) == nullptr)
                return false;
            put(ntohs(local.sin6_port));
            return true;
        }
        // An unbound Unix socket has no name.
        return connection.family == AF_UNIX && bytes.size() <= sizeof(sa_family_t);
    }

    // The connection with this number has ended.
    void end(std::uint32_t number) {
        const auto found = templates_.find(number);
        if (found == templates_.end()) return;
        for (InTrace& in_trace : found->second.traces) put_fold(found->second, in_trace);
        templates_.erase(found);
    }

    void put_fold(const Template& entry, InTrace& in_trace) {
        if (in_trace.fold.sends == 0) return;
        put(entry, in_trace.trace, in_trace.fold);
        in_trace.fold = {};
    }

    void put(const Template& entry, const recorder::TraceId& trace, const Fold& sends) {
        Span span;
        span.trace = trace;
        span.id = identifiers_.next();
        span.parent = sends.parent;
        span.trace_state = sends.state;
        span.name = entry.name;
        span.start = sends.start;
        span.end = sends.end;
        span.encoded_attributes = entry.attributes;
        std::array<Attribute, 5> own;
        std::size_t count = 0;
        own[count++] = {"tracesock.send.size", static_cast<std::int64_t>(sends.size)};
        own[count++] = {"tracesock.send.calls", static_cast<std::int64_t>(sends.sends)};
        if (sends.calls > sends.sends)
            own[count++] = {"tracesock.send.retries",
                            static_cast<std::int64_t>(sends.calls - sends.sends)};
        if (sends.stall != 0)
            own[count++] = {"tracesock.send.stall.duration",
                            static_cast<double>(sends.stall) / 1e6};
        if (sends.longest != 0)
            own[count++] = {"tracesock.send.longest.duration",
                            static_cast<double>(sends.longest) / 1e9};
        span.attributes = {own.data(), count};
        if (!encoder_.span(span)) lost_ += sends.sends;
    }

    // What connects to one destination have in common.
    struct Connects {
        std::string name;
        std::string attributes;  // encoded
    };

    static constexpr std::size_t most_connects = 1024;
    static constexpr std::size_t most_digested = 1 << 14;  // records, until Python is told
    static constexpr std::size_t most_traces = 8;          // of a connection whose counts are kept

    TraceEncoder encoder_;
    std::unordered_map<std::uint32_t, Template> templates_;
    std::map<std::string, Connects, std::less<>> connects_;  // by identity
    std::vector<Record> left_;                               // for Python
    std::vector<Record> unknown_;  // sends of connections that are not known yet
    std::unordered_map<std::string, std::vector<Record>> unknown_connects_;  // by identity
    Identifiers identifiers_;
    std::uint32_t most_in_trace_;
    std::size_t request_size_;
    bool samples_roots_;  // all spans without a parent
    std::size_t batch_;   // records that are encoded before the request's size is looked at
    std::uint64_t lost_ = 0;
};

}  // namespace

void bind_otlp_drain(nb::module_& module) {
    nb::class_<OtlpDrain>(module, "OtlpDrain",
                          "Reads the recorder and encodes sends natively; one thread uses it.")
        .def(nb::init<nb::bytes, const std::string&, const std::string&, const std::string&,
                      const std::string&, std::uint32_t, std::size_t, bool>(),
             nb::arg("resource"), nb::arg("resource_schema_url"), nb::arg("scope_name"),
             nb::arg("scope_version"), nb::arg("scope_schema_url"), nb::arg("most_in_trace"),
             nb::arg("request_size"), nb::arg("samples_roots"))
        .def("connection", &OtlpDrain::connection, nb::arg("number"), nb::arg("name"),
             nb::arg("attributes"), "The name and the encoded attributes of a connection's sends.")
        .def("connects", &OtlpDrain::connects, nb::arg("number"), nb::arg("name"),
             nb::arg("attributes"),
             "The same of connects as that of a connection, without its own address.")
        .def("forget", &OtlpDrain::forget, nb::arg("number"))
        .def("flush_folds", &OtlpDrain::flush_folds, nb::arg("idle"))
        .def("clear", &OtlpDrain::clear)
        .def("take_lost", &OtlpDrain::take_lost)
        .def("pump", &OtlpDrain::pump, nb::arg("seconds"),
             "Encode what comes for at most `seconds`, until there is something to do for Python.")
        .def("run", &OtlpDrain::run,
             "Encode: (records for Python, connections to make known, those as whose connects are "
             "to become known, whether a round has ended).")
        .def("resume", &OtlpDrain::resume)
        .def("take", &OtlpDrain::take_request, "The request so far, which begins anew.")
        .def_prop_ro("count", &OtlpDrain::count, "Spans in the request.");
}

}  // namespace tracesock
