#include "audit/hook.hpp"

#include <nanobind/nanobind.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <mutex>
#include <string_view>

#include "audit/guard.hpp"

namespace nb = nanobind;

namespace tracesock::audit {
namespace {

constexpr char prefix[] = "socket.";
constexpr std::size_t prefix_size = sizeof prefix - 1;
constexpr char probe[] = "tracesock.audit.probe";
constexpr char another[] = "sys.addaudithook";  // raised before each further hook

// The events with an address or a host, and which of their arguments it is.
constexpr int no_peer = -1;
constexpr int peer_arguments[documented_count] = {
    1,                                   // connect
    1,                                   // sendto
    1,                                   // sendmsg
    no_peer,                             // __new__
    1,                                   // bind
    0,       0,       0,       0,        // getaddrinfo, getnameinfo, gethostby*
    no_peer, no_peer, no_peer, no_peer,  // gethostname, getserv*, sethostname
};

struct Subscription {
    std::uint64_t number;
    Ref callback;
    unsigned events;
    bool any_peer;
    PeerFilter peers;
    PyInterpreterState* interpreter;  // whose object the callback is
};

using Subscribers = std::vector<std::shared_ptr<const Subscription>>;

std::mutex mutex;
Published<Subscribers> subscribers;
std::uint64_t last_number = 0;
nb::ft_mutex installing;  // waited for without the interpreter
bool installed = false;
// That any subscription wants; read without the lock.
std::atomic<unsigned> subscribed{0};
// The interpreter in which no other hook listens, where that is known.
std::atomic<PyInterpreterState*> alone_in{nullptr};

thread_local bool delivering = false;
thread_local bool probed = false;

std::size_t index_of(const char* event) noexcept {
    const char* name = event + prefix_size;
    for (std::size_t i = 0; i < documented_count; ++i) {
        const char* other = documented_events[i] + prefix_size;
        if (*other == *name && std::strcmp(other, name) == 0) return i;
    }
    return documented_count;
}

// --- peers
// ----------------------------------------------------------------------------------------

bool host_matches(const std::vector<std::string>& patterns, std::string_view name) noexcept {
    return std::any_of(patterns.begin(), patterns.end(), [&](const std::string& pattern) {
        if (!pattern.starts_with("*.")) return pattern == name;
        const std::string_view suffix = std::string_view(pattern).substr(1);
        return name.size() > suffix.size() && name.ends_with(suffix);
    });
}

// The argument that tells the peer or the host; null where there is none.
PyObject* peer_argument(std::size_t event, PyObject* arguments) noexcept {
    const int place = event < documented_count ? peer_arguments[event] : no_peer;
    return place != no_peer && PyTuple_GET_SIZE(arguments) > place
               ? PyTuple_GET_ITEM(arguments, place)
               : nullptr;
}

bool about(const PeerFilter& wanted, PyObject* peer) {
    const std::string_view text = peer != nullptr ? host_text(peer) : std::string_view();
    if (text.empty()) return false;
    Ip ip;
    if (!numeric(text, ip))
        return !wanted.hosts.empty() && host_matches(wanted.hosts, normal_host(text));
    for (const Prefix& prefix : wanted.prefixes)
        if (prefix.first <= ip && ip <= prefix.last && prefix.first.is_mapped() == ip.is_mapped())
            return true;
    if (wanted.hosts.empty()) return false;
    const Published<Active>::Reading active(published);
    if (active.get() == nullptr || active->hosts == nullptr) return false;
    const HostTable::Entry* entry = active->hosts->find(ip);
    return entry != nullptr &&
           host_matches(wanted.hosts, *entry->latest.load(std::memory_order_acquire));
}

// --- the hook
// -------------------------------------------------------------------------------------

int deliver(const char* event, std::size_t index, PyObject* arguments) noexcept {
    return guarded(-1, [&] {
        const unsigned bit = index < documented_count ? 1u << index : other_event;
        PyInterpreterState* interpreter = PyInterpreterState_Get();
        // Kept alive beyond the reading: a callback may end its own subscription.
        std::vector<std::shared_ptr<const Subscription>> wanted;
        {
            const Published<Subscribers>::Reading all(subscribers);
            if (all.get() == nullptr) return 0;
            for (const auto& each : *all.get())
                if ((each->events & bit) != 0 && each->interpreter == interpreter)
                    wanted.push_back(each);
        }
        delivering = true;
        struct Restore {
            ~Restore() { delivering = false; }
        } restore;
        for (const auto& each : wanted) {
            if (!each->any_peer && !about(each->peers, peer_argument(index, arguments))) continue;
            const Ref name(PyUnicode_FromString(event));
            if (!name || !Ref(PyObject_CallFunctionObjArgs(each->callback.get(), name.get(),
                                                           arguments, nullptr)))
                return -1;
        }
        return 0;
    });
}

bool wanted(std::size_t index) noexcept {
    return (subscribed.load(std::memory_order_acquire) & (1u << index)) != 0 && !delivering;
}

int hook(const char* event, PyObject* arguments, void*) noexcept {
    if (std::strncmp(event, prefix, prefix_size) != 0) {
        if (event[0] == 't' && std::strcmp(event, probe) == 0) probed = true;
        if (event[0] == 's' && std::strcmp(event, another) == 0) alone_in.store(nullptr);
        return 0;
    }
    const std::size_t index = index_of(event);
    const bool guarded = to_be_guarded(index, arguments);
    if (wanted(index) && deliver(event, index, arguments) < 0) return -1;
    return !guarded || guard_allows(index, arguments) ? 0 : -1;
}

// What nobody reads any more: to be freed without the mutex, because the end of a callback may run
// the caller's code.
using Unread = std::vector<std::unique_ptr<Subscribers>>;

Unread publish(Subscribers list) {
    unsigned events = 0;
    for (const auto& each : list) events |= each->events;
    Unread unread = subscribers.publish(std::make_unique<Subscribers>(std::move(list)));
    subscribed.store(events, std::memory_order_release);
    return unread;
}

Subscribers current_list() {
    const Subscribers* all = subscribers.current();
    return all != nullptr ? *all : Subscribers();
}

// Whether anybody hears this interpreter's events: what an event tells is made only for a hook.
bool anybody_listens() {
    bool told = false;
    const auto note = +[](void* noted) -> PyObject* {
        *static_cast<bool*>(noted) = true;
        return Py_NewRef(Py_None);
    };
    if (PySys_Audit(probe, "O&", note, &told) < 0) throw nb::python_error();
    return told;
}

// Whether a tracer of the system's may listen (DTrace's probe `audit`), which no hook is told of.
bool has_probes() {
    const nb::object variable =
        nb::module_::import_("sysconfig").attr("get_config_var")("WITH_DTRACE");
    return nb::cast<bool>(nb::bool_(variable));
}

}  // namespace

void install_hook() {
    const nb::ft_lock_guard guard(installing);
    if (installed) return;
    // Without a lock, another thread may add a hook between the question and this one.
    const bool alone = may_hold_lock && !has_probes() && !anybody_listens();
    if (PySys_AddAuditHook(hook, nullptr) < 0) throw nb::python_error();
    // An earlier hook can keep a new one out, and the call above then says nothing of it.
    probed = false;
    if (PySys_Audit(probe, nullptr) < 0) throw nb::python_error();
    if (!probed) {
        PyErr_SetString(PyExc_RuntimeError,
                        "an earlier audit hook refuses further hooks: the events of this process "
                        "cannot be subscribed to");
        throw nb::python_error();
    }
    installed = true;
    if (alone) alone_in.store(PyInterpreterState_Get());
}

bool unheard(const char* event, PyObject* peer) noexcept {
    const PyInterpreterState* interpreter = alone_in.load(std::memory_order_relaxed);
    if (interpreter == nullptr || interpreter != PyInterpreterState_Get()) return false;
    const unsigned events = subscribed.load(std::memory_order_acquire);
    if (events == 0) return true;
    const unsigned bit = 1u << index_of(event);
    if ((events & bit) == 0) return true;
    const Published<Subscribers>::Reading all(subscribers);
    return all.get() == nullptr || std::none_of(all->begin(), all->end(), [=](const auto& each) {
               // A name is compared with those of an address, which is read in the same way.
               return (each->events & bit) != 0 &&
                      (each->any_peer || !each->peers.hosts.empty() || about(each->peers, peer));
           });
}

std::string_view host_text(PyObject* argument) noexcept {
    if (PyTuple_Check(argument)) {
        if (PyTuple_GET_SIZE(argument) == 0) return {};
        argument = PyTuple_GET_ITEM(argument, 0);
    }
    if (PyUnicode_Check(argument)) {
        Py_ssize_t size = 0;
        const char* text = PyUnicode_AsUTF8AndSize(argument, &size);
        if (text != nullptr) return {text, static_cast<std::size_t>(size)};
        PyErr_Clear();
        return {};
    }
    if (PyBytes_Check(argument))
        return {PyBytes_AS_STRING(argument), static_cast<std::size_t>(PyBytes_GET_SIZE(argument))};
    return {};
}

bool numeric(std::string_view text, Ip& ip) noexcept {
    char buffer[INET6_ADDRSTRLEN + 64];
    if (text.size() >= sizeof buffer) return false;
    // A zone does not change the address.
    const std::string_view bare = text.substr(0, text.find('%'));
    std::memcpy(buffer, bare.data(), bare.size());
    buffer[bare.size()] = '\0';
    sockaddr_in inet{};
    sockaddr_in6 inet6{};
    inet.sin_family = AF_INET;
    inet6.sin6_family = AF_INET6;
#if TRACESOCK_WINDOWS
    const bool is_inet = ::inet_pton(AF_INET, buffer, &inet.sin_addr) > 0;
#else
    const bool is_inet = ::inet_aton(buffer, &inet.sin_addr) != 0;
#endif
    if (is_inet)
        ip = read_peer(reinterpret_cast<const sockaddr&>(inet), sizeof inet).ip;
    else if (::inet_pton(AF_INET6, buffer, &inet6.sin6_addr) > 0)
        ip = read_peer(reinterpret_cast<const sockaddr&>(inet6), sizeof inet6).ip;
    else
        return false;
    return true;
}

std::uint64_t subscribe(PyObject* callback, unsigned events, PeerFilter peers) {
    install_hook();
    auto made = std::make_shared<Subscription>();
    made->callback = Ref::borrow(callback);
    made->events = events;
    made->any_peer = peers.prefixes.empty() && peers.hosts.empty();
    made->peers = std::move(peers);
    made->interpreter = PyInterpreterState_Get();
    const bool names = !made->peers.hosts.empty();
    std::uint64_t number = 0;
    Unread unread;
    {
        const std::lock_guard guard(mutex);
        number = made->number = ++last_number;
        auto list = current_list();
        list.push_back(std::move(made));
        unread = publish(std::move(list));
    }
    if (names) want_names(true);
    return number;
}

void unsubscribe(std::uint64_t number) {
    Unread unread;
    std::shared_ptr<const Subscription> ended;
    {
        const std::lock_guard guard(mutex);
        auto list = current_list();
        const auto found = std::find_if(list.begin(), list.end(),
                                        [=](const auto& each) { return each->number == number; });
        if (found == list.end()) return;
        ended = *found;
        list.erase(found);
        unread = publish(std::move(list));
    }
    if (!ended->peers.hosts.empty()) want_names(false);
}

std::size_t subscriptions() noexcept {
    const std::lock_guard guard(mutex);
    const Subscribers* all = subscribers.current();
    return all != nullptr ? all->size() : 0;
}

}  // namespace tracesock::audit
