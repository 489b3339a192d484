"""For CI jobs: what GitHub Actions and GitLab need so that a job asks models as itself, without a stored secret. Pure.

A job's identity is its own: the agent trades it for a gateway token (docs/agent.md). Runners are new for every job, so
the organisation's package is installed in each of them, and nothing has to be taken away again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from llmgw_mdm.artefact import Artefact
from llmgw_mdm.organization import package_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmgw_mdm.organization import Organization

GITHUB, GITLAB = "github-actions", "gitlab-ci"
HEAD: Final = "---\n# Rendered by `llmgw mdm render`: change org.toml and render again.\n"
KEY_FILE: Final = "/etc/apt/keyrings/llmgw.asc"
LIST_FILE: Final = "/etc/apt/sources.list.d/llmgw.sources"
GITHUB_TEXT: Final = """\
# .github/workflows/claude.yml: `id-token` lets the job get the token that the gateway knows it by.
name: Claude Code
"on":
  workflow_dispatch:
permissions:
  contents: read
  id-token: write
jobs:
  ask:
    runs-on: ubuntu-24.04
    steps:
      - uses: actions/checkout@v5
      - name: Install the agent, the company's settings, and Claude Code
        run: |
{lines}
      - name: Ask
        run: claude -p "Say hello."
"""
GITLAB_TEXT: Final = """\
# .gitlab-ci.yml: the gateway knows the job by `LLMGW_ID_TOKEN`.
.claude-code:
  image: node:22-bookworm
  id_tokens:
    LLMGW_ID_TOKEN:
      aud: {audience}
  before_script:
{lines}

ask:
  extends: .claude-code
  script:
    - claude -p "Say hello."
"""


def artefacts(org: Organization) -> Iterator[Artefact]:
    """A workflow for each system that the organisation uses."""
    gone = "delete it to remove: a runner keeps nothing"
    if GITHUB in org.tools:
        lines = "\n".join(f"          {line}" for line in commands(org, sudo="sudo "))
        text = HEAD + GITHUB_TEXT.format(lines=lines)
        yield Artefact("ci/github-actions.yml", text.encode(), f"a workflow for GitHub Actions; {gone}")
    if GITLAB in org.tools:
        lines = "\n".join(f"    - {line}" for line in commands(org))
        text = HEAD + GITLAB_TEXT.format(lines=lines, audience=org.pipelines.audience)
        yield Artefact("ci/gitlab-ci.yml", text.encode(), f"a job for GitLab CI; {gone}")


def commands(org: Organization, sudo: str = "") -> list[str]:
    """What a job types before it can ask, on Debian or Ubuntu."""
    address, fetch = org.pipelines.repository, f"{sudo}curl --fail --silent --show-error --create-dirs --output"
    return [
        f"{fetch} {KEY_FILE} {address}/llmgw.asc",
        f"{fetch} {LIST_FILE} {address}/llmgw.sources",
        f"{sudo}apt-get update",
        f"{sudo}apt-get install --yes {package_name(org.identifier)}",
        f"{sudo}npm install --global @anthropic-ai/claude-code@{org.claude.minimum_version}",
    ]
