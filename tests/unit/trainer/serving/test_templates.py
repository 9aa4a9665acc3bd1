"""Templates: HTML is escaped, and so is what has a meaning in Markdown."""

from trainer.serving import templates


def filters(name):
    return templates._ENVIRONMENT.filters[name]


def test_markdown_in_values_is_text():
    assert filters("markdown")("a_b *c* <d> [e](f) `g`") == (r"a\_b \*c\* \<d\> \[e\](f) \`g\`")
    assert filters("markdown")("tickets-2 (new)") == "tickets-2 (new)"


def test_code_may_hold_backticks():
    assert filters("code")("text") == "`text`"
    assert filters("code")("a`b``c") == "``` a`b``c ```"
    assert filters("code_block")("a\n```\nb\n") == "````\na\n```\nb\n````"
    assert filters("code_block")("a\n") == "```\na\n```"
