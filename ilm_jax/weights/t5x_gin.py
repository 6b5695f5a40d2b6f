"""The architecture of a T5X model from its gin file, without T5X."""
from etils import epath
from gin import config_parser

from ilm_jax import errors

# What a reader of checkpoints needs; each with the classes whose field it is.
_CLASSES = ("T5Config", "TransformerConfig")
_REQUIRED = ("vocab_size", "emb_dim", "num_heads", "head_dim", "mlp_dim", "mlp_activations")
_LAYERS = (("num_encoder_layers", "num_decoder_layers"), ("num_layers",))


def read(path) -> dict:
  """{field: value} of network.T5Config (or TransformerConfig) as a gin file binds them.

  Macros are resolved and includes followed, from the file's own folder or one above it; includes
  that are not there are left out, as long as every field needed is bound.

  Raises:
    UserError: the file is absent or no gin, or fields of the architecture are not bound.
  """
  bindings: dict[str, object] = {}
  _parse(epath.Path(path), bindings)
  fields = {}
  for name, value in bindings.items():
    owner, _, field = name.rpartition(".")
    if owner.split("/")[-1].split(".")[-1] in _CLASSES:
      fields[field] = _resolve(value, bindings, path)
  fields.setdefault("logits_via_embedding", False)
  missing = [f for f in _REQUIRED if f not in fields]
  if not any(all(f in fields for f in group) for group in _LAYERS):
    missing.append("num_encoder_layers and num_decoder_layers, or num_layers")
  if missing:
    raise errors.UserError(
        f"{path}: {_CLASSES[0]} has no {', '.join(missing)}; found {sorted(fields) or 'nothing'}: "
        "name the gin file of the model's architecture")
  return fields


class _Macro(str):
  """A reference to another binding."""


class _Delegate(config_parser.ParserDelegate):
  """Keeps references as what they are called: no code of T5X is run."""

  def configurable_reference(self, scoped_configurable_name, evaluate):
    return f"@{scoped_configurable_name}"

  def macro(self, macro_name):
    return _Macro(macro_name)


def _parse(path: epath.Path, bindings: dict) -> None:
  try:
    statements = list(config_parser.ConfigParser(path.read_text(), _Delegate()))
  except (OSError, SyntaxError, ValueError) as e:
    raise errors.UserError(f"{path}: not a readable gin file ({type(e).__name__}: "
                           f"{' '.join(str(e).split())[:160]})") from e
  for statement in statements:
    if isinstance(statement, config_parser.IncludeStatement):
      for parent in (path.parent, *path.parent.parents):
        if (parent / statement.filename).exists():
          _parse(parent / statement.filename, bindings)
          break
    elif isinstance(statement, config_parser.BindingStatement):
      name = ".".join(part for part in (statement.selector, statement.arg_name) if part)
      bindings[name] = statement.value


def _resolve(value, bindings: dict, path):
  seen = []
  while isinstance(value, _Macro):
    if value in seen or not ({value, f"{value}.value"} & bindings.keys()):
      raise errors.UserError(f"{path}: macro %{value} is bound nowhere: bind it in the gin file")
    seen.append(value)
    value = bindings.get(str(value), bindings.get(f"{value}.value"))
  if isinstance(value, (list, tuple)):
    return type(value)(_resolve(v, bindings, path) for v in value)
  return value
