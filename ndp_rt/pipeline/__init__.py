"""Frames from a source through a session to a sink."""
