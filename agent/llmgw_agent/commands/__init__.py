"""Groups of `llmgw`'s commands: each file parses, calls what does the work, and prints. Nothing is decided here."""
