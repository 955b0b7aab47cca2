// The type _native.Socket.
//
// Its base is _socket.socket because _ssl accepts nothing else. For an instance of the socket
// class itself the base is an empty shell whose descriptor stays -1; only an instance of a
// subclass (ssl.SSLSocket is one) has it filled, through the base's own methods. Every public
// method of the base is overridden, or it would act on descriptor -1.
#include <nanobind/nanobind.h>
#include <structmember.h>

#include <cstddef>
#include <memory>
#include <vector>

#include "audit/audit.hpp"
#include "recorder/recorder.hpp"
#include "socket/bindings.hpp"
#include "socket/methods.hpp"

namespace nb = nanobind;

namespace tracesock {

std::ptrdiff_t state_offset = 0;

namespace {

constexpr const char* interpreter_key = "tracesock._native";

// Those that have imported the extension and have not ended: more than one share a lock.
std::vector<Interpreter*>& importers() {
    static auto& all = *new std::vector<Interpreter*>();
    return all;
}

void destroy_interpreter(PyObject* capsule) noexcept {
    auto* own = static_cast<Interpreter*>(PyCapsule_GetPointer(capsule, interpreter_key));
    std::vector<Interpreter*>& others = importers();
    std::erase(others, own);
    // What is nanobind's in the extension speaks to one interpreter's state: to none that has
    // ended.
    if (nb::detail::internals == own->internals && !others.empty())
        nb::detail::internals = others.front()->internals;
    delete own;
}

// --- making and filling -----------------------------------------------------------------------

PyTypeObject* base_of(const Interpreter& own) noexcept {
    return own.native_type->tp_base;
}

bool is_plain(PyObject* self, const Interpreter& own) noexcept {
    return !own.fills_all &&
           (Py_TYPE(self) == own.socket_class || Py_TYPE(self) == own.native_type);
}

PyObject* socket_new(PyTypeObject* type, PyObject*, PyObject*) noexcept {
    Interpreter* own = interpreter();
    if (own == nullptr) return nullptr;
    // The base reads no argument in tp_new; given none, it cannot start to.
    Ref none(PyTuple_New(0));
    if (!none) return nullptr;
    PyObject* self = base_of(*own)->tp_new(type, none.get(), nullptr);
    if (self != nullptr) new (&state_of(self)) Socket();
    return self;
}

bool own_option(sys::Descriptor fd, int option, int& value) noexcept {
    socklen_t size = sizeof value;
    return ::getsockopt(fd, SOL_SOCKET, option, &value, &size) == 0;
}

// The descriptor that `fileno` names, with whatever of family, type and protocol was left at -1
// read from it. The caller's descriptor: not closed on failure.
bool adopt(PyObject* fileno, sys::Descriptor& fd, int& family, int& type, int& protocol) noexcept {
    const long number = PyLong_AsLong(fileno);
    if (number == -1 && PyErr_Occurred()) return false;
    // Narrowed as CPython narrows it.
    fd = static_cast<sys::Descriptor>(number);
    if (fd < 0) {
        PyErr_SetString(PyExc_ValueError, "negative file descriptor");
        return false;
    }
    Address bound;
    bound.length = sizeof bound.storage;
    if (::getsockname(fd, &bound.header, &bound.length) < 0) {
        if (family == -1 || errno == EBADF || errno == ENOTSOCK) {
            set_os_error();
            return false;
        }
    } else if (family == -1) {
        family = bound.header.sa_family;
    }
    if ((type == -1 && !own_option(fd, SO_TYPE, type)) ||
        (protocol == -1 && !own_option(fd, SO_PROTOCOL, protocol))) {
        set_os_error();
        return false;
    }
    return true;
}

// Ends what an earlier __init__ may have left. `shell`: the base's descriptor is still that one.
// `next`: the descriptor that takes its place, which may be the same.
void evict(PyObject* self, Socket& socket, bool shell = true,
           sys::Descriptor next = sys::invalid) noexcept {
    if (socket.handle.get() == sys::invalid) return;
    if (socket.connection != nullptr) recorder::socket_closes(socket, recorder::End::finalized);
    if (audit::watched() != 0) audit::socket_closes(socket, false);
    if (socket.filled.exchange(false) && shell && !mirror_detach(self)) PyErr_Clear();
    if (socket.handle.get() == next)
        socket.handle.detach();
    else
        socket.handle.close();
}

// Gives the object its descriptor, in the mode that the default timeout asks for.
bool take_over(PyObject* self, Socket& socket, UniqueDescriptor& fd, int family, int type,
               int protocol, const Interpreter& own) noexcept {
    std::int64_t timeout = own.default_timeout;
    if ((type & SOCK_NONBLOCK) != 0) {
        timeout = 0;
    } else if (timeout >= 0 && sys::set_blocking(fd.get(), false) < 0) {
        set_os_error();
        return false;
    }
    evict(self, socket, true, fd.get());
    if (!socket.handle.assign(fd.get())) {
        // __init__ called again, with calls of other threads still inside the old descriptor.
        PyErr_SetString(PyExc_OSError, "socket is in use by another thread");
        return false;
    }
    fd.release();
    socket.family = family;
    socket.type = type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC);
    socket.protocol = protocol;
    socket.row = find_family(family, protocol);
    socket.timeout.store(timeout, std::memory_order_relaxed);
    return true;
}

bool initialise_plain(PyObject* self, Socket& socket, int family, int type, int protocol,
                      PyObject* fileno, const Interpreter& own) noexcept {
    if (PySys_Audit("socket.__new__", "Oiii", self, family, type, protocol) < 0) return false;
    UniqueDescriptor fd;
    if (fileno != nullptr && fileno != Py_None) {
        sys::Descriptor number = sys::invalid;
        if (!adopt(fileno, number, family, type, protocol)) return false;
        fd.reset(number);
    } else {
        if (family == -1) family = AF_INET;
        if (type == -1) type = SOCK_STREAM;
        if (protocol == -1) protocol = 0;
        // With the lock: socket(2) waits for nothing, and giving the lock up costs as much.
        const sys::Descriptor made = sys::open(family, type, protocol);
        if (made == sys::invalid) {
            set_os_error();
            return false;
        }
        fd.reset(made);
    }

    const bool done = take_over(self, socket, fd, family, type, protocol, own);
    // What the caller brought stays the caller's.
    if (fileno != nullptr && fileno != Py_None) fd.release();
    return done;
}

}  // namespace

