"""Makes `tests` a regular package: canaille's wheel ships a top-level `tests` of its own, which would win otherwise."""
