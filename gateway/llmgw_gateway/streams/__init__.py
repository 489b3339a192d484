"""Bytes to events, events to usage (no I/O), and the relay between upstream and client."""
