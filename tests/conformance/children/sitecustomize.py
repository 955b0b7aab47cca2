"""Puts tracesock in place of socket in every Python process that a test starts.

run.py --swap-children names this directory in PYTHONPATH; a process started with -I, -E or -S
keeps the stock module.
"""

from __future__ import annotations

import os
import sys

root = os.environ.get("TRACESOCK_CONFORMANCE_ROOT")
if root and "socket" not in sys.modules:
    sys.path.insert(0, root)
    import tracesock

    sys.modules["socket"] = tracesock
    sys.path.remove(root)
    sys.path.append(root)
