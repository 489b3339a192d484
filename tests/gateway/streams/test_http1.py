"""The parser of answers against aiohttp's, which reads the same bytes by the code of llhttp."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpResponseParser
from hypothesis import given
from hypothesis import strategies as st

from llmgw_gateway.streams.http1 import MOST_HEAD, AnswerError, AnswerParser

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"

tokens = st.from_regex(r"\A[a-z][a-z0-9-]{0,12}\Z").filter(
    lambda name: name not in {"connection", "upgrade", "content-length", "content-encoding", "transfer-encoding"}
)
values = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20)
fields = st.dictionaries(tokens, values, max_size=4)
parts = st.lists(st.binary(min_size=1, max_size=40), max_size=5)


def head(status: int, headers: dict[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} Because\r\n{lines}".encode()


def chunked(body: list[bytes], trailers: bytes = b"") -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in body) + b"0\r\n" + trailers + b"\r\n"


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    begun = head(draw(st.sampled_from([200, 400, 429, 503])), draw(fields))
    body = draw(parts)
    if draw(st.booleans()):
        return (
            begun + b"transfer-encoding: chunked\r\n\r\n" + chunked(body, draw(st.sampled_from([b"", b"x-sum: 1\r\n"])))
        )
    whole = b"".join(body)
    return begun + b"content-length: %d\r\n\r\n" % len(whole) + whole


def read(portions: list[bytes]) -> tuple[int, dict[str, str], bytes, bool]:
    """Status, headers, body, and whether the connection is fit for another request."""
    parser, body = AnswerParser(), b""
    for portion in portions:
        body += parser.feed(portion)
    parser.finish()
    assert parser.head is not None
    return parser.head.status, parser.head.headers, body, parser.reusable


def theirs(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    loop = asyncio.new_event_loop()
    try:
        connection = BaseProtocol(loop)
        connection.connection_made(asyncio.Transport())
        parser = HttpResponseParser(connection, loop, 2**20, auto_decompress=False)
        messages, _, _ = parser.feed_data(answer)
        (message, payload), *_ = messages
        headers = {name.lower(): ", ".join(message.headers.getall(name)) for name in message.headers}
        return message.code, headers, payload.read_nowait()
    finally:
        loop.close()


@given(answers(), st.lists(st.integers(0, 255), max_size=4))
def test_whatever_the_split_it_is_read_as_aiohttp_reads_it(answer: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(cut * len(answer) // 256 for cut in cuts), len(answer)]
    found = read([answer[begin:end] for begin, end in pairwise(edges)])
    assert found[:3] == theirs(answer)
    assert found[3]


@given(answers())
def test_byte_by_byte(answer: bytes) -> None:
    assert read([answer[place : place + 1] for place in range(len(answer))]) == read([answer])


@given(answers(), st.data())
def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one(answer: bytes, data: st.DataObject) -> None:
    parser = AnswerParser()
    parser.feed(answer[: data.draw(st.integers(0, len(answer) - 1))])
    assert not parser.ended
    with pytest.raises(AnswerError):
        parser.finish()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 99 OK\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        OK + b"Content-Length: +1\r\n\r\n",
        OK + b"Content-Length: 1_0\r\n\r\n",
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Content-Length:\r\n\r\n",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        OK + b"Transfer-Encoding: identity\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        OK + b"Bad Name: 1\r\n\r\n",
        OK + b": 1\r\n\r\n",
        OK + b"A: 1\r\n folded: 1\r\n\r\n",
        OK + b"A: 1\nB: 2\r\n\r\n",
        OK + b"A: \x001\r\n\r\n",
        OK + b"A: 1\rB: 2\r\n\r\n",
        OK + b"A: " + b"x" * 70_000,
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 9,
        b"HTTP/1.1 100 Continue\r\nContent-Length: 2\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n",
        b"HTTP/1.0 100 Continue\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\nConnection: Close\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n",
        CHUNKED + b"x\r\n",
        CHUNKED + b"0x1\r\na\r\n",
        CHUNKED + b"+1\r\na\r\n",
        CHUNKED + b"1_0\r\n",
        CHUNKED + b"-1\r\n",
        CHUNKED + b" 1\r\na\r\n",
        CHUNKED + b"1\na\r\n\r\n",
        CHUNKED + b"fffffffff\r\n",
        CHUNKED + b"1\r\nab\r\n",
        CHUNKED + b"1\r\na\nx",
        CHUNKED + b"1\r\naxx",
        CHUNKED + b"1xya\r\n",
        CHUNKED + b"1;" + b"x" * 5000,
        CHUNKED + b"1;" + b"x" * 5000 + b"\r\na\r\n0\r\n\r\n",
        CHUNKED + b"1;not a token\r\na\r\n0\r\n\r\n",
        CHUNKED + b"0\r\nno trailer\r\n",
        CHUNKED + b"0\r\nA: " + b"x" * 70_000,
        CHUNKED + b"0\r\nA: " + b"x" * 70_000 + b"\r\n\r\n",
        CHUNKED + b"0\r\n" + (b"A: " + b"x" * 1000 + b"\r\n") * 70 + b"\r\n",
    ],
    ids=str,
)
def test_what_could_be_read_in_two_ways_is_refused(answer: bytes) -> None:
    with pytest.raises(AnswerError):
        AnswerParser().feed(answer)


@given(parts.map(lambda body: [chunked([part])[:-5] for part in body]))
def test_chunks_that_come_one_by_one_are_read_as_those_that_come_together(chunks: list[bytes]) -> None:
    last = b"0\r\n\r\n"
    assert read([CHUNKED, *chunks, last]) == read([CHUNKED + b"".join(chunks) + last])


@pytest.mark.parametrize("size", range(MOST_HEAD - 2, MOST_HEAD + 3))
def test_trailers_at_their_limit_are_read_alike_in_any_split(size: int) -> None:
    trailer = b"A:" + b"x" * (size - 4) + b"\r\n"
    answer = CHUNKED + chunked([b"a"], trailer)
    for cut in range(1, 6):
        portions = [answer[:-cut], answer[-cut:]]
        if size > MOST_HEAD:
            with pytest.raises(AnswerError):
                read(portions)
        else:
            assert read(portions) == read([answer])


def test_what_aiohttp_refuses_is_refused() -> None:
    """The table above is no taste of ours: spot checks by the other parser."""
    for answer in (OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", CHUNKED + b"x\r\n"):
        with pytest.raises(HttpProcessingError):
            theirs(answer)


@pytest.mark.parametrize(
    ("answer", "body", "reusable"),
    [
        (OK + b"Content-Length: 2\r\n\r\nab", b"ab", True),
        (OK + b"Content-Length: 2\r\nConnection: close\r\n\r\nab", b"ab", False),
        (OK + b"Content-Length: 2\r\nConnection: keep-alive, Close\r\n\r\nab", b"ab", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab", b"ab", False),
        (OK + b"\r\nuntil the end", b"until the end", False),
        (OK + b"Content-Length: 2\r\n\r\nabc", b"ab", False),
        (CHUNKED + b"1;ext=1\r\na\r\n0\r\n\r\n", b"a", True),
        (CHUNKED + b'1;a;b="c d"\r\na\r\n0\r\n\r\n', b"a", True),
        (CHUNKED + b"0\r\n\r\nHTTP/1.1 200 OK\r\n", b"", False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", False),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", b"", True),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\na", b"a", True),
    ],
    ids=str,
)
def test_a_connection_is_used_again_only_after_an_answer_that_ended_where_it_said(
    answer: bytes, body: bytes, *, reusable: bool
) -> None:
    assert read([answer])[2:] == (body, reusable)


def test_a_header_that_comes_twice_is_a_list() -> None:
    assert read([OK + b"A: 1\r\na: 2\r\nContent-Length: 0\r\n\r\n"])[1]["a"] == "1, 2"
