"""Frozen structs and pure rules: the product's nouns. No I/O, no clock, no other layer."""
