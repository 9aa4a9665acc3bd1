#!/usr/bin/env bash
# Makes the test environment, checks style and imports, builds the documentation and runs all tests.
# Arguments go to pytest: ./scripts/test.sh -m unit runs one layer of unit, integration and system.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
make_environment .venv-test '.[test,docs]'

say "style"
ruff check .
ruff format --check .
say "imports"
lint-imports
say "documentation"
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
mkdocs build --strict --site-dir "$site"
say "tests"
python -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
