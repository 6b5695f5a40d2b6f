"""Writing so that nothing is ever half written: a temporary name, then a rename."""
import os
import uuid

from etils import epath


def write_bytes(path, data: bytes) -> None:
  """Writes `data` to `path` atomically (object stores: a single-object put is atomic too)."""
  path = epath.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.parent / f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
  try:
    temporary.write_bytes(data)
    temporary.replace(path)
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise


def write_text(path, text: str) -> None:
  """Writes `text` as UTF-8 to `path` atomically."""
  write_bytes(path, text.encode())