bool read_base(PyObject* self, const char* name, bool call, int& value) noexcept {
    Interpreter* own = interpreter();
    if (own == nullptr) return false;
    PyTypeObject* base = base_of(*own);
    Ref attribute(PyObject_GetAttrString(reinterpret_cast<PyObject*>(base), name));
    if (!attribute) return false;
    Ref number;
    if (call) {
        number = Ref(PyObject_CallOneArg(attribute.get(), self));
    } else {
        descrgetfunc get = Py_TYPE(attribute.get())->tp_descr_get;
        number = Ref(get(attribute.get(), self, reinterpret_cast<PyObject*>(Py_TYPE(self))));
    }
    if (!number) return false;
    value = static_cast<int>(PyLong_AsLong(number.get()));
    return value != -1 || !PyErr_Occurred();
}

namespace {

// An instance of a subclass: the base makes the descriptor, with the caller's raw arguments, so
// that its audit event and its errors are the interpreter's, and this state follows it.
bool initialise_filled(PyObject* self, Socket& socket, PyObject* arguments, PyObject* names,
                       bool nonblocking, const Interpreter& own) noexcept {
    PyTypeObject* base = base_of(own);
    if (base->tp_init(self, arguments, names) < 0) return false;
    int fd = sys::invalid;
    if (!read_base(self, "fileno", true, fd)) return false;
    evict(self, socket, false, fd);
    int family = 0, type = 0, protocol = 0;
    if (!read_base(self, "family", false, family) || !read_base(self, "type", false, type) ||
        !read_base(self, "proto", false, protocol))
        return false;
    socket.family = family;
    socket.type = type;
    socket.protocol = protocol;
    if (!socket.handle.assign(fd)) {
        PyErr_SetString(PyExc_OSError, "socket is in use by another thread");
        return false;
    }
    socket.filled = true;
    socket.row = find_family(family, protocol);
    // The base has applied the other module's default timeout; ours is to be in force.
    const std::int64_t timeout = nonblocking ? 0 : own.default_timeout.load();
    Ref method(PyObject_GetAttrString(reinterpret_cast<PyObject*>(base), "gettimeout"));
    Ref current(method ? PyObject_CallOneArg(method.get(), self) : nullptr);
    Ref wanted(current ? timeout_object(timeout) : nullptr);
    const int equal = wanted ? PyObject_RichCompareBool(current.get(), wanted.get(), Py_EQ) : -1;
    if (equal < 0 || (equal == 0 && !mirror_settimeout(self, wanted.get()))) return false;
    socket.timeout.store(timeout, std::memory_order_relaxed);
    return true;
}

// An int argument, left as it is where none was given, with the error text of the interpreter's own
// argument reading, which "i" has not.
bool take_int(PyObject* object, int& value) noexcept {
    if (object == nullptr) return true;
    int overflow = 0;
    const long number = PyLong_AsLongAndOverflow(object, &overflow);
    if (number == -1 && PyErr_Occurred()) return false;
    if (overflow != 0 || number != static_cast<int>(number)) {
        PyErr_SetString(PyExc_OverflowError, "Python int too large to convert to C int");
        return false;
    }
    value = static_cast<int>(number);
    return true;
}

// The four arguments of __init__, as they were given; where one is wrong, false with an exception.
struct Arguments {
    PyObject* family = nullptr;
    PyObject* type = nullptr;
    PyObject* protocol = nullptr;
    PyObject* fileno = nullptr;

