// getaddrinfo(3) and getnameinfo(3), and the look-up behind every address with a host name.
#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

#include "audit/audit.hpp"
#include "families/inet.hpp"
#include "resolver/functions.hpp"
#include "resolver/lookup.hpp"
#include "resolver/resolver.hpp"
#include "socket/address.hpp"

namespace tracesock::resolver {
namespace {

struct FreeAddrinfo {
    void operator()(addrinfo* list) const noexcept { freeaddrinfo(list); }
};
using AddrinfoList = std::unique_ptr<addrinfo, FreeAddrinfo>;

bool fail_gai(int error, int system_error) {
    if (error == EAI_SYSTEM) {
        set_os_error(system_error);
        return false;
    }
    PyObject* type = gaierror();
    if (type == nullptr) return false;
    const Ref value(Py_BuildValue("(is)", error, gai_strerror(error)));
    if (value) PyErr_SetObject(type, value.get());
    return false;
}

bool fail_os(const char* text) {
    PyErr_SetString(PyExc_OSError, text);
    return false;
}

// getaddrinfo(3) without the interpreter's lock: null with an exception set.
AddrinfoList find(const char* host, const char* service, const addrinfo& hints) {
    addrinfo* list = nullptr;
    int error;
    int system_error;
    {
        const Unlocked unlocked;
        error = getaddrinfo(host, service, &hints, &list);
        system_error = errno;
    }
    if (error == 0) return AddrinfoList(list);
    fail_gai(error, system_error);
    return nullptr;
}

bool copy_address(const addrinfo& from, Address& to) {
    if (from.ai_addrlen > sizeof to.storage) return fail_os("address too long");
    to.storage = {};
    std::memcpy(to.bytes, from.ai_addr, from.ai_addrlen);
    to.length = static_cast<socklen_t>(from.ai_addrlen);
    return true;
}

bool is_internet(int family) {
    return family == AF_INET || family == AF_INET6;
}

bool resolve_wildcard(int family, Address& out) {
    addrinfo hints{};
    hints.ai_family = family;
    hints.ai_socktype = SOCK_DGRAM;  // any one type, or each address would come once for each
    hints.ai_flags = AI_PASSIVE;
    const AddrinfoList list = find(nullptr, "0", hints);
    if (list == nullptr) return false;
    if (!is_internet(list->ai_family)) return fail_os("unsupported address family");
    if (list->ai_next != nullptr) return fail_os("wildcard resolved to multiple address");
    return copy_address(*list, out);
}

// The host of an address as Python has it; empty where there is none.
std::string_view first_text(PyObject* address) noexcept {
    if (!PyTuple_Check(address) || PyTuple_GET_SIZE(address) == 0) return {};
    PyObject* const host = PyTuple_GET_ITEM(address, 0);
    Py_ssize_t size = 0;
    const char* const text = PyUnicode_Check(host) ? PyUnicode_AsUTF8AndSize(host, &size) : nullptr;
    if (text != nullptr) return {text, static_cast<std::size_t>(size)};
    PyErr_Clear();
    return {};
}

class AddrinfoLookup final : public Lookup {
  public:
    AddrinfoLookup(std::optional<std::string> host, std::optional<std::string> service,
                   const addrinfo& hints)
        : Lookup("getaddrinfo", std::move(host)), service_(std::move(service)), hints_(hints) {}

    PyObject* run(recorder::LookupProbe& probe) const override {
        const AddrinfoList list =
            find(host ? host->c_str() : nullptr, service_ ? service_->c_str() : nullptr, hints_);
        if (list == nullptr) return nullptr;
        Ref all(PyList_New(0));
        if (!all) return nullptr;
        for (const addrinfo* entry = list.get(); entry != nullptr; entry = entry->ai_next) {
            const Ref single(one(*entry, probe));
            if (!single || PyList_Append(all.get(), single.get()) < 0) return nullptr;
        }
        return all.release();
    }

