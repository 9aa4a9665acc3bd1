"""What the analyzer knows of English: contractions and stop words. Both are in lower case."""

APOSTROPHE = "['\u2019\u02bc]"

# To RE2's \b a letter outside ASCII ends a word, which would spoil a quoted 'déjà' or 'süß'.
_END = r"([^\p{L}\p{M}\p{N}_]|$)"

# RE2 patterns and replacements, applied in this order: irregular forms before the suffixes.
CONTRACTIONS = (
    (rf"(?i)\b(c)an{APOSTROPHE}t{_END}", r"\1an not\2"),
    (rf"(?i)\b(w)on{APOSTROPHE}t{_END}", r"\1ill not\2"),
    (rf"(?i)\b(s)han{APOSTROPHE}t{_END}", r"\1hall not\2"),
    (rf"(?i)\b(l)et{APOSTROPHE}s{_END}", r"\1et us\2"),
    (rf"(?i)n{APOSTROPHE}t{_END}", r" not\1"),
    (rf"(?i){APOSTROPHE}re{_END}", r" are\1"),
    (rf"(?i){APOSTROPHE}ve{_END}", r" have\1"),
    (rf"(?i){APOSTROPHE}ll{_END}", r" will\1"),
    (rf"(?i)\bi{APOSTROPHE}m{_END}", r"i am\1"),
    (rf"(?i){APOSTROPHE}d{_END}", r" would\1"),
    (rf"(?i){APOSTROPHE}s{_END}", r"\1"),  # possessive, or "is": neither says anything of the topic
)

# Articles, pronouns, prepositions, conjunctions and auxiliary verbs.
STOP_WORDS = tuple(
    """
    a about above after again against all also am an and any are as at be because been before
    being below between both but by can cannot could did do does doing down during each either
    few for from further had has have having he her here hers herself him himself his how i if
    in into is it its itself just me might more most must my myself neither no nor not of off on
    once only or other our ours ourselves out over own same shall she should so some such than
    that the their theirs them themselves then there these they this those through to too under
    until up upon us very was we were what when where which while who whom whose why will with
    within without would you your yours yourself yourselves
    """.split()
)
