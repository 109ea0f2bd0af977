"""Operators that PyTorch has under two names: rules know one of them."""

import torch

__all__ = ["is_pointwise", "one_name"]

_SAME = {
    "absolute": "abs",
    "arccos": "acos",
    "arccosh": "acosh",
    "arcsin": "asin",
    "arcsinh": "asinh",
    "arctan": "atan",
    "arctan2": "atan2",
    "arctanh": "atanh",
    "clip": "clamp",
    "divide": "div",
    "fix": "trunc",
    "greater": "gt",
    "greater_equal": "ge",
    "less": "lt",
    "less_equal": "le",
    "linalg_matmul": "matmul",
    "multiply": "mul",
    "negative": "neg",
    "not_equal": "ne",
    "matrix_H": "mH",
    "native_channel_shuffle": "channel_shuffle",
    "special_erf": "erf",
    "special_exp2": "exp2",
    "special_expit": "sigmoid",
    "special_expm1": "expm1",
    "special_log_softmax": "log_softmax",
    "special_logsumexp": "logsumexp",
    "special_softmax": "softmax",
    "subtract": "sub",
    "true_divide": "div",
}

_COPIES = {
    f"{name}_copy"
    for name in (
        *(
            "alias",
            "detach",
            "diagonal",
            "expand",
            "permute",
            "select",
            "slice",
            "split",
            "split_with_sizes",
            "squeeze",
        ),
        *("t", "transpose", "unbind", "unfold", "unsqueeze", "view_as_complex", "view_as_real"),
    )
}
"""Views that PyTorch makes copies of where nothing may be written in place."""


def one_name(name: str) -> str:
    """The name that rules know: `aten.mul` for `aten.multiply`; others are returned as they are."""
    package, _, operator = name.partition(".")
    if package == "aten" and operator in _COPIES:
        operator = operator.removesuffix("_copy")
        name = f"aten.{operator}"
    return f"aten.{_SAME[operator]}" if package == "aten" and operator in _SAME else name


def is_pointwise(target: object) -> bool:
    """Whether PyTorch tags an operator, or the one that it is another name of, as pointwise."""
    name = one_name(str(getattr(target, "overloadpacket", target)))
    same = getattr(torch.ops.aten, name.removeprefix("aten."), None) if name.startswith("aten.") else None
    overloads = [getattr(same, overload) for overload in same.overloads()] if same is not None else []
    return any(torch.Tag.pointwise in getattr(operator, "tags", ()) for operator in [target, *overloads[:1]])
