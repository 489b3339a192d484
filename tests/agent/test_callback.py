from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

import aiohttp
import pytest

from llmgw_agent.errors import ConfigurationError, UsageError
from llmgw_agent.session.callback import MOST_BYTES, Callback

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

STATE = "s" * 43
RIGHT = {"state": STATE, "code": "canary-code"}


@pytest.fixture
async def callback() -> AsyncIterator[Callback]:
    made = Callback(host="127.0.0.1", path="/callback")
    await made.start()
    made.expect(STATE)
    yield made
    await made.close()


@pytest.fixture
async def browser() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def is_waiting(callback: Callback) -> bool:
    task = asyncio.ensure_future(callback.wait())
    done, _ = await asyncio.wait({task}, timeout=0.01)
    if not done:
        task.cancel()
    return not done


async def test_the_answer_of_the_browser(callback: Callback, browser: aiohttp.ClientSession) -> None:
    async with browser.get(callback.redirect_uri, params=RIGHT) as page:
        assert page.status == 200
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        assert "canary" not in await page.text()
    assert await callback.wait() == RIGHT


async def test_the_answer_as_a_form(callback: Callback, browser: aiohttp.ClientSession) -> None:
    async with browser.post(callback.redirect_uri, data=RIGHT) as page:
        assert page.status == 200
    assert await callback.wait() == RIGHT


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"code": "x"},
        {"state": "", "code": "x"},
        {"state": STATE[:-1], "code": "x"},
        {"state": "ü", "code": "x"},
        {"state": "wrong", "error": "access_denied"},
        {"error": "access_denied"},
    ],
)
async def test_a_wrong_state_does_not_end_the_sign_in(
    callback: Callback, browser: aiohttp.ClientSession, query: dict[str, str]
) -> None:
    async with browser.get(callback.redirect_uri, params=query) as page:
        assert page.status == 404
    assert await is_waiting_and_then_right(callback, browser)


async def is_waiting_and_then_right(callback: Callback, browser: aiohttp.ClientSession) -> bool:
    async with browser.get(callback.redirect_uri, params=RIGHT) as page:
        assert page.status == 200
    return await callback.wait() == RIGHT


async def test_only_one_answer_counts(callback: Callback, browser: aiohttp.ClientSession) -> None:
    for expected, code in ((200, "first"), (404, "second")):
        async with browser.get(callback.redirect_uri, params={"state": STATE, "code": code}) as page:
            assert page.status == expected
    assert (await callback.wait())["code"] == "first"


@pytest.mark.parametrize("path", ["/", "/favicon.ico", "/callback/", "/Callback", "//callback"])
async def test_other_paths_are_nothing(callback: Callback, browser: aiohttp.ClientSession, path: str) -> None:
    origin = f"http://{urlsplit(callback.redirect_uri).netloc}"
    async with browser.get(f"{origin}{path}?{urlencode(RIGHT)}") as page:
        assert page.status == 404
    assert await is_waiting_and_then_right(callback, browser)


@pytest.mark.parametrize("host", ["evil.example", "localhost:{port}", "127.0.0.1", "127.0.0.1.evil.example:{port}"])
async def test_other_hosts_are_nothing(callback: Callback, browser: aiohttp.ClientSession, host: str) -> None:
    port = str(urlsplit(callback.redirect_uri).port)
    headers = {"Host": host.format(port=port)}
    async with browser.get(callback.redirect_uri, params=RIGHT, headers=headers) as page:
        assert page.status == 404
    assert await is_waiting_and_then_right(callback, browser)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "HEAD"])
async def test_other_methods_are_nothing(callback: Callback, browser: aiohttp.ClientSession, method: str) -> None:
    async with browser.request(method, callback.redirect_uri, params=RIGHT) as page:
        assert page.status == 404
        assert "Access-Control-Allow-Origin" not in page.headers
    assert await is_waiting_and_then_right(callback, browser)


async def test_a_parameter_twice_is_nothing(callback: Callback, browser: aiohttp.ClientSession) -> None:
    async with browser.get(f"{callback.redirect_uri}?{urlencode(RIGHT)}&code=other") as page:
        assert page.status == 404
    assert await is_waiting_and_then_right(callback, browser)


async def test_a_huge_form_is_nothing(callback: Callback, browser: aiohttp.ClientSession) -> None:
    async with browser.post(callback.redirect_uri, data=RIGHT | {"pad": "x" * MOST_BYTES}) as page:
        assert page.status == 404
    assert await is_waiting_and_then_right(callback, browser)


async def test_a_json_body_is_nothing(callback: Callback, browser: aiohttp.ClientSession) -> None:
    async with browser.post(callback.redirect_uri, json=RIGHT) as page:
        assert page.status == 404
    assert await is_waiting_and_then_right(callback, browser)


async def test_a_pasted_address_is_as_good(callback: Callback) -> None:
    with pytest.raises(UsageError, match="not the address of this sign-in"):
        callback.deliver_pasted(f"{callback.redirect_uri}?state=wrong&code=x")
    assert await is_waiting(callback)


async def test_the_pasted_address_with_the_right_state(callback: Callback) -> None:
    callback.deliver_pasted(f"  {callback.redirect_uri}?{urlencode(RIGHT)}\n")
    assert await callback.wait() == RIGHT


async def test_before_a_state_is_known_nothing_is_accepted() -> None:
    callback = Callback(host="localhost", path="")
    await callback.start()
    assert not callback.deliver({"state": "", "code": "x"})
    await callback.close()


async def test_it_listens_on_loopback_only(callback: Callback) -> None:
    assert urlsplit(callback.redirect_uri).hostname == "127.0.0.1"
    with pytest.raises(ConfigurationError, match=r"evil\.example"):
        Callback(host="evil.example", path="/callback")