    recorder::Asks asks() const noexcept override { return recorder::Asks::for_addresses; }
    bool numeric() const noexcept override { return (hints_.ai_flags & AI_NUMERICHOST) != 0; }

  private:
    PyObject* one(const addrinfo& entry, recorder::LookupProbe& probe) const {
        Address address;
        if (!copy_address(entry, address)) return nullptr;
        if (host) audit::learned(host->c_str(), address);
        PythonContext context("getaddrinfo", hints_.ai_protocol);
        const Ref object(decode_address(context, address));
        if (!object) return nullptr;
        if (probe) [[unlikely]]
            probe.found(address, first_text(object.get()));
        return Py_BuildValue("iiisO", entry.ai_family, entry.ai_socktype, entry.ai_protocol,
                             entry.ai_canonname != nullptr ? entry.ai_canonname : "", object.get());
    }

    const std::optional<std::string> service_;
    const addrinfo hints_;
};

// A C string for the resolver: false with ValueError where a NUL would cut it short, which would
// look up another host than the one that the caller and the audit event name.
bool copy_text(std::string_view text, const char* kind, std::optional<std::string>& out) {
    if (text.find('\0') != text.npos) {
        PyErr_Format(PyExc_ValueError, "embedded null %s", kind);
        return false;
    }
    out = text;
    return true;
}

bool copy_bytes(PyObject* bytes, const char* kind, std::optional<std::string>& out) {
    return copy_text({PyBytes_AS_STRING(bytes), static_cast<std::size_t>(PyBytes_GET_SIZE(bytes))},
                     kind, out);
}

// Whether the IDNA encoder, which is slow to call, leaves an ASCII name as it is: labels have 1 to
// 63 characters, and the last may have none.
bool idna_keeps(std::string_view name) noexcept {
    for (;;) {
        const std::size_t dot = name.find('.');
        const bool is_last = dot == name.npos;
        const std::size_t length = is_last ? name.size() : dot;
        if (length > 63 || (length == 0 && !is_last)) return false;
        if (is_last) return true;
        name.remove_prefix(dot + 1);
    }
}

bool read_host(PyObject* object, std::optional<std::string>& out) {
    if (object == Py_None) return true;
    if (PyUnicode_Check(object)) {
        if (PyUnicode_CheckExact(object) && PyUnicode_IS_ASCII(object)) {
            const std::string_view name(reinterpret_cast<const char*>(PyUnicode_1BYTE_DATA(object)),
                                        static_cast<std::size_t>(PyUnicode_GET_LENGTH(object)));
            if (idna_keeps(name)) return copy_text(name, "character", out);
        }
        if (!host_fits(object)) return false;
        const Ref encoded(PyUnicode_AsEncodedString(object, "idna", nullptr));
        return encoded && copy_bytes(encoded.get(), "character", out);
    }
    if (PyBytes_Check(object)) return copy_bytes(object, "byte", out);
    PyErr_SetString(PyExc_TypeError, "getaddrinfo() argument 1 must be string or None");
    return false;
}

bool read_service(PyObject* object, std::optional<std::string>& out) {
    Ref text;
    if (PyIndex_Check(object)) {
        const Ref number(PyNumber_Index(object));
        if (!number) return false;
#if PY_VERSION_HEX < 0x030C0000
        if (PyLong_AsLong(number.get()) == -1 && PyErr_Occurred() != nullptr) return false;
#endif
        text = Ref(PyObject_Str(number.get()));
        if (!text) return false;
    } else if (PyUnicode_Check(object)) {
        text = Ref::borrow(object);
    } else if (PyBytes_Check(object)) {
        return copy_bytes(object, "byte", out);
    } else if (object == Py_None) {
        return true;
    } else {
        return fail_os("Int or String expected");
    }
    Py_ssize_t size = 0;
    const char* data = PyUnicode_AsUTF8AndSize(text.get(), &size);
    return data != nullptr && copy_text({data, static_cast<std::size_t>(size)}, "character", out);
}

PyObject* prepare_getaddrinfo(PyObject* arguments, PyObject* keywords) {
    static const char* const names[] = {"host",  "port",  "family", "type",
                                        "proto", "flags", nullptr};
    PyObject* host_object = nullptr;
    PyObject* port_object = nullptr;
    addrinfo hints{};
    hints.ai_family = AF_UNSPEC;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OO|iiii:getaddrinfo",
                                     const_cast<char**>(names), &host_object, &port_object,
                                     &hints.ai_family, &hints.ai_socktype, &hints.ai_protocol,
                                     &hints.ai_flags))
        return nullptr;
    std::optional<std::string> host;
    std::optional<std::string> service;
    if (!read_host(host_object, host) || !read_service(port_object, service)) return nullptr;
    return make_lookup(std::make_unique<AddrinfoLookup>(std::move(host), std::move(service), hints),
                       Ref(Py_BuildValue("(OOiii)", host_object, port_object, hints.ai_family,
                                         hints.ai_socktype, hints.ai_protocol)));
}

