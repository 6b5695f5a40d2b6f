#!/usr/bin/env bash
# The whole path on real data: bash launch/quickstart.sh [WORKDIR] [more flags of ilm_jax.main]
# A second call resumes, or finds everything done.
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"
workdir="$root/runs/quickstart"
# The command that the summary repeats: this script, and the workdir as the user typed it.
typed=(bash "$0")
if [ $# -gt 0 ]; then
  case "$1" in
    -*) ;;
    /* | *://*) workdir="$1"; typed+=("$1"); shift ;;
    *) workdir="$PWD/$1"; typed+=("$1"); shift ;;
  esac
fi
ILM_TYPED="$(printf '%q ' "${typed[@]}")"
export ILM_TYPED
cd "$root"
exec "$python" -m ilm_jax.main --config=configs/quickstart.py --workdir="$workdir" --stage=all "$@"
