// Sending and receiving.
#include <sys/mman.h>

#include <algorithm>
#include <climits>
#include <memory>
#include <utility>

#include "audit/audit.hpp"
#include "audit/guard.hpp"
#include "socket/address.hpp"
#include "socket/call.hpp"
#include "socket/methods.hpp"
#include "socket/received.hpp"

namespace tracesock {
namespace {

constexpr Py_ssize_t stack_buffer_size = 8 * 1024;

// --- arguments --------------------------------------------------------------------------------

// The data of a send: bytes are read where they are, anything else through its buffer.
class Outgoing {
  public:
    bool take(PyObject* object) noexcept {
        if (PyBytes_CheckExact(object)) {
            data_ = PyBytes_AS_STRING(object);
            size_ = PyBytes_GET_SIZE(object);
            return true;
        }
        if (!PyArg_Parse(object, "y*", buffer_.slot())) return false;
        use_buffer();
        return true;
    }
    Py_buffer* slot() noexcept { return buffer_.slot(); }
    void use_buffer() noexcept {
        data_ = buffer_.data();
        size_ = buffer_.size();
    }
    const char* data() const noexcept { return data_; }
    Py_ssize_t size() const noexcept { return size_; }

  private:
    Buffer buffer_;
    const char* data_ = nullptr;
    Py_ssize_t size_ = 0;
};

// (data[, flags])
bool parse_send(FastArguments arguments, Py_ssize_t count, const char* format, Outgoing& out,
                int& flags) noexcept {
    if (count == 1 && PyBytes_CheckExact(arguments[0])) return out.take(arguments[0]);
    Ref tuple = as_tuple(arguments, count);
    if (!tuple || !PyArg_ParseTuple(tuple.get(), format, out.slot(), &flags)) return false;
    out.use_buffer();
    return true;
}

// (size[, flags])
bool parse_receive(FastArguments arguments, Py_ssize_t count, const char* format, Py_ssize_t& size,
                   int& flags) noexcept {
    if (count == 1 && PyLong_CheckExact(arguments[0])) {
        size = PyLong_AsSsize_t(arguments[0]);
        if (size != -1 || !PyErr_Occurred()) return true;
        PyErr_Clear();
    }
    Ref tuple = as_tuple(arguments, count);
    return tuple && PyArg_ParseTuple(tuple.get(), format, &size, &flags);
}

// (buffer[, nbytes[, flags]]), by position or name.
bool parse_receive_into(FastArguments arguments, Py_ssize_t count, PyObject* names,
                        const char* format, Buffer& buffer, Py_ssize_t& size, int& flags) noexcept {
    // By position, with plain numbers: the usual ways.
    if (names == nullptr && (count == 1 || count == 2) &&
        (PyByteArray_CheckExact(arguments[0]) || PyMemoryView_Check(arguments[0])) &&
        (count == 1 || PyLong_CheckExact(arguments[1]))) {
        if (count == 2) size = PyLong_AsSsize_t(arguments[1]);
        if (size != -1 && buffer.acquire(arguments[0], PyBUF_WRITABLE)) return true;
        PyErr_Clear();
        size = 0;
    }
    static const char* keywords[] = {"buffer", "nbytes", "flags", nullptr};
    Ref tuple = as_tuple(arguments, count);
    if (!tuple) return false;
    Ref named;
    if (names != nullptr) {
        named = Ref(PyDict_New());
        if (!named) return false;
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); ++i)
            if (PyDict_SetItem(named.get(), PyTuple_GET_ITEM(names, i), arguments[count + i]) < 0)
                return false;
    }
    return PyArg_ParseTupleAndKeywords(tuple.get(), named.get(), format,
                                       const_cast<char**>(keywords), buffer.slot(), &size,
                                       &flags) != 0;
}

Length length_of(Py_ssize_t size) noexcept {
    return size <= brief_size ? Length::brief : Length::lengthy;
}

