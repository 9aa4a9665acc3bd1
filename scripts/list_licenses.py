#!/usr/bin/env python3
"""The licence of every package in this environment, as a table.

What a package says of itself in its metadata: its SPDX expression, else its classifiers, else the
first line of its licence field. `--check` prints only those that ask to be looked at, and ends with
status 1 if there are any: a licence that asks more than its notice, or none that is said.

  python scripts/list_licenses.py --check
"""

import argparse
import re
import sys
from importlib import metadata

_PERMISSIVE = re.compile(
    r"apache|mit\b|bsd|isc\b|psf|python software|mozilla|mpl|zlib|unlicense|public domain|cc0"
    r"|hpnd|historical permission|expat|zope|0bsd|blueoak",
    re.IGNORECASE,
)
_COPYLEFT = re.compile(r"\bA?GPL|\bLGPL|General Public", re.IGNORECASE)
# What metadata do not say, from the file that the package has with them.
_SAID_ELSEWHERE = {"namex": "Apache-2.0"}
_FIELD = re.compile(r"License :: (?:OSI Approved :: )?(.+)")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="only those to be looked at")
    arguments = parser.parse_args()
    rows = sorted({(d.name.lower(), d.version, license_of(d)) for d in metadata.distributions()})
    if arguments.check:
        rows = [row for row in rows if not is_permissive(row[2])]
    if rows:
        print("| package | version | licence |\n|---|---|---|")
    for name, version, text in rows:
        print(f"| {name} | {version} | {text or 'not said'} |")
    sys.exit(1 if arguments.check and rows else 0)


def license_of(distribution: metadata.Distribution) -> str:
    """What a package says of its licence; empty: nothing."""
    package = distribution.metadata
    if expression := package.get("License-Expression"):
        return expression
    found = [match[1] for c in package.get_all("Classifier") or [] if (match := _FIELD.match(c))]
    said = (package.get("License") or "").strip().partition("\n")[0][:80]
    return ", ".join(found) or said or _SAID_ELSEWHERE.get(distribution.name.lower(), "")


def is_permissive(text: str) -> bool:
    """Whether a licence asks for no more than its notice, or for changes of its own files."""
    return bool(_PERMISSIVE.search(text)) and not _COPYLEFT.search(text)


if __name__ == "__main__":
    main()
