#!/usr/bin/env bash
# The tests of Python 3.13 on Debian 13 in a folder: bash launch/debian13.sh FOLDER [COMMAND...]
# Makes FOLDER with debootstrap, as root (420 MB; packages need 1.4 GB more), copies the last commit of this checkout to
# FOLDER/root/ilm-jax, and runs COMMAND there, by default `bash launch/test_py313.sh`. A second call replaces only the
# files that git tracks. The environment variables are passed on, except PATH, HOME and those of a Python.
# ILM_SHOW=PATH:PATH.. makes paths of this machine readable in FOLDER at the same place: a pip.conf, certificates, a
# prepared workdir.
set -euo pipefail

fail() { echo "error: $*" >&2; exit 1; }

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
case "${1:-}" in
  "" | -*) fail "expected a folder, found '${1:-}': bash launch/debian13.sh FOLDER [COMMAND...]" ;;
esac
[ "$(id -u)" = 0 ] || fail "debootstrap and chroot need root, this is user $(id -un): sudo bash launch/debian13.sh .."
for tool in debootstrap git; do
  command -v "$tool" >/dev/null || fail "there is no $tool: apt-get install $tool"
done
# Mounts in a separate namespace: they end with this script, and removing FOLDER removes none of the mounted files.
if [ -z "${ILM_MOUNTS:-}" ]; then
  exec env ILM_MOUNTS=private unshare --mount bash "${BASH_SOURCE[0]}" "$@"
fi
unset ILM_MOUNTS
machine="$(realpath -m "$1")"
shift
[ $# -gt 0 ] || set -- bash launch/test_py313.sh

# Debian itself, with the packages that a user needs: Python, certificates, git.
_make() {
  local mark="$machine/.debian13"
  if [ "$(cat "$mark" 2>/dev/null)" = made ]; then return; fi
  if [ ! -e "$mark" ] && [ -n "$(ls -A "$machine" 2>/dev/null)" ]; then
    fail "$machine holds files that this script did not make: name a folder that is empty or absent"
  fi
  mkdir -p "$machine"
  echo begun > "$mark"
  echo "making Debian 13 in $machine (minutes)" >&2
  debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates,git,procps trixie "$machine" >&2
  echo made > "$mark"
}

_bring_checkout() {
  local copy="$machine/root/ilm-jax"
  git init --quiet "$copy"
  git -C "$copy" fetch --quiet "$root" HEAD
  git -C "$copy" reset --quiet --hard FETCH_HEAD
}

_mount() {
  local path shown
  mount -t proc proc "$machine/proc"
  mount --rbind /sys "$machine/sys"
  mount --rbind /dev "$machine/dev"
  IFS=: read -ra shown <<< "${ILM_SHOW:-}"
  for path in "${shown[@]}"; do
    [ -e "$path" ] || fail "ILM_SHOW names $path, which is not there"
    if [ -d "$path" ]; then mkdir -p "$machine$path"; else mkdir -p "$machine${path%/*}"; touch "$machine$path"; fi
    mount --bind "$path" "$machine$path"
    mount -o remount,bind,ro "$machine$path"
  done
}

_inside() {
  chroot "$machine" /usr/bin/env -u PYTHONPATH -u PYTHONHOME -u VIRTUAL_ENV -u TMPDIR LC_ALL=C.UTF-8 HOME=/root \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    bash -c 'cd /root/ilm-jax && exec "$@"' bash "$@"
}

_versions() {
  _inside bash -c '
    echo "Debian $(cat /etc/debian_version), $(python3 --version), ILM-JAX at $(git rev-parse --short HEAD)"
    if [ -x .venv-py313/bin/python ]; then
      .venv-py313/bin/python -m pip list --format=freeze --disable-pip-version-check |
        grep -E "^(jax|jaxlib|flax|optax|orbax-checkpoint|grain|numpy)==" | tr "\n" " "
    fi'
}

_make
_bring_checkout
_mount
began=$SECONDS status=0
_inside "$@" || status=$?
echo "$(_versions)
'$*' ended with $status after $(((SECONDS - began) / 60)) min $(((SECONDS - began) % 60)) s" >&2
exit "$status"
