"""``python -m edgegc.perf WORDS`` is ``edgegc perf WORDS``. Knows only the program's name, as a person does."""

from __future__ import annotations

import runpy
import sys

if __name__ == "__main__":
    sys.argv.insert(1, "perf")
    runpy.run_module("edgegc", run_name="__main__")
