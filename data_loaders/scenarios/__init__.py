"""The worlds behind the generated logs: who sees what, and what they do about it."""
