"""Profiles of processes under measurement: samplers that run in them, what they write, and how it is shown."""