    bool take(PyObject* arguments, PyObject* names) noexcept {
        static const char* keywords[] = {"family", "type", "proto", "fileno", nullptr};
        return PyArg_ParseTupleAndKeywords(arguments, names, "|OOOO:socket",
                                           const_cast<char**>(keywords), &family, &type, &protocol,
                                           &fileno) != 0;
    }
    bool numbers(int& family_number, int& type_number, int& protocol_number) const noexcept {
        return take_int(family, family_number) && take_int(type, type_number) &&
               take_int(protocol, protocol_number);
    }
    bool adopts() const noexcept { return fileno != nullptr && fileno != Py_None; }
};

// What a socket that was made is to the rest of the extension.
void was_made(Socket& socket, bool adopted) noexcept {
    if (recorder::active() != 0) recorder::socket_made(socket, adopted);
    audit::socket_made(socket);
}

int socket_init(PyObject* self, PyObject* arguments, PyObject* names) noexcept {
    return guarded(-1, [&] {
        Interpreter* own = interpreter();
        if (own == nullptr) return -1;
        int family = -1, type = -1, protocol = -1;
        Arguments given;
        if (!given.take(arguments, names) || !given.numbers(family, type, protocol)) return -1;
        Socket& socket = state_of(self);
        const bool made =
            is_plain(self, *own)
                ? initialise_plain(self, socket, family, type, protocol, given.fileno, *own)
                : initialise_filled(self, socket, arguments, names,
                                    (type & SOCK_NONBLOCK) != 0 && type != -1, *own);
        if (made) was_made(socket, given.adopts());
        return made ? 0 : -1;
    });
}

// In the slot of the socket class itself: its own __init__ without the frame of a Python function.
// Subclasses never come here: the interpreter gives a class that inherits a Python __init__ the
// slot that calls it. What is unusual about the arguments is for that function to say.
int class_init(PyObject* self, PyObject* arguments, PyObject* names) noexcept {
    return guarded(-1, [&] {
        Interpreter* own = interpreter();
        if (own == nullptr) return -1;
        if (Py_TYPE(self) != own->socket_class || own->fills_all)
            return own->class_init(self, arguments, names);
        Arguments given;
        if (PyTuple_GET_SIZE(arguments) != 0 || names != nullptr) {
            if (!given.take(arguments, names)) {
                PyErr_Clear();
                return own->class_init(self, arguments, names);
            }
        }
        int family = -1, type = -1, protocol = -1;
        if (!given.numbers(family, type, protocol)) return -1;
        if (!given.adopts()) {
            if (family == -1) family = AF_INET;
            if (type == -1) type = SOCK_STREAM;
            if (protocol == -1) protocol = 0;
        }
        Socket& socket = state_of(self);
        if (!initialise_plain(self, socket, family, type, protocol, given.fileno, *own)) return -1;
        was_made(socket, given.adopts());
        socket.streams = 0;
        socket.closed = false;
        return 0;
    });
}

// --- ending -----------------------------------------------------------------------------------

void socket_dealloc(PyObject* self) noexcept;

// _native.Socket, also where the interpreter's own state is already gone.
PyTypeObject* native_type_of(PyObject* self) noexcept {
    PyTypeObject* type = Py_TYPE(self);
    while (type->tp_dealloc != socket_dealloc) type = type->tp_base;
    return type;
}

void socket_finalize(PyObject* self) noexcept {
    PyObject *kind, *value, *trace;
    PyErr_Fetch(&kind, &value, &trace);
    Socket& socket = state_of(self);
    if (socket.handle.get() != sys::invalid) {
        // Warned while the descriptor is still open, so that the repr can say whose it was.
        if (PyErr_ResourceWarning(self, 1, "unclosed %R", self) < 0) {
            if (PyErr_ExceptionMatches(PyExc_Warning)) {
#if PY_VERSION_HEX >= 0x030E0000
                PyErr_FormatUnraisable("Exception ignored while finalizing socket %R", self);
#else
                PyErr_WriteUnraisable(self);
#endif
            }
        }
        evict(self, socket);
    }
    PyErr_Restore(kind, value, trace);
    // A base __init__ that somebody called on a plain instance left a descriptor there.
    destructor next = native_type_of(self)->tp_base->tp_finalize;
    if (next != nullptr) next(self);
}

void socket_dealloc(PyObject* self) noexcept {
    if (PyObject_CallFinalizerFromDealloc(self) < 0) return;
    PyTypeObject* type = Py_TYPE(self);
    PyTypeObject* base = native_type_of(self)->tp_base;
    PyObject_GC_UnTrack(self);
    // One that telemetry made while another thread was closing the socket.
    if (state_of(self).connection != nullptr)
        recorder::socket_closes(state_of(self), recorder::End::finalized);
    state_of(self).~Socket();
    // A heap base gives back the instance's reference to its type, a static one (3.11) does not.
    const bool base_releases_type = (base->tp_flags & Py_TPFLAGS_HEAPTYPE) != 0;
    // A base with garbage collection expects what Python's own subclasses give it; debug builds
    // check that.
    if (PyType_IS_GC(base)) PyObject_GC_Track(self);
    base->tp_dealloc(self);
    if (!base_releases_type) Py_DECREF(type);
}

int socket_traverse(PyObject* self, visitproc visit, void* arg) noexcept {
    Py_VISIT(Py_TYPE(self));
    return 0;
}

// --- attributes -------------------------------------------------------------------------------

PyObject* socket_repr(PyObject* self) noexcept {
    const Socket& socket = state_of(self);
    return PyUnicode_FromFormat("<socket object, fd=%d, family=%d, type=%d, proto=%d>",
                                socket.handle.get(), static_cast<int>(socket.family),
                                static_cast<int>(socket.type), static_cast<int>(socket.protocol));
}

template <Shared<int> Socket::* Member>
PyObject* get_int(PyObject* self, void*) noexcept {
    return PyLong_FromLong(state_of(self).*Member);
}

PyObject* get_timeout(PyObject* self, void*) noexcept {
    return socket_gettimeout(self, nullptr);
}

// The protocol, a member in the base as well, and the two attributes of the class's own: they cost
// less here than as its slots.
PyMemberDef* members() {
    static PyMemberDef list[] = {
        {"proto", T_INT, state_offset + static_cast<Py_ssize_t>(offsetof(Socket, protocol)),
         READONLY, "the socket protocol"},
        {"_io_refs", T_INT, state_offset + static_cast<Py_ssize_t>(offsetof(Socket, streams)), 0,
         "open streams of makefile()"},
        {"_closed", T_BOOL, state_offset + static_cast<Py_ssize_t>(offsetof(Socket, closed)), 0,
         "whether close() was called"},
        {nullptr, 0, 0, 0, nullptr},
    };
    return list;
}

PyGetSetDef attributes[] = {
    {"family", get_int<&Socket::family>, nullptr, "the socket family", nullptr},
    {"type", get_int<&Socket::type>, nullptr, "the socket type", nullptr},
    {"timeout", get_timeout, nullptr, "the socket timeout", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyCFunction fast(PyObject* (*method)(PyObject*, FastArguments, Py_ssize_t) noexcept) {
    return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(method));
}
PyCFunction fast(PyObject* (*method)(PyObject*, FastArguments, Py_ssize_t, PyObject*) noexcept) {
    return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(method));
}
PyCFunction keywords(PyObject* (*method)(PyObject*, PyObject*, PyObject*) noexcept) {
    return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(method));
}

