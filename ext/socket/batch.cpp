// Datagrams by the dozen: send_many and recv_many, over sendmmsg(2) and recvmmsg(2), with UDP
// segmentation offload for runs of datagrams of one size to one destination, udp(7).
#include <algorithm>
#include <cstring>
#include <deque>
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

constexpr std::size_t most_messages = 1024;  // of one system call: UIO_MAXIOV
constexpr std::size_t most_segments = 64;    // UDP_MAX_SEGMENTS of the older kernels
constexpr std::size_t largest_datagram = 65507;
constexpr int udp_segment = 103;  // UDP_SEGMENT and UDP_GRO of <linux/udp.h>
constexpr int udp_gro = 104;
// What a coalesced receive may bring, and in how many buffers one is read.
constexpr std::size_t largest_coalesced = 65535;
constexpr std::size_t most_coalesced = 16;
// Room for the segment size among the control messages that the program may have switched on.
constexpr std::size_t control_size = 256;

bool is_udp(const Socket& socket) noexcept {
    return (socket.family == AF_INET || socket.family == AF_INET6) && socket.type == SOCK_DGRAM &&
           (socket.protocol == 0 || socket.protocol == IPPROTO_UDP);
}

bool keeps_boundaries(const Socket& socket, const char* caller) noexcept {
    if (socket.type != SOCK_STREAM) return true;
    PyErr_Format(PyExc_ValueError, "%s() is for datagrams: a stream keeps no boundaries", caller);
    return false;
}

// --- sending ----------------------------------------------------------------------------------

// What is to be sent: the caller's objects, kept alive and unchanged, and what the kernel gets.
class Outbox {
  public:
    struct Item {
        iovec data;
        const Address* destination;  // null: the connected peer
        PyObject* given;             // the caller's object for it; borrowed
    };

    // Reads the messages; no address is looked up twice, and none is looked up again. False with an
    // exception.
    bool take(Socket& socket, PyObject* messages, PyObject* address) {
        objects_ = snapshot(messages, "send_many() argument 1 must be an iterable");
        if (!objects_) return false;
        const Py_ssize_t count = PyTuple_GET_SIZE(objects_.get());
        items_.reserve(static_cast<std::size_t>(count));
        Target common;
        if (address != Py_None && !aim(socket, address, common)) return false;
        for (Py_ssize_t i = 0; i < count; ++i) {
            PyObject* data = PyTuple_GET_ITEM(objects_.get(), i);
            Target target = common;
            if (PyTuple_Check(data)) {
                if (PyTuple_GET_SIZE(data) != 2) {
                    PyErr_Format(PyExc_TypeError,
                                 "send_many(): a message is a bytes-like object or a pair (data, "
                                 "address), not a tuple of %zd",
                                 PyTuple_GET_SIZE(data));
                    return false;
                }
                PyObject* own = PyTuple_GET_ITEM(data, 1);
                data = PyTuple_GET_ITEM(data, 0);
                if (own != Py_None && !aim(socket, own, target)) return false;
            }
            Item item{{nullptr, 0}, target.address, target.object};
            if (!read(data, item.data)) return false;
            items_.push_back(item);
        }
        return true;
    }

    // The documented event of each message that names a destination. False with an exception.
    bool audit(PyObject* self) const noexcept {
        for (const Item& item : items_)
            if (item.destination != nullptr && !audit::announce("socket.sendto", self, item.given))
                return false;
        return true;
    }

    const std::vector<Item>& items() const noexcept { return items_; }

  private:
    static constexpr std::size_t few_targets = 8;

    struct Target {
        PyObject* object = nullptr;  // borrowed: a message or the call holds it
        const Address* address = nullptr;
    };

    bool aim(Socket& socket, PyObject* object, Target& target) {
        // The same object again: one of few that take turns, or the one that all go to.
        for (std::size_t back = 1; back <= std::min(targets_.size(), few_targets); ++back) {
            target = targets_[targets_.size() - back];
            if (target.object == object) return true;
        }
        Address& address = addresses_.emplace_back();
        if (!encode(socket, object, "send_many", address)) return false;
        target = {object, &address};
        targets_.push_back(target);
        return true;
    }

    bool read(PyObject* object, iovec& out) {
        if (PyBytes_CheckExact(object)) {
            out = {PyBytes_AS_STRING(object), static_cast<std::size_t>(PyBytes_GET_SIZE(object))};
            return true;
        }
        if (PyObject_CheckBuffer(object) == 0) {
            PyErr_Format(PyExc_TypeError,
                         "send_many(): a message is a bytes-like object or a pair (data, "
                         "address), not '%.100s'",
                         Py_TYPE(object)->tp_name);
            return false;
        }
        Buffer& buffer = buffers_.emplace_back();
        if (!PyArg_Parse(object, "y*", buffer.slot())) return false;
        out = {buffer.data(), static_cast<std::size_t>(buffer.size())};
        return true;
    }

