"""The docstrings of installed Python packages: real text with labels, wherever Python is."""

import ast
import contextlib
import dataclasses
import gc
import importlib.machinery
import os
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from beam_jobs.contract.errors import UserError
from beam_jobs.contract.sections.data import PythonDocstringsData
from beam_jobs.sources.documents import UNREADABLE, Document, Reject
from beam_jobs.sources.fields import TOO_LONG
from beam_jobs.sources.input_files import InputFile

STANDARD_LIBRARY = "stdlib"
MAX_SOURCE_BYTES = (
    16 << 20
)  # 16 MiB: what is longer was made by a program, and parsing takes a hundred times its size
# What is in the standard library's folder and not the library: other packages, tests, demos.
_NOT_THE_LIBRARY = {
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "turtledemo",
    "__phello__",
    "__pycache__",
}

# A method is a function: its docstring seldom says whether it is in a class.
_KINDS = {
    ast.Module: "kind:module",
    ast.ClassDef: "kind:class",
    ast.FunctionDef: "kind:function",
    ast.AsyncFunctionDef: "kind:function",
}
# The fields of a statement that hold statements, in the order of the file: only they can define.
_BLOCKS = ("body", "handlers", "orelse", "finalbody", "cases")


@dataclasses.dataclass(frozen=True)
class DocstringsReader:
    """Python source files -> one document a docstring. Files are parsed; nothing is imported."""

    data: PythonDocstringsData

    def files(self) -> list[InputFile]:
        found: dict[str, InputFile] = {}
        for root, top in self._tops():
            for path in [top] if top.is_file() else _python_files(top):
                name = path.relative_to(root).as_posix()
                found.setdefault(
                    name, InputFile(name=name, path=str(path), bytes=path.stat().st_size)
                )
        return [found[name] for name in sorted(found)]

    def read(self, file: InputFile) -> Iterator[Document | Reject]:
        if file.bytes > MAX_SOURCE_BYTES:
            yield Reject(
                file.name,
                0,
                TOO_LONG,
                f"{file.bytes:,} bytes of Python, expected at most {MAX_SOURCE_BYTES:,}",
                "",
            )
            return
        try:
            source = Path(file.path).read_bytes()
        except OSError as error:
            yield Reject(file.name, 0, UNREADABLE, f"{type(error).__name__}: {error}", "")
            return
        try:
            with warnings.catch_warnings(), _garbage_collection_off():
                warnings.simplefilter("ignore")  # such as invalid escapes in other people's strings
                docstrings = list(_docstrings(ast.parse(source)))
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            line = getattr(error, "lineno", None) or 0
            text = source.decode("utf-8", "replace").splitlines()[line - 1 : line] if line else []
            yield Reject(
                file.name, line, "not Python", f"{type(error).__name__}: {error}", "".join(text)
            )
            return
        modules = file.name.removesuffix(".py").split("/")
        if modules[-1] == "__init__" and len(modules) > 1:
            modules.pop()
        parents = tuple(
            ".".join(modules[:depth])
            for depth in range(1, min(len(modules), self.data.label_depth) + 1)
        )
        for qualified_name, row, kind, docstring in docstrings:
            if len(docstring.split()) >= self.data.min_words:
                name = ".".join(modules) + (f":{qualified_name}" if qualified_name else "")
                yield Document(
                    id=name,
                    texts=(docstring,),
                    labels=(*parents, kind),
                    weight=1.0,
                    source=file.name,
                    row=row,
                )

    def _tops(self) -> list[tuple[Path, Path]]:
        """(root that names are relative to, file or folder to read), for each package."""
        if not self.data.packages:
            roots = sorted({Path(sysconfig.get_path(key)) for key in ("purelib", "platlib")})
            return [(root, root) for root in roots] + _standard_library()
        tops = []
        for package in self.data.packages:
            if package == STANDARD_LIBRARY:
                tops += _standard_library()
                continue
            spec = importlib.machinery.PathFinder.find_spec(package)
            if spec is None:
                raise UserError(
                    f"data.packages: no installed package {package!r}; expected the name that "
                    f"`import` takes, or {STANDARD_LIBRARY!r}"
                )
            for directory in spec.submodule_search_locations or [spec.origin]:
                tops.append((Path(directory).parent, Path(directory)))
        return tops


def _standard_library() -> list[tuple[Path, Path]]:
    root = Path(sysconfig.get_path("stdlib"))
    return [
        (root, path)
        for path in sorted(root.iterdir())
        if path.name not in _NOT_THE_LIBRARY
        and (path.suffix == ".py" or (path.is_dir() and path.name in sys.stdlib_module_names))
    ]


def _python_files(top: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(top):
        folders[:] = sorted(f for f in folders if f not in ("__pycache__", "site-packages"))
        paths = (Path(folder, file) for file in sorted(files) if file.endswith(".py"))
        yield from (path for path in paths if path.is_file())  # no links that lead nowhere


@contextlib.contextmanager
def _garbage_collection_off() -> Iterator[None]:
    # A syntax tree has no cycles, and garbage collection for its many nodes would double the time.
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _docstrings(tree: ast.Module) -> Iterator[tuple[str, int, str, str]]:
    """(qualified name, line, kind, docstring) of a module and all it defines, in file order."""
    stack: list[tuple[ast.AST, tuple[str, ...]]] = [(tree, ())]
    while stack:
        node, names = stack.pop()
        if type(node) in _KINDS:
            if not isinstance(node, ast.Module):
                names = (*names, node.name)
            docstring = ast.get_docstring(node)
            if docstring:
                yield ".".join(names), getattr(node, "lineno", 1), _KINDS[type(node)], docstring
        inner = [child for block in _BLOCKS for child in getattr(node, block, ())]
        stack += [(child, names) for child in reversed(inner)]
