from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.lab.loopback import HOST
from tests.lab.postgres import USER, Postgres

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def server() -> Iterator[Postgres]:
    """One to kill, pause and restart: never the session's."""
    with Postgres() as running:
        yield running


def write(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept (row TEXT)")
        connection.execute("INSERT INTO kept VALUES ('durable')")


def read(url: str) -> list[tuple[str]]:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT row FROM kept").fetchall()


def test_a_server_that_was_killed_or_ended_comes_back_with_what_was_committed(server: Postgres) -> None:
    url = server.url(server.database())
    write(url)
    with psycopg.connect(url) as waiting:  # does not stop either of them
        server.kill()
        assert not server.serves()
        with pytest.raises(psycopg.OperationalError):
            waiting.execute("SELECT 1")
    server.start()
    server.wait_ready()
    assert read(url) == [("durable",)]
    with psycopg.connect(url):
        server.restart()
    assert read(url) == [("durable",)]


def test_a_paused_server_answers_nothing_until_it_goes_on(server: Postgres) -> None:
    with psycopg.connect(server.url()) as connection:
        server.pause()
        connection.pgconn.send_query(b"SELECT 1")
        with pytest.raises(psycopg.errors.ConnectionTimeout):
            psycopg.connect(server.url(), connect_timeout=2)
        server.resume()
        answer = connection.pgconn.get_result()
        assert answer is not None
        assert answer.get_value(0, 0) == b"1"
        assert connection.pgconn.get_result() is None
        assert server.serves()


def test_a_database_may_be_a_copy_of_another(server: Postgres) -> None:
    template = server.database()
    write(server.url(template))
    copy = server.database(template)
    assert copy != template
    assert read(server.url(copy)) == [("durable",)]


def test_nobody_comes_in_without_the_password(server: Postgres) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(host=HOST, port=server.port, user=USER, dbname="postgres", password="wrong")


def test_a_port_that_was_taken_meanwhile_is_given_up_for_another(server: Postgres) -> None:
    with Postgres() as second:
        second.terminate()
        second.port = server.port
        second.program = second._program()
        second.start()
        second.wait_ready()
        assert second.port != server.port
        assert second.serves()
