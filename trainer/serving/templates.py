"""Templates of the pages (HTML, escaped) and of the model card (Markdown)."""

import re
from typing import Any

import jinja2


def render(name: str, **values: Any) -> str:
    """Renders a template of `trainer/serving/templates`."""
    return _ENVIRONMENT.get_template(name).render(**values)


def _markdown(text: Any) -> str:
    """Text with what has a meaning in Markdown escaped."""
    return re.sub(r"([\\`*_\[\]<>|~&#])", r"\\\1", str(text))


def _code(text: Any) -> str:
    """A code span, also of text with backticks (CommonMark 6.1)."""
    fence = "`" * (_longest_backticks(str(text)) + 1)
    padding = " " if "`" in str(text) else ""
    return f"{fence}{padding}{text}{padding}{fence}"


def _code_block(text: str) -> str:
    """A fenced code block, also of text with fences (CommonMark 4.5)."""
    fence = "`" * max(3, _longest_backticks(text) + 1)
    return f"{fence}\n{text.strip()}\n{fence}"


def _longest_backticks(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("trainer.serving"),
    autoescape=jinja2.select_autoescape(["html"]),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_ENVIRONMENT.filters |= {
    "markdown": _markdown,
    "code": _code,
    "code_block": _code_block,
    "thousands": "{:,}".format,
    "fixed": lambda number, digits: f"{number:.{digits}f}",
    "signed": lambda number, digits: f"{number:+.{digits}f}",
}
