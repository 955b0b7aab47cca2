"""What holds for every test and the processes that it starts."""

from __future__ import annotations

import os

# Some tests ask this machine's own name server for names that nobody has. On a loaded machine an
# answer over UDP is lost now and then, and resolv.conf(5) would have each look-up wait 5 s for it.
os.environ.setdefault("RES_OPTIONS", "timeout:1 attempts:3")
