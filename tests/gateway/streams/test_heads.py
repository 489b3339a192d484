"""A body of unknown length as it leaves, read back by the parser of answers."""

from __future__ import annotations

from aiohttp import HttpVersion10, HttpVersion11
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from llmgw_gateway.streams.heads import Framing
from llmgw_gateway.streams.http1 import AnswerParser

pieces = st.lists(st.binary(max_size=300), max_size=6)


@given(pieces, st.booleans())
def test_what_is_framed_is_read_back(body: list[bytes], old: bool) -> None:  # noqa: FBT001 -- drawn
    version = HttpVersion10 if old else HttpVersion11
    framing = Framing(make_mocked_request("POST", "/", version=version), {"content-type": "text/plain"})
    sent = framing.opening() + b"".join(framing.framed(piece) for piece in body) + framing.framed(b"", last=True)
    parser = AnswerParser()
    assert parser.feed(sent) == b"".join(body)
    parser.finish()
    assert parser.ended
    assert parser.reusable is framing.keep_alive is not old
