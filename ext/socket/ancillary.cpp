// sendmsg and recvmsg: gathered and scattered buffers with ancillary data, cmsg(3).
#include <atomic>
#include <climits>
#include <cstring>
#include <memory>
#include <vector>

#include "audit/audit.hpp"
#include "audit/guard.hpp"
#include "socket/address.hpp"
#include "socket/call.hpp"
#include "socket/methods.hpp"
#include "socket/received.hpp"

namespace tracesock {
namespace {

constexpr Py_ssize_t longest_control = 0x7fffffff;

constexpr int af_alg = 38;
constexpr int sol_alg = 279;
constexpr int alg_set_iv = 2;
constexpr int alg_set_op = 3;
constexpr int alg_set_aead_assoclen = 4;

// --- control messages read --------------------------------------------------------------------

// A control message in the buffer that the kernel filled. Read by its bytes and bounds, because the
// CMSG macros trust the lengths inside it.
struct ControlMessage {
    int level = 0;
    int type = 0;
    const char* data = nullptr;
    std::size_t size = 0;
    bool truncated = false;  // longer than what is there
};

class ControlReader {
  public:
    ControlReader(const char* buffer, std::size_t size) noexcept : next_(buffer), left_(size) {}

    enum class Step : std::uint8_t { message, end, malformed };

    Step read(ControlMessage& message) noexcept {
        if (left_ < sizeof(cmsghdr)) return Step::end;
        cmsghdr header;
        std::memcpy(&header, next_, sizeof header);
        const std::size_t length = header.cmsg_len;
        if (length < CMSG_LEN(0)) return Step::malformed;
        message.level = header.cmsg_level;
        message.type = header.cmsg_type;
        message.truncated = length > left_;
        const std::size_t present = message.truncated ? left_ : length;
        message.data = next_ + CMSG_LEN(0);
        message.size = present > CMSG_LEN(0) ? present - CMSG_LEN(0) : 0;
        const std::size_t advance = CMSG_SPACE(message.size);
        next_ += advance < left_ ? advance : left_;
        left_ -= advance < left_ ? advance : left_;
        return Step::message;
    }

  private:
    const char* next_;
    std::size_t left_;
};

// The descriptors that a message brought, closed unless they were handed on.
class ReceivedDescriptors {
  public:
    explicit ReceivedDescriptors(const char* buffer, std::size_t size) noexcept
        : buffer_(buffer), size_(size) {}
    ReceivedDescriptors(const ReceivedDescriptors&) = delete;
    ReceivedDescriptors& operator=(const ReceivedDescriptors&) = delete;
    ~ReceivedDescriptors() {
        if (handed_on_) return;
        ControlReader reader(buffer_, size_);
        ControlMessage message;
        while (reader.read(message) == ControlReader::Step::message) {
            if (message.level != SOL_SOCKET || message.type != SCM_RIGHTS) continue;
            for (std::size_t at = 0; at + sizeof(int) <= message.size; at += sizeof(int)) {
                int fd = sys::invalid;
                std::memcpy(&fd, message.data + at, sizeof fd);
                if (fd >= 0) sys::close(fd);
            }
        }
    }
    void hand_on() noexcept { handed_on_ = true; }

