"""Who may use which model: the entries of `[[policies]]` from the top, the first that concerns both decides. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from llmgw_gateway.sections.permitting import Permission  # noqa: TC001 -- mypyc looks up what members are

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmgw_gateway.call import Account
    from llmgw_gateway.sections.concerning import Concerning

MOST_KNOWN: Final = 10_000
Concern = Literal["yes", "no", "unknown"]
Why = Literal["open", "entry", "no_entry", "groups_unknown", "key"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an account may use a model, and which entry said so."""

    allowed: bool
    why: Why
    """open: there are no policies. entry: an entry decided. no_entry: none concerns both. groups_unknown: the first
    that might is about groups, and the provider did not say which. key: the service key is not for this model."""
    number: int | None = None
    """The place of the entry that decided, from 0."""
    entry: Permission | None = None

    @property
    def title(self) -> str:
        """What the deciding entry is called; empty without one."""
        return "" if self.number is None or self.entry is None else title(self.number, self.entry)


@dataclass(frozen=True, slots=True)
class Step:
    """One entry that was looked at."""

    number: int
    entry: Permission
    concerns: Concern
    covers: bool
    """Whether it is about the model."""


OPEN: Final = Verdict(allowed=True, why="open")


class Permissions:
    """The policies of one organisation for the models that it serves."""

    def __init__(self, entries: Sequence[Permission], models: Sequence[str]) -> None:
        self._entries = tuple(entries)
        self._models = tuple(models)
        self._known: dict[tuple[Account, str], Verdict] = {}

    def decide(self, account: Account, model: str) -> Verdict:
        """Whether an account may use a served model. The same question has the same answer."""
        known = self._known.get((account, model))
        if known is None:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            known = self._known[account, model] = self._decide(account, model)
        return known

    def allowed(self, account: Account) -> tuple[str, ...]:
        """The served models that an account may use."""
        return tuple(model for model in self._models if self.decide(account, model).allowed)

    def steps(self, account: Account, model: str) -> list[Step]:
        """Every entry up to the one that decides."""
        found = []
        for number, entry in enumerate(self._entries):
            step = Step(number, entry, concerns(entry, account), not entry.models or model in entry.models)
            found.append(step)
            if step.covers and step.concerns != "no":
                break
        return found

    def unreachable(self) -> list[int]:
        """The places of entries that decide nothing, because others before them decide all that they are about."""
        return [number for number, entry in enumerate(self._entries) if self._is_covered(number, entry)]

    def unusable(self) -> list[str]:
        """The served models that no entry allows to anybody."""
        if not self._entries:
            return []
        some = [entry for entry in self._entries if entry.action == "allow"]
        return [model for model in self._models if not any(not e.models or model in e.models for e in some)]

    def _decide(self, account: Account, model: str) -> Verdict:
        if account.models is not None and model not in account.models:
            return Verdict(allowed=False, why="key")
        if not self._entries:
            return OPEN
        last = self.steps(account, model)[-1]
        if not last.covers or last.concerns == "no":
            return Verdict(allowed=False, why="no_entry")
        if last.concerns == "unknown":
            # Passed over, it would be as if the person were in none of these groups: unknown is not none.
            return Verdict(allowed=False, why="groups_unknown", number=last.number, entry=last.entry)
        return Verdict(allowed=last.entry.action == "allow", why="entry", number=last.number, entry=last.entry)

    def _is_covered(self, number: int, entry: Permission) -> bool:
        before = [each for each in self._entries[:number] if _includes(each, entry)]
        return all(
            any(not each.models or model in each.models for each in before) for model in entry.models or self._models
        )


def concerns(entry: Concerning, account: Account) -> Concern:
    """Whether an entry is about an account."""
    if entry.everyone or (account.email and account.email in entry.members):
        return "yes"
    if account.groups is None:
        return "unknown" if entry.groups or entry.teams else "no"
    return "yes" if account.team in entry.teams or not account.groups.isdisjoint(entry.groups) else "no"


def title(number: int, entry: Permission) -> str:
    """How people call an entry: its place, and its name if it has one."""
    return f"policies[{number}]" + (f" ({entry.name})" if entry.name else "")


def _includes(one: Permission, other: Permission) -> bool:
    """Whether everybody whom the other entry concerns is concerned by this one, as far as the file can tell."""
    if one.everyone or other.everyone:
        return one.everyone
    return (
        set(other.groups) <= set(one.groups)
        and set(other.teams) <= set(one.teams)
        and set(other.members) <= set(one.members)
    )
