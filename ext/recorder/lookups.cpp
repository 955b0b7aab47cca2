#include "recorder/lookups.hpp"

#include <algorithm>
#include <memory>
#include <utility>

#include "resolver/resolver.hpp"

namespace tracesock::recorder {
namespace {

constexpr std::size_t most_waiting = 16384;
// Not for each: a drain that wakes takes the interpreter's lock from the caller. By what was
// written: what waits is less where a ring has woken the drain in between.
constexpr std::uint64_t wake_after = 256;
// Bytes of a host that are kept: what the resolver answers for is shorter (NI_MAXHOST), and what a
// peer made up may have megabytes.
constexpr std::size_t longest_kept = 1024;

bool is_ascii(std::string_view text) noexcept {
    return std::ranges::all_of(text, [](unsigned char each) { return each < 0x80; });
}

// The host as UTF-8, whatever bytes the caller gave, and not without end.
std::string readable(std::string_view host) {
    if (host.size() > longest_kept) return readable(host.substr(0, longest_kept)) + "...";
    if (is_ascii(host)) return std::string(host);
    const Ref text(PyUnicode_DecodeUTF8(host.data(), static_cast<Py_ssize_t>(host.size()),
                                        "backslashreplace"));
    Py_ssize_t size = 0;
    const char* const data = text ? PyUnicode_AsUTF8AndSize(text.get(), &size) : nullptr;
    if (data != nullptr) return std::string(data, static_cast<std::size_t>(size));
    PyErr_Clear();
    return {};
}

// The class and the code of an exception. No code of Python's runs for it: a signal that came
// during the look-up would be handled there, and what its handler raises would be lost.
void describe(PyObject* error, LookupRecord& lookup) {
    const std::string_view name = Py_TYPE(error)->tp_name;
    lookup.error = name.substr(name.rfind('.') + 1);
    const Ref arguments(PyObject_GetAttrString(error, "args"));
    if (!arguments || !PyTuple_Check(arguments.get()) || PyTuple_GET_SIZE(arguments.get()) == 0)
        return;
    PyObject* const code = PyTuple_GET_ITEM(arguments.get(), 0);
    int overflow = 0;
    if (PyLong_Check(code))
        lookup.code = static_cast<int>(PyLong_AsLongAndOverflow(code, &overflow));
}

}  // namespace

Lookups& Lookups::get() noexcept {
    // Never destroyed, as the recorder.
    static Lookups* const only = std::make_unique<Lookups>().release();
    return *only;
}

bool Lookups::put(LookupRecord&& lookup) {
    ++written_;
    if (waiting_.size() >= most_waiting)
        ++dropped_;
    else
        waiting_.push_back(std::move(lookup));
    return written_ % wake_after == 0;
}

void LookupProbe::begin(const char* kind, Asks asks, bool numeric, std::string_view host) noexcept {
    if (asks == Asks::for_addresses) {
        Address address;
        if (resolver::is_literal(host, address)) {
            if (address.length != 0) learned({}, address);
            return;
        }
    }
    if (numeric) return;
    const TraceContext& context = current_context();
    if (context.suppressed) return;
    try {
        lookup_.kind = kind;
        lookup_.trace = context.trace;
        lookup_.parent = context.span;
        lookup_.flags = context.flags();
        if (context.state != 0) lookup_.state = TraceStates::get().text(context.state);
        lookup_.host = readable(host);
    } catch (...) {
        Recorder::get().lost.fetch_add(1, std::memory_order_relaxed);
        return;
    }
    tells_ = true;
    lookup_.start = Clock::ticks();
}

void LookupProbe::found(const Address& address, std::string_view text) noexcept {
    if (!tells_) return;
    learned(lookup_.host, address);
    char number[INET6_ADDRSTRLEN];
    if (text.empty()) {
        const int family = address.header.sa_family;
        const void* const bytes = family == AF_INET
                                      ? static_cast<const void*>(&address.inet.sin_addr)
                                      : &address.inet6.sin6_addr;
        // Null for other families.
        if (::inet_ntop(family, bytes, number, sizeof number) == nullptr) return;
        text = number;
    }
    found(text);
}

void LookupProbe::found(std::string_view name) noexcept {
    if (!tells_ || lookup_.answers.size() >= most_answers ||
        std::ranges::find(lookup_.answers, name) != lookup_.answers.end())
        return;
    try {
        lookup_.answers.emplace_back(name);
    } catch (...) {
        // Told without it then.
    }
}

void LookupProbe::finish() noexcept {
    lookup_.end = Clock::ticks();
    tells_ = false;
    Recorder& recorder = Recorder::get();
    PyObject *kind, *error, *trace;
    PyErr_Fetch(&kind, &error, &trace);
    if (kind != nullptr) PyErr_NormalizeException(&kind, &error, &trace);
    bool due = false;
    try {
        if (error != nullptr) {
            describe(error, lookup_);
            lookup_.answers.clear();
        }
        const std::lock_guard lock(recorder.mutex);
        due = Lookups::get().put(std::move(lookup_));
    } catch (...) {
        recorder.lost.fetch_add(1, std::memory_order_relaxed);
    }
    // Telemetry never raises.
    PyErr_Clear();
    PyErr_Restore(kind, error, trace);
    if (due) recorder.rouse();
}

}  // namespace tracesock::recorder