  private:
    const char* buffer_;
    std::size_t size_;
    bool handed_on_ = false;
};

// The list of (level, type, data); null with an exception.
Ref read_control(const char* buffer, std::size_t size) noexcept {
    Ref list(PyList_New(0));
    if (!list) return list;
    ControlReader reader(buffer, size);
    ControlMessage message;
    for (;;) {
        const ControlReader::Step step = reader.read(message);
        if (step == ControlReader::Step::end) return list;
        const bool malformed = step == ControlReader::Step::malformed;
        if ((malformed || message.truncated) &&
            PyErr_WarnEx(PyExc_RuntimeWarning,
                         "received malformed or improperly-truncated ancillary data", 1) < 0)
            return {};
        if (malformed) return list;
        Ref item(Py_BuildValue("(iiy#)", message.level, message.type, message.data,
                               static_cast<Py_ssize_t>(message.size)));
        if (!item || PyList_Append(list.get(), item.get()) < 0) return {};
        if (message.truncated) return list;
    }
}

// recvmsg(2) into `vectors`, and the tuple that both methods return; `make_data` builds its first
// item from the count.
template <class MakeData>
PyObject* receive_message(Socket& socket, iovec* vectors, std::size_t count, int flags,
                          Py_ssize_t control_size, Length length, MakeData&& make_data) {
    if (!readable(socket)) return nullptr;
    if (control_size < 0 || control_size > longest_control) {
        PyErr_SetString(PyExc_ValueError, "invalid ancillary data buffer length");
        return nullptr;
    }
    std::unique_ptr<char[]> control;
    if (control_size > 0) {
        // Not set to zero: a large buffer is not touched beyond what the kernel writes.
        control.reset(new (std::nothrow) char[static_cast<std::size_t>(control_size)]);
        if (control == nullptr) return PyErr_NoMemory();
    }
    Address from;
    msghdr message{};
    std::int64_t received = 0;
    Deadline deadline = deadline_of(socket);
    const auto op = [&](sys::Descriptor fd, int more) noexcept -> std::int64_t {
        from.length = socket.row->largest;
        message = {};
        message.msg_name = &from.header;
        message.msg_namelen = from.length;
        message.msg_iov = vectors;
        message.msg_iovlen = count;
        message.msg_control = control.get();
        message.msg_controllen = static_cast<std::size_t>(control_size);
        return ::recvmsg(fd, &message, flags | more);
    };
    if (!transfer(socket, sys::Direction::read, deadline, length, (flags & MSG_WAITALL) != 0, op,
                  received))
        return nullptr;
    recorder::received(socket, received);
    if ((flags & MSG_PEEK) == 0) audit::moved(socket, false, received);
    const std::size_t control_filled =
        control != nullptr
            ? std::min<std::size_t>(message.msg_controllen, static_cast<std::size_t>(control_size))
            : 0;
    ReceivedDescriptors descriptors(control.get(), control_filled);
    Ref items = read_control(control.get(), control_filled);
    if (!items) return nullptr;
    from.length = std::min<socklen_t>(message.msg_namelen, socket.row->largest);
    Ref data(make_data(received));
    Ref sender(data ? decode(socket, from) : nullptr);
    if (!sender) return nullptr;
    PyObject* result =
        Py_BuildValue("(OOiO)", data.get(), items.get(), message.msg_flags, sender.get());
    if (result != nullptr) descriptors.hand_on();
    return result;
}

// --- control messages written -----------------------------------------------------------------

// Whether the interpreter's own module tells every error of an argument's iteration, and not only a
// TypeError, as "must be an iterable": patch releases of 3.13 and 3.14 began to. It is asked once,
// with an iteration that divides by zero.
bool iteration_errors_are_hidden() noexcept {
    static std::atomic<int> known{-1};
    if (known.load(std::memory_order_relaxed) < 0) {
        const Ref module(PyImport_ImportModule("_socket"));
        const Ref builtins(PyImport_ImportModule("builtins"));
        const Ref type(module ? PyObject_GetAttrString(module.get(), "socket") : nullptr);
        // Not initialised: it has no descriptor and raises no audit event.
        const Ref sock(type ? PyObject_CallMethod(type.get(), "__new__", "O", type.get())
                            : nullptr);
        const Ref divide(builtins ? PyObject_GetAttrString(builtins.get(), "divmod") : nullptr);
        const Ref items(
            divide ? PyObject_CallMethod(builtins.get(), "map", "O(i)(i)", divide.get(), 1, 0)
                   : nullptr);
        if (sock && items) {
            const Ref none(PyObject_CallMethod(sock.get(), "recvmsg_into", "(O)", items.get()));
            known = PyErr_ExceptionMatches(PyExc_TypeError);
        }
        PyErr_Clear();
    }
    return known.load(std::memory_order_relaxed) > 0;
}

// The same of sendmsg's second argument, whose iteration cannot be asked about without an event:
// python/cpython issue 143637, half a year before the others.
bool ancillary_errors_are_hidden() noexcept {
    return Py_Version >= 0x030E0300 || (Py_Version >= 0x030D0C00 && Py_Version < 0x030E0000) ||
           iteration_errors_are_hidden();
}

// The items of an argument, with the errors of the interpreter's own.
Ref items_of(PyObject* iterable, const char* refusal,
             bool (*errors_are_hidden)() noexcept = iteration_errors_are_hidden) noexcept {
    Ref items = snapshot(iterable, refusal);
    if (items) return items;
    PyObject *type = nullptr, *value = nullptr, *trace = nullptr;
    PyErr_Fetch(&type, &value, &trace);
    const bool hidden = errors_are_hidden();
    PyErr_Restore(type, value, trace);
    if (hidden) PyErr_SetString(PyExc_TypeError, refusal);
    return items;
}

// An array of exported buffers, given back together. A few need no allocation.
class Buffers {
  public:
    Buffers() noexcept = default;
    Buffers(const Buffers&) = delete;
    Buffers& operator=(const Buffers&) = delete;

