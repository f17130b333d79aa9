"""edgegc: ground control for Nebula overlay networks on small boxes."""

__version__ = "0.1.0"
