"""The rows of history.json, in words."""

from collections.abc import Mapping
from typing import Any


def describe_validation(row: Mapping[str, Any]) -> str:
    """What a row says of the validation split, which has documents."""
    return (
        f"validation micro-F1 {row['validation_micro_f1']:.4f}, macro-F1 "
        f"{row['validation_macro_f1']:.4f} at threshold {row['threshold']:.3f}"
    )
