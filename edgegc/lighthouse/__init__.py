"""One supervised nebula per cluster that wants one."""
