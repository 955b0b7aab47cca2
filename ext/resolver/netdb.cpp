// The older look-ups: hosts, services and protocols of netdb.h, and the machine's own name.
#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "audit/audit.hpp"
#include "resolver/functions.hpp"
#include "resolver/lookup.hpp"
#include "resolver/resolver.hpp"
#include "resolver/system.hpp"

namespace tracesock::resolver {
namespace {

PyObject* inet_text(int family, const void* address) {
    char text[INET6_ADDRSTRLEN];
    if (inet_ntop(family, address, text, sizeof text) == nullptr) return set_os_error();
    return PyUnicode_FromString(text);
}

PyObject* fail_herror(int error) {
    PyObject* type = herror();
    if (type == nullptr) return nullptr;
    const Ref value(Py_BuildValue("(is)", error, sys::host_error_text(error)));
    if (value) PyErr_SetObject(type, value.get());
    return nullptr;
}

// (name, aliases, addresses)
PyObject* build_entry(const sys::HostEntry& entry, int family) {
    if (entry.family != family) return set_os_error(EAFNOSUPPORT);
    const Ref aliases(PyList_New(0));
    const Ref addresses(PyList_New(0));
    if (!aliases || !addresses) return nullptr;
    for (const std::string& alias : entry.aliases) {
        const Ref text(PyUnicode_FromString(alias.c_str()));
        if (!text || PyList_Append(aliases.get(), text.get()) < 0) return nullptr;
    }
    for (const auto& address : entry.addresses) {
        const Ref text(inet_text(family, address.data()));
        if (!text || PyList_Append(addresses.get(), text.get()) < 0) return nullptr;
    }
    return Py_BuildValue("sOO", entry.name.c_str(), aliases.get(), addresses.get());
}

class HostLookup : public Lookup {
  protected:
    using Lookup::Lookup;

    // `tell(entry)` says what was found.
    template <class Find, class Tell>
    static PyObject* entry(int family, Find&& find, Tell&& tell) {
        sys::HostEntry entry;
        int error;
        {
            const Unlocked unlocked;
            error = find(entry);
        }
        if (error != 0) return fail_herror(error);
        if (entry.family == family) tell(entry);
        return build_entry(entry, family);
    }
};

class NameLookup final : public HostLookup {
  public:
    explicit NameLookup(const char* host) : HostLookup("gethostbyname", host) {}

    PyObject* run(recorder::LookupProbe& probe) const override {
        Address address;
        if (!resolve(host->c_str(), AF_INET, address)) return nullptr;
        probe.found(address);
        return inet_text(AF_INET, &address.inet.sin_addr);
    }

    recorder::Asks asks() const noexcept override { return recorder::Asks::for_addresses; }
};

class ExtendedNameLookup final : public HostLookup {
  public:
    explicit ExtendedNameLookup(const char* host) : HostLookup("gethostbyname_ex", host) {}

    recorder::Asks asks() const noexcept override { return recorder::Asks::for_addresses; }

    PyObject* run(recorder::LookupProbe& probe) const override {
        // First as every address is resolved: a name that is not found is a gaierror, not a herror.
        Address address;
        if (!resolve(host->c_str(), AF_INET, address)) return nullptr;
        const auto find = [&](sys::HostEntry& found) {
            return sys::host_by_name(host->c_str(), found);
        };
        return entry(AF_INET, find, [&](const sys::HostEntry& found) {
            for (const auto& each : found.addresses) {
                Address listed;
                std::memcpy(&listed.emplace<sockaddr_in>(AF_INET).sin_addr, each.data(),
                            std::min(each.size(), sizeof(in_addr)));
                audit::learned(host->c_str(), listed);
                probe.found(listed);
            }
        });
    }
};

class ReverseLookup final : public HostLookup {
  public:
    explicit ReverseLookup(const char* host) : HostLookup("gethostbyaddr", host) {}

    recorder::Asks asks() const noexcept override { return recorder::Asks::for_names; }

