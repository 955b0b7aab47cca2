# mypy: ignore-errors
# ruff: noqa: UP031, UP036
# Puts tracesock under every Python process that has this directory in PYTHONPATH: what
# `tracesock run` sets, and what a container can set that can set nothing else.
#
# Only syntax that every Python reads, because the variable reaches all that the program starts.
# An interpreter for which no tracesock was built runs as if this file were not here.
import os
import sys

_directory = os.path.dirname(os.path.abspath(__file__))
_package = os.path.dirname(os.path.dirname(_directory))

# The program's search path is to be its own; its children find the directory in the environment.
sys.path[:] = [_entry for _entry in sys.path if os.path.abspath(_entry) != _directory]

if sys.version_info >= (3, 11):
    import importlib.machinery
    import importlib.util

    if any(
        os.path.exists(os.path.join(_package, "_native" + _suffix))
        for _suffix in importlib.machinery.EXTENSION_SUFFIXES
    ):
        try:
            if "tracesock" not in sys.modules:
                # By its place, not by the search path, where another one may come first.
                _spec = importlib.util.spec_from_file_location(
                    "tracesock",
                    os.path.join(_package, "__init__.py"),
                    submodule_search_locations=[_package],
                )
                _module = importlib.util.module_from_spec(_spec)
                sys.modules["tracesock"] = _module
                _spec.loader.exec_module(_module)
            from tracesock.dropin import startup

            startup.start()
        except Exception as _error:
            sys.stderr.write("tracesock is not in place: %r\n" % (_error,))
            if any(
                os.environ.get(_name)
                for _name in ("TRACESOCK_POLICY", "TRACESOCK_AUDIT_LOG", "TRACESOCK_LEARN")
            ):
                # A program that was to be guarded does not run unguarded.
                sys.stderr.flush()
                os._exit(2)
            for _name in [_name for _name in sys.modules if _name.split(".")[0] == "tracesock"]:
                del sys.modules[_name]

    # The sitecustomize that would have been found without this directory. If there is none, it is
    # to be as if there were no such module, which is what this exception says to site.py.
    _spec = importlib.machinery.PathFinder.find_spec("sitecustomize", sys.path)
    if _spec is None:
        raise ImportError("no other sitecustomize", name="sitecustomize")
    _module = importlib.util.module_from_spec(_spec)
    sys.modules["sitecustomize"] = _module
    _spec.loader.exec_module(_module)
else:
    del sys.modules["sitecustomize"]
    import sitecustomize  # noqa: F401
