"""Changes a text of lines (TOML, YAML, INI, shell) by lines of ours between two marks. Pure: text in, text out."""

from __future__ import annotations

import re
from typing import Final

ROOT_KEY: Final = r"^{key}[ \t]*=[^\n]*$"
TABLE: Final = re.compile(r"^[ \t]*\[", re.MULTILINE)


def block(tool: str, content: str, indentation: str = "") -> str:
    """Lines of ours with their marks; ends with a line break."""
    opening = f"# >>> llmgw {tool} >>> (written by `llmgw setup {tool}`; `--undo` removes it)"
    lines = [opening, *content.strip("\n").split("\n"), f"# <<< llmgw {tool} <<<"]
    return "".join(f"{indentation}{line}".rstrip() + "\n" for line in lines)


def find(text: str, tool: str) -> tuple[int, int] | None:
    """Where the lines of ours stand, marks included; ValueError if a mark stands alone or twice."""
    opening = list(re.finditer(rf"^[ \t]*# >>> llmgw {tool} >>>[^\n]*\n", text, re.MULTILINE))
    closing = list(re.finditer(rf"^[ \t]*# <<< llmgw {tool} <<<[^\n]*(?:\n|\Z)", text, re.MULTILINE))
    if not opening and not closing:
        return None
    if len(opening) != 1 or len(closing) != 1 or closing[0].start() < opening[0].end():
        raise ValueError(f"the marks of `llmgw setup {tool}` are not one pair")
    return opening[0].start(), closing[0].end()


def append(text: str, made: str) -> str:
    """Lines of ours at the end, after an empty line."""
    if not text:
        return made
    return text + ("" if text.endswith("\n") else "\n") + "\n" + made


def remove(text: str, tool: str) -> str:
    """The text without the lines of ours, and without the empty line that `append` put before them."""
    found = find(text, tool)
    if found is None:
        return text
    head, tail = text[: found[0]], text[found[1] :]
    return (head[:-1] if head.endswith("\n\n") and not tail else head) + tail


def root_line(text: str, key: str) -> str | None:
    """The line that sets a root key of a TOML text: one before its first table."""
    table = TABLE.search(text)
    found = re.search(ROOT_KEY.format(key=re.escape(key)), text[: table.start() if table else len(text)], re.MULTILINE)
    return found.group() if found else None


def after_list_key(text: str, key: str) -> tuple[int, str] | None:
    """Where the items of a YAML text's root list begin, and how they are indented; None if it has no such key.

    ValueError if the list is written in another way than one item a line.
    """
    found = re.search(rf"^{key}:[ \t]*(?P<rest>[^\n]*)(?:\n|\Z)", text, re.MULTILINE)
    if found is None:
        return None
    rest = found["rest"].strip()
    first = re.match(r"(?:[ \t]*(?:#[^\n]*)?\n)*(?P<indentation>[ ]*)-[ \n]", text[found.end() :])
    if (rest and not rest.startswith("#")) or first is None:
        raise ValueError(f"{key} is not written as one item a line")
    return found.end(), first["indentation"]