// Whether a receive of at most `size` bytes is expected to bring no more than `limit`.
bool expects(const Socket& socket, Py_ssize_t size, Py_ssize_t limit) noexcept {
    return size <= limit ||
           (size <= hopeful_size && socket.last_received.load(std::memory_order_relaxed) <=
                                        static_cast<std::size_t>(limit));
}

// How that turned out, for the next one.
void learn(Socket& socket, Py_ssize_t size, std::int64_t received) noexcept {
    if (size > stack_buffer_size && received >= 0)
        socket.last_received.store(
            static_cast<std::uint32_t>(std::min<std::int64_t>(received, UINT32_MAX)),
            std::memory_order_relaxed);
}

// A buffer of `hopeful_size` bytes for one receive, which the thread's next one gets. What nobody
// writes to is no memory yet; what a lot was written to is given back, or each thread would keep as
// much as it has once received. Mapped, because malloc(3) keeps what it is given back.
class HopefulBuffer {
  public:
    // Taken out of the thread's, because a signal handler or a finalizer may receive meanwhile.
    HopefulBuffer() noexcept : spare_(spare()), mapping_(std::move(spare_)) {
        if (mapping_ == nullptr) [[unlikely]] {
            void* const made = ::mmap(nullptr, hopeful_size, PROT_READ | PROT_WRITE,
                                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (made != MAP_FAILED) mapping_.reset(static_cast<char*>(made));
        }
    }
    ~HopefulBuffer() {
        if (filled_ <= brief_size) spare_ = std::move(mapping_);
    }
    HopefulBuffer(const HopefulBuffer&) = delete;
    HopefulBuffer& operator=(const HopefulBuffer&) = delete;

    // Null where there was no memory.
    char* data() noexcept { return mapping_.get(); }
    // The first `size` bytes, to which something was written; null with an exception.
    PyObject* bytes(Py_ssize_t size) noexcept {
        filled_ = size;
        return PyBytes_FromStringAndSize(mapping_.get(), size);
    }

  private:
    struct Unmap {
        void operator()(char* data) const noexcept { ::munmap(data, hopeful_size); }
    };
    using Mapping = std::unique_ptr<char, Unmap>;

    static Mapping& spare() noexcept {
        thread_local Mapping mapping;
        return mapping;
    }

    Mapping& spare_;
    Mapping mapping_;
    Py_ssize_t filled_ = 0;
};

// --- sending ----------------------------------------------------------------------------------

// One send(2): the count, or -1 with an exception. `waited`: whether it was one that waits.
std::int64_t send_once(Socket& socket, const char* data, Py_ssize_t size, int flags,
                       Deadline& deadline, recorder::CallStats* stats, bool& waited,
                       bool tried = false) noexcept {
    std::int64_t sent = 0;
    const auto op = [&](sys::Descriptor fd, int more) noexcept -> std::int64_t {
        waited = (more & MSG_DONTWAIT) == 0;
        return ::send(fd, data, static_cast<std::size_t>(size), flags | more);
    };
    if (!transfer(socket, sys::Direction::write, deadline, length_of(size),
                  (flags & sys::fast_open) != 0, op, sent, stats, tried))
        return -1;
    return sent;
}

// What a blocking send(2) would still have sent when the first try, which does not wait, sent only
// a part: a stream socket that blocks takes everything. The number of bytes sent in all. Not after
// one that waited: a signal has ended that, whose handler is due.
std::int64_t send_remaining(Socket& socket, const char* data, Py_ssize_t size, int flags,
                            std::int64_t sent, recorder::CallStats* stats) noexcept {
    if (deadline_of(socket).limited() || socket.type != SOCK_STREAM || (flags & MSG_DONTWAIT) != 0)
        return sent;
    Runtime runtime(socket);
    SharedHandle::Lease lease(socket.handle);
    const std::uint64_t since = stats != nullptr ? recorder::Clock::ticks() : 0;
    const std::int64_t more = runtime.unlocked([&]() noexcept -> std::int64_t {
        return ::send(lease.get(), data + sent, static_cast<std::size_t>(size - sent), flags);
    });
    if (stats != nullptr) {
        ++stats->calls;
        stats->stalled += recorder::Clock::ticks() - since;
    }
    audit::moved(socket, true, more);
    // As in the kernel, an error after a part was sent is for the next call to find.
    return more > 0 ? sent + more : sent;
}

std::int64_t send_data(Socket& socket, const char* data, Py_ssize_t size, int flags,
                       bool tried = false) noexcept {
    recorder::SendProbe probe(socket);
    recorder::CallStats* const stats = probe.stats();
    if (stats != nullptr) stats->resumes = true;
    Deadline deadline = deadline_of(socket);
    bool waited = false;
    std::int64_t sent = send_once(socket, data, size, flags, deadline, stats, waited, tried);
    if (sent >= 0 && sent < size && !waited)
        sent = send_remaining(socket, data, size, flags, sent, stats);
    probe.end(sent);
    return sent;
}

bool send_all(Socket& socket, const char* data, Py_ssize_t size, int flags) noexcept {
    recorder::SendProbe probe(socket);
    if (probe.stats() != nullptr) probe.stats()->resumes = true;
    Deadline deadline = deadline_of(socket);
    std::int64_t total = 0;
    bool done = false;
    bool waited = false;
    for (;;) {
        const std::int64_t sent =
            send_once(socket, data + total, size - total, flags, deadline, probe.stats(), waited);
        if (sent < 0) break;
        total += sent;
        if (total == size) {
            done = true;
            break;
        }
        if (PyErr_CheckSignals() < 0) break;
        if (deadline.expired()) {
            raise_status(Status::timed_out, 0);
            break;
        }
    }
    probe.end(total);
    return done;
}

// --- receiving --------------------------------------------------------------------------------

// One recv(2), or recvfrom(2) where `from` is given: the count, or -1 with an exception.
std::int64_t receive(Socket& socket, char* data, Py_ssize_t size, int flags, Address* from,
                     bool tried = false) noexcept {
    Deadline deadline = deadline_of(socket);
    std::int64_t received = 0;
    const bool whole = (flags & MSG_WAITALL) != 0;
    const Length length = expects(socket, size, brief_size) ? Length::brief : Length::lengthy;
    const auto by = [&](auto&& op) noexcept {
        return transfer(socket, sys::Direction::read, deadline, length, whole, op, received,
                        nullptr, tried);
    };
    const auto recv = [&](sys::Descriptor fd, int more) noexcept -> std::int64_t {
        return ::recv(fd, data, static_cast<std::size_t>(size), flags | more);
    };
    const auto recvfrom = [&](sys::Descriptor fd, int more) noexcept -> std::int64_t {
        from->length = socket.row->largest;
        return ::recvfrom(fd, data, static_cast<std::size_t>(size), flags | more, &from->header,
                          &from->length);
    };
    if (from == nullptr ? !by(recv) : !by(recvfrom)) return -1;
    learn(socket, size, received);
    recorder::received(socket, received);
    if ((flags & MSG_PEEK) == 0) audit::moved(socket, false, received);
    return received;
}

// A new bytes object with what was received; null with an exception.
PyObject* receive_bytes(Socket& socket, Py_ssize_t size, int flags, Address* from,
                        bool tried = false) noexcept {
    if (size <= stack_buffer_size) {
        // On the stack first: one allocation of the right size, and none that is given back.
        char data[stack_buffer_size];
        const std::int64_t count = receive(socket, data, size, flags, from, tried);
        if (count < 0) return nullptr;
        return PyBytes_FromStringAndSize(data, written(socket, flags, count, size));
    }
    if (expects(socket, size, stack_buffer_size)) {
        HopefulBuffer buffer;
        if (buffer.data() != nullptr) {
            const std::int64_t count = receive(socket, buffer.data(), size, flags, from, tried);
            return count < 0 ? nullptr : buffer.bytes(written(socket, flags, count, size));
        }
    }
    PyObject* bytes = PyBytes_FromStringAndSize(nullptr, size);
    if (bytes == nullptr) return nullptr;
    const std::int64_t count = receive(socket, PyBytes_AS_STRING(bytes), size, flags, from);
    if (count < 0) {
        Py_DECREF(bytes);
        return nullptr;
    }
    const Py_ssize_t kept = written(socket, flags, count, size);
    if (kept != size) _PyBytes_Resize(&bytes, kept);
    return bytes;
}

// What is left to do after a try that did not send everything; it began at `started` ticks, where
// that is recorded.
[[gnu::noinline]] PyObject* send_on(Socket& socket, PyObject* bytes, std::int64_t sent,
                                    std::uint64_t started) noexcept {
    const char* data = PyBytes_AS_STRING(bytes);
    const Py_ssize_t size = PyBytes_GET_SIZE(bytes);
    const int error = sent < 0 ? errno : 0;
    if (told_to_wait(error)) {
        sent = send_data(socket, data, size, 0, true);
        return sent < 0 ? nullptr : PyLong_FromSsize_t(static_cast<Py_ssize_t>(sent));
    }
    recorder::SendProbe probe(socket);
    if (recorder::CallStats* stats = probe.stats()) {
        stats->started = started;
        stats->calls = 1;
        stats->error = static_cast<std::int16_t>(error);
    }
    if (error == 0) sent = send_remaining(socket, data, size, 0, sent, probe.stats());
    probe.end(sent);
    return error != 0 ? raise_failed(socket, error)
                      : PyLong_FromSsize_t(static_cast<Py_ssize_t>(sent));
}

// The same of a receive: an error, or a wait.
[[gnu::noinline]] PyObject* receive_on(Socket& socket, Py_ssize_t size) noexcept {
    return told_to_wait(errno) ? receive_bytes(socket, size, 0, nullptr, true)
                               : raise_failed(socket, errno);
}

// A receive that asks for much more than is expected.
[[gnu::noinline]] PyObject* receive_hopefully(Socket& socket, Py_ssize_t size) noexcept {
    {
        HopefulBuffer buffer;
        if (buffer.data() == nullptr) return receive_bytes(socket, size, 0, nullptr);
        const ssize_t received = ::recv(socket.handle.get(), buffer.data(),
                                        static_cast<std::size_t>(size), MSG_DONTWAIT);
        if (received >= 0) [[likely]] {
            learn(socket, size, received);
            recorder::received(socket, received);
            return buffer.bytes(received);
        }
    }
    return receive_on(socket, size);
}

// Any other send than the usual one.
[[gnu::noinline]] PyObject* send_any(PyObject* self, FastArguments arguments,
                                     Py_ssize_t count) noexcept {
    Outgoing out;
    int flags = 0;
    if (!parse_send(arguments, count, "y*|i:send", out, flags)) return nullptr;
    audit::Call call(audit::Event::send, state_of(self));
    if (!call.allows_connected()) return nullptr;
    const std::int64_t sent = send_data(state_of(self), out.data(), out.size(), flags);
    return sent < 0 ? nullptr : PyLong_FromSsize_t(static_cast<Py_ssize_t>(sent));
}

[[gnu::noinline]] PyObject* receive_any(PyObject* self, FastArguments arguments,
                                        Py_ssize_t count) noexcept {
    Py_ssize_t size = 0;
    int flags = 0;
    if (!parse_receive(arguments, count, "n|i:recv", size, flags)) return nullptr;
    if (size < 0) {
        PyErr_SetString(PyExc_ValueError, "negative buffersize in recv");
        return nullptr;
    }
    // No system call for nothing, even on a closed socket.
    if (size == 0) return PyBytes_FromStringAndSize(nullptr, 0);
    return receive_bytes(state_of(self), size, flags, nullptr);
}

[[gnu::noinline]] PyObject* receive_into_any(PyObject* self, FastArguments arguments,
                                             Py_ssize_t count, PyObject* names,
                                             bool tried) noexcept {
    Buffer buffer;
    Py_ssize_t size = 0;
    int flags = 0;
    if (!parse_receive_into(arguments, count, names, "w*|ni:recv_into", buffer, size, flags))
        return nullptr;
    if (size < 0) {
        PyErr_SetString(PyExc_ValueError, "negative buffersize in recv_into");
        return nullptr;
    }
    if (size == 0) size = buffer.size();
    if (size == 0) return PyLong_FromLong(0);
    if (buffer.size() < size) {
        PyErr_SetString(PyExc_ValueError, "buffer too small for requested bytes");
        return nullptr;
    }
    const std::int64_t received =
        receive(state_of(self), buffer.data(), size, flags, nullptr, tried);
    return received < 0 ? nullptr : PyLong_FromSsize_t(static_cast<Py_ssize_t>(received));
}

}  // namespace