    void reserve(std::size_t count) {
        if (count > few) {
            more_views_ = std::make_unique<Buffer[]>(count);
            more_vectors_ = std::make_unique<iovec[]>(count);
        }
        size_ = count;
    }
    Buffer& operator[](std::size_t index) noexcept {
        return more_views_ != nullptr ? more_views_[index] : views_[index];
    }
    void use(std::size_t index) noexcept {
        Buffer& view = (*this)[index];
        vectors()[index] = {view.data(), static_cast<std::size_t>(view.size())};
        total_ += view.size();
    }
    iovec* vectors() noexcept { return more_vectors_ != nullptr ? more_vectors_.get() : vectors_; }
    std::size_t size() const noexcept { return size_; }
    Py_ssize_t total() const noexcept { return total_; }

  private:
    static constexpr std::size_t few = 4;

    Buffer views_[few];
    iovec vectors_[few];
    std::unique_ptr<Buffer[]> more_views_;
    std::unique_ptr<iovec[]> more_vectors_;
    std::size_t size_ = 0;
    Py_ssize_t total_ = 0;
};

// The buffers of a sendmsg. False with an exception.
bool gather(PyObject* iterable, Buffers& buffers) {
    Ref items = items_of(iterable, "sendmsg() argument 1 must be an iterable");
    if (!items) return false;
    const Py_ssize_t count = PyTuple_GET_SIZE(items.get());
    if (count > INT_MAX) {
        PyErr_SetString(PyExc_OSError, "sendmsg() argument 1 is too long");
        return false;
    }
    buffers.reserve(static_cast<std::size_t>(count));
    for (Py_ssize_t i = 0; i < count; ++i) {
        const auto index = static_cast<std::size_t>(i);
        if (!buffers[index].acquire(PyTuple_GET_ITEM(items.get(), i), PyBUF_SIMPLE)) return false;
        buffers.use(index);
    }
    return true;
}

struct ControlItem {
    int level = 0;
    int type = 0;
    Buffer data;
};

// Lays the items of sendmsg's second argument out as the kernel reads them. False with an
// exception.
bool write_control(PyObject* iterable, std::vector<char>& out) {
    Ref items =
        items_of(iterable, "sendmsg() argument 2 must be an iterable", ancillary_errors_are_hidden);
    if (!items) return false;
    const Py_ssize_t count = PyTuple_GET_SIZE(items.get());
    std::vector<std::unique_ptr<ControlItem>> messages;
    std::size_t total = 0;
    for (Py_ssize_t i = 0; i < count; ++i) {
        auto item = std::make_unique<ControlItem>();
        if (!PyArg_Parse(PyTuple_GET_ITEM(items.get(), i),
                         "(iiy*):[sendmsg() ancillary data items]", &item->level, &item->type,
                         item->data.slot()))
            return false;
        if (item->data.size() >
            longest_control - static_cast<Py_ssize_t>(CMSG_SPACE(0) + alignof(cmsghdr))) {
            PyErr_SetString(PyExc_OSError, "ancillary data item too large");
            return false;
        }
        total += CMSG_SPACE(static_cast<std::size_t>(item->data.size()));
        if (total > static_cast<std::size_t>(longest_control)) {
            PyErr_SetString(PyExc_OSError, "too much ancillary data");
            return false;
        }
        messages.push_back(std::move(item));
    }
    out.assign(total, 0);
    char* at = out.data();
    for (const auto& item : messages) {
        const auto size = static_cast<std::size_t>(item->data.size());
        cmsghdr header{};
        header.cmsg_len = CMSG_LEN(size);
        header.cmsg_level = item->level;
        header.cmsg_type = item->type;
        std::memcpy(at, &header, sizeof header);
        if (size > 0) std::memcpy(at + CMSG_LEN(0), item->data.data(), size);
        at += CMSG_SPACE(size);
    }
    return true;
}

// What a blocking sendmsg(2) on a stream would still have sent when the first try, which does not
// wait, sent only a part. The ancillary data went with that part. Not after one that waited: a
// signal has ended that, whose handler is due.
std::int64_t send_rest(Socket& socket, const msghdr& message, int flags, std::int64_t sent) {
    std::vector<iovec> left(message.msg_iov, message.msg_iov + message.msg_iovlen);
    std::size_t skip = static_cast<std::size_t>(sent);
    std::size_t first = 0;
    while (first < left.size() && skip >= left[first].iov_len) skip -= left[first++].iov_len;
    if (first == left.size()) return sent;
    left[first].iov_base = static_cast<char*>(left[first].iov_base) + skip;
    left[first].iov_len -= skip;
    msghdr rest{};
    rest.msg_iov = left.data() + first;
    rest.msg_iovlen = left.size() - first;
    Runtime runtime(socket);
    SharedHandle::Lease lease(socket.handle);
    const std::int64_t more = runtime.unlocked(
        [&]() noexcept -> std::int64_t { return ::sendmsg(lease.get(), &rest, flags); });
    // As in the kernel, an error after a part was sent is for the next call to find.
    return more > 0 ? sent + more : sent;
}

PyObject* send_message(Socket& socket, const msghdr& message, Py_ssize_t size, int flags,
                       const Address* destination) {
    recorder::SendProbe probe(socket, destination);
    Deadline deadline = deadline_of(socket);
    std::int64_t sent = 0;
    const Length length = size <= brief_size ? Length::brief : Length::lengthy;
    bool waited = false;
    const auto op = [&](sys::Descriptor fd, int more) noexcept -> std::int64_t {
        waited = (more & MSG_DONTWAIT) == 0;
        return ::sendmsg(fd, &message, flags | more);
    };
    const bool done = transfer(socket, sys::Direction::write, deadline, length,
                               (flags & sys::fast_open) != 0, op, sent, probe.stats());
    if (done && sent < size && !waited && !deadline.limited() && socket.type == SOCK_STREAM &&
        (flags & MSG_DONTWAIT) == 0)
        sent = send_rest(socket, message, flags, sent);
    probe.end(done ? sent : -1);
    return done ? PyLong_FromSsize_t(static_cast<Py_ssize_t>(sent)) : nullptr;
}

}  // namespace

PyObject* socket_recvmsg(PyObject* self, PyObject* arguments) noexcept {
    return guarded<PyObject*>(nullptr, [&]() -> PyObject* {
        Py_ssize_t size = 0, control_size = 0;
        int flags = 0;
        if (PyTuple_GET_SIZE(arguments) == 1 && PyLong_CheckExact(PyTuple_GET_ITEM(arguments, 0))) {
            size = PyLong_AsSsize_t(PyTuple_GET_ITEM(arguments, 0));
            if (size == -1 && PyErr_Occurred() != nullptr) return nullptr;
        } else if (!PyArg_ParseTuple(arguments, "n|ni:recvmsg", &size, &control_size, &flags)) {
            return nullptr;
        }
        if (size < 0) {
            PyErr_SetString(PyExc_ValueError, "negative buffer size in recvmsg()");
            return nullptr;
        }
        Ref bytes(PyBytes_FromStringAndSize(nullptr, size));
        if (!bytes) return nullptr;
        Socket& socket = state_of(self);
        iovec vector{PyBytes_AS_STRING(bytes.get()), static_cast<std::size_t>(size)};
        return receive_message(socket, &vector, 1, flags, control_size,
                               size <= brief_size ? Length::brief : Length::lengthy,
                               [&](std::int64_t count) -> PyObject* {
                                   PyObject* data = bytes.release();
                                   const Py_ssize_t kept = written(socket, flags, count, size);
                                   if (kept != size) _PyBytes_Resize(&data, kept);
                                   return data;
                               });
    });
}

PyObject* socket_recvmsg_into(PyObject* self, PyObject* arguments) noexcept {
    return guarded<PyObject*>(nullptr, [&]() -> PyObject* {
        PyObject* iterable = nullptr;
        Py_ssize_t control_size = 0;
        int flags = 0;
        if (!PyArg_ParseTuple(arguments, "O|ni:recvmsg_into", &iterable, &control_size, &flags))
            return nullptr;
        Ref items = items_of(iterable, "recvmsg_into() argument 1 must be an iterable");
        if (!items) return nullptr;
        const Py_ssize_t count = PyTuple_GET_SIZE(items.get());
        if (count > INT_MAX) {
            PyErr_SetString(PyExc_OSError, "recvmsg_into() argument 1 is too long");
            return nullptr;
        }
        Buffers buffers;
        buffers.reserve(static_cast<std::size_t>(count));
        for (Py_ssize_t i = 0; i < count; ++i) {
            const auto index = static_cast<std::size_t>(i);
            if (!PyArg_Parse(PyTuple_GET_ITEM(items.get(), i),
                             "w*;recvmsg_into() argument 1 must be an iterable "
                             "of single-segment read-write buffers",
                             buffers[index].slot()))
                return nullptr;
            buffers.use(index);
        }
        return receive_message(state_of(self), buffers.vectors(), buffers.size(), flags,
                               control_size,
                               buffers.total() <= brief_size ? Length::brief : Length::lengthy,
                               [](std::int64_t received) {
                                   return PyLong_FromSsize_t(static_cast<Py_ssize_t>(received));
                               });
    });
}

namespace {

// sendmsg's (buffers[, ancdata[, flags[, address]]]).
struct SendmsgArguments {
    PyObject* data = nullptr;
    PyObject* ancillary = nullptr;
    int flags = 0;
    PyObject* destination = Py_None;

