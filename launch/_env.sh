# Sourced by the other scripts: sets `root` and `python`, with everything of requirements.lock installed.
# Costs nothing when the lock has not changed since the last time.
set -euo pipefail

# Large pages for the arrays of JAX on CPU, where glibc can: fewer page faults, the same numbers.
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="$root/.venv"
python="$venv/bin/python"

_make_venv() {
  echo "making $venv" >&2
  # python's own venv brings pip, which ilm_jax.assets uses to take files out of packages.
  if command -v python3.11 >/dev/null && python3.11 -m venv "$venv" 2>/dev/null; then return; fi
  if command -v uv >/dev/null && uv venv --quiet --clear --seed --python 3.11 "$venv"; then return; fi
  rm -rf "$venv"
  echo "error: needs Python 3.11: neither 'python3.11 -m venv' nor 'uv venv --python 3.11' worked." \
    "Install python3.11 (with its venv module) or uv, and run this again." >&2
  exit 1
}

# _install STAMP FILES... -- COMMAND...: runs COMMAND unless it ran before with these very FILES.
_install() {
  local stamp="$venv/$1.stamp" files=() sum
  shift
  while [ "$1" != -- ]; do files+=("$1"); shift; done
  shift
  sum="$(cat "${files[@]}" | cksum) $root"
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$sum" ]; then return; fi
  "$@"
  echo "$sum" > "$stamp"
}

_install_lock() {
  echo "installing requirements.lock (3 GB with TensorFlow; half a minute with uv, minutes with pip)" >&2
  # uv reads no pip configuration; where it cannot find the packages, pip may.
  if ! { command -v uv >/dev/null &&
         uv pip install --quiet --python "$python" --compile-bytecode -r "$root/requirements.lock"; }; then
    "$python" -m pip install --quiet --disable-pip-version-check -r "$root/requirements.lock"
  fi
}

_install_package() {
  "$python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e "$root"
}

_install_parity() {
  echo "installing requirements-parity.lock" >&2
  # pip, not uv: pip honours a configured folder of local wheels, where a CPU build of torch may lie.
  "$python" -m pip install --quiet --disable-pip-version-check -r "$root/requirements-parity.lock"
}

_install_plan() {
  echo "installing requirements-plan.lock (700 MB)" >&2
  "$python" -m pip install --quiet --disable-pip-version-check --no-deps -r "$root/requirements-plan.lock"
}

[ -x "$python" ] || _make_venv
_install lock "$root/requirements.lock" -- _install_lock
_install package "$root/setup.cfg" "$root/setup.py" "$root/pyproject.toml" -- _install_package
if [ "${ILM_PLAN:-0}" = 1 ]; then
  _install plan "$root/requirements.lock" "$root/requirements-plan.lock" -- _install_plan
fi
if [ "${ILM_PARITY:-0}" = 1 ]; then
  _install parity "$root/requirements.lock" "$root/requirements-parity.lock" -- _install_parity
fi