    Ref objects_;
    std::vector<Item> items_;
    std::deque<Buffer> buffers_;
    std::deque<Address> addresses_;
    std::vector<Target> targets_;
};

// The control message UDP_SEGMENT: the size of each datagram that the kernel makes of one message.
struct SegmentSize {
    alignas(cmsghdr) char bytes[CMSG_SPACE(sizeof(std::uint16_t))];

    void set(std::size_t size) noexcept {
        const auto value = static_cast<std::uint16_t>(size);
        cmsghdr header{};
        header.cmsg_len = CMSG_LEN(sizeof value);
        header.cmsg_level = IPPROTO_UDP;
        header.cmsg_type = udp_segment;
        std::memset(bytes, 0, sizeof bytes);
        std::memcpy(bytes, &header, sizeof header);
        std::memcpy(bytes + CMSG_LEN(0), &value, sizeof value);
    }
};

// What one system call sends: a message of the kernel's for each datagram, or for a run of them.
class Departure {
  public:
    using Items = std::vector<Outbox::Item>;

    explicit Departure(const Items& items) : items_(items) {
        const std::size_t most = std::min(items.size(), most_messages);
        messages_.resize(most);
        runs_.resize(most);
        vectors_.resize(items.size());
        for (std::size_t i = 0; i < items.size(); ++i) vectors_[i] = items[i].data;
    }

    // The messages from `first` to `end`; `segmented`: runs may be left to the kernel to cut.
    void prepare(std::size_t first, std::size_t end, bool segmented) {
        count_ = 0;
        bytes_ = 0;
        segmented_ = false;
        while (first < end && count_ < messages_.size()) {
            const std::size_t run = segmented ? run_from(first, end) : 1;
            msghdr& header = messages_[count_].msg_hdr;
            header = {};
            if (const Address* to = items_[first].destination) {
                header.msg_name = const_cast<sockaddr*>(&to->header);
                header.msg_namelen = to->length;
            }
            header.msg_iov = &vectors_[first];
            header.msg_iovlen = run;
            if (run > 1) {
                if (segments_.empty()) segments_.resize(messages_.size());
                segments_[count_].set(items_[first].data.iov_len);
                header.msg_control = segments_[count_].bytes;
                header.msg_controllen = sizeof segments_[count_].bytes;
                segmented_ = true;
            }
            for (std::size_t i = first; i < first + run; ++i) bytes_ += vectors_[i].iov_len;
            runs_[count_++] = run;
            first += run;
        }
    }

    // The bytes that went, or -1 and errno. `datagrams` says how many that were.
    std::int64_t send(sys::Descriptor fd, int flags, std::size_t& datagrams) noexcept {
        const int sent =
            sys::send_messages(fd, messages_.data(), static_cast<unsigned>(count_), flags);
        if (sent < 0) return -1;
        std::int64_t bytes = 0;
        datagrams = 0;
        for (int i = 0; i < sent; ++i) {
            bytes += messages_[static_cast<std::size_t>(i)].msg_len;
            datagrams += runs_[static_cast<std::size_t>(i)];
        }
        return bytes;
    }

    // So few and small that nobody waits for the lock meanwhile.
    Length length() const noexcept {
        return count_ <= 8 && bytes_ <= static_cast<std::size_t>(brief_size) ? Length::brief
                                                                             : Length::lengthy;
    }
    bool segmented() const noexcept { return segmented_; }

  private:
    // How many from `first` on have one size and one destination; the last may be shorter.
    std::size_t run_from(std::size_t first, std::size_t end) const noexcept {
        const Outbox::Item& begin = items_[first];
        const std::size_t size = begin.data.iov_len;
        if (size == 0) return 1;
        std::size_t total = size;
        std::size_t at = first + 1;
        while (at < end && at - first < most_segments &&
               items_[at].destination == begin.destination) {
            const std::size_t next = items_[at].data.iov_len;
            if (next == 0 || next > size || total + next > largest_datagram) break;
            total += next;
            ++at;
            if (next < size) break;
        }
        return at - first;
    }

    const Items& items_;
    std::vector<sys::Message> messages_;
    std::vector<std::size_t> runs_;
    std::vector<iovec> vectors_;
    std::vector<SegmentSize> segments_;
    std::size_t count_ = 0;
    std::size_t bytes_ = 0;
    bool segmented_ = false;
};