// The methods that a program calls most, first: bind_class puts them on the socket class itself as
// well, because the interpreter's specialised call wants the method's class to be the object's.
PyMethodDef hot_methods[] = {
    {"send", fast(socket_send), METH_FASTCALL,
     "send(data[, flags]) -> count\n\nSend a bytes-like object: the number of bytes sent, which "
     "may be less than the\nnumber given. See send(2)."},
    {"sendall", fast(socket_sendall), METH_FASTCALL,
     "sendall(data[, flags])\n\nSend the whole of a bytes-like object, in as many calls as it "
     "takes. The timeout\nis the limit for all of them. After an error it is not known how much "
     "was sent."},
    {"sendto", fast(socket_sendto), METH_FASTCALL,
     "sendto(data[, flags], address) -> count\n\nLike send(data, flags), with the destination of a "
     "datagram."},
    {"recv", fast(socket_recv), METH_FASTCALL,
     "recv(buffersize[, flags]) -> data\n\nReceive at most buffersize bytes; b'' when the peer has "
     "ended the stream. See recv(2)."},
    {"recvfrom", fast(socket_recvfrom), METH_FASTCALL,
     "recvfrom(buffersize[, flags]) -> (data, address)\n\nLike recv(), with the sender's "
     "address."},
    {"recv_into", fast(socket_recv_into), METH_FASTCALL | METH_KEYWORDS,
     "recv_into(buffer[, nbytes[, flags]]) -> nbytes_read\n\nLike recv(), into a writable buffer; "
     "nbytes 0 means its length."},
    {"recvfrom_into", fast(socket_recvfrom_into), METH_FASTCALL | METH_KEYWORDS,
     "recvfrom_into(buffer[, nbytes[, flags]]) -> (nbytes_read, address)\n\nLike recv_into(), with "
     "the sender's address."},
    {"connect", socket_connect, METH_O,
     "connect(address)\n\nConnect to a remote address, in the form of the socket's family. Raises "
     "OSError, and\nTimeoutError when the socket's timeout passes. See connect(2)."},
    {"connect_ex", socket_connect_ex, METH_O,
     "connect_ex(address) -> errno\n\nLike connect(address), but an error of connect(2) is "
     "returned, 0 for none. Other\nerrors, of the address or its resolution, are raised."},
    {nullptr, nullptr, 0, nullptr},
};

