"""Proves that an export computes on this machine what its run computed.

    python -m ilm_jax.serving.check runs/quickstart/export
    python -m ilm_jax.serving.check runs/quickstart/export --skip=hf

The same program lies in the export as check.py and runs there without ilm_jax.
"""
import sys

from ilm_jax.export.shipped import check


def main(argv: list[str] | None = None) -> int:
  """Prints one line; returns 0 on parity, 1 if something differs or cannot be read."""
  return check.main(argv, folder=".")


if __name__ == "__main__":
  sys.exit(main())
