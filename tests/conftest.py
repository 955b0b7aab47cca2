"""What holds for every test and the processes that it starts."""

from __future__ import annotations

import contextlib
import os
import signal

with contextlib.suppress(ImportError):  # tests of other Pythons do without it
    from hypothesis import HealthCheck, settings

    # The same generated input in every run, and no time that a loaded machine could miss.
    settings.register_profile(
        "tracesock",
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("tracesock")

# Some tests ask this machine's own name server for names that nobody has. On a loaded machine an
# answer over UDP is lost now and then, and resolv.conf(5) would have each look-up wait 5 s for it.
os.environ.setdefault("RES_OPTIONS", "timeout:1 attempts:3")

# A shell starts what it puts into the background with SIGINT ignored, which every process that a
# test starts would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