    bool take(PyObject* tuple) noexcept {
        const Py_ssize_t count = PyTuple_GET_SIZE(tuple);
        if (count == 0 || count > 4 || (count > 2 && !take_flags(PyTuple_GET_ITEM(tuple, 2))))
            return PyArg_ParseTuple(tuple, "O|OiO:sendmsg", &data, &ancillary, &flags,
                                    &destination) != 0;
        data = PyTuple_GET_ITEM(tuple, 0);
        if (count > 1) ancillary = PyTuple_GET_ITEM(tuple, 1);
        if (count > 3) destination = PyTuple_GET_ITEM(tuple, 3);
        return true;
    }

  private:
    // Whatever is no plain int goes the long way, for its error.
    bool take_flags(PyObject* object) noexcept {
        if (!PyLong_CheckExact(object)) return false;
        int overflow = 0;
        const long value = PyLong_AsLongAndOverflow(object, &overflow);
        if (overflow != 0 || value != static_cast<int>(value)) return false;
        flags = static_cast<int>(value);
        return true;
    }
};

bool is_empty(PyObject* items) noexcept {
    return (PyList_CheckExact(items) && PyList_GET_SIZE(items) == 0) ||
           (PyTuple_CheckExact(items) && PyTuple_GET_SIZE(items) == 0);
}

}  // namespace

PyObject* socket_sendmsg(PyObject* self, PyObject* arguments) noexcept {
    return guarded<PyObject*>(nullptr, [&]() -> PyObject* {
        SendmsgArguments given;
        if (!given.take(arguments)) return nullptr;
        const auto& [data, ancillary, flags, destination] = given;
        Socket& socket = state_of(self);
        msghdr message{};
        Address address;
        if (destination != Py_None) {
            if (!encode(socket, destination, "sendmsg", address)) return nullptr;
            message.msg_name = &address.header;
            message.msg_namelen = address.length;
        }
        if (!audit::announce("socket.sendmsg", self, destination)) return nullptr;
        Buffers buffers;
        if (!gather(data, buffers)) return nullptr;
        message.msg_iov = buffers.vectors();
        message.msg_iovlen = buffers.size();
        std::vector<char> control;
        if (ancillary != nullptr && !is_empty(ancillary) && !write_control(ancillary, control))
            return nullptr;
        if (!control.empty()) {
            message.msg_control = control.data();
            message.msg_controllen = control.size();
        }
        audit::Call call(audit::Event::sendmsg, socket);
        if (message.msg_name != nullptr ? !call.allows(address) : !call.allows_connected())
            return nullptr;
        return send_message(socket, message, buffers.total(), flags, &address);
    });
}

PyObject* socket_sendmsg_afalg(PyObject* self, PyObject* arguments, PyObject* names) noexcept {
    return guarded<PyObject*>(nullptr, [&]() -> PyObject* {
        Socket& socket = state_of(self);
        if (socket.family != af_alg) {
            PyErr_SetString(PyExc_OSError, "algset is only supported for AF_ALG");
            return nullptr;
        }
        static const char* keywords[] = {"msg", "op", "iv", "assoclen", "flags", nullptr};
        PyObject* data = nullptr;
        PyObject* operation_object = nullptr;
        PyObject* assoclen_object = nullptr;
        Buffer iv;
        int flags = 0;
        if (!PyArg_ParseTupleAndKeywords(
                arguments, names, "|O$O!y*O!i:sendmsg_afalg", const_cast<char**>(keywords), &data,
                &PyLong_Type, &operation_object, iv.slot(), &PyLong_Type, &assoclen_object, &flags))
            return nullptr;
        const long operation = operation_object != nullptr ? PyLong_AsLong(operation_object) : -1;
        if (operation < 0 || operation > INT_MAX) {
            PyErr_Clear();
            PyErr_SetString(PyExc_TypeError, "Invalid or missing argument 'op'");
            return nullptr;
        }
        long assoclen = -1;
        if (assoclen_object != nullptr) {
            int overflow = 0;
            assoclen = PyLong_AsLongAndOverflow(assoclen_object, &overflow);
            if (assoclen == -1 && PyErr_Occurred()) return nullptr;
            if (overflow != 0 || assoclen != static_cast<int>(assoclen)) {
                PyErr_SetString(PyExc_OverflowError, "Python int too large to convert to C int");
                return nullptr;
            }
            if (assoclen < 0) {
                PyErr_SetString(PyExc_TypeError, "assoclen must be positive");
                return nullptr;
            }
        }

        std::vector<char> control;
        const auto append = [&](int type, std::size_t size, std::size_t length, auto&& fill) {
            const std::size_t start = control.size();
            control.resize(start + CMSG_SPACE(size), 0);
            cmsghdr header{};
            header.cmsg_len = length;
            header.cmsg_level = sol_alg;
            header.cmsg_type = type;
            std::memcpy(control.data() + start, &header, sizeof header);
            fill(control.data() + start + CMSG_LEN(0));
        };
        const auto number = [](std::uint32_t value) {
            return [value](char* at) { std::memcpy(at, &value, sizeof value); };
        };
        append(alg_set_op, sizeof(std::uint32_t), CMSG_LEN(sizeof(std::uint32_t)),
               number(static_cast<std::uint32_t>(operation)));
        if (iv.slot()->buf != nullptr) {
            const auto size = static_cast<std::size_t>(iv.size());
            // struct af_alg_iv: the length, then the bytes.
            append(alg_set_iv, sizeof(std::uint32_t) + size,
                   CMSG_SPACE(sizeof(std::uint32_t) + size), [&](char* at) {
                       const auto length = static_cast<std::uint32_t>(size);
                       std::memcpy(at, &length, sizeof length);
                       std::memcpy(at + sizeof length, iv.data(), size);
                   });
        }
        if (assoclen >= 0)
            append(alg_set_aead_assoclen, sizeof(std::uint32_t), CMSG_LEN(sizeof(std::uint32_t)),
                   number(static_cast<std::uint32_t>(assoclen)));

        Buffers buffers;
        msghdr message{};
        if (data != nullptr) {
            if (!gather(data, buffers)) return nullptr;
            message.msg_iov = buffers.vectors();
            message.msg_iovlen = buffers.size();
        }
        message.msg_control = control.data();
        message.msg_controllen = control.size();
        return send_message(socket, message, buffers.total(), flags, nullptr);
    });
}

}  // namespace tracesock
