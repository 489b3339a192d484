"""Why a provider gives no token, and what its reader has to do: a second factor, another device, IT. Pure.

Conditional access speaks in numbers. They stand in `error_codes`, and as AADSTS... in the description, where also Entra
ID's answers to browsers have them:
https://learn.microsoft.com/en-us/entra/identity-platform/reference-error-codes. Of the description nothing else is
told: it names people, addresses and requests. Other providers have the error codes of OpenID Connect and RFC 9470.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from llmgw_agent.errors import AgentError, RefusedError, SessionEndedError
from llmgw_agent.session.record import error_name

if TYPE_CHECKING:
    from collections.abc import Mapping

FINAL_ERRORS: Final = frozenset(
    {"invalid_grant", "interaction_required", "login_required", "consent_required"}
    | {"insufficient_user_authentication", "unmet_authentication_requirements"}
)
"""Only these end a session. A provider that is ill answers with anything else, and recovers."""
LOGIN: Final = "Run: llmgw login"
AGAIN: Final = {
    **dict.fromkeys((50072, 50074, 50076, 50078, 50079, 50158), "it wants a second factor now"),
    **dict.fromkeys((50133, 50173), "your password was changed, or your sign-ins were revoked"),
    **dict.fromkeys((70043, 70044, 700082, 700084), "it has to be repeated from time to time"),
}
"""What the person mends by signing in again."""
BLOCKED: Final = {
    50057: ("your account is disabled", "Ask IT"),
    50105: ("you were not given this application", "Ask IT to assign it to you"),
    53000: ("this device is not compliant with your company's policy", "Ask IT what is missing; then try again"),
    53001: ("this device is not one that your company manages", "Use a managed device, or ask IT"),
    53003: (
        "your company's policy (conditional access) blocks it from here",
        "Try from your company's network (VPN) and a managed device, or ask IT",
    ),
    53004: ("a second factor has to be registered first", "Register one (ask IT where), then: llmgw login"),
    65001: ("nobody has consented to this application", "Ask IT for an administrator's consent"),
    530003: ("this device has to be managed by your company", "Use a managed device, or ask IT"),
}
"""What signing in again does not mend. The refresh token is good still: it works from the right place."""
STEP_UP: Final = {
    "interaction_required": "it wants to see you, perhaps with a second factor",
    "login_required": "it wants you to sign in anew",
    "consent_required": "it wants your consent",
    "insufficient_user_authentication": "it wants a stronger sign-in, such as a second factor",
    "unmet_authentication_requirements": "it wants a stronger sign-in, such as a second factor",
}
NUMBER: Final = re.compile(r"AADSTS(\d{4,7})\b")


def refusal(issuer: str, answer: Mapping[str, Any]) -> AgentError | None:
    """The error that an answer without a token means for a session; None if it may only be ill."""
    error = error_name(answer.get("error"))
    for number in _numbers(answer):
        if number in BLOCKED:
            why, hint = BLOCKED[number]
            return RefusedError(f"{issuer} gives no token: {why} (AADSTS{number})", hint)
        if number in AGAIN and error in FINAL_ERRORS:
            return SessionEndedError(f"{issuer} ended the sign-in: {AGAIN[number]} (AADSTS{number})", LOGIN)
    if error in STEP_UP:
        return SessionEndedError(f"{issuer} ended the sign-in: {STEP_UP[error]} ({error})", LOGIN)
    return SessionEndedError(f"{issuer} ended the sign-in ({error})", LOGIN) if error in FINAL_ERRORS else None


def declined(issuer: str, answer: Mapping[str, Any]) -> RefusedError:
    """The error that an answer to a sign-in means: the person is there, and was not let in."""
    for number in _numbers(answer):
        if number in BLOCKED:
            why, hint = BLOCKED[number]
            return RefusedError(f"{issuer} did not sign you in: {why} (AADSTS{number})", hint)
    return RefusedError(f"{issuer} did not sign you in ({error_name(answer.get('error'))})", LOGIN)


def _numbers(answer: Mapping[str, Any]) -> list[int]:
    codes = answer.get("error_codes")
    listed = [code for code in codes if isinstance(code, int)] if isinstance(codes, list) else []
    described = answer.get("error_description")
    return listed + [int(found) for found in NUMBER.findall(described if isinstance(described, str) else "")]
