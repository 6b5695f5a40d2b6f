"""Writes small GGUF files, for the campaign and for tests/test_gguf.py."""


def write(path, tensors: dict, fields: dict, *, architecture: str = "llama", quantise=(), raw=None,
          change=None, more=lambda writer: None):
  """Writes a file and returns its path.

  Args:
    path: of the file.
    tensors: {GGUF's name: float32 [out, in]}.
    fields: {"head_count": 4, ..}: arguments of GGUFWriter's methods add_<name>.
    architecture: GGUF's name of the model architecture.
    quantise: names of the tensors to write as Q8_0.
    raw: {name: (bytes, kind)}: tensors to write without conversion.
    change: {full name of a field: value}; the value may be one that GGUFWriter would not write.
    more: a function that adds fields to the writer.
  """
  import gguf
  writer = gguf.GGUFWriter(str(path), architecture)
  for name, value in fields.items():
    getattr(writer, f"add_{name}")(value)
  more(writer)
  for name, value in (change or {}).items():
    kind = (gguf.GGUFValueType.INT64 if isinstance(value, int) else
            gguf.GGUFValueType.get_type(value))
    writer.kv_data[0][name] = gguf.GGUFValue(value=value, type=kind)
  for name, tensor in tensors.items():
    if name in (raw or {}):
      data, kind = raw[name]
      writer.add_tensor(name, data, raw_dtype=kind)
    elif name in quantise:
      kind = gguf.GGMLQuantizationType.Q8_0
      writer.add_tensor(name, gguf.quants.quantize(tensor, kind), raw_dtype=kind)
    else:
      writer.add_tensor(name, tensor)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path