// The usual send and receive, while no audit looks on, are one try and little around it: what the
// long way would do as well, in half the instructions.
PyObject* socket_send(PyObject* self, FastArguments arguments, Py_ssize_t count) noexcept {
    if (!may_hold_lock || count != 1 || !PyBytes_CheckExact(arguments[0]) || audit::watched() != 0)
        return send_any(self, arguments, count);
    const Py_ssize_t size = PyBytes_GET_SIZE(arguments[0]);
    if (size > brief_size) return send_any(self, arguments, count);
    Socket& socket = state_of(self);
    const char* data = PyBytes_AS_STRING(arguments[0]);
    const bool recorded = recorder::active() != 0;
    const std::uint64_t started = recorded ? recorder::Clock::ticks() : 0;
    const ssize_t sent =
        ::send(socket.handle.get(), data, static_cast<std::size_t>(size), MSG_DONTWAIT);
    if (sent != size) [[unlikely]]
        return send_on(socket, arguments[0], sent, started);
    if (recorded) recorder::sent_at_once(socket, started, sent);
    return PyLong_FromSsize_t(sent);
}

PyObject* socket_sendall(PyObject* self, FastArguments arguments, Py_ssize_t count) noexcept {
    Outgoing out;
    int flags = 0;
    if (!parse_send(arguments, count, "y*|i:sendall", out, flags)) return nullptr;
    audit::Call call(audit::Event::send, state_of(self));
    if (!call.allows_connected() || !send_all(state_of(self), out.data(), out.size(), flags))
        return nullptr;
    Py_RETURN_NONE;
}

