"""The PowerShell scripts for Windows: short, for Windows PowerShell 5.1 and later, run as SYSTEM by an MDM. Pure.

They are ASCII, because Windows PowerShell takes a file without a mark for one of the machine's code page.
"""

from __future__ import annotations

import json
from typing import Final

from llmgw_mdm import shapes

KEY: Final = "HKLM:\\" + shapes.REGISTRY_KEY.removeprefix("HKEY_LOCAL_MACHINE\\")
HEAD: Final = """# Rendered by `llmgw mdm render`: change org.toml and render again.
# {purpose}
Set-StrictMode -Version 2.0
$ErrorActionPreference = 'Stop'
$key = {key}
$name = {name}
"""
WANTED: Final = """$helper = {helper}
$wanted = {wanted}
"""
STATE: Final = """
function Get-State {
    if (-not (Test-Path -LiteralPath $helper -PathType Leaf)) { return 'agent missing' }
    $found = $null
    if (Test-Path -LiteralPath $key) { $found = (Get-Item -LiteralPath $key).GetValue($name) }
    if ($found -ceq $wanted) { return 'in force' }
    return 'not in force'
}
"""
DETECT: Final = """
$state = Get-State
Write-Output $state
if ($state -ceq 'in force') { exit 0 }
exit 1
"""
SENSOR: Final = """
Write-Output (Get-State)
"""
REMEDIATE: Final = """
# A policy that names a helper which is not there stops Claude Code.
if ((Get-State) -ceq 'agent missing') {
    Write-Output 'agent missing: nothing was changed'
    exit 1
}
if (-not (Test-Path -LiteralPath $key)) { New-Item -Path $key -Force | Out-Null }
New-ItemProperty -LiteralPath $key -Name $name -Value $wanted -PropertyType String -Force | Out-Null
Write-Output (Get-State)
exit 0
"""
REMOVE: Final = """
if (Test-Path -LiteralPath $key) {
    # Other people's values under the key stay.
    Remove-ItemProperty -LiteralPath $key -Name $name -ErrorAction SilentlyContinue
}
Write-Output 'removed'
exit 0
"""


def detect(helper: str, wanted: str) -> bytes:
    """Exit code 0 and a line if the registry says what is wanted; else 1."""
    return _script("Whether Claude Code is led to the gateway. Changes nothing.", helper, wanted, STATE + DETECT)


def sensor(helper: str, wanted: str) -> bytes:
    """One line: `in force`, `not in force` or `agent missing`."""
    return _script("Whether Claude Code is led to the gateway. Changes nothing.", helper, wanted, STATE + SENSOR)


def remediate(helper: str, wanted: str) -> bytes:
    """Writes what is wanted, if the helper is there."""
    return _script("Leads Claude Code to the gateway.", helper, wanted, STATE + REMEDIATE)


def remove() -> bytes:
    """Takes the value away."""
    head = HEAD.format(
        purpose="Takes Claude Code's policy away again.", key=quoted(KEY), name=quoted(shapes.REGISTRY_VALUE)
    )
    return _lines(head + REMOVE)


def quoted(text: str) -> str:
    """An expression in ASCII that is this text, and nothing in it is expanded."""
    if text.isascii():
        return "'" + text.replace("'", "''") + "'"
    # JSON escapes the rest, and also the curly quotes that PowerShell takes for straight ones.
    return f"(ConvertFrom-Json {quoted(json.dumps(text))})"


def _script(purpose: str, helper: str, wanted: str, body: str) -> bytes:
    head = HEAD.format(purpose=purpose, key=quoted(KEY), name=quoted(shapes.REGISTRY_VALUE))
    return _lines(head + WANTED.format(helper=quoted(helper), wanted=quoted(wanted)) + body)


def _lines(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode("ascii")
