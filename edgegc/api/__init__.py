"""The HTTP API: Quart-Trio on Hypercorn, inside the daemon's nursery."""