PyObject* socket_sendto(PyObject* self, FastArguments arguments, Py_ssize_t count) noexcept {
    return guarded<PyObject*>(nullptr, [&]() -> PyObject* {
        Outgoing out;
        int flags = 0;
        PyObject* destination = nullptr;
        if (count == 2 && PyBytes_CheckExact(arguments[0])) {
            out.take(arguments[0]);
            destination = arguments[1];
        } else {
            if (count != 2 && count != 3)
                return PyErr_Format(PyExc_TypeError, "sendto() takes 2 or 3 arguments (%zd given)",
                                    count);
            Ref tuple = as_tuple(arguments, count);
            if (!tuple) return nullptr;
            const bool parsed =
                count == 2 ? PyArg_ParseTuple(tuple.get(), "y*O:sendto", out.slot(), &destination)
                           : PyArg_ParseTuple(tuple.get(), "y*iO:sendto", out.slot(), &flags,
                                              &destination);
            if (!parsed) return nullptr;
            out.use_buffer();
        }
        Socket& socket = state_of(self);
        Address space;
        const Address* address = encoded(socket, destination, "sendto", space);
        if (address == nullptr) return nullptr;
        if (!audit::announce("socket.sendto", self, destination)) return nullptr;
        bool waited = false;
        const auto op = [&](sys::Descriptor fd, int more) noexcept -> std::int64_t {
            waited = (more & MSG_DONTWAIT) == 0;
            return ::sendto(fd, out.data(), static_cast<std::size_t>(out.size()), flags | more,
                            &address->header, address->length);
        };
        // As in send: while nobody looks on, the first try is all there is to it.
        bool tried = false;
        if (may_hold_lock && flags == 0 && out.size() <= brief_size && audit::watched() == 0 &&
            recorder::active() == 0) {
            std::int64_t sent = op(socket.handle.get(), MSG_DONTWAIT);
            if (sent >= 0) {
                if (sent < out.size()) [[unlikely]]
                    sent = send_remaining(socket, out.data(), out.size(), flags, sent, nullptr);
                return PyLong_FromSsize_t(static_cast<Py_ssize_t>(sent));
            }
            if (!told_to_wait(errno)) return raise_failed(socket, errno);
            tried = true;
        }
        audit::Call call(audit::Event::sendto, socket);
        if (!call.allows(*address)) return nullptr;
        recorder::SendProbe probe(socket, address);
        Deadline deadline = deadline_of(socket);
        std::int64_t sent = -1;
        const bool done = transfer(socket, sys::Direction::write, deadline, length_of(out.size()),
                                   (flags & sys::fast_open) != 0, op, sent, probe.stats(), tried);
        // Without the address: a stream has its peer.
        if (done && sent < out.size() && !waited)
            sent = send_remaining(socket, out.data(), out.size(), flags, sent, probe.stats());
        probe.end(sent);
        if (!done) return nullptr;
        return PyLong_FromSsize_t(static_cast<Py_ssize_t>(sent));
    });
}

