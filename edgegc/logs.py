"""Logging for the operator: stdlib ``logging``, one event one line, JSON or console, fixed field names.

Fields go in ``extra=`` and only those of :data:`FIELDS` are written. Knows nothing of what is logged.
"""

from __future__ import annotations

FIELDS = (
    "tenant_id",
    "cluster_id",
    "node_id",
    "version",
    "pid",
    "port",
    "duration_ms",
    "request_id",
    "method",
    "path",
    "status",
    "source",
    "reason",
)
"""The field vocabulary, in the order in which they are written."""
