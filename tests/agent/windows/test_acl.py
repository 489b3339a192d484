"""Who may change a file, as security descriptors say it."""

from __future__ import annotations

import pytest

from llmgw_agent.windows import acl

OURS = "S-1-5-21-1-2-3-1001"
BUILT_IN = "S-1-5-21-1-2-3-500"


@pytest.mark.parametrize(
    ("sddl", "private", "changeable"),
    [
        (f"O:{OURS}{acl.private(OURS)}", True, False),
        (f"O:BAD:P(A;OICI;FA;;;{OURS})(A;OICI;FA;;;SY)", True, False),
        (f"O:{OURS}D:AI(A;OICIID;FA;;;SY)(A;OICIID;FA;;;BA)(A;OICIID;FA;;;{OURS})", True, False),
        (f"O:{OURS}D:(A;OICI;FA;;;{OURS})(A;OICI;0x1200a9;;;WD)", False, False),
        (f"O:{OURS}D:(A;;FA;;;{OURS})(A;;FRFX;;;BU)", False, False),
        (f"O:{OURS}D:(A;;FA;;;{OURS})(A;;0x1301bf;;;AU)", False, True),
        (f"O:{OURS}D:(A;;FA;;;{OURS})(A;OICIIO;FA;;;AU)", True, False),
        (f"O:{OURS}D:(A;;FA;;;{OURS})(D;;FA;;;NU)", True, False),
        (f"O:{OURS}D:(A;;FA;;;{OURS})(A;;FW;;;WD)", False, True),
        ("O:S-1-5-21-1-2-3-1002D:P(A;;FA;;;SY)", False, True),
        (f"O:{OURS}", False, True),
        (f"O:{OURS}D:NO_ACCESS_CONTROL", False, True),
        ("O:LAD:P(A;;FA;;;LA)", False, True),
        ("", False, True),
    ],
)
def test_who_may_what(sddl: str, *, private: bool, changeable: bool) -> None:
    assert acl.is_private(sddl, OURS) is private
    assert acl.is_changeable(sddl, OURS) is changeable


def test_the_administrator_s_own_short_name() -> None:
    assert acl.is_private("O:LAD:P(A;;FA;;;LA)", BUILT_IN)
