"""How this very program is started once more: the generator, the references and the server are processes of their own.

Knows nothing of what they do. From the ``.pyz`` they are the same file, elsewhere the same package.
"""

from __future__ import annotations

import os
import sys
import zipfile
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Final

import edgegc
from edgegc.perf import leftovers

if TYPE_CHECKING:
    from collections.abc import Iterator

NOT_FOR_OTHERS: Final = frozenset({"SHIV_INTERPRETER", "PYTHONPATH"})
PACKAGE_ROOT = Path(edgegc.__file__).resolve().parent.parent


def program(*words: str) -> tuple[str, ...]:
    """Return the command line of ``edgegc WORDS``, as this program was started."""
    started = Path(sys.argv[0])
    if started.is_file() and zipfile.is_zipfile(started):
        return (sys.executable, str(started.resolve()), *words)
    return (sys.executable, "-m", "edgegc", *words)


def measured(*words: str) -> tuple[str, ...]:
    """Return the command line of ``edgegc WORDS`` as something to be measured: a profiler may stand before it."""
    return program(*_through.get(), *words)


@contextmanager
def through(*words: str) -> Iterator[None]:
    """Have all that is measured, in this context and the tasks that it starts, run by ``edgegc WORDS``."""
    token = _through.set(words)
    try:
        yield
    finally:
        _through.reset(token)


def perf(*words: str) -> tuple[str, ...]:
    """Return the command line of ``edgegc perf WORDS``."""
    return program("perf", *words)


def environ(**more: str) -> dict[str, str]:
    """Return the environment for such a process: ours, without what is meant for us alone, with this process's mark.

    A module is found where ours was, also inside the unpacked file (``SHIV_INTERPRETER=1``).
    """
    paths = [str(PACKAGE_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return foreign_environ(**{"PYTHONPATH": os.pathsep.join(paths), **more})


def foreign_environ(**more: str) -> dict[str, str]:
    """Return the environment for a process that is another program, another release's file say: not with our modules.

    Without ``PYTHONPATH``: a file that finds ``edgegc`` there runs that instead of what is in it.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in NOT_FOR_OTHERS and not name.startswith("EDGEGC_")
    }
    return {**kept, leftovers.VARIABLE: leftovers.mark(), **more}


_through: Final[ContextVar[tuple[str, ...]]] = ContextVar("through", default=())
