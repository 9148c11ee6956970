"""The tree's own rules, held by reading its files. Each rule is a function from a file to its breaches, tried on a
sample that breaks it, so that none can pass by checking nothing."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

ROOT = Path(__file__).parents[1]
SKIPPED_FOLDERS = {"__pycache__", "build", "dist", "bench-results"}
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60

Rule = Callable[[str], list[str]]

# --- what is read ----------------------------------------------------------------------------------------------


def files() -> list[Path]:
    """Every file that belongs to the tree: what git knows or would add, or all of an unpacked archive."""
    # Fixed arguments; git is the developer's own.
    asked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        timeout=30,
        check=False,
    )
    if asked.returncode == 0:
        found = [ROOT / name.decode() for name in asked.stdout.split(b"\0") if name]
    else:
        found = [p for p in ROOT.rglob("*") if not any(_hidden(part) for part in p.relative_to(ROOT).parts[:-1])]
    return sorted(p for p in found if p.is_file())


def _hidden(part: str) -> bool:
    return part in SKIPPED_FOLDERS or part.endswith(".egg-info") or (part.startswith(".") and part != ".ci")


def texts(folder: str = "", suffixes: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Path from the root and text of each text file under ``folder``."""
    for path in files():
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith(folder) or (suffixes and path.suffix not in suffixes):
            continue
        try:
            yield name, path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # no text


# --- the rules -------------------------------------------------------------------------------------------------


def long_file(text: str) -> list[str]:
    count = len(text.splitlines())
    return [f"{count} lines"] if count > MAX_FILE_LINES else []


def long_functions(text: str) -> list[str]:
    return [
        f"{node.lineno}: {node.name} has {length} lines"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > MAX_FUNCTION_LINES
    ]


def _lines_with(pattern: re.Pattern[str], text: str) -> list[str]:
    return [f"{n}: {found[0]}" for n, line in enumerate(text.splitlines(), 1) if (found := pattern.search(line))]


# The patterns are written so that they do not find themselves.
REGISTRY = re.compile(r"(?i)\b(?:test\.)?pyp[i][.]org|python[h]osted|registry[.]npm|repo1?[.]maven|maven[.]org")
FOREIGN_PATH = re.compile(r"(?<![\w.$}~-])/(?:home|root|work|Users)/[\w.]")
UNFINISHED = re.compile(r"\b(?:TO[D]O|FIX[M]E|X[X]X|NotImplemented[E]rror)\b")


def registry_hosts(text: str) -> list[str]:
    return _lines_with(REGISTRY, text)


def foreign_paths(text: str) -> list[str]:
    return _lines_with(FOREIGN_PATH, text)


def unfinished(text: str) -> list[str]:
    return _lines_with(UNFINISHED, text)


BROAD = {"Exception", "BaseException"}


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _does_nothing(body: list[ast.stmt]) -> bool:
    return all(isinstance(s, ast.Pass) or (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant)) for s in body)


def _skips(body: list[ast.stmt]) -> bool:
    return all(isinstance(s, ast.Continue | ast.Break) for s in body)


def _catches_all(kind: ast.expr | None) -> bool:
    if kind is None:
        return True
    named = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    return any(_last_name(each) in BROAD for each in named)


