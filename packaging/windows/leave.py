"""Run by the installer as SYSTEM, by our own interpreter, before it replaces or removes what is in this folder.

`refuse` fails if managed settings make Claude Code run our helper: with the helper gone, Claude Code would not work.
`stop` ends every process that runs from this folder, of all users: Windows cannot replace a file that is in use. What a
user has signed in to is in their credential store, and the next command starts the agent again.
"""

import ctypes
import os
import sys
import winreg
from pathlib import Path

HELPER = b"llmgw-token"
POLICY = r"SOFTWARE\Policies\ClaudeCode"
NAMED = 3
QUERY_LIMITED_INFORMATION, TERMINATE, SYNCHRONIZE = 0x1000, 0x0001, 0x00100000
WAIT_MILLISECONDS = 10_000
MOST_PROCESSES = 65536
LONGEST_PATH = 32768


def is_named(folder: Path) -> bool:
    """Whether the policy, or a managed file in this folder, names our helper. What cannot be read counts, too."""
    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, POLICY, access=winreg.KEY_READ | winreg.KEY_WOW64_64KEY) as key:
            contents = [str(winreg.QueryValueEx(key, "Settings")[0]).encode()]
    except FileNotFoundError:
        contents = []
    except OSError:
        return True
    for path in (folder / "managed-settings.json", *(folder / "managed-settings.d").glob("*.json")):
        try:
            contents.append(path.read_bytes())
        except FileNotFoundError:
            continue
        except OSError:
            return True
    return any(HELPER in content.lower() for content in contents)


def stop(folder: Path) -> None:
    """End what runs from a folder or below it, and wait until it has ended."""
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel.OpenProcess.restype = ctypes.c_void_p
    begins = os.path.normcase(f"{folder}{os.sep}")
    for number in _processes():
        handle = kernel.OpenProcess(QUERY_LIMITED_INFORMATION | TERMINATE | SYNCHRONIZE, 0, number)
        if not handle or number == os.getpid():
            continue
        handle = ctypes.c_void_p(handle)
        image, length = ctypes.create_unicode_buffer(LONGEST_PATH), ctypes.c_ulong(LONGEST_PATH)
        is_known = kernel.QueryFullProcessImageNameW(handle, 0, image, ctypes.byref(length))
        if is_known and os.path.normcase(image.value).startswith(begins):
            kernel.TerminateProcess(handle, 1)
            kernel.WaitForSingleObject(handle, WAIT_MILLISECONDS)
        kernel.CloseHandle(handle)


def _processes() -> list[int]:
    found, used = (ctypes.c_ulong * MOST_PROCESSES)(), ctypes.c_ulong()
    if not ctypes.WinDLL("kernel32").K32EnumProcesses(found, ctypes.sizeof(found), ctypes.byref(used)):
        raise OSError("the system does not say what runs")
    return list(found[: used.value // ctypes.sizeof(ctypes.c_ulong)])


def main() -> int:
    """The exit code: 0, or 3 if the helper is named."""
    if sys.argv[1:] == ["refuse"]:
        return NAMED if is_named(Path(os.environ["PROGRAMFILES"]) / "ClaudeCode") else 0
    stop(Path(sys.argv[0]).resolve().parent)
    return 0


if __name__ == "__main__":
    sys.exit(main())
