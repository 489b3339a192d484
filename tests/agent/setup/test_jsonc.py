"""Editing JSON texts: what was asked for changes, and nothing else does."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgw_agent.setup import jsonc

EDITOR = """// what an editor's user has
{
    "editor.fontSize": 14, // points
    /* kept */ "files.exclude": {"**/.git": true, },
    "list": [1, 2, /* three */ 3,],
    "last": "a \\" quote // no comment"
}
"""


def test_comments_and_trailing_commas_are_read() -> None:
    assert jsonc.loads(EDITOR) == {
        "editor.fontSize": 14,
        "files.exclude": {"**/.git": True},
        "list": [1, 2, 3],
        "last": 'a " quote // no comment',
    }


def test_a_new_member_comes_last_in_the_manner_of_the_others() -> None:
    made = jsonc.put(EDITOR, ("new", "inner"), ["x"])
    assert made == EDITOR.replace(
        'no comment"\n', 'no comment",\n    "new": {\n      "inner": [\n        "x"\n      ]\n    }\n'
    )
    assert jsonc.drop(made, ("new",)) == EDITOR


def test_a_changed_member_leaves_its_comment() -> None:
    assert jsonc.put(EDITOR, ("editor.fontSize",), 15) == EDITOR.replace("14, // points", "15, // points")


def test_a_member_after_a_trailing_comma_and_a_comment() -> None:
    text = '{\n  "a": 1, // one\n}\n'
    made = jsonc.put(text, ("b",), 2)
    assert made == '{\n  "a": 1, // one\n  "b": 2,\n}\n'
    assert jsonc.drop(made, ("b",)) == text
    text = '{\n  "a": 1 // one\n}\n'
    made = jsonc.put(text, ("b",), 2)
    assert made == '{\n  "a": 1, // one\n  "b": 2\n}\n'
    assert jsonc.drop(made, ("b",)) == text


def test_the_first_the_middle_and_the_only_member_go() -> None:
    text = '{"a": 1, "b": 2, "c": 3}'
    assert jsonc.loads(jsonc.drop(text, ("a",))) == {"b": 2, "c": 3}
    assert jsonc.drop(text, ("b",)) == '{"a": 1, "c": 3}'
    assert jsonc.drop(text, ("c",)) == '{"a": 1, "b": 2}'
    assert jsonc.drop('{\n  "a": 1\n}', ("a",)) == "{}"
    assert jsonc.drop(text, ("d",)) == text
    assert jsonc.drop(text, ("d", "e")) == text


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1", '{"a" 1}', '{"a": 1 "b": 2}', "{} {}", '{"a": 01}', "{'a': 1}", "/* {}", '{"a": 1, "a": 2}', "nan"],
)
def test_what_is_no_json_is_said_so(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not JSON|twice"):
        jsonc.loads(text)


def test_depth_has_an_end_and_what_is_no_object_gets_no_member() -> None:
    with pytest.raises(ValueError, match="is not JSON"):
        jsonc.loads("[" * 1000)
    with pytest.raises(ValueError, match="a is not an object"):
        jsonc.put('{"a": 1}', ("a", "b"), 2)
    with pytest.raises(ValueError, match="the file is not an object"):
        jsonc.put("[]", ("b",), 2)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(st.text(max_size=6), VALUES, max_size=4)


@given(DOCUMENTS, st.lists(st.text(max_size=6), min_size=1, max_size=3), VALUES, st.sampled_from([None, 2, 4]))
def test_whatever_the_text_only_that_member_changes(
    document: dict[str, Any], names: list[str], value: Any, indent: int | None
) -> None:
    path = tuple(names)
    text = json.dumps(document, indent=indent)
    if indent:  # a comment at the end of each line, and trailing commas
        text = re.sub(r"(?m)([\d\]}\"el])$(?=\n[ ]*[}\]])", r"\1,", text)
        text = re.sub(r"(?m)(?<![{\[])$", " // said", text)
    expected = json.loads(json.dumps(document))
    inner, is_new = expected, False
    for name in path[:-1]:
        is_new = is_new or name not in inner
        inner = inner.setdefault(name, {})
        if not isinstance(inner, dict):
            with pytest.raises(ValueError, match="is not an object"):
                jsonc.put(text, path, value)
            return
    had, was_empty = path[-1] in inner, not inner
    inner[path[-1]] = json.loads(json.dumps(value))
    made = jsonc.put(text, path, value)
    assert jsonc.loads(made) == expected
    assert list(jsonc.loads(made)) == list(expected)
    if not had:
        assert made.count("// said") == text.count("// said")
    if not had and not is_new and not was_empty:
        assert jsonc.drop(made, path) == text
