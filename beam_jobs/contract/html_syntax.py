"""What the analyzer knows of HTML: which strings are tags, and what character references mean.

Texts are often of code and of mail: `#include <stdio.h>`, `vector<int>`, `a<b and c>d` and
`<jane@example.org>` are no tags. A tag has a name of the HTML Living Standard, obsolete ones
included, and after it only what attributes look like: `name=value`, or an attribute that HTML lets
stand without a value. All patterns are RE2's, for text whose white space is spaces.
"""

import html.entities

_ELEMENTS = """
    a abbr acronym address applet area article aside audio b base basefont bdi bdo bgsound big blink
    blockquote body br button canvas caption center cite code col colgroup data datalist dd del
    details dfn dialog dir div dl dt em embed fieldset figcaption figure font footer form frame
    frameset h1 h2 h3 h4 h5 h6 head header hgroup hr html i iframe image img input ins isindex kbd
    keygen label legend li link listing main map mark marquee math menu menuitem meta meter multicol
    nav nextid nobr noembed noframes noscript object ol optgroup option output p param picture
    plaintext pre progress q rb rp rt rtc ruby s samp script search section select selectedcontent
    slot small source spacer span strike strong style sub summary sup svg table tbody td template
    textarea tfoot th thead time title tr track tt u ul var video wbr xmp
    """.split()

_ATTRIBUTES_WITHOUT_VALUE = """
    allowfullscreen async autofocus autoplay checked compact contenteditable controls declare
    default defer disabled download formnovalidate hidden inert ismap itemscope loop multiple muted
    nofollow nohref nomodule noresize noshade novalidate nowrap open playsinline readonly required
    reversed selected typemustmatch
    """.split()

_NAMES = "|".join(sorted(_ELEMENTS))
_ATTRIBUTE = (
    r"(?:[A-Za-z_:@][\w:.-]* *= *(?:\"[^\"]*\"|'[^']*'|[^ \"'<>]+)?"
    rf"|(?:{'|'.join(_ATTRIBUTES_WITHOUT_VALUE)}|(?:data|aria)-[\w:.-]+))"
)

BLOCKS = (
    r"(?s)<!--.*?-->",
    r"(?is)<script\b[^<>]*>.*?</script\s*>",
    r"(?is)<style\b[^<>]*>.*?</style\s*>",
)
TAG = (
    rf"(?i)<(?:{_NAMES})(?:[ /]+(?:{_ATTRIBUTE}[ /\"']*)*)?>"
    rf"|</(?:{_NAMES})(?: [^<>]*)?>"
    r"|<!(?:doctype\b|\[)[^<>]*>"
    r"|<\?[^<>]*\?>"
)

# A reference by name takes all the letters and digits there are, and a sign after them: `&copy=` of
# an address and `&notit;` are none, as the standard has it within attributes.
REFERENCE = r"&(?:#[0-9]+;?|#[xX][0-9A-Fa-f]+;?|[A-Za-z][A-Za-z0-9]*[;=]?)"
NUMERIC_REFERENCE = r"&#[xX]?[0-9A-Fa-f]+;?"

# `&eacute;`, and `&eacute` where the standard allows it, -> the characters.
NAMED_REFERENCES = {f"&{name}": value for name, value in sorted(html.entities.html5.items())}

REPLACEMENT_CHARACTER = 0xFFFD
# What numbers 0x80 to 0x9f mean: they are of windows-1252, but for five that it lacks.
WINDOWS_1252 = tuple(
    ord(bytes([code]).decode("cp1252")) if code not in (0x81, 0x8D, 0x8F, 0x90, 0x9D) else code
    for code in range(0x80, 0xA0)
)
