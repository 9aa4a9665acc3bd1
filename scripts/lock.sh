#!/usr/bin/env bash
# Writes constraints.txt, the versions that the tests run with: for Python 3.11 to 3.13 on Linux.
# What it has stays as long as setup.py allows it: `./scripts/lock.sh --upgrade` raises everything,
# `./scripts/lock.sh --upgrade-package keras` one package.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v uv >/dev/null; then
  echo "error: uv is not there; expected it on the path: pip install uv" >&2
  exit 2
fi
uv pip compile setup.py --extra test --extra docs --universal --python-version 3.11 \
  --no-annotate --no-header --quiet "$@" --output-file constraints.txt >/dev/null
# Only the versions of Python within the range tell lines apart.
sed -i -E -e "s/python_full_version < '3.14' and //; s/ and sys_platform == 'linux'//" \
  -e '/python_full_version/! s/ ;.*//' constraints.txt
