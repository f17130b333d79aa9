"""The node's side: joins a cluster, polls, verifies, applies, proves, and backs out. Knows no server side."""
