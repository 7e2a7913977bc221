"""Rows from a system prompt: a teacher fills them in."""