class NameinfoLookup final : public Lookup {
  public:
    NameinfoLookup(const char* host, int port, std::uint32_t flowinfo, std::uint32_t scope_id,
                   Py_ssize_t items, int flags)
        : Lookup("getnameinfo", host),
          service_(std::to_string(port)),
          flowinfo_(flowinfo),
          scope_id_(scope_id),
          items_(items),
          flags_(flags) {}

    PyObject* run(recorder::LookupProbe& probe) const override {
        addrinfo hints{};
        hints.ai_family = AF_UNSPEC;
        hints.ai_socktype = SOCK_DGRAM;  // one type, or the address would come once for each
        hints.ai_flags = AI_NUMERICHOST;
        const AddrinfoList list = find(host->c_str(), service_.c_str(), hints);
        if (list == nullptr) return nullptr;
        if (list->ai_next != nullptr) {
            fail_os("sockaddr resolved to multiple addresses");
            return nullptr;
        }
        if (list->ai_family == AF_INET && items_ != 2) {
            fail_os("IPv4 sockaddr must be 2 tuple");
            return nullptr;
        }
        if (list->ai_family == AF_INET6) {
            auto& inet6 = reinterpret_cast<sockaddr_in6&>(*list->ai_addr);
            inet6.sin6_flowinfo = htonl(flowinfo_);
            inet6.sin6_scope_id = scope_id_;
        }
        char name[NI_MAXHOST] = {};
        char service[NI_MAXSERV] = {};
        int error;
        int system_error;
        {
            const Unlocked unlocked;
            error = getnameinfo(list->ai_addr, static_cast<socklen_t>(list->ai_addrlen), name,
                                sizeof name, service, sizeof service, flags_);
            system_error = errno;
        }
        if (error != 0) {
            fail_gai(error, system_error);
            return nullptr;
        }
        probe.found(name);
        return Py_BuildValue("ss", name, service);
    }

    recorder::Asks asks() const noexcept override { return recorder::Asks::for_names; }
    bool numeric() const noexcept override { return (flags_ & NI_NUMERICHOST) != 0; }

  private:
    const std::string service_;
    const std::uint32_t flowinfo_;
    const std::uint32_t scope_id_;
    const Py_ssize_t items_;
    const int flags_;
};

