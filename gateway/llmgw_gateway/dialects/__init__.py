"""What clients speak: request bytes to a `Call`, upstream events to the client's own bytes. Pure."""
