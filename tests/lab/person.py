"""The headless person: opens a sign-in page, fills in what it asks for, follows it to the end.

It knows forms, not providers: the same code signs in at canaille and at oidc-provider, gives consent, performs
`response_mode=form_post` (which is just a form that a browser sends by itself) and confirms a device code.
"""

from __future__ import annotations

import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.cookiejar import CookieJar
from typing import IO, TYPE_CHECKING

from tests.lab.loopback import opener

if TYPE_CHECKING:
    from http.client import HTTPMessage
    from pathlib import Path

MAX_FORMS = 12
LOGIN_FIELDS = ("login", "username", "email")


@dataclass(frozen=True)
class Page:
    """What the browser shows: where it is, and what it was sent."""

    url: str
    status: int
    text: str


@dataclass
class Form:
    action: str
    fields: dict[str, str] = field(default_factory=dict)
    buttons: list[tuple[str, str]] = field(default_factory=list)


class FormReader(HTMLParser):
    """Collects the forms of a page that are sent by POST."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self._form: Form | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        name, value = attributes.get("name", ""), attributes.get("value", "")
        if tag == "form":
            is_post = attributes.get("method", "").lower() == "post"
            self._form = Form(attributes.get("action", "")) if is_post else None
            self.forms += [self._form] if self._form else []
        elif self._form is None or not name:
            return
        elif tag == "button" or attributes.get("type") == "submit":
            self._form.buttons.append((name, value))
        elif tag == "input" and (attributes.get("type") != "checkbox" or "checked" in attributes):
            self._form.fields[name] = value

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._form = None


class Person:
    """Someone with a login, a password and a browser that keeps its cookies."""

    def __init__(self, login: str, password: str, *, ca_file: Path | None = None, unreachable: str = "") -> None:
        """A page whose address begins with `unreachable` does not open: the browser stops there, and shows it."""
        self.login = login
        self.password = password
        cookies, stop = urllib.request.HTTPCookieProcessor(CookieJar()), _Unreachable(unreachable)
        self._browser = opener(cookies, stop, ca_file=ca_file)

    def sign_in(self, url: str, *, user_code: str = "", declines: bool = False) -> Page:
        """Follow every form from `url` on; return the page that has none left (or that would be asked again).

        Whoever `declines` says no where a device code asks to be confirmed.
        """
        page = self._open(url)
        asked: set[tuple[str, tuple[str, ...]]] = set()
        for _ in range(MAX_FORMS):
            form = self._next_form(page)
            if form is None:
                return page
            # The same question twice means that the answer was refused: show that page instead of asking for ever.
            question = (urllib.parse.urlsplit(form.action).path, tuple(sorted(form.fields)))
            if question in asked:
                return page
            asked.add(question)
            fields = self._filled(form, user_code)
            page = self._open(form.action, fields | ({"abort": "yes"} if declines and "confirm" in fields else {}))
        return page

    def _next_form(self, page: Page) -> Form | None:
        reader = FormReader()
        reader.feed(page.text)
        for form in reader.forms:
            form.action = urllib.parse.urljoin(page.url, form.action)
            return form
        return None

    def _filled(self, form: Form, user_code: str) -> dict[str, str]:
        known = dict.fromkeys(LOGIN_FIELDS, self.login) | {"password": self.password}
        known |= {"user_code": user_code} if user_code else {}
        fields = {name: known.get(name, value) for name, value in form.fields.items() if name != "abort"}
        agree = [(name, value) for name, value in form.buttons if value not in {"logout", "deny"} and name != "abort"]
        return fields | dict(agree[:1])

    def _open(self, url: str, fields: dict[str, str] | None = None) -> Page:
        data = None if fields is None else urllib.parse.urlencode(fields).encode()
        try:
            answer = self._browser.open(url, data, timeout=20)
        except urllib.error.HTTPError as error:
            answer = error  # an error page is a page, too
        with answer:
            address = answer.headers.get("Location") or answer.url  # of a page that did not open
            return Page(address, answer.status, answer.read().decode(errors="replace"))


class _Unreachable(urllib.request.HTTPRedirectHandler):
    """Follows redirects but those to one address."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        if self._prefix and newurl.startswith(self._prefix):
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)