def swallowed_exceptions(text: str) -> list[str]:
    """``except ...: pass`` of any kind; a broad handler that only goes on; ``suppress`` of everything."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ExceptHandler):
            if _does_nothing(node.body) or (_catches_all(node.type) and _skips(node.body)):
                found.append(f"{node.lineno}: swallows an exception")
        elif isinstance(node, ast.Call) and _last_name(node.func) == "suppress" and any(map(_catches_all, node.args)):
            found.append(f"{node.lineno}: suppresses every exception")
    return found


QUEUES = {"Queue", "LifoQueue", "PriorityQueue", "SimpleQueue"}


def unbounded_queues(text: str) -> list[str]:
    return [
        f"{node.lineno}: a queue without maxsize"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and _queue_class(node.func) in QUEUES and not _bounded(node)
    ]


def _queue_class(func: ast.expr) -> str:
    return _last_name(func.value if isinstance(func, ast.Subscript) else func)


def _bounded(call: ast.Call) -> bool:
    sizes = [*call.args[:1], *(k.value for k in call.keywords if k.arg == "maxsize")]
    return bool(sizes) and not (isinstance(sizes[0], ast.Constant) and sizes[0].value in {0, None})


# --- the rules hold --------------------------------------------------------------------------------------------

PYTHON = (".py",)
SCOPES: list[tuple[Rule, str, tuple[str, ...]]] = [
    (long_file, "pipeline/", (".py", ".sql")),
    (long_functions, "pipeline/", PYTHON),
    (registry_hosts, "", ()),
    (foreign_paths, "", ()),
    (unfinished, "", ()),
    (swallowed_exceptions, "pipeline/", PYTHON),
    (unbounded_queues, "pipeline/", PYTHON),
]


@pytest.mark.parametrize(("rule", "folder", "suffixes"), SCOPES, ids=[rule.__name__ for rule, *_ in SCOPES])
def test_the_tree_keeps_the_rule(rule: Rule, folder: str, suffixes: tuple[str, ...]) -> None:
    read = list(texts(folder, suffixes))
    assert read, "no file was read"
    breaches = [f"{name}:{breach}" for name, text in read for breach in rule(text)]
    assert not breaches, "\n" + "\n".join(breaches)


LONG_FUNCTION = "async def f():\n" + "    x = 1\n" * MAX_FUNCTION_LINES

BAD: list[tuple[Rule, str]] = [
    (long_file, "\n" * (MAX_FILE_LINES + 1)),
    (long_functions, LONG_FUNCTION),
    (registry_hosts, "see https://pyp" + "i.org/x"),
    (registry_hosts, "https://files.python" + "hosted.org"),
    (foreign_paths, "open('/ho" + "me/x/y')"),
    (foreign_paths, "cd /wo" + "rk/main"),
    (unfinished, "x = 1  # TO" + "DO later"),
    (unfinished, "raise NotImplemented" + "Error"),
    (swallowed_exceptions, "try:\n    f()\nexcept ValueError:\n    pass"),
    (swallowed_exceptions, "try:\n    f()\nexcept:\n    ..."),
    (swallowed_exceptions, "for x in y:\n    try:\n        f()\n    except (OSError, Exception):\n        continue"),
    (swallowed_exceptions, "with contextlib.suppress(Exception):\n    f()"),
    (unbounded_queues, "asyncio.Queue()"),
    (unbounded_queues, "asyncio.Queue[int](maxsize=0)"),
    (unbounded_queues, "q = queue.SimpleQueue()"),
]


@pytest.mark.parametrize(("rule", "sample"), BAD)
def test_a_rule_finds_its_breach(rule: Rule, sample: str) -> None:
    assert rule(sample)


GOOD: list[tuple[Rule, str]] = [
    (long_functions, LONG_FUNCTION.removesuffix("    x = 1\n")),
    (foreign_paths, "x.example/home/y ./home/z ~/root/a"),
    (swallowed_exceptions, "try:\n    f()\nexcept OSError as exc:\n    log(exc)"),
    (swallowed_exceptions, "for x in y:\n    try:\n        f()\n    except OSError:\n        continue"),
    (swallowed_exceptions, "with contextlib.suppress(FileNotFoundError):\n    f()"),
    (unbounded_queues, "asyncio.Queue(5), asyncio.Queue[int](maxsize=n)"),
]


@pytest.mark.parametrize(("rule", "sample"), GOOD)
def test_a_rule_lets_the_rest_pass(rule: Rule, sample: str) -> None:
    assert rule(sample) == []


# --- contracts, locks, licence ---------------------------------------------------------------------------------


def test_every_schema_is_a_json_schema() -> None:
    schemas = [(name, text) for name, text in texts("schemas/", (".json",)) if name.count("/") == 1]
    assert schemas
    for name, text in schemas:
        document = json.loads(text)
        Draft202012Validator.check_schema(document)
        assert document["$schema"].endswith("2020-12/schema"), name


def test_every_json_and_toml_file_parses() -> None:
    parsers: dict[str, Callable[[str], object]] = {".json": json.loads, ".toml": tomllib.loads}
    read = list(texts("", tuple(parsers)))
    assert read
    for name, text in read:
        assert parsers[Path(name).suffix](text) is not None, name


IN_TREE = re.compile(r"(?<![\w/.-])(?:examples|ops|pipeline|requirements|schemas|tests|topics)/[\w./*-]*[\w*]")


def test_pages_name_only_files_that_there_are() -> None:
    """A promise whose proof was renamed is a promise without a proof."""
    named = [(page, path) for page, text in texts("", (".md",)) for path in IN_TREE.findall(text)]
    assert len({path for _, path in named}) > 50
    assert [(page, path) for page, path in named if not any(ROOT.glob(path))] == []


def pinned(lock: str) -> dict[str, str]:
    """Name and version of each line of a lock, markers aside."""
    return dict(re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)", lock, re.MULTILINE))


LOCKS = ("dev", "runtime", "worker")


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_of_a_lock_has_a_hash(name: str) -> None:
    entries = re.split(r"\n(?=[A-Za-z0-9])", (ROOT / f"requirements/{name}.txt").read_text())[1:]
    assert len(entries) > 20
    assert [e.split()[0] for e in entries if "--hash=sha256:" not in e] == []


@pytest.mark.parametrize("name", LOCKS)
def test_the_locks_agree(name: str) -> None:
    whole, part = (pinned((ROOT / f"requirements/{lock}.txt").read_text()) for lock in ("dev", name))
    assert part.items() <= whole.items()


def test_a_lock_holds_every_direct_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = {_canonical(name) for name in pinned((ROOT / "requirements/runtime.txt").read_text())}
    wanted = project["dependencies"] + project["optional-dependencies"]["embedded"]
    assert {_canonical(re.split(r"[<>=~!;\[ ]", each)[0]) for each in wanted} <= locked


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_dev_requirements_are_the_dev_group() -> None:
    group = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["dev"]
    lines = (ROOT / "requirements/dev.in").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == group, "run `make lock`"


def test_the_licence_is_the_one_the_package_names() -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"] == "Apache-2.0"
