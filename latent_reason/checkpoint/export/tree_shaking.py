"""Which definitions of the library a checkpoint needs: what its entry points use, directly or not.

Functions, classes and constants are kept if kept code names them; in a table of classes (a dict of them) only those
that are kept otherwise, too. Methods are kept if kept code uses their name anywhere, on any object: that keeps too much
sometimes and never too little. So training code, which nothing in
inference names, is left out.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

LIBRARY = Path(__file__).parents[2]
#: methods that torch, diffusers and Python call by themselves
HOOKS = {"forward", "extra_repr"}
#: methods of training whose names are those of fields that inference reads
TRAINING = {"loss"}
#: functions that only raise in an exported checkpoint, which holds no code of other packages
REFUSED = {"import_object"}
#: base classes that only saving needs
UNUSED_BASES = {"KeepsArguments"}
#: nodes that name what they use
NAMING = (ast.Attribute, ast.Constant, ast.keyword, ast.ImportFrom, ast.Name)
Symbol = tuple[Path, str]


@dataclass
class Import:
    """One imported name: where it comes from (a file of this library, or a module of a package) and how it is bound."""

    node: ast.ImportFrom | ast.Import
    alias: ast.alias
    source: Path | None  # None: another package
    is_module: bool = False  # the alias is itself a file of this library
    type_checking: bool = False

    @property
    def bound(self) -> str:
        return self.alias.asname or self.alias.name.partition(".")[0]


@dataclass
class Module:
    """A parsed file of the library."""

    path: Path
    tree: ast.Module
    definitions: dict[str, ast.stmt] = field(default_factory=dict)
    imports: dict[str, Import] = field(default_factory=dict)

    def __post_init__(self):
        for statement in self.tree.body:
            self._add(statement, type_checking=False)

    def _add(self, statement: ast.stmt, type_checking: bool) -> None:
        if isinstance(statement, ast.If):
            for inner in statement.body:
                self._add(inner, type_checking=True)
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            for found in self.imports_of(statement, type_checking):
                self.imports[found.bound] = found
        for name in defined_names(statement):
            self.definitions[name] = statement

    def imports_of(self, node: ast.Import | ast.ImportFrom, type_checking: bool = False) -> Iterator[Import]:
        """The names that an import statement of this file binds."""
        if isinstance(node, ast.Import) or not node.level:
            yield from (Import(node, alias, None, False, type_checking) for alias in node.names)
            return
        place = self.path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
        for alias in node.names:
            whole = file_of(place / alias.name)
            yield Import(node, alias, whole or file_of(place), whole is not None, type_checking)


@cache
def parse(path: Path, text: str) -> Module:
    """The file of a text. Exports of several methods share most files."""
    return Module(path, ast.parse(text))


def defined_names(statement: ast.stmt) -> list[str]:
    """The top-level names a statement defines (imports left out)."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
        return [statement.name]
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    targets = [statement.target] if isinstance(statement, ast.AnnAssign) else targets
    return [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]


def file_of(place: Path) -> Path | None:
    """The file of a module or package, None if there is none."""
    return next((p for p in (place.with_suffix(".py"), place / "__init__.py") if p.is_file()), None)


