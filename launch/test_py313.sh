#!/usr/bin/env bash
# The tests on Python 3.13 with the newest JAX, without TensorFlow: bash launch/test_py313.sh [more arguments of pytest]
# Makes .venv-py313 from requirements-py313.lock. If .venv exists, too (launch/test.sh), both Pythons train a workdir
# that it prepared.
export ILM_PYTHON=3.13 ILM_PARITY=0 ILM_PLAN=0     # the two other locks are for requirements.lock
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"
cd "$root"
if [ -x "$root/.venv/bin/python" ]; then
  export ILM_PREPARING_PYTHON="${ILM_PREPARING_PYTHON:-$root/.venv/bin/python}"
fi
exec "$python" -m pytest -n 2 "$@"