PyObject* socket_sendfile(PyObject* self, PyObject* arguments) noexcept {
    int file = sys::invalid;
    long offset = 0;  // off_t, where there is a sendfile(2)
    Py_ssize_t size = 0;
    if (!PyArg_ParseTuple(arguments, "iln:_sendfile", &file, &offset, &size)) return nullptr;
    Socket& socket = state_of(self);
    audit::Call call(audit::Event::sendfile, socket);
    if (!call.allows_connected()) return nullptr;
    recorder::SendProbe probe(socket);
    Runtime runtime(socket);
    SharedHandle::Lease lease(socket.handle);
    const sys::Descriptor fd = lease.get();
    Deadline deadline = deadline_of(socket);
    std::int64_t sent = 0;
    int error = 0;
    const auto op = [&]() noexcept -> std::int64_t {
        if (probe.stats() != nullptr) ++probe.stats()->calls;
        return sys::send_file(fd, file, offset, static_cast<std::size_t>(size));
    };
    Status status = Status::done;
    do {
        // sendfile(2) cannot be told not to wait: ready first.
        status = retry(runtime, fd, sys::Direction::write, deadline, Attempt::without_lock,
                       First::wait, op, sent, error);
        // A descriptor that is non-blocking though the socket is not: waited for, not spun on.
        if (status != Status::failed || !would_block(error)) break;
        status = wait_ready(runtime, fd, sys::Direction::write, deadline, error);
    } while (status == Status::done);
    if (probe.stats() != nullptr) {
        probe.stats()->error = recorder::code_of(status, error);
        // The end of the file: nothing was sent, and nothing is told.
        probe.stats()->refused = status == Status::done && sent == 0;
    }
    probe.end(status == Status::done ? sent : -1);
    if (status != Status::done) return raise_status(status, error);
    audit::moved(socket, true, sent);
    return PyLong_FromLongLong(sent);
}

