// Calls that make and end connections: bind, connect, listen, accept, shutdown, and the names.
#include "audit/audit.hpp"
#include "audit/guard.hpp"
#include "socket/address.hpp"
#include "socket/call.hpp"
#include "socket/methods.hpp"

namespace tracesock {
namespace {

// connect(2), waiting for its end where the socket may wait. 0, an errno, or -1 with an exception.
// `raises`: a timeout is an exception, not EAGAIN.
int await_connection(Socket& socket, const Address& address, bool raises) noexcept {
    Runtime runtime(socket);
    SharedHandle::Lease lease(socket.handle);
    const sys::Descriptor fd = lease.get();
    Deadline deadline = deadline_of(socket);
    int error = runtime.unlocked(
        [&]() noexcept { return ::connect(fd, &address.header, address.length) < 0 ? errno : 0; });
    if (error == 0) return 0;
    const std::int64_t timeout = socket.timeout.load(std::memory_order_relaxed);
    bool wait = timeout > 0 && error == EINPROGRESS;
    if (error == EINTR) {
        // The connection goes on being made: PEP 475 waits for it instead of connecting again.
        if (!runtime.signals()) return -1;
        wait = timeout != 0;
    }
    if (!wait) return error;
    const Status status = wait_ready(runtime, fd, sys::Direction::connect, deadline, error);
    switch (status) {
        case Status::done:
            return sys::connect_result(fd);
        case Status::failed:
            return error;
        case Status::timed_out:
            if (!raises) return EWOULDBLOCK;
            break;
        case Status::interrupted:
            break;
    }
    raise_status(status, error);
    return -1;
}

int connect_to(Socket& socket, const Address& address, bool raises) noexcept {
    recorder::ConnectProbe probe(socket, address);
    audit::Call call(audit::Event::connect, socket);
    if (!call.allows(address)) {
        probe.end(recorder::denied);
        return -1;
    }
    const int error = await_connection(socket, address, raises);
    call.end(error);
    // An exception is pending, or none: what telemetry does here sets and clears none.
    probe.end(error >= 0                                   ? error
              : PyErr_ExceptionMatches(PyExc_TimeoutError) ? recorder::timed_out
                                                           : recorder::interrupted);
    return error;
}

// A method's connect to the caller's address object: 0, an errno, or -1 with an exception.
int connect_as(const char* caller, PyObject* self, PyObject* object, bool raises) noexcept {
    return guarded(-1, [&] {
        Socket& socket = state_of(self);
        Address address;
        if (!encode(socket, object, caller, address) ||
            !audit::announce("socket.connect", self, object))
            return -1;
        return connect_to(socket, address, raises);
    });
}

// accept(2), waited for, and the peer's address, also as an object: invalid with an exception.
UniqueDescriptor accept_connection(Socket& socket, Address& peer, Ref& address) {
    if (!readable(socket)) return UniqueDescriptor();
    Runtime runtime(socket);
    SharedHandle::Lease lease(socket.handle);
    const sys::Descriptor fd = lease.get();
    Deadline deadline = deadline_of(socket);
    const bool with_address = (socket.row->flags & accepts_without_address) == 0;
    audit::Accepting accepting(socket);
    std::int64_t result = sys::invalid;
    int error = 0;
    const auto op = [&]() noexcept -> std::int64_t {
        if (socket.handle.get() != fd) {
            errno = EBADF;
            return -1;
        }
        // A connection that a policy denies is closed, and the next one waited for.
        for (;;) {
            if (!accepting.ready()) return -1;
            peer.length = with_address ? socket.row->largest : 0;
            UniqueDescriptor connection(with_address ? sys::accept(fd, &peer.header, &peer.length)
                                                     : sys::accept(fd, nullptr, nullptr));
            if (connection.get() == sys::invalid || accepting.admits(connection.get(), peer))
                return connection.release();
        }
    };
    const Status status =
        retry(runtime, fd, sys::Direction::read, deadline, Attempt::without_lock,
              deadline.limited() && socket.timeout.load() > 0 ? First::wait : First::attempt, op,
              result, error);
    if (status != Status::done) {
        raise_status(status, error);
        return UniqueDescriptor();
    }
    UniqueDescriptor connection(static_cast<sys::Descriptor>(result));
    address = Ref(decode(socket, peer));
    if (!address) connection.reset();
    return connection;
}

using NameCall = int (*)(int, sockaddr*, socklen_t*);

PyObject* name_of(PyObject* self, NameCall call) noexcept {
    return guarded<PyObject*>(nullptr, [&]() -> PyObject* {
        Socket& socket = state_of(self);
        if (!readable(socket)) return nullptr;
        Address address;
        address.length = socket.row->largest;
        int result = 0;
        int error = 0;
        {
            SharedHandle::Lease lease(socket.handle);
            result = call(lease.get(), &address.header, &address.length);
            error = errno;
        }
        if (result < 0) return set_os_error(error);
        return decode(socket, address);
    });
}

}  // namespace

PyObject* socket_prepare(PyObject* self, PyObject* arguments) noexcept {
    return guarded<PyObject*>(nullptr, [&]() -> PyObject* {
        const char* caller = nullptr;
        PyObject* given = nullptr;
        PyObject* names = nullptr;
        if (!PyArg_ParseTuple(arguments, "sO!O!:_prepare", &caller, &PyTuple_Type, &given,
                              &PyDict_Type, &names))
            return nullptr;
        if (PyDict_GET_SIZE(names) != 0)
            return PyErr_Format(PyExc_TypeError, "socket.%s() takes no keyword arguments", caller);
        if (PyTuple_GET_SIZE(given) != 1)
            return PyErr_Format(PyExc_TypeError,
                                "socket.%s() takes exactly one argument (%zd given)", caller,
                                PyTuple_GET_SIZE(given));
        Socket& socket = state_of(self);
        Address address;
        if (!encode(socket, PyTuple_GET_ITEM(given, 0), caller, address)) return nullptr;
        return make_address(address, socket.family, socket.protocol);
    });
}

PyObject* socket_bind(PyObject* self, PyObject* object) noexcept {
    return guarded<PyObject*>(nullptr, [&]() -> PyObject* {
        Socket& socket = state_of(self);
        Address address;
        if (!encode(socket, object, "bind", address)) return nullptr;
        int result = 0;
        int error = 0;
        {
            SharedHandle::Lease lease(socket.handle);
            Unlocked unlocked;
            result = ::bind(lease.get(), &address.header, address.length);
            error = errno;
        }
        if (result < 0) return set_os_error(error);
        Py_RETURN_NONE;
    });
}

PyObject* socket_connect(PyObject* self, PyObject* object) noexcept {
    const int error = connect_as("connect", self, object, true);
    if (error < 0) return nullptr;
    if (error > 0) return set_os_error(error);
    Py_RETURN_NONE;
}

PyObject* socket_connect_ex(PyObject* self, PyObject* object) noexcept {
    const int error = connect_as("connect_ex", self, object, false);
    return error < 0 ? nullptr : PyLong_FromLong(error);
}

PyObject* socket_listen(PyObject* self, PyObject* arguments) noexcept {
    int backlog = SOMAXCONN < 128 ? SOMAXCONN : 128;
    if (!PyArg_ParseTuple(arguments, "|i:listen", &backlog)) return nullptr;
    Socket& socket = state_of(self);
    int result = 0;
    int error = 0;
    {
        SharedHandle::Lease lease(socket.handle);
        Unlocked unlocked;
        result = ::listen(lease.get(), backlog < 0 ? 0 : backlog);
        error = errno;
    }
    if (result < 0) return set_os_error(error);
    if (recorder::active() != 0) recorder::socket_listens(socket);
    if (audit::watched() != 0) audit::socket_listens(socket);
    Py_RETURN_NONE;
}

PyObject* socket_shutdown(PyObject* self, PyObject* object) noexcept {
    int overflow = 0;
    const long how = PyLong_AsLongAndOverflow(object, &overflow);
    if (how == -1 && PyErr_Occurred()) return nullptr;
    if (overflow != 0 || how != static_cast<int>(how)) {
        PyErr_SetString(PyExc_OverflowError, "Python int too large to convert to C int");
        return nullptr;
    }
    Socket& socket = state_of(self);
    int result = 0;
    int error = 0;
    {
        SharedHandle::Lease lease(socket.handle);
        Unlocked unlocked;
        result = ::shutdown(lease.get(), static_cast<int>(how));
        error = errno;
    }
    if (result < 0) return set_os_error(error);
    Py_RETURN_NONE;
}

PyObject* socket_accept(PyObject* self, PyObject*) noexcept {
    return guarded<PyObject*>(nullptr, [&]() -> PyObject* {
        Address peer;
        Ref address;
        UniqueDescriptor connection = accept_connection(state_of(self), peer, address);
        if (connection.get() == sys::invalid) return nullptr;
        PyObject* pair = Py_BuildValue("(iO)", connection.get(), address.get());
        if (pair != nullptr) connection.release();
        return pair;
    });
}

namespace {

// The method that a subclass, an instance or a test has put in the place of `_accept()`, none where
// nobody has. False with an exception.
bool find_accept(PyObject* self, Ref& replaced) noexcept {
    const Interpreter* known = interpreter();
    if (known == nullptr) return false;
    if (Py_TYPE(self) == known->socket_class) {
        // An instance of the class itself has no attributes of its own.
        Ref found(PyObject_GetAttr(reinterpret_cast<PyObject*>(Py_TYPE(self)), known->accept_name));
        if (!found) return false;
        if (Py_IS_TYPE(found.get(), &PyMethodDescr_Type) &&
            reinterpret_cast<PyMethodDescrObject*>(found.get())->d_method->ml_meth == socket_accept)
            return true;
    }
    Ref bound(PyObject_GetAttr(self, known->accept_name));
    if (!bound) return false;
    if (!PyCFunction_Check(bound.get()) || PyCFunction_GetSelf(bound.get()) != self ||
        PyCFunction_GetFunction(bound.get()) != socket_accept)
        replaced = std::move(bound);
    return true;
}

}  // namespace

PyObject* socket_accept_as(PyObject* self, PyObject* cls) noexcept {
    return guarded<PyObject*>(nullptr, [&]() -> PyObject* {
        Ref replaced;
        if (!find_accept(self, replaced)) return nullptr;
        if (replaced) return PyObject_CallMethod(self, "_accept_by", "O", replaced.get());
        Address peer;
        Ref address;
        UniqueDescriptor connection = accept_connection(state_of(self), peer, address);
        if (connection.get() == sys::invalid) return nullptr;
        Ref made = make_accepted(state_of(self), cls, std::move(connection), peer);
        return made ? PyTuple_Pack(2, made.get(), address.get()) : nullptr;
    });
}

PyObject* socket_getsockname(PyObject* self, PyObject*) noexcept {
    return name_of(self, ::getsockname);
}

PyObject* socket_getpeername(PyObject* self, PyObject*) noexcept {
    return name_of(self, ::getpeername);
}

}  // namespace tracesock
