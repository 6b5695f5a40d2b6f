#!/usr/bin/env bash
# Lint, types, then all tests: bash launch/test.sh [more arguments of pytest]
# ILM_PARITY=1 also installs torch and transformers for the parity tests; ILM_PLAN=1 installs libtpu for tests that
# compile for TPUs, which need no TPU.
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"
cd "$root"
# Tests keep trained runs below the temporary folder while they run.
needs=3 room=$(df -Pk "${TMPDIR:-/tmp}" | awk 'NR == 2 { print int($4 / 1024 / 1024) }')
if [ "$room" -lt "$needs" ]; then
  echo "error: the tests need $needs GiB below ${TMPDIR:-/tmp}, which has $room: free some, or set TMPDIR to another disk" >&2
  exit 1
fi
"$python" -m ruff check .
if "$python" -c 'import mypy' 2>/dev/null; then
  "$python" -m mypy
else
  echo "mypy is not installed: types are not checked"
fi
exec "$python" -m pytest -n 2 "$@"
