"""What mypy should believe about csp, which ships no types.

`ts[T]` is an edge when the graph is built and a value of T inside a node. Here it is T in both: wrong in a graph's
body, but right in every node body and at every call, which is where types catch mistakes.
"""

import enum
from collections.abc import Callable
from typing import Annotated, Any, TypeVar, dataclass_transform

_T = TypeVar("_T")
_F = TypeVar("_F", bound=Callable[..., Any])

ts = Annotated[_T, "edge"]

Enum = enum.IntEnum

@dataclass_transform(kw_only_default=True)
class Struct:
    def __init_subclass__(cls, *, strict: bool = False) -> None: ...
    def copy(self: _T) -> _T: ...
    def to_dict(self) -> dict[str, Any]: ...
    @classmethod
    def metadata(cls, typed: bool = False) -> dict[str, Any]: ...

def graph(f: _F) -> Callable[..., Any]: ...
def node(f: _F) -> Callable[..., Any]: ...
def __getattr__(name: str) -> Any: ...
