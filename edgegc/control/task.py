"""What a long task tells whoever started it: the part of trio's ``TaskStatus`` that we use."""

from __future__ import annotations

from typing import Protocol


class TaskStatus(Protocol):
    """Handed to a task by ``nursery.start``."""

    def started(self) -> None:
        """Say that the task is up."""
