"""What is wrong with managed settings of Claude Code, whoever wrote them. Pure: documents in, checks out.

The client passes over most of this without a word: misspelt keys, values of the wrong type, variables left open.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any, Final

from llmgw_agent.checks import Check, failed, passed, warned
from llmgw_agent.settings import url_fault
from llmgw_mdm import keys, pin
from llmgw_mdm.organization import LEAST_VERSION, TESTED_VERSION, version
from llmgw_mdm.policy import POLICY_HELPER

if TYPE_CHECKING:
    from collections.abc import Iterator

RENDER: Final = "Render it with: llmgw mdm render (docs/mdm.md)"
NEAR: Final = 0.75
"""How much alike a misspelt key and the right one are (difflib's ratio)."""
WINDOWS: Final = re.compile(r'"?[A-Za-z]:\\')


def judge(settings: dict[str, Any]) -> Iterator[Check]:
    """Every check, for the settings that one source has."""
    yield from _nulls(settings)
    yield from _names(settings)
    yield from _types(settings)
    yield from _login(settings)
    env = settings.get("env")
    env = env if isinstance(env, dict) else {}
    if "policyHelper" in settings:
        yield _policy_helper(settings["policyHelper"])
    if "apiKeyHelper" not in settings and not pin.dialect_of(env):
        yield warned("pin", "nothing here leads to a gateway", "address and helper", RENDER)
        return
    yield from _helper(settings.get("apiKeyHelper"))
    yield from _address(env)
    yield from _pin(env)
    yield from _providers(settings.get("allowedProviders"))
    yield from _version(settings.get("requiredMinimumVersion"))


def _policy_helper(helper: object) -> Check:
    path = helper.get("path") if isinstance(helper, dict) else None
    if not isinstance(path, str) or not path.startswith("/") or path.rpartition("/")[2] != POLICY_HELPER:
        found = "what it prints replaces all of these settings"
        return warned("policy helper", found, "a helper that prints the whole pin, too", "Lint what it prints")
    return passed("policy helper", f"{path} narrows these settings, and does no more")


def _nulls(settings: dict[str, Any], where: str = "") -> Iterator[Check]:
    for key, value in settings.items():
        if value is None:
            right = "a value, or no such key: a property list cannot hold null"
            yield failed("null", f"{where}{key} is null", right, f"Remove {where}{key}")
        elif isinstance(value, dict):
            yield from _nulls(value, f"{where}{key}.")


def _names(settings: dict[str, Any]) -> Iterator[Check]:
    unknown = [key for key in settings if key not in keys.KNOWN]
    for key in unknown:
        near = difflib.get_close_matches(key, keys.KNOWN, n=1, cutoff=NEAR)
        found = f"{key!r} is no setting of Claude Code {keys.VERSION}, which passes over it in silence"
        if near:
            yield failed("names", found, repr(near[0]), f"Correct {key} to {near[0]}")
        else:
            yield warned("names", found, "a setting of that version, or a newer client", f"Remove {key}")
    if not unknown:
        yield passed("names", f"Claude Code {keys.VERSION} knows all of them")


def _types(settings: dict[str, Any]) -> Iterator[Check]:
    for key, kinds in keys.TYPES.items():
        if settings.get(key) is not None and type(settings[key]) not in kinds:
            right = " or ".join(
                {str: "a string", list: "a list", dict: "an object", bool: "true or false"}[k] for k in kinds
            )
            yield failed("types", f"{key} is of the wrong type, so that the client ignores it", right, f"Correct {key}")
    env = settings.get("env")
    for name in [name for name, value in env.items() if not isinstance(value, str)] if isinstance(env, dict) else []:
        yield failed("types", f"env.{name} is no string", "a string", f"Put env.{name} in quotes")


def _login(settings: dict[str, Any]) -> Iterator[Check]:
    for key in keys.NEVER:
        if key in settings and "apiKeyHelper" in settings:
            found = f"{key} beside an apiKeyHelper: Claude Code does not start"
            yield failed("login", found, f"no {key}", f"Remove {key}")


def _helper(command: object) -> Iterator[Check]:
    right = "the whole path of llmgw-token, and nothing else"
    if not isinstance(command, str) or not command:
        yield failed("helper", "no apiKeyHelper: tools have no token", right, RENDER)
    elif WINDOWS.match(command):
        bare = command.strip('"')
        if "%" in command:
            yield failed("helper", f"{command!r}: variables are not replaced there", right, f'Write it as "{bare}"')
        elif " " in bare and not (command.startswith('"') and command.endswith('"')):
            yield failed("helper", f"{command!r}: cmd splits it at the space", f'"{bare}" in quotes', "Quote the path")
        else:
            yield passed("helper", command)
    elif command.startswith("~") or "$" in command:
        yield failed("helper", f"{command!r} depends on who runs it", right, "Write the whole path")
    elif not command.strip("'\"").startswith("/"):
        found = f"{command!r} is looked up in PATH, which is another one for tools of a desktop"
        yield failed("helper", found, right, "Write the whole path")
    else:
        yield passed("helper", command)


def _address(env: dict[str, Any]) -> Iterator[Check]:
    dialect = pin.dialect_of(env)
    if not dialect:
        found = "no address is pinned: a repository decides where the helper's token goes"
        yield failed("address", found, f"{' or '.join(pin.ADDRESS.values())} in env", RENDER)
        return
    name = pin.ADDRESS[dialect]
    if fault := url_fault(str(env[name])):
        yield failed("address", f"{name} {fault}", "https://", f"Correct env.{name}")
    else:
        yield passed("address", f"{name} is {env[name]}")


def _pin(env: dict[str, Any]) -> Iterator[Check]:
    gaps = pin.gaps(env)
    for variant, names in gaps:
        found = f"{variant.name}: {variant.effect}"
        right = f"{', '.join(names)} in env" if len(names) > 1 else f"{names[0]} in env"
        yield failed("pin", found, right, RENDER)
    if not gaps:
        yield passed("pin", f"nothing that a repository says leads anything away ({len(pin.VARIANTS)} ways)")


def _providers(allowed: object) -> Iterator[Check]:
    if allowed == pin.ALLOWED_PROVIDERS:
        yield passed("providers", "none but the pinned address")
    else:
        found = "no allowedProviders" if allowed is None else f"allowedProviders is {allowed!r}"
        right = f'"allowedProviders": {pin.ALLOWED_PROVIDERS}'.replace("'", '"')
        yield failed("providers", f"{found}: a shell's variables lead past the gateway", right, RENDER)


def _version(least: object) -> Iterator[Check]:
    right = f'"requiredMinimumVersion": "{TESTED_VERSION}"'
    if not isinstance(least, str):
        yield warned("version", "older clients, which know less of this, may start", right, RENDER)
    elif version(least) < version(LEAST_VERSION):
        found = f"{least}: before {LEAST_VERSION}, a client does not check what a helper prints"
        yield failed("version", found, right, RENDER)
    else:
        yield passed("version", f"{least} or later")
