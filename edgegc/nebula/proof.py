"""What nebula's log says of a reload: whether it is proven, refused, or still under way. Pure: lines in, verdict out.

A reload is not transactional: sections are taken one by one, each says so or complains, and a refused one is not
tried again by the next SIGHUP.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgegc.nebula import logfile
from edgegc.nebula.executable import ApplyFailed
from edgegc.nebula.reload import CAUGHT_HUP

if TYPE_CHECKING:
    from collections.abc import Sequence

# 1.6: "Client cert refreshed from disk", 1.10 on: "Client certificate(s) refreshed from disk".
_CERTIFICATE_LINE = "refreshed from disk"

# Words of the errors about a reload, among the errors about peers and sockets that any line may be.
_ABOUT_RELOAD = re.compile(r"reload|refresh", re.IGNORECASE)


def missing(lines: Sequence[str], expected: Sequence[str], fingerprint: str | None) -> str | None:
    """Return what the log has still to say before a reload is proven, or None when it has said it all.

    ``lines`` begin where the log ended before SIGHUP; ``expected`` are parts of lines; ``fingerprint`` that of the
    certificate that must have been read (None: any). Raises :class:`ApplyFailed` if nebula refused a section or
    read another certificate.
    """
    try:
        start = next(number for number, line in enumerate(lines) if CAUGHT_HUP in line)
    except StopIteration:
        return CAUGHT_HUP
    said = lines[start:]
    for line in said:
        if logfile.is_error(line) and _ABOUT_RELOAD.search(line):
            raise ApplyFailed(f"nebula refused a part of the new configuration: {logfile.sentence(line)}")
    if fingerprint is not None:
        certificate = [line for line in said if _CERTIFICATE_LINE in line]
        if not certificate:
            return _CERTIFICATE_LINE
        if not any(fingerprint in line for line in certificate):
            raise ApplyFailed(
                f"nebula read another certificate than the expected one (fingerprint {fingerprint[:16]}…)"
            )
    return next((part for part in expected if not any(part in line for line in said)), None)