// Whether the kernel may cut what is sent: on Linux, for UDP, with flags that mean the same then.
bool may_segment(const Socket& socket, int flags) noexcept {
    int harmless = MSG_DONTWAIT | MSG_DONTROUTE;
#ifdef MSG_NOSIGNAL
    harmless |= MSG_NOSIGNAL;
#endif
    return TRACESOCK_LINUX && is_udp(socket) && (flags & ~harmless) == 0;
}

// What sendmsg(2) says where segmentation cannot be had: for a segment above the path's MTU, a
// socket without checksums, a device or a kernel without it.
bool refuses_segments(int error) noexcept {
    return error == EINVAL || error == EIO || error == EMSGSIZE || error == EOPNOTSUPP ||
           error == ENOPROTOOPT;
}

audit::Event event_of(const Outbox::Item& item) noexcept {
    return item.destination != nullptr ? audit::Event::sendto : audit::Event::send;
}

bool allows(audit::Call& call, const Outbox::Item& item) noexcept {
    return item.destination != nullptr ? call.allows(*item.destination) : call.allows_connected();
}

// How many of the messages a policy lets go, up to the first that it refuses, with an exception.
std::size_t judge(Socket& socket, const Departure::Items& items) noexcept {
    for (std::size_t i = 0; i < items.size(); ++i) {
        audit::Call call(event_of(items[i]), socket);
        if (!allows(call, items[i])) return i;
    }
    return items.size();
}

// Sends the items; the number sent, or -1 with an exception.
std::int64_t send_items(Socket& socket, const Departure::Items& items, int flags) {
    Departure departure(items);
    const bool recorded = (audit::watched() & audit::recording) != 0;
    bool segmented = !recorded && may_segment(socket, flags);
    std::size_t allowed = items.size();
    if (!recorded && audit::watched() != 0) {
        allowed = judge(socket, items);
        if (allowed == 0) return -1;
        PyErr_Clear();  // for the next call to meet
    }
    recorder::SendProbe probe(socket, items[0].destination);
    recorder::CallStats own;
    recorder::CallStats* stats = probe.stats() != nullptr ? probe.stats() : &own;
    Deadline deadline = deadline_of(socket);
    std::size_t sent = 0;
    bool denied = false;
    bool failed = false;
    while (sent < allowed && !failed) {
        // Where each call is recorded with its outcome, each is made by itself.
        std::unique_ptr<audit::Call> call;
        std::size_t end = allowed;
        if (recorded) {
            call = std::make_unique<audit::Call>(event_of(items[sent]), socket);
            denied = !allows(*call, items[sent]);
            if (denied) break;
            end = sent + 1;
        }
        departure.prepare(sent, end, segmented);
        std::size_t datagrams = 0;
        std::int64_t bytes = 0;
        stats->error = recorder::no_error;
        const auto op = [&](sys::Descriptor fd, int more) noexcept -> std::int64_t {
            return departure.send(fd, flags | more, datagrams);
        };
        if (transfer(socket, sys::Direction::write, deadline, departure.length(),
                     (flags & sys::fast_open) != 0, op, bytes, stats)) {
            sent += datagrams;
            // A call that a signal ends after a part has no error: the handler runs before the next
            // one, which would wait.
            if (sent < allowed && PyErr_CheckSignals() < 0) {
                stats->error = recorder::interrupted;
                failed = true;
            }
            continue;
        }
        if (departure.segmented() && refuses_segments(stats->error)) {
            PyErr_Clear();
            segmented = false;
            continue;
        }
        failed = true;
    }
    // What a signal handler raised, or the audit while it waited for room, is told at once.
    const bool raised =
        (failed || denied) && (sent == 0 || (failed && stats->error == recorder::interrupted) ||
                               (denied && !PyErr_ExceptionMatches(PyExc_PermissionError)));
    if (probe.stats() != nullptr) {
        if (sent == 0) {
            if (failed) probe.end(-1);
        } else {
            stats->error = recorder::no_error;
            std::vector<recorder::SendProbe::Part> parts(sent);
            for (std::size_t i = 0; i < sent; ++i)
                parts[i] = {static_cast<std::int64_t>(items[i].data.iov_len), items[i].destination};
            probe.end(parts);
        }
    }
    if (raised) return -1;
    // For the next call to meet.
    PyErr_Clear();
    return static_cast<std::int64_t>(sent);
}

// --- receiving --------------------------------------------------------------------------------

