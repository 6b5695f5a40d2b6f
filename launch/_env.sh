# Sourced by the other scripts: sets `root` and `python`, with requirements.lock installed. With ILM_PYTHON=3.13 it
# installs requirements-py313.lock in a separate folder. It does nothing if the lock has not changed since then.
set -euo pipefail

# Large pages for the arrays of JAX on CPU, where glibc can: fewer page faults, the same numbers.
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
version="${ILM_PYTHON:-3.11}"
case "$version" in
  3.11) venv="$root/.venv" lock="$root/requirements.lock" ;;
  3.13) venv="$root/.venv-py313" lock="$root/requirements-py313.lock" ;;
  *) echo "error: ILM_PYTHON=$version: there are locks for 3.11 and 3.13 (docs/python_versions.md)" >&2; exit 1 ;;
esac
python="$venv/bin/python"

_make_venv() {
  echo "making $venv" >&2
  local venv_said="no such command" uv_said="no such command"
  # python's own venv brings pip, which ilm_jax.assets uses to take files out of packages.
  if command -v "python$version" >/dev/null && venv_said="$("python$version" -m venv --clear "$venv" 2>&1)"; then
    return
  fi
  if command -v uv >/dev/null &&
     uv_said="$(uv venv --quiet --clear --seed --python "$version" "$venv" 2>&1)"; then return; fi
  rm -rf "$venv"
  echo "error: needs Python $version: 'python$version -m venv' said '${venv_said//$'\n'/ }'," \
    "'uv venv --python $version' said '${uv_said//$'\n'/ }'." \
    "Install python$version (with its venv module) or uv, and run this again." >&2
  exit 1
}

# Ctrl-C while it is made leaves a python without pip. pip installs the package, so later calls need not look for it.
_has_venv() {
  [ -x "$python" ] && { [ -f "$venv/package.stamp" ] || "$python" -m pip --version >/dev/null 2>&1; }
}

# _install STAMP FILES... -- COMMAND...: runs COMMAND unless it already ran with the same content of FILES.
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
  echo "installing ${lock##*/} (1 GB, 3 with TensorFlow; half a minute with uv, minutes with pip)" >&2
  # uv reads no pip configuration; if it cannot find the packages, pip may.
  if ! { command -v uv >/dev/null &&
         uv pip install --quiet --python "$python" --compile-bytecode --require-hashes -r "$lock"; }; then
    "$python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock"
  fi
}

_install_package() {
  "$python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e "$root"
}

_install_parity() {
  echo "installing requirements-parity.lock" >&2
  # pip, not uv: pip obeys a configured folder of local wheels, which may contain a CPU build of torch.
  "$python" -m pip install --quiet --disable-pip-version-check -r "$root/requirements-parity.lock"
}

_install_plan() {
  echo "installing requirements-plan.lock (700 MB)" >&2
  "$python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
    -r "$root/requirements-plan.lock"
}

_has_venv || _make_venv
_install lock "$lock" -- _install_lock
_install package "$root/setup.cfg" "$root/setup.py" "$root/pyproject.toml" -- _install_package
if [ "${ILM_PLAN:-0}" = 1 ]; then
  _install plan "$root/requirements.lock" "$root/requirements-plan.lock" -- _install_plan
fi
if [ "${ILM_PARITY:-0}" = 1 ]; then
  _install parity "$root/requirements.lock" "$root/requirements-parity.lock" -- _install_parity
fi
