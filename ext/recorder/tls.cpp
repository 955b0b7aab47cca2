// What no call of a socket sees: bytes that OpenSSL reads and writes on its descriptor. The TLS
// layer tells of them, and they are counted and recorded as the socket's own are.
#include <nanobind/nanobind.h>

#include "recorder/module.hpp"
#include "recorder/recorder.hpp"
#include "socket/state.hpp"

namespace nb = nanobind;

namespace tracesock {
namespace {

// Null for a socket that is not of this extension.
Socket* socket_of(nb::handle object) {
    const Interpreter* own = interpreter();
    if (own == nullptr) throw nb::python_error();
    return PyObject_TypeCheck(object.ptr(), own->native_type) ? &state_of(object.ptr()) : nullptr;
}

void shakes_hands(nb::handle object) {
    Socket* socket = socket_of(object);
    if (socket != nullptr && recorder::active() != 0) recorder::socket_shakes_hands(*socket);
}

void sent(nb::handle object, std::uint64_t started, std::int64_t size, int error) {
    Socket* socket = socket_of(object);
    if (socket == nullptr) return;
    recorder::SendProbe probe(*socket);
    recorder::CallStats* stats = probe.stats();
    if (stats == nullptr) return;
    stats->started = started;
    stats->calls = 1;
    stats->error = static_cast<std::int16_t>(error);
    probe.end(size);
}

void received(nb::handle object, std::int64_t size) {
    Socket* socket = socket_of(object);
    if (socket != nullptr) recorder::received(*socket, size);
}

void silence(nb::handle object) {
    Socket* socket = socket_of(object);
    if (socket == nullptr || recorder::active() == 0) return;
    recorder::socket_is_silent(*socket);
}

}  // namespace

void bind_tls(nb::module_& module) {
    module.attr("TIMED_OUT") = static_cast<int>(recorder::timed_out);
    module.attr("INTERRUPTED") = static_cast<int>(recorder::interrupted);
    module.def("shakes_hands", &shakes_hands, nb::arg("socket"),
               "A TLS handshake begins: the connection of the descriptor is this socket's now.");
    module.def("sent", &sent, nb::arg("socket"), nb::arg("started"), nb::arg("size"),
               nb::arg("error"),
               "Record `size` bytes of the application's that TLS has sent since `started` ticks. "
               "`error` is an errno, 0, TIMED_OUT or INTERRUPTED.");
    module.def("received", &received, nb::arg("socket"), nb::arg("size"),
               "Count `size` bytes of the application's that TLS has received, 0 at the end.");
    module.def("silence", &silence, nb::arg("socket"),
               "Tell nothing of this socket any more: a part of the program's machinery.");
}

}  // namespace tracesock