// Where a batch arrives: a buffer, an address and a header for each message.
class Inbox {
  public:
    // False with an exception.
    bool make(std::size_t count, std::size_t room, bool coalesced) {
        if (room != 0 && count > static_cast<std::size_t>(PY_SSIZE_T_MAX) / room) {
            PyErr_SetString(PyExc_OverflowError, "recv_many(): count times bufsize is too large");
            return false;
        }
        // Not set to zero: what the kernel does not write is not touched.
        data_.reset(new (std::nothrow) char[std::max<std::size_t>(1, count * room)]);
        if (data_ == nullptr) {
            PyErr_NoMemory();
            return false;
        }
        if (coalesced) control_.resize(count * control_size);
        messages_.resize(count);
        vectors_.resize(count);
        addresses_.resize(count);
        room_ = room;
        return true;
    }

    // Before each try: the kernel has changed the headers of the one before.
    void prepare(socklen_t longest_address) noexcept {
        for (std::size_t i = 0; i < messages_.size(); ++i) {
            vectors_[i] = {data_.get() + i * room_, room_};
            msghdr& header = messages_[i].msg_hdr;
            header = {};
            header.msg_name = &addresses_[i].header;
            header.msg_namelen = longest_address;
            header.msg_iov = &vectors_[i];
            header.msg_iovlen = 1;
            if (!control_.empty()) {
                header.msg_control = control_.data() + i * control_size;
                header.msg_controllen = control_size;
            }
        }
    }

    sys::Message* messages() noexcept { return messages_.data(); }
    unsigned count() const noexcept { return static_cast<unsigned>(messages_.size()); }
    const char* data(std::size_t index) const noexcept { return data_.get() + index * room_; }
    std::size_t size(std::size_t index) const noexcept { return messages_[index].msg_len; }
    std::size_t room() const noexcept { return room_; }

    const Address& address(std::size_t index, socklen_t longest) noexcept {
        addresses_[index].length = std::min(messages_[index].msg_hdr.msg_namelen, longest);
        return addresses_[index];
    }

    // The size of the datagrams that a coalesced message is made of; 0: it is one.
    std::size_t segment(std::size_t index) noexcept {
        if (control_.empty()) return 0;
        msghdr& header = messages_[index].msg_hdr;
        for (cmsghdr* each = CMSG_FIRSTHDR(&header); each != nullptr;
             each = CMSG_NXTHDR(&header, each)) {
            if (each->cmsg_level != IPPROTO_UDP || each->cmsg_type != udp_gro ||
                each->cmsg_len < CMSG_LEN(sizeof(int)))
                continue;
            int size = 0;
            std::memcpy(&size, CMSG_DATA(each), sizeof size);
            return size > 0 ? static_cast<std::size_t>(size) : 0;
        }
        return 0;
    }

  private:
    std::unique_ptr<char[]> data_;
    std::vector<char> control_;
    std::vector<sys::Message> messages_;
    std::vector<iovec> vectors_;
    std::vector<Address> addresses_;
    std::size_t room_ = 0;
};

bool coalesces(Socket& socket) noexcept {
    if (!TRACESOCK_LINUX || !is_udp(socket)) return false;
    int on = 0;
    socklen_t size = sizeof on;
    const SharedHandle::Lease lease(socket.handle);
    return ::getsockopt(lease.get(), IPPROTO_UDP, udp_gro, &on, &size) == 0 && on != 0;
}

// The list of (data, address). Messages of one sender in a row share the address's object.
PyObject* deliver(const Socket& socket, Inbox& inbox, std::size_t received, std::size_t size,
                  int flags) {
    std::size_t total = 0;
    for (std::size_t i = 0; i < received; ++i) {
        const std::size_t segment = inbox.segment(i);
        const std::size_t present = std::min(inbox.size(i), inbox.room());
        total += segment > 0 && present > segment ? (present + segment - 1) / segment : 1;
    }
    Ref list(PyList_New(static_cast<Py_ssize_t>(total)));
    if (!list) return nullptr;
    Ref sender;
    const Address* last = nullptr;
    Py_ssize_t at = 0;
    for (std::size_t i = 0; i < received; ++i) {
        const Address& address = inbox.address(i, socket.row->largest);
        if (last == nullptr || last->length != address.length ||
            std::memcmp(last->bytes, address.bytes, address.length) != 0) {
            sender = Ref(decode(socket, address));
            if (!sender) return nullptr;
            last = &address;
        }
        const char* data = inbox.data(i);
        auto left = static_cast<std::size_t>(written(socket, flags,
                                                     static_cast<std::int64_t>(inbox.size(i)),
                                                     static_cast<Py_ssize_t>(inbox.room())));
        const std::size_t segment = inbox.segment(i);
        do {
            const std::size_t whole = segment > 0 ? std::min(segment, left) : left;
            PyObject* bytes =
                PyBytes_FromStringAndSize(data, static_cast<Py_ssize_t>(std::min(whole, size)));
            if (bytes == nullptr) return nullptr;
            PyObject* pair = PyTuple_New(2);
            if (pair == nullptr) {
                Py_DECREF(bytes);
                return nullptr;
            }
            PyTuple_SET_ITEM(pair, 0, bytes);
            PyTuple_SET_ITEM(pair, 1, Py_NewRef(sender.get()));
            PyList_SET_ITEM(list.get(), at++, pair);
            data += whole;
            left -= whole;
        } while (left > 0);
    }
    return list.release();
}

}  // namespace

