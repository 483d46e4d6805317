"""Reads from the source which names of TensorRT's API are used, and how: nothing is listed by hand.

Types come from annotations ("trt.IBuilderConfig") and are followed through assignments. Where a name's class cannot be
told (a call on the result of a call, say) that is an error, so that nothing is missed: give it an annotated variable.
"""

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

MODULE_NAMES = ("lib", "tensorrt")  # how the module is called where it is used


@dataclass(frozen=True)
class Use:
    """One use of one name, such as "IBuilderConfig.set_flag"."""

    name: str
    how: str  # "read", "set", "call", "subclass" or "override"
    where: str
    arguments: tuple[str, ...] = ()  # of a call: "" for each positional one, then keywords; of an override: names
    result: str | None = None  # the class that an annotation gives what comes back
    is_ignored: bool = False  # a call whose result nobody looks at


@dataclass
class Scope:
    """What is known of names in a function: the class of an object, or "class X" for the class X itself."""

    names: dict[str, str] = field(default_factory=dict)
    own: dict[str, str] = field(default_factory=dict)  # of self


def list_uses(paths: Iterable[Path]) -> list[Use]:
    """Return every use in these files."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in paths}
    functions = {
        node.name: kind
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and (kind := find_class(node.returns))
    }
    uses: list[Use] = []
    for path, tree in trees.items():
        Reader(path.name, functions, uses).read(tree.body, Scope())
    return uses


def find_class(annotation: ast.expr | None) -> str | None:
    """Return the class of TensorRT that an annotation names ("trt.X", alone or beside None), or None."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    if isinstance(annotation, ast.BinOp):
        return find_class(annotation.left) or find_class(annotation.right)
    parts: list[str] = []
    while isinstance(annotation, ast.Attribute):
        parts.insert(0, annotation.attr)
        annotation = annotation.value
    return ".".join(parts) if parts and isinstance(annotation, ast.Name) and annotation.id == "trt" else None


