"""`llmgw completion SHELL`: click's own for bash, zsh and fish, and one for PowerShell in the same manner."""

from __future__ import annotations

import os
from typing import Final

import click
from click.shell_completion import CompletionItem, ShellComplete, add_completion_class, get_completion_class

SHELLS: Final = ("bash", "zsh", "fish", "powershell")
VARIABLE: Final = "_LLMGW_COMPLETE"
SCRIPT: Final = """\
Register-ArgumentCompleter -Native -CommandName %(prog_name)s -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    $env:%(complete_var)s = "powershell_complete"
    $env:COMP_WORDS = $commandAst.ToString()
    $env:COMP_WORD = $wordToComplete
    try {
        %(prog_name)s | ForEach-Object {
            $value, $text = $_ -split "`t", 2
            if (-not $text) { $text = $value }
            [System.Management.Automation.CompletionResult]::new($value, $value, "ParameterValue", $text)
        }
    } finally {
        Remove-Item Env:%(complete_var)s, Env:COMP_WORDS, Env:COMP_WORD
    }
}
"""


class PowerShell(ShellComplete):
    """Completion for PowerShell 5.1 and later: one `value TAB help` a line."""

    name = "powershell"
    source_template = SCRIPT

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one at the cursor, and that one."""
        words = click.shell_completion.split_arg_string(os.environ.get("COMP_WORDS", ""))
        incomplete = os.environ.get("COMP_WORD", "")
        arguments = words[1:]
        if incomplete and arguments and arguments[-1] == incomplete:
            arguments.pop()
        return arguments, incomplete

    def format_completion(self, item: CompletionItem) -> str:
        """One line."""
        return f"{item.value}\t{item.help or ''}".rstrip("\t")


@click.command(short_help="Print what a shell needs to complete commands.")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what a shell needs to complete llmgw's commands; see docs/agent.md for where it goes."""
    kind = get_completion_class(shell)
    if kind is not None:
        click.echo(kind(context.find_root().command, {}, "llmgw", VARIABLE).source_template % _variables(shell))


def _variables(shell: str) -> dict[str, str]:
    # Not `source()`: click starts a bash to ask for its version.
    return {"complete_func": f"_llmgw_{shell}_completion", "complete_var": VARIABLE, "prog_name": "llmgw"}


add_completion_class(PowerShell)
