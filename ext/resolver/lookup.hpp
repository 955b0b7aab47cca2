// A prepared look-up: its arguments are read, its work is not done. Between the two the Python
// layer raises the audit event, and a hook may refuse.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "recorder/lookups.hpp"
#include "socket/python.hpp"

namespace tracesock::resolver {

// Owns a copy of all that run() needs: nothing of the caller's stays exported or borrowed.
class Lookup {
  public:
    virtual ~Lookup() = default;
    Lookup(const Lookup&) = delete;
    Lookup& operator=(const Lookup&) = delete;

    // Does the work: a new reference, or null with an exception set. Gives up the interpreter's
    // lock where it may block, and changes nothing in the object, so that several threads may run
    // it, each as often as it likes. Says what it finds to the probe, if that wants it.
    virtual PyObject* run(recorder::LookupProbe& probe) const = 0;

    virtual recorder::Asks asks() const noexcept { return recorder::Asks::nobody; }
    // Whether its flags say that the host is a number or is to stay one.
    virtual bool numeric() const noexcept { return false; }

    const char* const kind;                 // the name of the module's function
    const std::optional<std::string> host;  // the host looked up, as the resolver gets it

  protected:
    explicit Lookup(const char* kind, std::optional<std::string> host = std::nullopt)
        : kind(kind), host(std::move(host)) {}
};

// A new _native.Lookup; `arguments` is the tuple of the audit event's arguments, null with an
// exception set where making it failed.
PyObject* make_lookup(std::unique_ptr<const Lookup> lookup, Ref arguments);

// Adds the type to the module. False with an exception set.
bool add_lookup_type(PyObject* module);

}  // namespace tracesock::resolver
