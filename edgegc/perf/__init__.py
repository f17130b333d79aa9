"""The performance laboratory: what this box can carry, what limits it, and whether a release is slower than another.

A black box: it starts servers of its own, talks HTTP to them and reads ``/proc``. It imports the model, the client and
leaves, never the server's insides; the one exception is :mod:`edgegc.perf.store` with the database that it asks
(``store_rig``, ``store_content``), which measures the store in-process, and says so in its results.
``edgegc/perf/ARCHITECTURE.md`` says how its parts hang together.
"""
