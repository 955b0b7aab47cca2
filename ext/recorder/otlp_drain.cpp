// Records straight into OTLP: the drain of a process whose sends all become spans. It holds the
// interpreter's lock only to hand over what it does not encode itself.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include <unordered_map>
#include <unordered_set>

#include "recorder/module.hpp"
#include "recorder/otlp.hpp"
#include "recorder/recorder.hpp"
#include "socket/python.hpp"

namespace nb = nanobind;

namespace tracesock {
namespace {

using recorder::Kind;
using recorder::Record;
using recorder::Recorder;
using namespace recorder::otlp;

// What the sends of one connection have in common.
struct Template {
    std::string name;
    std::string attributes;  // encoded
    recorder::TraceId trace{};
    std::uint32_t in_trace = 0;  // spans of `trace`

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
              std::size_t request_size)
        : encoder_({.resource = {resource.c_str(), resource.size()},
                    .resource_schema_url = resource_schema_url,
                    .scope_name = scope_name,
                    .scope_version = scope_version,
                    .scope_schema_url = scope_schema_url}),
          most_in_trace_(most_in_trace),
          request_size_(request_size) {}

    void connection(std::uint32_t number, std::string name, nb::bytes attributes) {
        Template& entry = templates_[number];
        entry.name = std::move(name);
        entry.attributes.assign(attributes.c_str(), attributes.size());
    }

    void forget(std::uint32_t number) { templates_.erase(number); }

    // Encodes until a request is large enough, the time has passed, or there is something for
    // Python: (records that are not encoded here, connections that are not known yet). The sends of
    // the latter are kept for `resume`.
    nb::tuple run(double seconds) {
        std::vector<Record> left;
        std::vector<PyObject*> contexts;
        recorder::Clock::calibrate();
        {
            const Unlocked unlocked;
            Recorder& own = Recorder::get();
            const std::int64_t end = sys::monotonic() + static_cast<std::int64_t>(seconds * 1e9);
            for (;;) {
                const std::size_t taken =
                    own.drain(batch, [&](const Record& record) { take(record, left); }, contexts);
                if (!left.empty() || !unknown_.empty() || encoder_.size() >= request_size_) break;
                if (taken == batch) continue;
                const std::int64_t now = sys::monotonic();
                if (now >= end) break;
                wait(own, end - now);
                if (stopping_.load(std::memory_order_relaxed)) break;
            }
        }
        for (PyObject* context : contexts) Py_DECREF(context);
        nb::list numbers;
        std::unordered_set<std::uint32_t> told;
        for (const Record& record : unknown_)
            if (told.insert(record.connection).second) numbers.append(record.connection);
        return nb::make_tuple(listed(left), numbers);
    }

    // Encodes what waited for its connection to become known.
    nb::list resume() {
        std::vector<Record> left;
        std::vector<Record> waited = std::exchange(unknown_, {});
        for (const Record& record : waited) {
            // Of a connection that nobody knows any more: told without its peer.
            templates_.try_emplace(record.connection).first->second.named();
            take(record, left);
        }
        return listed(left);
    }

    nb::bytes take_request() {
        const std::string_view request = encoder_.finish();
        nb::bytes result(request.data(), request.size());
        encoder_.clear();
        return result;
    }

    void stop() {
        stopping_.store(true, std::memory_order_relaxed);
        ::sem_post(&Recorder::get().wake_up);
    }

    std::size_t count() const { return encoder_.count(); }

  private:
    static constexpr std::size_t batch = 4096;

    static nb::list listed(const std::vector<Record>& records) {
        nb::list list;
        for (const Record& record : records) list.append(record_tuple(record));
        return list;
    }

    static void wait(Recorder& own, std::int64_t nanoseconds) noexcept {
        timespec until{};
        ::clock_gettime(CLOCK_REALTIME, &until);
        const std::int64_t sum = until.tv_nsec + nanoseconds;
        until.tv_sec += sum / 1'000'000'000;
        until.tv_nsec = sum % 1'000'000'000;
        ::sem_timedwait(&own.wake_up, &until);
        while (::sem_trywait(&own.wake_up) == 0) {
        }
    }

    void take(const Record& record, std::vector<Record>& left) {
        if (record.kind != Kind::send || record.error != recorder::no_error ||
            (record.flags & recorder::has_parent) == 0) {
            left.push_back(record);
            return;
        }
        const auto found = templates_.find(record.connection);
        if (found == templates_.end()) {
            unknown_.push_back(record);
            return;
        }
        Template& entry = found->second;
        if (most_in_trace_ != 0) {
            if (entry.trace != record.trace) {
                entry.trace = record.trace;
                entry.in_trace = 0;
            }
            if (entry.in_trace >= most_in_trace_) {
                left.push_back(record);
                left.back().flags |= recorder::over_limit;
                return;
            }
            ++entry.in_trace;
        }
        Span span;
        span.trace = record.trace;
        span.id = identifiers_.next();
        span.parent = record.parent;
        span.name = entry.name;
        span.start = recorder::Clock::unix_time(record.start);
        span.end = span.start + recorder::Clock::duration(record.duration);
        span.encoded_attributes = entry.attributes;
        std::array<Attribute, 4> own;
        std::size_t count = 0;
        own[count++] = {"tracesock.send.size", static_cast<std::int64_t>(record.size)};
        own[count++] = {"tracesock.send.calls", std::int64_t{1}};
        if (record.calls > 1)
            own[count++] = {"tracesock.send.retries", static_cast<std::int64_t>(record.calls - 1)};
        if (record.stall != 0)
            own[count++] = {"tracesock.send.stall.duration",
                            static_cast<double>(record.stall) / 1e6};
        span.attributes = {own.data(), count};
        if (!encoder_.span(span)) left.push_back(record);
    }

    TraceEncoder encoder_;
    std::unordered_map<std::uint32_t, Template> templates_;
    std::vector<Record> unknown_;
    Identifiers identifiers_;
    std::uint32_t most_in_trace_;
    std::size_t request_size_;
    std::atomic<bool> stopping_{false};
};

}  // namespace

void bind_otlp_drain(nb::module_& module) {
    nb::class_<OtlpDrain>(module, "OtlpDrain",
                          "Reads the recorder and encodes sends natively; one thread uses it.")
        .def(nb::init<nb::bytes, const std::string&, const std::string&, const std::string&,
                      const std::string&, std::uint32_t, std::size_t>(),
             nb::arg("resource"), nb::arg("resource_schema_url"), nb::arg("scope_name"),
             nb::arg("scope_version"), nb::arg("scope_schema_url"), nb::arg("most_in_trace"),
             nb::arg("request_size"))
        .def("connection", &OtlpDrain::connection, nb::arg("number"), nb::arg("name"),
             nb::arg("attributes"), "The name and the encoded attributes of a connection's sends.")
        .def("forget", &OtlpDrain::forget, nb::arg("number"))
        .def("run", &OtlpDrain::run, nb::arg("seconds"),
             "Encode for at most `seconds`: (records for Python, connections to make known).")
        .def("resume", &OtlpDrain::resume)
        .def("take", &OtlpDrain::take_request, "The request so far, which begins anew.")
        .def("stop", &OtlpDrain::stop)
        .def_prop_ro("count", &OtlpDrain::count, "Spans in the request.");
}

}  // namespace tracesock
