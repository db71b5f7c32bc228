"""Run by itself, in place of a stdio server: gives up what the server shall not have, and becomes the server.

`python confine.py LIMITS COMMAND…`, with LIMITS in JSON: `limits` from names of the resource module to numbers, and
`new_privileges`. A program of its own, because between fork and exec of a process with threads little is safe to do.
"""

import ctypes
import json
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38


def main() -> None:
    """See above. Does not return."""
    wanted = json.loads(sys.argv[1])
    for name, most in {"RLIMIT_CORE": 0, **wanted["limits"]}.items():
        number = getattr(resource, name)
        _, hard = resource.getrlimit(number)
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(number, (least, least))
    if sys.platform == "linux":
        prctl = ctypes.CDLL(None).prctl
        # It does not outlive the gateway, however that ends.
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if not wanted["new_privileges"]:
            prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - exactly what the operator said, without a shell


if __name__ == "__main__":
    main()