PyMethodDef methods[] = {
    {"_accept", socket_accept, METH_NOARGS,
     "_accept() -> (descriptor, address)\n\nWait for a connection."},
    {"_accept_as", socket_accept_as, METH_O,
     "_accept_as(cls) -> (socket, address)\n\nWait for a connection: an object of that class."},
    {"_prepare", socket_prepare, METH_VARARGS,
     "_prepare(caller, arguments) -> Address\n\nThe encoded address of a call with one argument."},
    {"bind", socket_bind, METH_O, "bind(address)\n\nBind to a local address. See bind(2)."},
    {"listen", socket_listen, METH_VARARGS,
     "listen([backlog])\n\nAccept connections. See listen(2)."},
    {"shutdown", socket_shutdown, METH_O, "shutdown(how)\n\nEnd one or both directions."},
    {"getsockname", socket_getsockname, METH_NOARGS,
     "getsockname() -> address\n\nThe socket's own address."},
    {"getpeername", socket_getpeername, METH_NOARGS,
     "getpeername() -> address\n\nThe peer's address."},
    {"getsockopt", socket_getsockopt, METH_VARARGS,
     "getsockopt(level, option[, buffersize]) -> value\n\nA socket option: an int, or bytes when a "
     "buffer size is given."},
    {"setsockopt", socket_setsockopt, METH_VARARGS,
     "setsockopt(level, option, value: int)\nsetsockopt(level, option, value: buffer)\n"
     "setsockopt(level, option, None, optlen: int)\n\nSet a socket option."},
    {"settimeout", socket_settimeout, METH_O,
     "settimeout(timeout)\n\nSeconds, 0 for non-blocking, None for blocking."},
    {"gettimeout", socket_gettimeout, METH_NOARGS, "gettimeout() -> timeout"},
    {"setblocking", socket_setblocking, METH_O, "setblocking(flag)"},
    {"getblocking", socket_getblocking, METH_NOARGS, "getblocking() -> bool"},
    {"recvmsg", socket_recvmsg, METH_VARARGS,
     "recvmsg(bufsize[, ancbufsize[, flags]]) -> (data, ancdata, msg_flags, address)\n\nReceive a "
     "message with its ancillary data. See recvmsg(2)."},
    {"recvmsg_into", socket_recvmsg_into, METH_VARARGS,
     "recvmsg_into(buffers[, ancbufsize[, flags]]) -> (nbytes, ancdata, msg_flags, address)\n\n"
     "Like recvmsg(), scattered into writable buffers."},
    {"sendmsg", socket_sendmsg, METH_VARARGS,
     "sendmsg(buffers[, ancdata[, flags[, address]]]) -> count\n\nSend a message gathered from "
     "buffers, with ancillary data. See sendmsg(2)."},
    {"send_many", keywords(socket_send_many), METH_VARARGS | METH_KEYWORDS,
     "send_many(messages, address=None, flags=0) -> count\n\nSend datagrams in as few system calls "
     "as it takes: the number that was sent. Each\nmessage is a bytes-like object, or a pair of "
     "one and its own address. An error is raised\nonly where it stopped the first; after others "
     "were sent, the next call meets it.\nSee sendmmsg(2), and docs/reference/batches.md."},
    {"recv_many", keywords(socket_recv_many), METH_VARARGS | METH_KEYWORDS,
     "recv_many(count, bufsize, flags=0) -> [(data, address), ...]\n\nWait for a datagram, and "
     "take what has come by then, at most count datagrams of at most\nbufsize bytes. See "
     "recvmmsg(2), and docs/reference/batches.md."},
    {"_sendfile", socket_sendfile, METH_VARARGS,
     "_sendfile(descriptor, offset, count) -> count\n\nOne sendfile(2), waited for."},
    {"sendmsg_afalg", keywords(socket_sendmsg_afalg), METH_VARARGS | METH_KEYWORDS,
     "sendmsg_afalg([msg], *, op[, iv[, assoclen[, flags=MSG_MORE]]])\n\nSet operation mode, IV "
     "and length of associated data of an AF_ALG socket."},
    {"_stream_begins", socket_stream_begins, METH_NOARGS,
     "_stream_begins()\n\nOne more stream of makefile() is open."},
    {"_stream_ends", socket_stream_ends, METH_NOARGS,
     "_stream_ends() -> bool\n\nOne less is; whether the socket was to be closed meanwhile."},
    {"_may_close", socket_may_close, METH_NOARGS,
     "_may_close() -> bool\n\nThe socket is to be closed; whether no stream is open."},
    {"close", socket_close, METH_NOARGS, "close()\n\nClose the socket."},
    {"detach", socket_detach, METH_NOARGS,
     "detach() -> descriptor\n\nClose the object without closing the descriptor."},
    {"fileno", socket_fileno, METH_NOARGS, "fileno() -> descriptor, or -1 when closed"},
    {nullptr, nullptr, 0, nullptr},
};

