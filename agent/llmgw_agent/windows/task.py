"""The agent as a scheduled task: from logon on, and again when it failed. Neither is a matter for administrators.

The texts are pure, so that installers render them, too: one task for a user, or one for everybody who logs on.
"""

from __future__ import annotations

from typing import Final
from xml.sax.saxutils import escape

NAME: Final = "llmgw"
"""The task of an installer, for everybody. A user's own has the SID behind it: see `name`."""
DESCRIPTION: Final = "llmgw agent: hands tools short-lived tokens for the company's LLM gateway"
USERS: Final = "S-1-5-32-545"
ENCODING: Final = "utf-16"
"""What `schtasks /create /xml` wants, with a byte order mark."""
TASK: Final = """\
<?xml version="1.0" encoding="UTF-16"?>
<Task version="1.2" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <RegistrationInfo>
    <Description>{description}</Description>
  </RegistrationInfo>
  <Triggers>
    <LogonTrigger>
      <Enabled>true</Enabled>{trigger}
    </LogonTrigger>
  </Triggers>
  <Principals>
    <Principal id="Author">
      {principal}
      <RunLevel>LeastPrivilege</RunLevel>
    </Principal>
  </Principals>
  <Settings>
    <MultipleInstancesPolicy>{instances}</MultipleInstancesPolicy>
    <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>
    <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>
    <AllowHardTerminate>true</AllowHardTerminate>
    <StartWhenAvailable>true</StartWhenAvailable>
    <RunOnlyIfNetworkAvailable>false</RunOnlyIfNetworkAvailable>
    <IdleSettings>
      <StopOnIdleEnd>false</StopOnIdleEnd>
      <RestartOnIdle>false</RestartOnIdle>
    </IdleSettings>
    <AllowStartOnDemand>true</AllowStartOnDemand>
    <Enabled>true</Enabled>
    <Hidden>false</Hidden>
    <RunOnlyIfIdle>false</RunOnlyIfIdle>
    <WakeToRun>false</WakeToRun>
    <ExecutionTimeLimit>PT0S</ExecutionTimeLimit>
    <Priority>5</Priority>
    <RestartOnFailure>
      <Interval>PT1M</Interval>
      <Count>3</Count>
    </RestartOnFailure>
  </Settings>
  <Actions Context="Author">
    <Exec>
      <Command>{command}</Command>
      <Arguments>{arguments}</Arguments>
    </Exec>
  </Actions>
</Task>
"""


def name(sid: str, profile: str = "") -> str:
    """A user's own task; each profile has one."""
    return f"{NAME}-{sid}{profile and '@' + profile}"


def task_xml(command: str, arguments: str, user: str | None) -> str:
    """The task as `schtasks /create /xml` takes it, once it is encoded as `ENCODING`.

    Args:
        command: The program, a whole path; `%NAME%` is replaced by the task scheduler.
        arguments: Its command line, as Windows splits it.
        user: The SID of its user; None: everybody who logs on, each with an agent of their own.
    """
    if user is None:
        trigger, principal, instances = "", f"<GroupId>{USERS}</GroupId>", "Parallel"
    else:
        trigger = f"\n      <UserId>{escape(user)}</UserId>"
        principal = f"<UserId>{escape(user)}</UserId>\n      <LogonType>InteractiveToken</LogonType>"
        instances = "IgnoreNew"
    return TASK.format(
        description=escape(DESCRIPTION),
        trigger=trigger,
        principal=principal,
        instances=instances,
        command=escape(command),
        arguments=escape(arguments),
    )
