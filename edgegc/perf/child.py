"""A process of the laboratory's own, talked to through its standard input and output; what it says last is kept.

Knows nothing of what it does. It ends when its standard input does, so none outlives its suite.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

import trio

from edgegc.perf import respawn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

END_TIMEOUT_S: Final = 10.0
"""What was told to end has done so by then, with 10,000 connections, too; else it is killed."""
LAST_WORDS_BYTES: Final = 4096


class Child:
    """A running process. ``incoming`` is what it says, ``outgoing`` what it hears."""

    def __init__(
        self,
        process: trio.Process,
        *,
        incoming: trio.abc.ReceiveStream,
        outgoing: trio.abc.SendStream,
        errors_fd: int,
    ) -> None:
        self.pid: Final = process.pid
        self.incoming: Final = incoming
        self.outgoing: Final = outgoing
        self._process = process
        self._errors_fd = errors_fd

    async def last_words(self) -> str:
        """Wait for its end, for as long as it may take; return how it ended, with its last line of standard error."""
        with trio.move_on_after(END_TIMEOUT_S):
            await self._process.wait()
        written = os.fstat(self._errors_fd).st_size
        said = os.pread(self._errors_fd, LAST_WORDS_BYTES, max(0, written - LAST_WORDS_BYTES))
        lines = said.decode(errors="replace").strip().splitlines()
        code = self._process.returncode
        ended = "it has not ended" if code is None else f"exit code {code}"
        return f"{ended}; its last words: {lines[-1]}" if lines else ended


@asynccontextmanager
async def child(argv: Sequence[str], *, cpu: int | None = None) -> AsyncIterator[Child]:
    """Start a command, in a session of its own: Ctrl-C is for the suite. Leaving ends it and waits for that.

    ``cpu``: the core that it stays on, with all its threads.
    """
    with tempfile.TemporaryFile() as errors:
        process = await trio.lowlevel.open_process(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors.fileno(),
            start_new_session=True,
            env=respawn.environ(),
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if cpu is not None:
                with suppress(ProcessLookupError):  # it died at once: its last words say why
                    os.sched_setaffinity(process.pid, {cpu})
            yield Child(process, incoming=process.stdout, outgoing=process.stdin, errors_fd=errors.fileno())
        finally:
            with trio.CancelScope(shield=True):
                await _end(process)


async def _end(process: trio.Process) -> None:
    if process.returncode is None:
        process.terminate()
    with trio.move_on_after(END_TIMEOUT_S):
        await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            await stream.aclose()