    PyObject* run(recorder::LookupProbe& probe) const override {
        Address address;
        if (!resolve(host->c_str(), AF_UNSPEC, address)) return nullptr;
        const int family = address.header.sa_family;
        const bool inet = family == AF_INET;
        const void* bytes = inet ? static_cast<const void*>(&address.inet.sin_addr)
                                 : static_cast<const void*>(&address.inet6.sin6_addr);
        const socklen_t size = inet ? sizeof(in_addr) : sizeof(in6_addr);
        const auto find = [=](sys::HostEntry& found) {
            return sys::host_by_address(bytes, size, family, found);
        };
        return entry(family, find, [&](const sys::HostEntry& found) { probe.found(found.name); });
    }
};

struct FreeMemory {
    void operator()(char* text) const noexcept { PyMem_Free(text); }
};

// gethostbyname, gethostbyname_ex and gethostbyaddr: one argument, a host in IDNA form.
template <class Kind>
PyObject* prepare_host(PyObject* arguments, const char* format) {
    if (PyTuple_GET_SIZE(arguments) == 1 && !host_fits(PyTuple_GET_ITEM(arguments, 0)))
        return nullptr;
    char* encoded = nullptr;
    if (!PyArg_ParseTuple(arguments, format, "idna", &encoded)) return nullptr;
    const std::unique_ptr<char, FreeMemory> host(encoded);
    return make_lookup(std::make_unique<Kind>(host.get()), Ref::borrow(arguments));
}

PyObject* prepare_gethostbyname(PyObject* arguments) {
    return prepare_host<NameLookup>(arguments, "et:gethostbyname");
}

PyObject* prepare_gethostbyname_ex(PyObject* arguments) {
    return prepare_host<ExtendedNameLookup>(arguments, "et:gethostbyname_ex");
}

PyObject* prepare_gethostbyaddr(PyObject* arguments) {
    return prepare_host<ReverseLookup>(arguments, "et:gethostbyaddr");
}

std::optional<std::string> optional_text(const char* text) {
    return text != nullptr ? std::optional<std::string>(text) : std::nullopt;
}

const char* pointer(const std::optional<std::string>& text) {
    return text ? text->c_str() : nullptr;
}

class ServicePortLookup final : public Lookup {
  public:
    ServicePortLookup(const char* name, const char* protocol)
        : Lookup("getservbyname"), name_(name), protocol_(optional_text(protocol)) {}

    PyObject* run(recorder::LookupProbe&) const override {
        std::optional<int> port;
        {
            const Unlocked unlocked;
            port = sys::service_port(name_.c_str(), pointer(protocol_));
        }
        if (port) return PyLong_FromLong(*port);
        PyErr_SetString(PyExc_OSError, "service/proto not found");
        return nullptr;
    }

  private:
    const std::string name_;
    const std::optional<std::string> protocol_;
};

class ServiceNameLookup final : public Lookup {
  public:
    ServiceNameLookup(int port, const char* protocol)
        : Lookup("getservbyport"), port_(port), protocol_(optional_text(protocol)) {}

    PyObject* run(recorder::LookupProbe&) const override {
        std::optional<std::string> name;
        {
            const Unlocked unlocked;
            name = sys::service_name(port_, pointer(protocol_));
        }
        if (name) return PyUnicode_FromString(name->c_str());
        PyErr_SetString(PyExc_OSError, "port/proto not found");
        return nullptr;
    }

  private:
    const int port_;
    const std::optional<std::string> protocol_;
};

PyObject* prepare_getservbyname(PyObject* arguments) {
    const char* name = nullptr;
    const char* protocol = nullptr;
    if (!PyArg_ParseTuple(arguments, "s|s:getservbyname", &name, &protocol)) return nullptr;
    return make_lookup(std::make_unique<ServicePortLookup>(name, protocol),
                       Ref(Py_BuildValue("(sz)", name, protocol)));
}

PyObject* prepare_getservbyport(PyObject* arguments) {
    int port = 0;
    const char* protocol = nullptr;
    if (!PyArg_ParseTuple(arguments, "i|s:getservbyport", &port, &protocol)) return nullptr;
    if (port < 0 || port > 0xffff) {
        PyErr_SetString(PyExc_OverflowError, "getservbyport: port must be 0-65535.");
        return nullptr;
    }
    return make_lookup(std::make_unique<ServiceNameLookup>(port, protocol),
                       Ref(Py_BuildValue("(iz)", port, protocol)));
}

PyObject* getprotobyname_function(PyObject* arguments) {
    const char* name = nullptr;
    if (!PyArg_ParseTuple(arguments, "s:getprotobyname", &name)) return nullptr;
    const std::string copy = name;
    std::optional<int> number;
    {
        const Unlocked unlocked;
        number = sys::protocol_number(copy.c_str());
    }
    if (number) return PyLong_FromLong(*number);
    PyErr_SetString(PyExc_OSError, "protocol not found");
    return nullptr;
}

class GetHostName final : public Lookup {
  public:
    GetHostName() : Lookup("gethostname") {}

