"""The Admin API: what administrators see and change, over HTTP, on a listener of its own."""
