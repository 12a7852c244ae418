"""Feedback: what is worth knowing, and what to do next."""