PyObject* socket_recv(PyObject* self, FastArguments arguments, Py_ssize_t count) noexcept {
    if (!may_hold_lock || count != 1 || !PyLong_CheckExact(arguments[0]) || audit::watched() != 0)
        return receive_any(self, arguments, count);
    const Py_ssize_t size = PyLong_AsSsize_t(arguments[0]);
    Socket& socket = state_of(self);
    if (size <= 0 || size > stack_buffer_size) {
        if (size > 0 && expects(socket, size, stack_buffer_size))
            return receive_hopefully(socket, size);
        PyErr_Clear();
        return receive_any(self, arguments, count);
    }
    // On the stack first: one allocation of the right size, and none that is given back.
    char data[stack_buffer_size];
    const ssize_t received =
        ::recv(socket.handle.get(), data, static_cast<std::size_t>(size), MSG_DONTWAIT);
    if (received < 0) [[unlikely]]
        return receive_on(socket, size);
    recorder::received(socket, received);
    return PyBytes_FromStringAndSize(data, received);
}

PyObject* socket_recvfrom(PyObject* self, FastArguments arguments, Py_ssize_t count) noexcept {
    return guarded<PyObject*>(nullptr, [&]() -> PyObject* {
        Py_ssize_t size = 0;
        int flags = 0;
        if (!parse_receive(arguments, count, "n|i:recvfrom", size, flags)) return nullptr;
        if (size < 0) {
            PyErr_SetString(PyExc_ValueError, "negative buffersize in recvfrom");
            return nullptr;
        }
        Socket& socket = state_of(self);
        if (!readable(socket)) return nullptr;
        Address from;
        Ref data(receive_bytes(socket, size, flags, &from));
        if (!data) return nullptr;
        Ref sender(decode(socket, from));
        return sender ? PyTuple_Pack(2, data.get(), sender.get()) : nullptr;
    });
}

