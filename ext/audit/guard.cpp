#include "audit/guard.hpp"

#include <cstring>
#include <iterator>
#include <memory>
#include <string>
#include <utility>

#include "audit/hook.hpp"
#include "socket/address.hpp"
#include "socket/methods.hpp"

namespace tracesock::audit {
namespace {

std::atomic<Guard> guarding{Guard::off};

// The event that the calling thread raises for a call of tracesock's own.
struct Announced {
    PyObject* self = nullptr;
    PyObject* address = nullptr;
};
thread_local Announced announced;

// The calls with a peer, in the order of documented_events.
constexpr Event kinds[] = {Event::connect, Event::sendto, Event::sendmsg};
constexpr const char* callers[] = {"connect", "sendto", "sendmsg"};

// A socket of the interpreter's as calls see it: it lends its descriptor.
class Foreign {
  public:
    // False with an exception.
    bool read(PyObject* self) noexcept {
        int fd = sys::invalid, family = 0, type = 0, protocol = 0;
        if (!read_base(self, "fileno", true, fd) || !read_base(self, "family", false, family) ||
            !read_base(self, "type", false, type) || !read_base(self, "proto", false, protocol))
            return false;
        socket_.family = family;
        socket_.type = type;
        socket_.protocol = protocol;
        socket_.row = find_family(family, protocol);
        return socket_.handle.assign(fd);
    }
    ~Foreign() { socket_.handle.detach(); }

    Socket& socket() noexcept { return socket_; }

  private:
    Socket socket_;
};

bool allows(Event kind, Socket& socket, const Address& address) noexcept {
    Call call(kind, socket);
    if (!call.allows(address)) return false;
    call.withdraw();
    return true;
}

// Each address of a host name, because it is not known which one the call has got.
bool allows_each(Event kind, Socket& socket, const char* host, const Address& first) noexcept {
    addrinfo hints{};
    hints.ai_family = socket.family;
    hints.ai_socktype = SOCK_DGRAM;
    addrinfo* found = nullptr;
    {
        Unlocked unlocked;
        if (::getaddrinfo(host, nullptr, &hints, &found) != 0) return true;
    }
    const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owned(found, ::freeaddrinfo);
    for (; found != nullptr; found = found->ai_next) {
        if (found->ai_addrlen > sizeof first.storage) continue;
        Address address;
        address.length = found->ai_addrlen;
        std::memcpy(address.bytes, found->ai_addr, found->ai_addrlen);
        // The port stands at one place in both families.
        address.inet.sin_port = first.inet.sin_port;
        if (!allows(kind, socket, address)) return false;
    }
    return true;
}

bool judge_foreign(std::size_t event, Socket& socket, PyObject* object) {
    const Event kind = kinds[event];
    Address address;
    if (object == Py_None) {
        address.length = sizeof address.storage;
        const bool connected = ::getpeername(SharedHandle::Lease(socket.handle).get(),
                                             &address.header, &address.length) == 0;
        return !connected || allows(kind, socket, address);
    }
    if (!encode(socket, object, callers[event], address)) return false;
    if (!allows(kind, socket, address)) return false;
    const std::string_view host = host_text(object);
    Ip ip;
    if (host.empty() || numeric(host, ip) ||
        (socket.family != AF_INET && socket.family != AF_INET6))
        return true;
    return allows_each(kind, socket, std::string(host).c_str(), address);
}

}  // namespace

void guard(Guard wanted) {
    install_hook();
    Guard now = guarding.load();
    while (now < wanted && !guarding.compare_exchange_weak(now, wanted)) {
    }
}

bool announce(const char* event, PyObject* self, PyObject* address) noexcept {
    const Ref form = guarded<Ref>(Ref(), [&] { return caller_form(address); });
    if (!form) return false;
    if (unheard(event, form.get())) return true;
    const bool judged = (watched() & judging) != 0;
    if (judged) announced = {self, form.get()};
    const bool told = PySys_Audit(event, "OO", self, form.get()) == 0;
    if (judged) announced = {};
    return told;
}

bool to_be_guarded(std::size_t event, PyObject* arguments) noexcept {
    const Guard guard = guarding.load(std::memory_order_relaxed);
    if (event >= std::size(kinds) || guard == Guard::off || (watched() & judging) == 0 ||
        PyTuple_GET_SIZE(arguments) < 2)
        return false;
    PyObject* self = PyTuple_GET_ITEM(arguments, 0);
    const Announced own = std::exchange(announced, {});
    if (own.self == self && own.address == PyTuple_GET_ITEM(arguments, 1)) return false;
    const Interpreter* interpreter = tracesock::interpreter();
    if (interpreter == nullptr) PyErr_Clear();
    if (interpreter == nullptr || interpreter->native_type == nullptr) return false;
    PyTypeObject* native = interpreter->native_type;
    return PyObject_TypeCheck(self, guard == Guard::process ? native->tp_base : native);
}

bool guard_allows(std::size_t event, PyObject* arguments) noexcept {
    return guarded(false, [&] {
        Foreign foreign;
        return foreign.read(PyTuple_GET_ITEM(arguments, 0)) &&
               judge_foreign(event, foreign.socket(), PyTuple_GET_ITEM(arguments, 1));
    });
}

}  // namespace tracesock::audit
