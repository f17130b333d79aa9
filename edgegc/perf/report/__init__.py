"""A report for eyes: text, Markdown, CSV, HTML. Reads a :class:`~edgegc.perf.result.Report`, measures and changes nothing."""
