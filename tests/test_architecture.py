"""The rules of the layout that no type checker knows: sizes, names, purity, and what importing may do."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
FOLDERS = ("agent", "gateway", "mdm", "packaging", "docs")
MOST_LINES = 400
MOST_FUNCTION_LINES = 70
PURE = (
    *("policy/*.py", "dialects/*.py", "identity/tokens.py"),
    *(f"money/{name}.py" for name in ("prices", "periods", "estimate", "decide")),
    *(f"streams/{name}.py" for name in ("eventstream", "sse", "meter")),
)
IMPURE = {"aiohttp", "boto3", "botocore", "sqlalchemy", "asyncio", "time", "socket", "threading", "requests", "random"}
FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "helper", "manager", "base", "v2", "misc"}
TEXT = {".py", ".md", ".toml", ".yml", ".yaml", ".sh", ".mjs", ".json", ".tf", ".cfg", ".txt", ".lock", ".plist", ""}


def modules(folder: str) -> list[Path]:
    """The modules of a folder that are shipped."""
    return sorted(path for path in (REPOSITORY / folder).rglob("*.py") if "node_modules" not in path.parts)


SHIPPED = [*modules("agent"), *modules("gateway"), *modules("mdm")]


def shown(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_folder_of_the_layout_is_a_package(folder: str) -> None:
    # A package named `packaging` breaks pytest, and `agent` would be importable as such.
    assert not (REPOSITORY / folder / "__init__.py").exists()


@pytest.mark.parametrize("path", [path for path in SHIPPED if "migrations" not in path.parts], ids=shown)
def test_a_file_is_one_thing(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", [path for path in SHIPPED if "migrations" not in path.parts], ids=shown)
def test_a_function_is_one_thing(path: Path) -> None:
    functions = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = [node.name for node in functions if (node.end_lineno or 0) - node.lineno + 1 > MOST_FUNCTION_LINES]
    assert long == []


@pytest.mark.parametrize("path", [*SHIPPED, *(p for f in ("packaging", "tests") for p in modules(f))], ids=shown)
def test_a_module_is_named_for_what_it_does(path: Path) -> None:
    assert not {part.removesuffix(".py") for part in path.relative_to(REPOSITORY).parts} & FORBIDDEN_NAMES


def imported(tree: ast.Module) -> set[str]:
    """What a module imports when it runs; what only a type checker reads does not count."""
    checked = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if node in checked:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


@pytest.mark.parametrize("pattern", PURE)
def test_what_decides_is_pure(pattern: str) -> None:
    paths = sorted((REPOSITORY / "gateway/llmgw_gateway").glob(pattern))
    assert paths, pattern
    assert {shown(path): imported(parsed(path)) & IMPURE for path in paths} == {shown(path): set() for path in paths}


@pytest.mark.parametrize("path", SHIPPED, ids=shown)
def test_no_exception_is_swallowed_unseen(path: Path) -> None:
    handlers = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.ExceptHandler)]
    silent = [
        node.lineno
        for node in handlers
        if (node.type is None or (isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"}))
        and all(
            isinstance(each, ast.Pass | ast.Continue)
            or (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant))
            for each in node.body
        )
    ]
    assert silent == []


# Whoever imports a module gets definitions: no file, no network, no thread, no process. At each such event the hook
# asks whether one of our modules caused it, directly or through a library, and not the import system.
WATCH = """
import importlib, json, sys
roots = tuple(sys.argv[1].split(":"))
seen = []
WATCHED = {"open", "os.mkdir", "os.remove", "os.rename", "socket.connect", "socket.bind", "socket.getaddrinfo",
           "socket.__new__", "subprocess.Popen", "os.fork", "os.posix_spawn", "_thread.start_new_thread",
           "os.putenv", "signal.signal", "sqlite3.connect"}
busy = False

def hook(event, args):
    global busy
    if event not in WATCHED or busy:
        return
    busy = True
    try:
        frame = sys._getframe(1)
        while frame is not None:
            name = frame.f_code.co_filename
            if name.startswith("<frozen importlib"):
                return
            if name.startswith(roots):
                seen.append(f"{name}:{frame.f_lineno}: {event} {args[:1]!r}")
                return
            frame = frame.f_back
    finally:
        busy = False

def threads():
    import threading
    return sorted(thread.name for thread in threading.enumerate() if thread is not threading.main_thread())

sys.addaudithook(hook)
for module in sys.argv[2:]:
    importlib.import_module(module)
seen += [f"a thread is left running: {name}" for name in threads()]
print(json.dumps(seen))
"""


def importable(folder: str) -> list[str]:
    """The modules of a folder by their import names; disk path = import path."""
    root = REPOSITORY / folder
    names = [path.relative_to(root).with_suffix("") for path in modules(folder) if "migrations" not in path.parts]
    return [".".join(name.parts).removesuffix(".__init__") for name in names if name.name != "__main__"]


def imports(names: list[str], roots: list[Path]) -> list[str]:
    """What importing did besides defining."""
    command = [sys.executable, "-c", WATCH, ":".join(map(str, roots)), *names]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout.splitlines()[-1])
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize("folder", ["gateway", "agent", "mdm"])
def test_importing_a_module_opens_nothing_and_starts_nothing(folder: str) -> None:
    names = importable(folder)
    assert len(names) > 5
    assert imports(names, [REPOSITORY / folder]) == []


@pytest.mark.parametrize(
    "does",
    [
        "open({here!r})",
        "import threading as t; t.Thread(target=t.Event().wait, daemon=True, name='guilty_module.py').start()",
        "import socket; socket.socket().close()",
        "from pathlib import Path; Path({here!r}).read_bytes()",
    ],
)
def test_a_module_that_does_something_when_imported_is_found(tmp_path: Path, does: str) -> None:
    (tmp_path / "guilty_module.py").write_text(does.format(here=str(tmp_path / "data")), encoding="utf-8")
    (tmp_path / "data").touch()
    command = [sys.executable, "-W", "ignore", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{WATCH}"]
    finished = subprocess.run([*command, str(tmp_path), "guilty_module"], capture_output=True, text=True, check=True)
    assert "guilty_module.py" in finished.stdout


def tracked() -> list[Path]:
    """The files of the repository as a clone has them; without git, nothing is known about that."""
    listing = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=REPOSITORY, capture_output=True, check=False
    )
    names = [name for name in listing.stdout.decode().split("\0") if name]
    return [path for name in names if (path := REPOSITORY / name).is_file() and path.suffix in TEXT]


PLACEHOLDERS = "user|you|me|someone|name|example|runner|llmgw|nonroot|app|x"
HOME = re.compile(rf"(?<![\w.~-])/(?:home|Users)/(?!(?:{PLACEHOLDERS})\b)[a-z]\w*|(?<!\w)/root/\.?[a-z]")


def test_no_file_names_a_folder_of_somebody_s_machine() -> None:
    files = tracked()
    assert len(files) > 50
    here = str(REPOSITORY)
    guilty = []
    for path in files:
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if HOME.search(line) or (len(here) > 5 and here + "/" in line):
                guilty.append(f"{shown(path)}:{number}: {line.strip()[:100]}")
    assert guilty == []