Ref make_type(PyObject* module, PyTypeObject* base) {
    static std::vector<PyMethodDef> all = [] {
        std::vector<PyMethodDef> list;
        for (const PyMethodDef* method = hot_methods; method->ml_name != nullptr; ++method)
            list.push_back(*method);
        for (const PyMethodDef* method = methods; method->ml_name != nullptr; ++method)
            list.push_back(*method);
        list.push_back({nullptr, nullptr, 0, nullptr});
        return list;
    }();
    constexpr std::ptrdiff_t alignment = alignof(Socket);
    state_offset = (base->tp_basicsize + alignment - 1) / alignment * alignment;
    PyType_Slot slots[] = {
        {Py_tp_new, reinterpret_cast<void*>(socket_new)},
        {Py_tp_init, reinterpret_cast<void*>(socket_init)},
        {Py_tp_dealloc, reinterpret_cast<void*>(socket_dealloc)},
        {Py_tp_finalize, reinterpret_cast<void*>(socket_finalize)},
        {Py_tp_traverse, reinterpret_cast<void*>(socket_traverse)},
        {Py_tp_free, reinterpret_cast<void*>(PyObject_GC_Del)},
        {Py_tp_repr, reinterpret_cast<void*>(socket_repr)},
        {Py_tp_methods, all.data()},
        {Py_tp_getset, attributes},
        {Py_tp_members, members()},
        {Py_tp_doc, const_cast<char*>("The native socket, base of tracesock.socket.")},
        {0, nullptr},
    };
    PyType_Spec spec{
        // The base's name, which the interpreter's error texts have in them.
        .name = "_socket.socket",
        .basicsize = static_cast<int>(state_offset + static_cast<std::ptrdiff_t>(sizeof(Socket))),
        .itemsize = 0,
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC |
                 Py_TPFLAGS_IMMUTABLETYPE,
        .slots = slots,
    };
    return Ref(PyType_FromModuleAndSpec(module, &spec, reinterpret_cast<PyObject*>(base)));
}

}  // namespace

