"""Which unprivileged account the box's lighthouses run as. Makes none: that is the packaging's job."""

from __future__ import annotations

import os
import pwd
import stat
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

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


def first_closed(directory: Path, user: str | None) -> Path | None:
    """Return the first directory on the way into ``directory`` that ``user`` may not pass through, or None. Blocking.

    By permission bits alone: what access control lists allow besides is not seen. ``user`` None is ourselves.
    """
    if user is None:
        return None
    entry = pwd.getpwnam(user)
    groups = set(os.getgrouplist(user, entry.pw_gid))
    for each in reversed((directory, *directory.parents)):
        found = each.stat()
        if found.st_uid == entry.pw_uid:
            needed = stat.S_IXUSR
        elif found.st_gid in groups:
            needed = stat.S_IXGRP
        else:
            needed = stat.S_IXOTH
        if not found.st_mode & needed:
            return each
    return None