PyObject* prepare_getnameinfo(PyObject* arguments) {
    PyObject* given = nullptr;
    int flags = 0;
    if (!PyArg_ParseTuple(arguments, "Oi:getnameinfo", &given, &flags)) return nullptr;
    Ref form = caller_form(given);
    if (!form) return nullptr;
    PyObject* sockaddr = form.get();
    if (!PyTuple_Check(sockaddr)) {
        PyErr_SetString(PyExc_TypeError, "getnameinfo() argument 1 must be a tuple");
        return nullptr;
    }
    const char* host = nullptr;
    int port = 0;
    unsigned flowinfo = 0;
    unsigned scope_id = 0;
    if (!PyArg_ParseTuple(sockaddr, "si|II;getnameinfo(): illegal sockaddr argument", &host, &port,
                          &flowinfo, &scope_id))
        return nullptr;
    if (flowinfo > 0xfffff) {
        PyErr_SetString(PyExc_OverflowError, "getnameinfo(): flowinfo must be 0-1048575.");
        return nullptr;
    }
    return make_lookup(std::make_unique<NameinfoLookup>(host, port, flowinfo, scope_id,
                                                        PyTuple_GET_SIZE(sockaddr), flags),
                       Ref(PyTuple_Pack(1, sockaddr)));
}

PyObject* getaddrinfo_function(PyObject*, PyObject* arguments, PyObject* keywords) noexcept {
    return guarded<PyObject*>(nullptr, [=] { return prepare_getaddrinfo(arguments, keywords); });
}

}  // namespace

bool is_literal(std::string_view host, Address& out) noexcept {
    out.length = 0;
    if (host.empty() || host == "<broadcast>") return true;
    char text[INET6_ADDRSTRLEN];
    const bool is_inet6 = host.find(':') != host.npos;
    if (is_inet6) host = host.substr(0, host.find('%'));
    if (host.size() >= sizeof text || host.find('\0') != host.npos) return false;
    text[host.copy(text, host.size())] = '\0';
    in_addr inet;
    in6_addr inet6;
    if (is_inet6 && inet_pton(AF_INET6, text, &inet6) > 0)
        out.emplace<sockaddr_in6>(AF_INET6).sin6_addr = inet6;
    else if (!is_inet6 && parse_inet(text, inet))
        out.emplace<sockaddr_in>(AF_INET).sin_addr = inet;
    return out.length != 0;
}

bool resolve(const char* host, int family, Address& out) {
    if (*host == '\0') return resolve_wildcard(family, out);
    const std::string_view name = host;
    if (name == "255.255.255.255" || name == "<broadcast>") {
        if (family != AF_INET && family != AF_UNSPEC) return fail_os("address family mismatched");
        out.emplace<sockaddr_in>(AF_INET).sin_addr.s_addr = htonl(INADDR_BROADCAST);
        return true;
    }
    if (family == AF_INET || family == AF_UNSPEC) {
        in_addr address;
        if (parse_inet(host, address)) {
            out.emplace<sockaddr_in>(AF_INET).sin_addr = address;
            return true;
        }
    }
    // A zone ("%eth0") is for getaddrinfo, which knows the interfaces.
    if ((family == AF_INET6 || family == AF_UNSPEC) && name.find('%') == name.npos) {
        in6_addr address;
        if (inet_pton(AF_INET6, host, &address) > 0) {
            out.emplace<sockaddr_in6>(AF_INET6).sin6_addr = address;
            return true;
        }
    }
    addrinfo hints{};
    hints.ai_family = family;
    const AddrinfoList list = find(host, nullptr, hints);
    if (list == nullptr || !copy_address(*list, out)) return false;
    audit::learned(host, out);
    return is_internet(out.header.sa_family) || fail_os("unknown address family");
}

bool add_addrinfo(PyObject* module) {
    static PyMethodDef methods[] = {
        method("getaddrinfo", getaddrinfo_function,
               "getaddrinfo($module, /, host, port, family=0, type=0, proto=0, flags=0)\n--\n\n"
               "Prepare getaddrinfo(3): a Lookup whose run() gives a list of (family, type, proto, "
               "canonname, sockaddr), family and type as int."),
        method("getnameinfo", tuple_of_arguments<prepare_getnameinfo>,
               "getnameinfo($module, sockaddr, flags, /)\n--\n\n"
               "Prepare getnameinfo(3): a Lookup whose run() gives (host, port), both str."),
        {nullptr, nullptr, 0, nullptr},
    };
    return PyModule_AddFunctions(module, methods) == 0;
}

}  // namespace tracesock::resolver