Interpreter* interpreter() noexcept {
    thread_local std::int64_t cached_id = -1;
    thread_local Interpreter* cached = nullptr;
    PyInterpreterState* current = PyInterpreterState_Get();
    const std::int64_t id = PyInterpreterState_GetID(current);
    if (id == cached_id) return cached;
    PyObject* dictionary = PyInterpreterState_GetDict(current);
    if (dictionary == nullptr) {
        PyErr_SetString(PyExc_RuntimeError, "tracesock: the interpreter is ending");
        return nullptr;
    }
    PyObject* capsule = PyDict_GetItemString(dictionary, interpreter_key);
    if (capsule == nullptr) {
        auto made = std::make_unique<Interpreter>();
        Ref owner(PyCapsule_New(made.get(), interpreter_key, destroy_interpreter));
        if (!owner) return nullptr;
        capsule = owner.get();
        made.release();
        if (PyDict_SetItemString(dictionary, interpreter_key, capsule) < 0) return nullptr;
    }
    cached = static_cast<Interpreter*>(PyCapsule_GetPointer(capsule, interpreter_key));
    cached_id = id;
    return cached;
}

PyObject* raise_status(Status status, int error) noexcept {
    switch (status) {
        case Status::timed_out:
            PyErr_SetString(PyExc_TimeoutError, "timed out");
            break;
        case Status::failed:
            set_os_error(error);
            break;
        case Status::interrupted:
        case Status::done:
            break;
    }
    return nullptr;
}

bool mirror_settimeout(PyObject* self, PyObject* timeout) noexcept {
    Interpreter* own = interpreter();
    if (own == nullptr) return false;
    PyObject* arguments[] = {self, timeout};
    return static_cast<bool>(Ref(PyObject_Vectorcall(own->base_settimeout, arguments, 2, nullptr)));
}

bool mirror_detach(PyObject* self) noexcept {
    Interpreter* own = interpreter();
    return own != nullptr && static_cast<bool>(Ref(PyObject_CallOneArg(own->base_detach, self)));
}

namespace {

// Before the descriptor goes: the base's shell has it no more. False with an exception.
bool empty_shell(PyObject* self, Socket& socket) noexcept {
    if (!socket.filled.exchange(false) || mirror_detach(self)) return true;
    socket.filled = true;
    return false;
}

}  // namespace

PyObject* socket_close(PyObject* self, PyObject*) noexcept {
    Socket& socket = state_of(self);
    if (socket.handle.get() == sys::invalid) Py_RETURN_NONE;
    if (!empty_shell(self, socket)) return nullptr;
    if (socket.connection != nullptr) recorder::socket_closes(socket, recorder::End::closed);
    if (audit::watched() != 0) audit::socket_closes(socket, true);
    // Evicted with the lock: a call that is tried with the lock held has no lease.
    const sys::Descriptor fd = socket.handle.evict();
    if (fd == sys::invalid) Py_RETURN_NONE;
    int result = 0;
    int error = 0;
    {
        Unlocked unlocked;
        result = sys::close(fd);
        error = errno;
    }
    if (result < 0) return set_os_error(error);
    Py_RETURN_NONE;
}

PyObject* socket_detach(PyObject* self, PyObject*) noexcept {
    Socket& socket = state_of(self);
    if (!empty_shell(self, socket)) return nullptr;
    if (socket.connection != nullptr) recorder::socket_closes(socket, recorder::End::detached);
    return PyLong_FromLong(socket.handle.detach());
}

// The streams of makefile(), counted so that of two threads, one that closes the last stream and
// one that closes the socket, at least one sees what the other did.
PyObject* socket_stream_begins(PyObject* self, PyObject*) noexcept {
    state_of(self).streams.fetch_add(1);
    Py_RETURN_NONE;
}

PyObject* socket_stream_ends(PyObject* self, PyObject*) noexcept {
    Socket& socket = state_of(self);
    int streams = socket.streams.load();
    while (streams > 0 && !socket.streams.compare_exchange_weak(streams, streams - 1)) {
    }
    return PyBool_FromLong(socket.closed.load());
}

