"""The node side: poll, verify, apply, prove, back out."""