    PyObject* run(recorder::LookupProbe&) const override {
        std::string name;
        bool known;
        {
            const Unlocked unlocked;
            known = sys::host_name(name);
        }
        return known ? PyUnicode_DecodeFSDefault(name.c_str()) : set_os_error();
    }
};

class SetHostName final : public Lookup {
  public:
    explicit SetHostName(std::string name) : Lookup("sethostname"), name_(std::move(name)) {}

    PyObject* run(recorder::LookupProbe&) const override {
        if (!sys::set_host_name(name_)) return set_os_error();
        Py_RETURN_NONE;
    }

  private:
    const std::string name_;
};

PyObject* prepare_gethostname() {
    return make_lookup(std::make_unique<GetHostName>(), Ref(PyTuple_New(0)));
}

PyObject* prepare_sethostname(PyObject* arguments) {
    PyObject* given = nullptr;
    Ref name;
    if (PyArg_ParseTuple(arguments, "S:sethostname", &given)) {
        name = Ref::borrow(given);
    } else {
        PyErr_Clear();
        if (!PyArg_ParseTuple(arguments, "O&:sethostname", PyUnicode_FSConverter, &given))
            return nullptr;
        name = Ref(given);
    }
    std::string copy(PyBytes_AS_STRING(name.get()),
                     static_cast<std::size_t>(PyBytes_GET_SIZE(name.get())));
    return make_lookup(std::make_unique<SetHostName>(std::move(copy)),
                       Ref(PyTuple_Pack(1, name.get())));
}

}  // namespace

bool add_netdb(PyObject* module) {
    static PyMethodDef methods[] = {
        method("gethostbyname", tuple_of_arguments<prepare_gethostbyname>,
               "gethostbyname($module, hostname, /)\n--\n\n"
               "Prepare a Lookup whose run() gives the host's first IPv4 address as str."),
        method("gethostbyname_ex", tuple_of_arguments<prepare_gethostbyname_ex>,
               "gethostbyname_ex($module, hostname, /)\n--\n\n"
               "Prepare gethostbyname(3): a Lookup whose run() gives (name, aliases, addresses)."),
        method("gethostbyaddr", tuple_of_arguments<prepare_gethostbyaddr>,
               "gethostbyaddr($module, ip_address, /)\n--\n\n"
               "Prepare gethostbyaddr(3): a Lookup whose run() gives (name, aliases, addresses)."),
        method("getservbyname", tuple_of_arguments<prepare_getservbyname>,
               "getservbyname($module, servicename, protocolname=<unrepresentable>, /)\n--\n\n"
               "Prepare getservbyname(3): a Lookup whose run() gives the port as int."),
        method("getservbyport", tuple_of_arguments<prepare_getservbyport>,
               "getservbyport($module, port, protocolname=<unrepresentable>, /)\n--\n\n"
               "Prepare getservbyport(3): a Lookup whose run() gives the service's name as str."),
        method("gethostname", no_argument<"gethostname", prepare_gethostname>,
               "gethostname($module, /)\n--\n\n"
               "Prepare gethostname(2): a Lookup whose run() gives the name as str."),
        method("sethostname", tuple_of_arguments<prepare_sethostname>,
               "sethostname($module, name, /)\n--\n\n"
               "Prepare sethostname(2): a Lookup whose run() gives None."),
        method("getprotobyname", tuple_of_arguments<getprotobyname_function>,
               "getprotobyname($module, protocolname, /)\n--\n\n"
               "Return the number (int) of a protocol by its name (str), as in the proto argument "
               "of socket().\n\nRaises OSError where there is none. getprotobyname(3)."),
        {nullptr, nullptr, 0, nullptr},
    };
    return PyModule_AddFunctions(module, methods) == 0;
}

}  // namespace tracesock::resolver
