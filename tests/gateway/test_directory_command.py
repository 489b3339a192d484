"""`llmgw-gateway directory`: files are taken whole or not at all, and what went out comes in again."""

from __future__ import annotations

import csv
import io
import time
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from llmgw_gateway.main import main
from tests.gateway import configuration

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.gateway.columns import Column

ISSUER = "https://idp.example"
USERS = """\
user_name,email,name,external_id,active,teams
ada,ada@example.com,Ada Lovelace,00u1,true,"Research|Payments, EU"
bob,,"=cmd|' /C calc'!A0",,false,
eve@example.com,,'Eve,,,Research
"""
TEAMS = 'name,external_id\nResearch,g-1\n"Payments, EU",\n'


class Shell:
    """The command beside a store of either kind."""

    def __init__(self, folder: Path, column: Column) -> None:
        self.folder = folder
        self.column = column
        path = configuration.folder(folder)
        issuers = [{"issuer": ISSUER, "client_id": "client"}]
        store = column.configuration()
        if "url" in store:
            secret = folder / "store.url"
            secret.touch(mode=0o600)
            secret.write_text(store["url"], encoding="utf-8")
            store = {"url_file": secret.name}
        document = configuration.good() | {"store": store, "issuers": issuers}
        self.config = configuration.write(path, document)

    def __call__(self, verb: str, what: str, text: str | None = None, *words: str) -> Result:
        more = [] if text is None else [self.file(what, text)]
        done = CliRunner().invoke(main, ["directory", verb, str(self.config), what, *more, *words])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    def file(self, what: str, text: str) -> str:
        path = self.folder / f"{what}.csv"
        path.write_text(text, encoding="utf-8")
        return str(path)

    def count(self, table: str) -> int:
        return len(self.column.sql(f"SELECT * FROM {table}"))  # noqa: S608 -- a table's name


@pytest.fixture
def shell(tmp_path: Path, column: Column) -> Shell:
    return Shell(tmp_path, column)


@pytest.fixture
def filled(shell: Shell) -> Shell:
    for what, text in (("teams", TEAMS), ("users", USERS)):
        done = shell("import", what, text)
        assert (done.exit_code, done.stderr) == (0, ""), done.stderr
    return shell


def test_what_was_exported_is_imported_without_a_change(filled: Shell) -> None:
    for what, count in (("users", 3), ("teams", 2)):
        exported = filled("export", what).stdout
        changes = filled.count("changes")
        done = filled("import", what, exported)
        assert done.stdout == f"0 created, 0 changed, {count} unchanged, 0 bad\n"
        assert filled.count("changes") == changes
        assert filled("export", what).stdout == exported
        for row in csv.reader(io.StringIO(exported)):
            assert not [cell for cell in row if cell.startswith(("=", "+", "-", "@"))]


def test_people_and_their_teams_are_there(filled: Shell) -> None:
    rows = filled.column.sql("SELECT user_name, email, name, source, home, inactive_at IS NULL FROM persons ORDER BY 1")
    assert [(*map(str, row[:5]), bool(row[5])) for row in rows] == [
        ("ada", "ada@example.com", "Ada Lovelace", "csv", ISSUER, True),
        ("bob", "", "=cmd|' /C calc'!A0", "csv", ISSUER, False),
        ("eve@example.com", "eve@example.com", "'Eve", "csv", ISSUER, True),
    ]
    assert filled.count("team_members") == 3
    actions = {action for (action,) in filled.column.sql("SELECT action FROM changes WHERE role = 'operator'")}
    assert actions == {"team.add", "person.add", "person.teams"}


def test_a_bad_line_stops_the_file_unless_it_may_be_skipped(filled: Shell) -> None:
    more = "user_name,teams,active,email\nnew,,true,\n,,,\nada,Nowhere,,\nx,,perhaps,\ny,,,nobody\nNEW,,,\nz,,,\n"
    done = filled("import", "users", more)
    assert (done.exit_code, filled.count("persons")) == (1, 3)
    assert done.stdout == (
        "nothing was written: 2 created, 0 changed, 0 unchanged, 4 bad; --skip-bad imports the good lines\n"
    )
    told = [line.partition("line ")[2] for line in done.stderr.splitlines()]
    assert told == [
        "4: there is no team 'Nowhere': import teams first",
        "5: active must be true or false",
        "6: 'nobody' is no e-mail address",
        "7: 'NEW' stands in line 2 already",
    ]
    report = filled.folder / "report.csv"
    done = filled("import", "users", more, "--skip-bad", "--report", str(report))
    assert (done.exit_code, done.stdout) == (1, "2 created, 0 changed, 0 unchanged, 4 bad\n")
    assert filled.count("persons") == 5
    assert report.read_text(encoding="utf-8").splitlines()[:3] == [
        "line,what,why",
        "2,created,",
        "4,bad,there is no team 'Nowhere': import teams first",
    ]


