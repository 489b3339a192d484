from __future__ import annotations

from hypothesis import settings

# A shared machine is sometimes slow, and no test here is about time.
settings.register_profile("llmgw", deadline=None)
settings.load_profile("llmgw")
