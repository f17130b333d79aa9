"""Use cases: what the product does, in its own words. Knows neither HTTP nor processes."""
