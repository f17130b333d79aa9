"""``python -m edgegc`` is ``edgegc``."""

from __future__ import annotations

from edgegc.cli.main import main

if __name__ == "__main__":
    main()