def test_a_dry_run_says_what_would_be_and_writes_nothing(filled: Shell) -> None:
    text = "user_name,name,active,teams\nada,Countess,false,Research\nnew,,,\nbob,\"=cmd|' /C calc'!A0\",no,\n"
    before = filled("export", "users").stdout, filled.count("changes")
    done = filled("import", "users", text, "--dry-run")
    assert done.stdout == "nothing was written: 1 created, 1 changed, 1 unchanged, 0 bad (dry run)\n"
    assert (filled("export", "users").stdout, filled.count("changes")) == before
    assert filled("import", "users", text).stdout == "1 created, 1 changed, 1 unchanged, 0 bad\n"
    ((name, email),) = filled.column.sql("SELECT name, email FROM persons WHERE user_name = 'ada'")
    assert (name, email) == ("Countess", "ada@example.com")  # a column that is not there changes nothing


def test_what_scim_provisions_no_file_changes(filled: Shell) -> None:
    filled.column.sql("UPDATE persons SET source = 'scim' WHERE user_name = 'ada'")
    filled.column.sql("UPDATE teams SET source = 'scim' WHERE name = 'Research'")
    for what, text in [
        ("users", "user_name,name\nada,Countess\n"),
        ("users", "user_name,teams\nbob,Research\n"),
        ("teams", "name,external_id\nResearch,other\n"),
    ]:
        done = filled("import", what, text)
        assert (done.exit_code, "is provisioned by SCIM" in done.stderr) == (1, True), done.stderr
    assert filled("import", "users", USERS).stdout == "0 created, 0 changed, 3 unchanged, 0 bad\n"


def test_keys_are_made_once_and_their_secrets_go_to_a_file_of_their_owner(filled: Shell) -> None:
    text = "name,owner,team,models,days\nci,ada,Research,claude-sonnet-4-5,30\nnightly,ada,,,\n"
    refused = filled("import", "keys", text)
    assert (refused.exit_code, "--secrets FILE is needed" in refused.stderr) == (2, True)
    secrets = filled.folder / "secrets.csv"
    done = filled("import", "keys", text, "--secrets", str(secrets))
    assert (done.exit_code, done.stdout) == (0, "2 created, 0 changed, 0 unchanged, 0 bad\n")
    assert secrets.stat().st_mode & 0o777 == 0o600
    rows = list(csv.DictReader(io.StringIO(secrets.read_text(encoding="utf-8"))))
    assert [row["name"] for row in rows] == ["ci", "nightly"]
    assert all(row["secret"].startswith("llmgw_sk_") for row in rows)
    assert rows[0]["secret"] not in done.output + filled("export", "keys").output
    for again in (text, filled("export", "keys").stdout):
        done = filled("import", "keys", again)
        assert (done.exit_code, done.stdout) == (0, "0 created, 0 changed, 2 unchanged, 0 bad\n")
    other = filled("import", "keys", "name,owner,team\nx,y,\n", "--secrets", str(secrets))
    assert (other.exit_code, "cannot be made" in other.stderr, filled.count("service_keys")) == (2, True, 2)
    bad = "name,owner,team,models,days,key\n,a,,,,\na,b,No,,,\na,b,,gpt,,\na,b,,,0,\na,b,,,,key_9\nci,ada,,,,\n"
    done = filled("import", "keys", bad)
    assert (done.exit_code, done.stdout.split(":")[1].split(",")[3].split()[0]) == (1, "6")


@pytest.mark.parametrize("text", ["", "name\n", "user_name,nmae\n"])
def test_a_file_that_is_none_is_refused_as_a_whole(shell: Shell, text: str) -> None:
    done = shell("import", "users", text)
    assert (done.exit_code, done.stderr.startswith("llmgw-gateway: ")) == (2, True)


@pytest.mark.long
def test_ten_thousand_people_in_five_hundred_teams(
    columns: Callable[[], Column], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The time is printed, not judged; the bench on a quiet machine holds it against a minute."""
    shell = Shell(tmp_path, columns())
    names = [f"team-{number}" for number in range(500)]
    people = [
        f"user{n}@example.com,user{n}@example.com,User {n},00u{n},team-{n % 500}|team-{n * 7 % 500}"
        for n in range(10_000)
    ]
    begun, worked = time.monotonic(), time.process_time()
    teams = shell("import", "teams", "\n".join(["name", *names]))
    users = shell("import", "users", "\n".join(["user_name,email,name,external_id,teams", *people]))
    with capsys.disabled():
        seconds, cpu = time.monotonic() - begun, time.process_time() - worked
        print(f"\n10,000 people and 500 teams in {seconds:.1f} s ({cpu:.1f} s of this process's CPU)")
    assert (teams.exit_code, users.exit_code) == (0, 0), users.stderr
    assert users.stdout == "10,000 created, 0 changed, 0 unchanged, 0 bad\n"
    assert shell.count("persons") == 10_000
    again = shell("import", "users", "\n".join(["user_name,email,name,external_id,teams", *people]))
    assert again.stdout == "0 created, 0 changed, 10,000 unchanged, 0 bad\n"
