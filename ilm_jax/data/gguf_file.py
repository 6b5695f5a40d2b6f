"""Reads GGUF files with the library gguf, made safe for damaged files."""
import functools
import os
import struct

import gguf
import numpy as np

from ilm_jax import errors, files

_NO_WORD = (-1, (1 << 32) - 1)     # an id of no word, signed and unsigned


def read(path) -> "Reader":
  """A reader of a GGUF file, with its header read and its tensors mapped.

  Raises:
    UserError: the file is absent, damaged, or no GGUF file.
  """
  try:
    files.refuse_pointer(path)
    return Reader(path)
  except errors.UserError:
    raise
  except Exception as e:  # The parser may raise anything on a damaged file.
    raise errors.UserError(
        f"{path} is not a readable GGUF file ({type(e).__name__}: "
        f"{' '.join(str(e).split())[:160]}): delete it and download it again") from e


@functools.cache
def _item_size(dtype) -> int:
  return np.dtype(dtype).itemsize


class Reader(gguf.GGUFReader):
  """The library's reader, over plain views of the mapped file; it never reads past the file's end.

  The library slices the file some 250,000 times to list a vocabulary, which takes seconds; here a
  list of strings is read in one loop, over bytes. The library also trusts every length that it
  reads: a file of 4 KB can make it create objects for 2^40 numbers. Here an array of numbers is one
  view, and lengths are checked.
  """

  def __init__(self, path):
    """Reads the header; raises the library's errors. Prefer `read`."""
    self._path = path
    super().__init__(os.fspath(path))

  @property
  def data(self) -> np.ndarray:
    return self._data

  @data.setter
  def data(self, mapped: np.memmap):
    self._data = mapped.view(np.ndarray)

  def value(self, name: str, *default):
    """The value of a field, or the default; UserError if there is neither."""
    if name not in self.fields and default:
      return default[0]
    if name not in self.fields:
      raise errors.UserError(f"{self._path} lacks the metadata {name}, expected of a language "
                             "model with its tokenizer: get a GGUF file that has it")
    try:
      return self.fields[name].contents()
    except UnicodeDecodeError as e:
      raise errors.UserError(f"{self._path}: the metadata {name} is not UTF-8 ({e}): delete the "
                             "file and get it again") from e

  def special(self, role: str, size: int, *default):
    """The id of a special word, or the default if there is none.

    Args:
      role: "bos", "eos", ..
      size: number of words.
      default: for a file without such a word; else that is a UserError, as is another value than
        an id below `size`.
    """
    name = f"tokenizer.ggml.{role}_token_id"
    i = self.value(name, *default)
    if default and (name not in self.fields or i in _NO_WORD):
      return default[0]
    if type(i) is not int or not 0 <= i < size:
      raise errors.UserError(f"{self._path}: the metadata {name} is {errors.shown(i)}, expected a "
                             f"whole number from 0 to {size - 1}: delete the file and get it again")
    return i

  def _get(self, offset, dtype, count=1, override_order=None):
    end = offset + _item_size(dtype) * int(count)
    if end > len(self._data):
      raise ValueError(f"it ends at byte {len(self._data)}, expected {end} or more")
    view = self._data[offset:end].view(dtype)
    order = override_order or self.byte_order
    return view if order == "I" else view.view(view.dtype.newbyteorder(order))

  def _get_field_parts(self, orig_offs, raw_type):
    of = self._get(orig_offs, np.uint32) if raw_type == gguf.GGUFValueType.ARRAY else [-1]
    if of[0] == gguf.GGUFValueType.STRING:
      return self._get_strings(orig_offs)
    number = self.gguf_scalar_to_np.get(of[0])
    if number is None:
      return super()._get_field_parts(orig_offs, raw_type)
    count = self._get(orig_offs + 4, np.uint64)
    values = self._get(orig_offs + 12, number, count[0])
    return (12 + values.nbytes, [of, count, values], [2],
            [gguf.GGUFValueType.ARRAY, gguf.GGUFValueType(of[0])])

  def _get_strings(self, orig_offs):
    """As the library has it, without its views of lengths: kind, count, and the bytes of each."""
    head = [self._get(orig_offs, np.uint32), self._get(orig_offs + 4, np.uint64)]
    length = struct.Struct(head[1].dtype.str.replace("u8", "Q"))
    data, at, texts = memoryview(self._data), orig_offs + 12, []
    for _ in range(int(head[1][0])):
      size, = length.unpack_from(data, at)
      at += 8 + size
      if at > len(data):
        raise ValueError(f"it ends at byte {len(data)}, expected {at} or more")
      texts.append(data[at - size:at])
    return (at - orig_offs, head + texts, list(range(2, 2 + len(texts))),
            [gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.STRING])