PyObject* socket_may_close(PyObject* self, PyObject*) noexcept {
    Socket& socket = state_of(self);
    socket.closed.store(true);
    return PyBool_FromLong(socket.streams.load() <= 0);
}

Ref make_accepted(const Socket& listener, PyObject* cls, UniqueDescriptor connection,
                  const Address& peer) noexcept {
    Interpreter* own = interpreter();
    if (own == nullptr) return Ref();
    const int family = listener.family, type = listener.type, protocol = listener.protocol;
    if (cls == reinterpret_cast<PyObject*>(own->socket_class) && !own->fills_all) {
        Ref made(socket_new(own->socket_class, nullptr, nullptr));
        if (!made) return Ref();
        Socket& socket = state_of(made.get());
        if (PySys_Audit("socket.__new__", "Oiii", made.get(), family, type, protocol) < 0 ||
            !take_over(made.get(), socket, connection, family, type, protocol, *own))
            return Ref();
        if (recorder::active() != 0) recorder::socket_accepted(socket, peer);
        audit::socket_made(socket);
        return made;
    }
    Ref arguments(Py_BuildValue("(iii)", family, type, protocol));
    Ref names(arguments ? Py_BuildValue("{s:i}", "fileno", connection.get()) : nullptr);
    Ref made(names ? PyObject_Call(cls, arguments.get(), names.get()) : nullptr);
    if (!made) return Ref();
    connection.release();
    // A new object starts out with the default timeout, and its descriptor blocks.
    if (own->default_timeout < 0 && listener.timeout.load(std::memory_order_relaxed) > 0 &&
        !Ref(PyObject_CallMethod(made.get(), "setblocking", "O", Py_True)))
        return Ref();
    if (recorder::active() != 0 && PyObject_TypeCheck(made.get(), own->native_type) &&
        state_of(made.get()).handle.get() != sys::invalid)
        recorder::socket_accepted(state_of(made.get()), peer);
    return made;
}

PyObject* socket_fileno(PyObject* self, PyObject*) noexcept {
    return PyLong_FromLong(state_of(self).handle.get());
}

void bind_socket(nb::module_& module) {
    nb::object stock = nb::module_::import_("_socket").attr("socket");
    auto* base = reinterpret_cast<PyTypeObject*>(stock.ptr());
    nb::object type = nb::steal(make_type(module.ptr(), base).release());
    if (!type.is_valid()) throw nb::python_error();
    Interpreter* own = interpreter();
    if (own == nullptr) throw nb::python_error();
    own->native_type = reinterpret_cast<PyTypeObject*>(type.ptr());
    own->base_settimeout = stock.attr("settimeout").ptr();
    own->base_detach = stock.attr("detach").ptr();
    own->accept_name = PyUnicode_InternFromString("_accept");
    if (own->accept_name == nullptr) throw nb::python_error();
    if (own->internals == nullptr) importers().push_back(own);
    own->internals = nb::detail::internals;
    module.attr("Socket") = type;

    module.def(
        "bind_class",
        [](nb::type_object cls) {
            Interpreter* own = interpreter();
            if (own == nullptr) throw nb::python_error();
            auto* python = reinterpret_cast<PyTypeObject*>(cls.ptr());
            if (!PyType_IsSubtype(python, own->native_type))
                throw nb::type_error("bind_class(): not a subclass of _native.Socket");
            for (PyMethodDef* method = hot_methods; method->ml_name != nullptr; ++method) {
                nb::object descriptor = nb::steal(PyDescr_NewMethod(python, method));
                if (!descriptor.is_valid()) throw nb::python_error();
                nb::setattr(cls, method->ml_name, descriptor);
            }
            own->socket_class = python;
            own->class_init = python->tp_init;
            python->tp_init = class_init;
        },
        nb::arg("cls"),
        "Make `cls` the class whose instances need no filled base, with the hot methods its own.");
    module.def(
        "fill_all",
        [](bool fill) {
            Interpreter* own = interpreter();
            if (own == nullptr) throw nb::python_error();
            own->fills_all = fill;
        },
        nb::arg("fill"),
        "Whether sockets that are made from now on have a filled base, whatever their class: for "
        "callers of the methods of _socket.socket by themselves.");
}

}  // namespace tracesock
