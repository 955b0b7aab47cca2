// Comes before every source of nanobind itself (CMakeLists.txt), and changes one thing in it.
#pragma once

#include <Python.h>

// As a module is imported, nanobind compiles and runs a Python program for its leak checker, which
// module.cpp switches off: a tenth of the time that the import takes. Where there is no compiled
// program, nanobind goes on without it.
#undef Py_CompileString
#define Py_CompileString(text, name, start) static_cast<PyObject*>(nullptr)
