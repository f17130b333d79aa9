# The archive's __main__: refuses the wrong Python in a sentence, unpacks safely, hands over to shiv's bootstrap.
# Its first half must be understood by any Python there is.
import os
import sys

NEEDS = (3, 11)  # replaced by finish.py with what the archive was built for, as is the next line
PLATFORM = "linux_x86_64"

if sys.version_info[:2] != NEEDS or getattr(sys.implementation, "name", "") != "cpython":
    sys.exit(
        "edgegc: this file is for CPython %d.%d, and %s is %s %d.%d; start it with python%d.%d, "
        "or take the file that was built for this one"
        % (
            NEEDS
            + (sys.executable or "this", getattr(sys.implementation, "name", "Python"))
            + tuple(sys.version_info[:2])
            + NEEDS
        )
    )
if "%s_%s" % (sys.platform, os.uname().machine) != PLATFORM:
    sys.exit(
        "edgegc: this file is for %s, and this machine is %s_%s; take the file that was built for it"
        % (PLATFORM, sys.platform, os.uname().machine)
    )

import _unpack  # noqa: E402

_unpack.main()

import _bootstrap  # noqa: E402

_bootstrap.bootstrap()
