#!/usr/bin/env bash
# Asks for known vulnerabilities of the versions in constraints.txt (pip-audit, in an environment of
# its own). Exit status 1: there are some. 3: the database cannot be reached, so nothing is known.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
python=$(find_python)
[ -x .venv-audit/bin/pip-audit ] || {
  "$python" -m venv .venv-audit
  .venv-audit/bin/python -m pip install --quiet --disable-pip-version-check 'pip-audit>=2.10,<3'
}
status=0
report=$(.venv-audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip \
  --progress-spinner off "$@" 2>&1 | grep -v '^WARNING:pip_audit') || status=$?
unknown=$(grep -c 'could not be audited' <<<"$report") || true
total=$(cut -d= -f1 constraints.txt | sort -u | wc -l)
if [ "$unknown" -ge "$total" ] || grep -qE 'ConnectionError|NameResolutionError' <<<"$report"; then
  echo "error: the database of vulnerabilities answers for none of the $total packages;" \
    "expected one that can be reached, perhaps with --vulnerability-service osv" >&2
  exit 3
fi
printf '%s\n' "$report"
exit "$status"
