"""Which unprivileged account the box's lighthouses run as. Makes none: that is the packaging's job."""

from __future__ import annotations

import os
import pwd
from typing import NamedTuple

FALLBACK = "nobody"


class Choice(NamedTuple):
    """``user`` None: as ourselves, since we are not root. ``gid``: the group that may read a lighthouse's files."""

    user: str | None
    gid: int | None
    warning: str | None


def choose(configured: str) -> Choice:
    """Return whom lighthouses run as for ``lighthouse.user``, and a sentence with the remedy if that is not as it should be."""
    if os.geteuid() != 0:
        return Choice(None, None, None)
    for user in (configured, FALLBACK):
        try:
            entry = pwd.getpwnam(user)
        except KeyError:
            continue
        warning = None
        if user != configured:
            warning = (
                f"the user {configured!r} (lighthouse.user) does not exist, so lighthouses run as {user!r}, which other "
                f"services may use too: useradd --system --shell /usr/sbin/nologin {configured}"
            )
        return Choice(user, entry.pw_gid, warning)
    # No account but root: still better than no network; a lighthouse needs no privileges, and gets the box's.
    return Choice(
        None, None, f"neither {configured!r} nor {FALLBACK!r} exists, so lighthouses run as root: create one"
    )
