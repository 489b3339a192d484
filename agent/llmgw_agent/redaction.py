"""Takes credentials out of a text that a person will show to others: diffs, logs, bug reports. Pure.

By name (`..._TOKEN=`, `"apiKey": `) and by shape (a JWT, a secret of ours, a password in a URL): either is enough.
"""

from __future__ import annotations

import re
from typing import Final

HIDDEN: Final = "[hidden]"
NAMED: Final = re.compile(
    r"(?i)((?:(?:token|secret|password|passwd|credential|authorization|cookie|api[_-]?key|access[_-]?key)"
    r"(?!_?helper|_endpoint|_type)\w*[\"']?\s*[:=]\s*|\bbearer\s+)[\"']?(?:Bearer\s+)?)([^\s\"',;&]{6,})"
)
SHAPED: Final = (
    re.compile(r"eyJ[\w-]{8,}(?:\.[\w-]*){0,4}"),  # JWT and JWE
    re.compile(r"llmgw-local-[\w-]+"),
    re.compile(r"\b(?:sk|pk|rk|ghp|gho|ghs|github_pat|xox[abp]|glpat|AKIA|ASIA)[-_]?[A-Za-z0-9_-]{12,}"),
    re.compile(r"(?<=://)[^/\s@\"']+(?=@)"),
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"),
)


def redacted(text: str) -> str:
    """The text without what looks like a credential. Too much is taken out rather than too little."""
    for shape in SHAPED:
        text = shape.sub(HIDDEN, text)
    return NAMED.sub(rf"\1{HIDDEN}", text)