PyObject* socket_send_many(PyObject* self, PyObject* arguments, PyObject* names) noexcept {
    return guarded<PyObject*>(nullptr, [&]() -> PyObject* {
        static const char* keywords[] = {"messages", "address", "flags", nullptr};
        PyObject* messages = nullptr;
        PyObject* address = Py_None;
        int flags = 0;
        if (!PyArg_ParseTupleAndKeywords(arguments, names, "O|Oi:send_many",
                                         const_cast<char**>(keywords), &messages, &address, &flags))
            return nullptr;
        Socket& socket = state_of(self);
        if (!keeps_boundaries(socket, "send_many")) return nullptr;
        Outbox outbox;
        if (!outbox.take(socket, messages, address) || !outbox.audit(self)) return nullptr;
        if (outbox.items().empty()) return PyLong_FromLong(0);
        const std::int64_t sent = send_items(socket, outbox.items(), flags);
        return sent < 0 ? nullptr : PyLong_FromLongLong(sent);
    });
}

PyObject* socket_recv_many(PyObject* self, PyObject* arguments, PyObject* names) noexcept {
    return guarded<PyObject*>(nullptr, [&]() -> PyObject* {
        static const char* keywords[] = {"count", "bufsize", "flags", nullptr};
        Py_ssize_t count = 0;
        Py_ssize_t size = 0;
        int flags = 0;
        if (!PyArg_ParseTupleAndKeywords(arguments, names, "nn|i:recv_many",
                                         const_cast<char**>(keywords), &count, &size, &flags))
            return nullptr;
        if (count < 0) {
            PyErr_SetString(PyExc_ValueError, "negative count in recv_many");
            return nullptr;
        }
        if (size < 0) {
            PyErr_SetString(PyExc_ValueError, "negative buffersize in recv_many");
            return nullptr;
        }
        Socket& socket = state_of(self);
        if (!keeps_boundaries(socket, "recv_many") || !readable(socket)) return nullptr;
        if (count == 0) return PyList_New(0);
        const bool coalesced = coalesces(socket);
        // A second look would find the same message again.
        const bool peeks = (flags & MSG_PEEK) != 0;
        const std::size_t most = peeks ? 1 : coalesced ? most_coalesced : most_messages;
        Inbox inbox;
        if (!inbox.make(std::min(static_cast<std::size_t>(count), most),
                        coalesced ? std::max(static_cast<std::size_t>(size), largest_coalesced)
                                  : static_cast<std::size_t>(size),
                        coalesced))
            return nullptr;
        const bool may_end = socket.type != SOCK_DGRAM;
        const auto op = [&](sys::Descriptor fd, int more) noexcept -> std::int64_t {
            inbox.prepare(socket.row->largest);
            return may_end
                       ? sys::receive_until_empty(fd, inbox.messages(), inbox.count(), flags | more)
                       : sys::receive_messages(fd, inbox.messages(), inbox.count(), flags | more);
        };
        Deadline deadline = deadline_of(socket);
        std::int64_t received = 0;
        const Length length =
            inbox.count() <= 8 && inbox.room() <= 4096 ? Length::brief : Length::lengthy;
        if (!transfer(socket, sys::Direction::read, deadline, length, (flags & MSG_WAITALL) != 0,
                      op, received))
            return nullptr;
        std::int64_t bytes = 0;
        for (std::int64_t i = 0; i < received; ++i)
            bytes += static_cast<std::int64_t>(inbox.size(static_cast<std::size_t>(i)));
        recorder::received(socket, bytes);
        if (!peeks) audit::moved(socket, false, bytes);
        return deliver(socket, inbox, static_cast<std::size_t>(received),
                       static_cast<std::size_t>(size), flags);
    });
}

}  // namespace tracesock
