#!/usr/bin/env bash
# Runs a stage from a bundle, on a machine without a package registry:
#   bash bundle_run.sh FOLDER --stage=phase1,phase2 [--config.phase2.steps=90 ...]
#   bash bundle_run.sh FOLDER --pack=RESULTS [--parts=60MiB]
# The first call checks the parts and unpacks them into FOLDER; later calls resume there.
# PYTHON names the interpreter (python3).
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
python="${PYTHON:-python3}"
if ! command -v "$python" >/dev/null; then
  echo "error: $python is not on the PATH: set PYTHON to the interpreter that has JAX" >&2
  exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "error: $("$python" -V 2>&1), expected Python 3.11 or newer: set PYTHON to one" >&2
  exit 1
fi
# Before packages are installed, it uses only the standard library and the files of program/.
PYTHONPATH="$here/program${PYTHONPATH:+:$PYTHONPATH}" exec "$python" -P -m launch.bundle_run "$here" "$@"