class Reader:
    """Walks one file's statements in order."""

    def __init__(self, file: str, functions: Mapping[str, str], uses: list[Use]) -> None:
        self._file = file
        self._functions = functions
        self._uses = uses

    def read(self, body: Iterable[ast.stmt], scope: Scope) -> None:
        for statement in body:
            self._read_statement(statement, scope)

    def _read_statement(self, node: ast.stmt, scope: Scope) -> None:
        if isinstance(node, ast.FunctionDef):
            inner = Scope(dict(scope.names), scope.own)
            for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
                inner.names.pop(argument.arg, None)
                if kind := find_class(argument.annotation):
                    inner.names[argument.arg] = kind
            self.read(node.body, inner)
        elif isinstance(node, ast.ClassDef):
            self._read_class(node, scope)
        elif isinstance(node, ast.AnnAssign):
            self._read_annotated(node, scope)
        elif isinstance(node, ast.Assign):
            self._read_assignment(node, scope)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            self._resolve_call(node.value, scope, is_ignored=True)
        else:
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.stmt):
                    self._read_statement(child, scope)
                elif isinstance(child, ast.ExceptHandler):
                    self.read(child.body, scope)
                else:
                    self._resolve(child, scope)

    def _read_class(self, node: ast.ClassDef, scope: Scope) -> None:
        inner = Scope(dict(scope.names))
        for statement in ast.walk(node):  # self's attributes, wherever they are annotated
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Attribute):
                kind = find_class(statement.annotation)
                inner.own.update({statement.target.attr: kind} if kind and is_own(statement.target) else {})
        for base in node.bases:
            kind = self._resolve(base, scope)
            if kind and kind.startswith("class "):
                self._add(kind[6:], "subclass", base)
                for method in node.body:
                    if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                        arguments = tuple(one.arg for one in method.args.args[1:])
                        self._add(f"{kind[6:]}.{method.name}", "override", method, arguments=arguments)
        self.read(node.body, inner)

    def _read_annotated(self, node: ast.AnnAssign, scope: Scope) -> None:
        kind = find_class(node.annotation)
        if node.value is not None:
            self._resolve(node.value, scope, result=kind)
        if isinstance(node.target, ast.Name):
            scope.names.pop(node.target.id, None)
            if kind:
                scope.names[node.target.id] = kind
        else:
            self._resolve(node.target, scope)

    def _read_assignment(self, node: ast.Assign, scope: Scope) -> None:
        pairs: list[tuple[ast.expr, ast.expr]] = []
        for target in node.targets:
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs += zip(target.elts, node.value.elts, strict=True)
            else:
                pairs.append((target, node.value))
        for target, value in pairs:
            kind = self._resolve(value, scope)
            if isinstance(target, ast.Name):
                before = scope.names.pop(target.id, None)
                is_result = kind is not None and kind.startswith("result ")
                if kind:  # a variable that is annotated already keeps its class
                    scope.names[target.id] = before if is_result and before else kind
            else:
                self._resolve(target, scope)

    def _resolve(self, node: ast.AST, scope: Scope, result: str | None = None) -> str | None:
        """Note the uses in an expression; return its class, "class X" for a class, "result X.y" for what X.y gave."""
        if isinstance(node, ast.Name):
            return "module" if node.id in MODULE_NAMES else scope.names.get(node.id)
        if isinstance(node, ast.Attribute):
            return self._resolve_attribute(node, scope, result)
        if isinstance(node, ast.Call):
            return self._resolve_call(node, scope, result=result)
        if isinstance(node, ast.IfExp | ast.BoolOp | ast.Compare | ast.BinOp | ast.UnaryOp):
            kinds = [self._resolve(child, scope) for child in ast.iter_child_nodes(node)]
            return next((kind for kind in kinds if kind and kind[0].isupper()), None)
        for child in ast.iter_child_nodes(node):
            self._resolve(child, scope)
        return None

    def _resolve_attribute(self, node: ast.Attribute, scope: Scope, result: str | None) -> str | None:
        if is_own(node):
            return scope.own.get(node.attr)
        base = self._resolve(node.value, scope)
        how = "set" if isinstance(node.ctx, ast.Store) else "read"
        if base is None:
            return None
        if base.startswith("result "):
            raise SyntaxError(f"{self._file}:{node.lineno}: annotate what {base[7:]} gives before using it")
        if base == "module":
            self._add(node.attr, how, node)
            return f"class {node.attr}" if node.attr[0].isupper() else None
        if base.startswith("class "):
            self._add(f"{base[6:]}.{node.attr}", how, node)
            return base[6:] if node.attr[0].isupper() else f"result {base[6:]}.{node.attr}"
        self._add(f"{base}.{node.attr}", how, node, result=result)
        return f"result {base}.{node.attr}"

    def _resolve_call(
        self, node: ast.Call, scope: Scope, *, result: str | None = None, is_ignored: bool = False
    ) -> str | None:
        keywords = tuple(one.arg or "**" for one in node.keywords)
        arguments = ("",) * len(node.args) + keywords
        kind = self._resolve(node.func, scope)
        for child in (*node.args, *(one.value for one in node.keywords)):
            self._resolve(child, scope)
        if kind and kind.startswith("class "):
            self._add(f"{kind[6:]}.__init__", "call", node, arguments=arguments, result=kind[6:])
            return kind[6:]
        if kind and kind.startswith("result "):
            name = kind[7:]
            if name.endswith(".__init__"):
                arguments = arguments[1:]  # self, given by hand
            self._add(name, "call", node, arguments=arguments, result=result, is_ignored=is_ignored)
            return kind
        function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        return self._functions.get(function)

    def _add(self, name: str, how: str, node: ast.AST, **details: object) -> None:
        where = f"{self._file}:{getattr(node, 'lineno', 0)}"
        self._uses.append(Use(name, how, where, **details))  # type: ignore[arg-type]


def is_own(node: ast.AST) -> bool:
    """Tell whether this is self.something."""
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
