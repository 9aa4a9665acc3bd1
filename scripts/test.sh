#!/usr/bin/env bash
# Makes the test environment, checks style, imports and licences, builds the documentation and runs all tests.
# Arguments go to pytest: ./scripts/test.sh -m unit runs one layer of unit, integration and system.
# MULTIHOT_VERSIONS=newest: with the newest packages that setup.py allows, not those of
# constraints.txt, in an environment of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
case "${MULTIHOT_VERSIONS:-locked}" in
locked) make_environment .venv-test '.[test,docs]' constraints.txt ;;
newest)
  rm -f .venv-newest/multihot-stamp # what is newest changes with the days
  make_environment .venv-newest '.[test,docs]'
  say "versions that constraints.txt has not"
  python -m pip freeze --exclude-editable |
    sed -E 's/^[^=]*/\L&/; :again; s/^([^=]*)[_.]/\1-/; t again' | grep -vxFf constraints.txt || true
  ;;
*)
  echo "error: MULTIHOT_VERSIONS: received $MULTIHOT_VERSIONS, expected locked or newest" >&2
  exit 2
  ;;
esac

say "style"
ruff check .
ruff format --check .
say "imports"
lint-imports
say "licences"
python scripts/list_licenses.py --check
say "documentation"
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
mkdocs build --strict --site-dir "$site"
say "tests"
MULTIHOT_SITE=$site python -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
