from __future__ import annotations

import os
from pathlib import Path

import pytest

from llmgw_agent import __version__, launcher, settings
from llmgw_agent.errors import ConfigurationError
from llmgw_agent.token_stub import PATH_LIMIT, socket_path


def load(home: Path, text: str = "", **environ: str) -> settings.Settings:
    (home / "config.toml").write_text(text)
    return settings.load({"LLMGW_HOME": str(home), "HOME": str(home)} | environ, company=())


def test_the_file_is_read_and_the_environment_wins(home: Path) -> None:
    text = 'gateway_url = "https://gw.example.com/"'
    assert load(home, text).gateway_url == "https://gw.example.com"
    assert load(home, text, LLMGW_GATEWAY_URL="https://other.example.com").gateway_url == "https://other.example.com"


def test_ways_to_sign_in_are_a_list_in_the_file_and_words_in_the_environment(home: Path) -> None:
    text = 'gateway_url = "https://gw.example.com"\nsign_in_methods = ["browser", "device"]'
    assert load(home, 'gateway_url = "https://gw.example.com"').sign_in_methods == ("browser", "paste")
    assert load(home, text).sign_in_methods == ("browser", "device")
    assert load(home, text, LLMGW_SIGN_IN_METHODS="paste, device").sign_in_methods == ("paste", "device")
    for wrong in ('"browser"', "[]", "[1]", '["telepathy"]'):
        with pytest.raises(ConfigurationError, match="sign_in_methods"):
            load(home, f'gateway_url = "https://gw.example.com"\nsign_in_methods = {wrong}')


def test_the_forwarder_s_port_is_a_number(home: Path) -> None:
    text = 'gateway_url = "https://gw.example.com"\n'
    assert load(home, text).forward_port is None
    assert load(home, text + "forward_port = 4123").forward_port == 4123
    assert load(home, text + "forward_port = 4123", LLMGW_FORWARD_PORT="0").forward_port == 0
    for wrong in ("true", '"4123"', "65536", "-1", "4.5"):
        with pytest.raises(ConfigurationError, match="forward_port is not"):
            load(home, text + f"forward_port = {wrong}")


def test_the_daemon_inherits_every_variable_that_it_reads() -> None:
    known = {*settings.VARIABLES.values(), "LLMGW_HOME", "LLMGW_PROFILE"}
    assert known == {name for name in launcher.KEPT if name.startswith("LLMGW_")}


def test_all_faults_are_reported_at_once(home: Path) -> None:
    with pytest.raises(ConfigurationError) as failure:
        load(home, 'gateway_url = "http://gw.example.com"\nca_file = "missing.pem"\ninsecure = true\n')
    line = failure.value.line
    assert "https://" in line
    assert "'missing.pem'" in line
    assert "'insecure' is not a setting (there are: ca_file, forward_port, gateway_url, sign_in_methods)" in line


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("", "no gateway is set"),
        ("gw.example.com", "no host"),
        ("ftp://gw.example.com", "https://"),
        ("http://gw.example.com", "https://"),
        ("http://127.0.0.1.example.com", "https://"),
        ("https://user:pw@gw.example.com", "user name"),
        ("https://gw.example.com?x=1", "query"),
        ("https://gw.example.com:99999", "not a URL"),
    ],
)
def test_urls_a_token_must_not_travel_to(home: Path, url: str, word: str) -> None:
    with pytest.raises(ConfigurationError, match=word):
        load(home, f"gateway_url = {url!r}")


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "http://localhost:1", "http://[::1]:1", "https://gw/llm"])
def test_urls_that_are_fine(home: Path, url: str) -> None:
    assert load(home, f"gateway_url = {url!r}").gateway_url == url


def test_broken_toml_is_a_fault_that_names_the_file(home: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"config\.toml cannot be read"):
        load(home, "gateway_url = ")


def test_a_relative_home_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="LLMGW_HOME"):
        settings.places({"LLMGW_HOME": "somewhere"})


def test_without_llmgw_home_the_socket_lies_in_the_runtime_folder() -> None:
    assert socket_path({"HOME": "/h", "XDG_RUNTIME_DIR": "/r"}, 1) == "/r/llmgw/agent.sock"
    assert socket_path({"HOME": "/h"}, 987654321) == "/h/.cache/llmgw/agent.sock"


@pytest.mark.parametrize("more", [{}, {"HOME": "/h"}, {"HOME": "/" + "x" * PATH_LIMIT, "XDG_RUNTIME_DIR": "/r"}])
def test_a_long_home_gets_a_short_socket_of_its_own_that_is_found_by_it_alone(more: dict[str, str]) -> None:
    long = "/" + "x" * PATH_LIMIT
    paths = {socket_path({"LLMGW_HOME": home} | more, 987654321) for home in (long, long + "y")}
    assert paths == {socket_path({"LLMGW_HOME": home}, 987654321) for home in (long, long + "y")}
    assert len(paths) == 2
    assert all(path.startswith("/tmp/llmgw-987654321-") for path in paths)  # noqa: S108
    assert all(len(os.fsencode(path)) <= PATH_LIMIT for path in paths)


def test_version_is_the_distribution_s() -> None:
    pyproject = Path(__file__).parents[2] / "pyproject.toml"
    assert f'\nversion = "{__version__}"\n' in pyproject.read_text()


def test_what_is_for_the_company_is_not_for_the_user(home: Path, tmp_path: Path) -> None:
    text = 'gateway_url = "https://gw.example.com"\n'
    with pytest.raises(ConfigurationError, match="project_redirects is for your company to set"):
        load(home, text + 'project_redirects = "log"')
    assert load(home, text).project_redirects == "refuse"
    company = tmp_path / "managed.toml"
    environ = {"LLMGW_HOME": str(home), "HOME": str(home)}
    for word in ("log", "refuse"):
        company.write_text(f'project_redirects = "{word}"\n')
        assert settings.load(environ, [company], os.getuid()).project_redirects == word
    company.write_text('project_redirects = "off"\n')
    with pytest.raises(ConfigurationError, match=r"'off' \(there are: refuse, log\)"):
        settings.load(environ, [company], os.getuid())