@dataclass
class Kept:
    """What is kept: symbols by file, and every name that kept code mentions."""

    entries: list[Symbol]
    whole: frozenset[Path] = frozenset()  # files whose classes keep all methods
    modules: dict[Path, Module] = field(default_factory=dict)
    symbols: dict[Path, set[str]] = field(default_factory=dict)
    mentioned: set[str] = field(default_factory=set)

    def module(self, path: Path) -> Module:
        if path not in self.modules:
            self.modules[path] = parse(path, path.read_text(encoding="utf-8"))
        return self.modules[path]

    @cached_property
    def files(self) -> list[Path]:
        """The files of everything kept, in order."""
        before = -1
        for path, name in self.entries:
            self.keep(path, name)
        while before != self.size():  # a kept method mentions more names, which keep more methods
            before = self.size()
            for path in list(self.symbols):
                for name in list(self.symbols[path]):
                    self.follow(path, self.module(path).definitions[name])
        return sorted(self.symbols)

    def size(self) -> int:
        return len(self.mentioned) + sum(map(len, self.symbols.values()))

    def keep(self, path: Path, name: str) -> None:
        """Keep a symbol; names a package re-exports are followed to the file that defines them."""
        path, name = self.resolve(path, name)
        if name not in self.symbols.setdefault(path, set()):
            self.symbols[path].add(name)
            self.follow(path, self.module(path).definitions[name])

    def resolve(self, path: Path, name: str) -> Symbol:
        """The file that defines a name, and its name there."""
        module = self.module(path)
        if name in module.definitions:
            return path, name
        found = module.imports[name]
        if found.source is None:
            raise ValueError(f"{path.name} re-exports {name} of another package")
        return self.resolve(found.source, found.alias.name)

    def follow(self, path: Path, definition: ast.stmt) -> None:
        """Keep all that a definition uses."""
        module = self.module(path)
        if self.table(path, definition) is not None or refusal(definition) is not None:
            return
        for node in self.kept_nodes(path, definition):
            if isinstance(node, ast.Attribute):
                self.mentioned.add(node.attr)
                base = module.imports.get(node.value.id) if isinstance(node.value, ast.Name) else None
                if base is not None and base.is_module and base.source is not None:
                    self.keep(base.source, node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                self.mentioned.add(node.value)
            elif isinstance(node, ast.keyword):
                self.mentioned.add(node.arg or "")
            elif isinstance(node, ast.ImportFrom) and node.level:
                for found in module.imports_of(node):
                    if not found.is_module and found.source is not None:
                        self.keep(found.source, found.alias.name)
            elif isinstance(node, ast.Name):
                self.mentioned.add(node.id)
                self.follow_name(module, node.id)

    def follow_name(self, module: Module, name: str) -> None:
        if name in module.definitions:
            self.keep(module.path, name)
        found = module.imports.get(name)
        if found is not None and found.source is not None and not found.is_module and not found.type_checking:
            self.keep(found.source, found.alias.name)

    def kept_nodes(self, path: Path, definition: ast.stmt) -> Iterator[ast.AST]:
        """The nodes of a definition that name something, without annotations and without methods that are left out."""
        if not isinstance(definition, ast.ClassDef):
            yield from naming_nodes(definition)
            return
        bases = [base for base in definition.bases if getattr(base, "id", None) not in UNUSED_BASES]
        for node in (*bases, *definition.decorator_list, *definition.keywords):
            yield from naming_nodes(node)
        for statement in definition.body:
            if self.keeps(path, statement):
                yield from naming_nodes(statement)

    def table(self, path: Path, definition: ast.stmt) -> ast.Assign | None:
        """A dict whose values are classes of this library, with those that are kept; None for other definitions."""
        if not isinstance(definition, ast.Assign) or not isinstance(definition.value, ast.Dict):
            return None
        rows, found = [], self.module(path)
        for key, value in zip(definition.value.keys, definition.value.values, strict=True):
            one = found.imports.get(value.id) if isinstance(value, ast.Name) else None
            if one is None or one.source is None or one.is_module:
                return None
            home, name = self.resolve(one.source, one.alias.name)
            if name in self.symbols.get(home, ()):
                rows.append((key, value))
        table = ast.Dict([key for key, _ in rows], [value for _, value in rows])
        return ast.copy_location(ast.Assign(definition.targets, table), definition)

    def keeps(self, path: Path, statement: ast.stmt) -> bool:
        """Whether a statement of a class body is kept."""
        if not isinstance(statement, ast.FunctionDef) or path in self.whole:
            return True
        name = statement.name
        if name in TRAINING or any(
            isinstance(d, ast.Name) and d.id == "abstractmethod" for d in statement.decorator_list
        ):
            return False  # an abstract method says only what subclasses have
        return name in self.mentioned or name in HOOKS or (name.startswith("__") and name.endswith("__"))


@cache
def naming_nodes(node: ast.AST) -> tuple[ast.AST, ...]:
    """The nodes of a definition that name something (``NAMING``), as :func:`code_nodes`. A definition is read again
    whenever another method of a class is kept."""
    return tuple(found for found in code_nodes(node) if isinstance(found, NAMING))


def code_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below one, without docstrings, annotations and the targets of plain assignments."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns"):
            continue
        children = value if isinstance(value, list) else [value]
        for i, child in enumerate(children):
            is_docstring = name == "body" and i == 0 and isinstance(child, ast.Expr) and _is_text(child.value)
            if isinstance(child, ast.AST) and not is_docstring:
                yield from code_nodes(child)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def refusal(definition: ast.stmt) -> ast.FunctionDef | None:
    """What stands in place of a function of ``REFUSED``; None for other definitions."""
    if not isinstance(definition, ast.FunctionDef) or definition.name not in REFUSED:
        return None
    name = definition.args.args[0].arg
    body = ast.parse(f'raise ValueError(f"{{{name}}} is not part of this checkpoint")').body
    return ast.copy_location(ast.FunctionDef(definition.name, definition.args, body, [], None), definition)


def docstring_of(node: ast.AST) -> ast.Expr | None:
    """The docstring of a function or class."""
    if not isinstance(node, ast.FunctionDef | ast.ClassDef):
        return None
    first = node.body[0]
    return first if isinstance(first, ast.Expr) and _is_text(first.value) else None


@cache
def annotation_names(definition: ast.AST) -> frozenset[str]:
    """Names in the annotations of a definition."""
    annotations = [getattr(node, name, None) for node in ast.walk(definition) for name in ("annotation", "returns")]
    nodes = [node for annotation in annotations if annotation is not None for node in ast.walk(annotation)]
    return frozenset(node.id for node in nodes if isinstance(node, ast.Name))
