"""The config of a model from what a manifest or a file says of it. Nothing here imports torch."""

from typing import Any, TypeVar

C = TypeVar("C")


def build_config(cls: type[C], values: dict[str, Any]) -> C:
    """The inverse of `dataclasses.asdict`, also after a trip through JSON (lists for tuples).

    Raises:
        ValueError: a field is unknown, of another type, or impossible.
    """
    from configs.load import ConfigError, build, plain

    try:
        config: C = build(cls, plain(values))
    except ConfigError as error:
        raise ValueError(f"the model has no usable config: {error}") from None
    return config