PyObject* socket_recv_into(PyObject* self, FastArguments arguments, Py_ssize_t count,
                           PyObject* names) noexcept {
    if (!may_hold_lock || count != 1 || names != nullptr || !PyByteArray_CheckExact(arguments[0]) ||
        audit::watched() != 0)
        return receive_into_any(self, arguments, count, names, false);
    // Not exported: while the lock is held, nobody can resize it.
    const Py_ssize_t size = PyByteArray_GET_SIZE(arguments[0]);
    Socket& socket = state_of(self);
    if (size == 0 || !expects(socket, size, brief_size))
        return receive_into_any(self, arguments, count, names, false);
    const ssize_t received = ::recv(socket.handle.get(), PyByteArray_AS_STRING(arguments[0]),
                                    static_cast<std::size_t>(size), MSG_DONTWAIT);
    if (received < 0) [[unlikely]]
        return told_to_wait(errno) ? receive_into_any(self, arguments, count, names, true)
                                   : raise_failed(socket, errno);
    learn(socket, size, received);
    recorder::received(socket, received);
    return PyLong_FromSsize_t(received);
}

PyObject* socket_recvfrom_into(PyObject* self, FastArguments arguments, Py_ssize_t count,
                               PyObject* names) noexcept {
    return guarded<PyObject*>(nullptr, [&]() -> PyObject* {
        Buffer buffer;
        Py_ssize_t size = 0;
        int flags = 0;
        if (!parse_receive_into(arguments, count, names, "w*|ni:recvfrom_into", buffer, size,
                                flags))
            return nullptr;
        if (size < 0) {
            PyErr_SetString(PyExc_ValueError, "negative buffersize in recvfrom_into");
            return nullptr;
        }
        if (size == 0) {
            size = buffer.size();
        } else if (size > buffer.size()) {
            PyErr_SetString(PyExc_ValueError, "nbytes is greater than the length of the buffer");
            return nullptr;
        }
        Socket& socket = state_of(self);
        if (!readable(socket)) return nullptr;
        Address from;
        const std::int64_t received = receive(socket, buffer.data(), size, flags, &from);
        if (received < 0) return nullptr;
        Ref sender(decode(socket, from));
        return sender ? Py_BuildValue("nO", static_cast<Py_ssize_t>(received), sender.get())
                      : nullptr;
    });
}

}  // namespace tracesock
