"""The load generator: a process of its own that asks, over thousands of connections, and says what became of it.

Knows HTTP's framing and nothing of our API. :mod:`.client` is how the suite has it done, :mod:`.process` the process;
inside it :mod:`.loop` waits, :mod:`.connections` talk, :mod:`.course` decides who asks when, :mod:`.tally` counts.
"""
