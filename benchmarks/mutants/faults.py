"""The faults: what a slip of the hand makes of a piece of code that reads almost as well."""

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType

COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
}
NAMED = {"min": "max", "max": "min", "any": "all", "all": "any", "ceil": "floor", "floor": "ceil"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Fault:
    """One fault.

    Args:
        line: Where it is, from 1.
        scope: Name of the outermost function or method around it, as Python qualifies it; "" for what runs at import.
        kind: What sort of slip it is.
        old, new: The code before and after.
        index: Its number among the faults of the file.
    """

    line: int
    scope: str
    kind: str
    old: str
    new: str
    index: int


def faults(source: str) -> list[Fault]:
    """All faults that one file can have."""
    walk = _Walk(None)
    walk.visit(ast.parse(source))
    return walk.found


def faulty(source: str, index: int) -> ast.Module:
    """The file with its fault of that number, every other line where it was."""
    walk = _Walk(index)
    tree = walk.visit(ast.parse(source))
    assert len(walk.found) > index, f"the file has {len(walk.found)} faults, and none of number {index}"
    return ast.fix_missing_locations(tree)


def code_of(module: CodeType, scope: str) -> list[CodeType]:
    """The functions of that qualified name in a compiled file (more than one where a name is defined twice)."""
    inside = [const for const in module.co_consts if isinstance(const, CodeType)]
    found = [code for code in inside if code.co_qualname == scope]
    return found + [each for code in inside for each in code_of(code, scope)]


class _Walk(ast.NodeTransformer):
    """Lists the faults, and makes the chosen one."""

    def __init__(self, chosen: int | None) -> None:
        self.chosen = chosen
        self.found: list[Fault] = []
        self.scope: tuple[str, ...] = ()
        self.inside = False  # of a function

    def visit(self, node: ast.AST) -> ast.AST:
        made = node
        for kind, new in _changes(node):
            if len(self.found) == self.chosen:
                made = ast.copy_location(new, node)
            scope = ".".join(self.scope) if self.inside else ""
            line = getattr(node, "lineno", 0) or getattr(node, "target", node).lineno  # a comprehension has none
            self.found.append(Fault(line, scope, kind, _brief(node), _brief(new), len(self.found)))
        if made is not node:
            return made
        if isinstance(node, Function):
            return self._function(node)
        if isinstance(node, ast.ClassDef):
            return self._class(node)
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            node.value = self.visit(node.value)
            return node
        if _says_only(node):
            return node
        return self.generic_visit(node)

    def _function(self, node: Function) -> ast.AST:
        node.args.defaults = [self.visit(each) for each in node.args.defaults]
        node.args.kw_defaults = [each and self.visit(each) for each in node.args.kw_defaults]
        before = self.scope, self.inside
        if not self.inside:
            self.scope = (*self.scope, node.name)
        self.inside = True
        node.body = [self.visit(each) for each in node.body]
        self.scope, self.inside = before
        return node

    def _class(self, node: ast.ClassDef) -> ast.AST:
        before = self.scope
        if not self.inside:
            self.scope = (*self.scope, node.name)
        node.body = [self.visit(each) for each in node.body]
        self.scope = before
        return node


def _says_only(node: ast.AST) -> bool:
    """Words, types and what only type checkers read: no fault of these shows in what is computed."""
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    warns = isinstance(node, ast.Call) and ast.unparse(node.func) in ("warnings.warn", "cast", "TypeVar")
    return isinstance(node, ast.Raise | ast.Import | ast.ImportFrom) or warns


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """What may become of one node, with the kind of the slip."""
    match node:
        case ast.Compare(ops=[operator]) if type(operator) in COMPARED:
            yield "comparison", _with(node, ops=[COMPARED[type(operator)]()])
        case ast.BinOp(op=operator) | ast.AugAssign(op=operator) if type(operator) in COMPUTED:
            if not _words(node):
                yield "arithmetic", _with(node, op=COMPUTED[type(operator)]())
        case ast.BoolOp(op=operator):
            yield "boolean", _with(node, op=ast.Or() if isinstance(operator, ast.And) else ast.And())
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand) if not isinstance(operand, ast.Constant):
            yield "sign", operand
        case ast.Constant(value=bool(value)):
            yield "constant", _with(node, value=not value)
        case ast.Constant(value=int(value)):
            yield "constant", _with(node, value=value + 1)
        case ast.Constant(value=float(value)):
            yield "constant", _with(node, value=2 * value or 1.0)
        case ast.Return(value=ast.AST() as value) if not _nothing(value):
            yield "return", _with(node, value=ast.Constant(None))
        case ast.If(test=test) if not _says_only(node) and not _turned(test):
            yield "condition", _with(node, test=ast.UnaryOp(ast.Not(), test))
        case ast.IfExp(test=test) if not _turned(test):
            yield "condition", _with(node, test=ast.UnaryOp(ast.Not(), test))
        case ast.comprehension(ifs=[test]):
            yield "condition", _with(node, ifs=[])
        case ast.Continue():
            yield "flow", ast.Break()
        case ast.Break():
            yield "flow", ast.Continue()
        case ast.Expr(value=ast.Call()) if not _says_only(node.value):
            yield "statement", ast.Pass()
        case ast.Name(id=name, ctx=ast.Load()) if name in NAMED:
            yield "name", _with(node, id=NAMED[name])
        case ast.Call(func=function, args=arguments, keywords=keywords) if not _says_only(node):
            if len(arguments) == 2 and not any(isinstance(each, ast.Starred) for each in arguments):
                checks = isinstance(function, ast.Name) and function.id in ("isinstance", "issubclass", "getattr")
                if not checks and ast.dump(arguments[0]) != ast.dump(arguments[1]):
                    yield "swap", _with(node, args=arguments[::-1])
            for place, keyword in enumerate(keywords):
                if keyword.arg is not None:
                    yield "argument", _with(node, keywords=keywords[:place] + keywords[place + 1 :])


def _with(node: ast.AST, **fields: object) -> ast.AST:
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def _turned(test: ast.AST) -> bool:
    """Whether a faulty comparison says the opposite of it already."""
    return isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.Eq | ast.NotEq | ast.Is | ast.IsNot | ast.In)


def _words(node: ast.AST) -> bool:
    """Whether something is text: a string is put together, or formatted by %."""
    return any(
        isinstance(each, ast.JoinedStr) or (isinstance(each, ast.Constant) and isinstance(each.value, str))
        for each in ast.walk(node)
    )


def _nothing(value: ast.AST) -> bool:
    return isinstance(value, ast.Constant) and value.value is None


def _brief(node: ast.AST, most: int = 100) -> str:
    """The first line of a piece of code, without what is inside of a statement."""
    if isinstance(node, ast.comprehension):
        node = ast.GeneratorExp(ast.Constant(...), [node])
    text = ast.unparse(node).splitlines()[0]
    return text if len(text) <= most else text[: most - 1] + "…"
