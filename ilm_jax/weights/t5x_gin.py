"""The architecture of a T5X model from its gin file, without T5X."""
from etils import epath
from gin import config_parser

from ilm_jax import errors
from ilm_jax.weights import trees

# The classes of the architecture, and their fields that a reader of checkpoints needs.
_CLASSES = ("T5Config", "TransformerConfig")
_SIZES = ("vocab_size", "emb_dim", "num_heads", "head_dim", "mlp_dim")
_REQUIRED = (*_SIZES, "mlp_activations")
_LAYERS = (("num_encoder_layers", "num_decoder_layers"), ("num_layers",))
_MOST_FILES = 200        # files that are read, the gin file and all that it includes
_NEEDED = {*_REQUIRED, *sum(_LAYERS, ()), "logits_via_embedding", "param_scan_axis",
           "scale_attn_logits"}
_DEEPEST = 100           # most macros and lists inside each other


def read(path) -> dict:
  """{field: value} of network.T5Config (or TransformerConfig) as a gin file binds them.

  Resolves macros and follows includes, which are looked up in the file's folder and those above it.
  Absent includes are skipped, as long as every needed field is bound. Other fields are ignored,
  e.g. the dropout that T5X's own files leave %gin.REQUIRED.

  Raises:
    UserError: the file is absent or no gin, or fields of the architecture are not bound or bound to
      invalid values.
  """
  bindings: dict[str, object] = {}
  _parse(epath.Path(path), bindings, [], ())
  fields, macros = {}, _Macros(bindings)
  for name, value in bindings.items():
    owner, _, field = name.rpartition(".")
    if owner.split("/")[-1].split(".")[-1] in _CLASSES and field in _NEEDED:
      fields[field] = macros.resolved(value, f"{path}, field {field}")
  missing = [f for f in _REQUIRED if f not in fields]
  if not any(all(f in fields for f in group) for group in _LAYERS):
    missing.append("num_encoder_layers and num_decoder_layers, or num_layers")
  if missing:
    raise errors.UserError(
        f"{path}: {_CLASSES[0]} has no {', '.join(missing)}; found {sorted(fields) or 'nothing'}: "
        "name the gin file of the model's architecture")
  _check(fields, str(path))
  return {"logits_via_embedding": False, "param_scan_axis": 1, **fields}


def _check(fields: dict, path: str) -> None:
  trees.check_sizes(path, {f: fields[f] for f in _SIZES},
                    {f: fields[f] for f in sum(_LAYERS, ()) if f in fields})
  activations = fields["mlp_activations"]
  if not isinstance(activations, list | tuple) or not all(
      isinstance(a, str) for a in activations) or not activations:
    raise errors.UserError(f"{path}: mlp_activations is {errors.shown(activations)}, expected "
                           "names such as ('gelu', 'linear'): bind it in the gin file")
  axis = fields.get("param_scan_axis", 1)
  if type(axis) is not int or not 0 <= axis < trees.MOST_AXES:
    raise errors.UserError(f"{path}: param_scan_axis is {errors.shown(axis)}, expected the number "
                           "of an axis from 0: bind it in the gin file")
  if fields.get("scale_attn_logits"):
    raise errors.UserError(f"{path}: scale_attn_logits is True, expected False: use a model "
                           "without it")


class _Macro(str):
  """A reference to another binding."""


class _Delegate(config_parser.ParserDelegate):
  """Keeps references as names: no code of T5X is run."""

  def configurable_reference(self, scoped_configurable_name, evaluate):
    return f"@{scoped_configurable_name}"

  def macro(self, macro_name):
    return _Macro(macro_name)


def _parse(path: epath.Path, bindings: dict, read_before: list, within: tuple) -> None:
  """Adds the bindings of a file and its includes; `within`: the files that include it."""
  if path.resolve() in within:
    raise errors.UserError(f"{path} includes itself: remove the include")
  read_before.append(path)
  if len(read_before) > _MOST_FILES:
    raise errors.UserError(f"{path} is included after {_MOST_FILES} files, expected fewer: do "
                           "files include each other again and again?")
  try:
    statements = list(config_parser.ConfigParser(path.read_text(), _Delegate()))
  except Exception as e:       # gin's parser may raise anything on a file that is no gin
    raise errors.UserError(f"{path}: not a readable gin file ({type(e).__name__}: "
                           f"{' '.join(str(e).split())[:160]}): name the model's gin file with "
                           "--config.lm.gin_file") from e
  for statement in statements:
    if isinstance(statement, config_parser.IncludeStatement):
      for parent in (path.parent, *path.parent.parents):
        if (parent / statement.filename).exists():
          _parse(parent / statement.filename, bindings, read_before, (*within, path.resolve()))
          break
    elif isinstance(statement, config_parser.BindingStatement):
      name = ".".join(part for part in (statement.selector, statement.arg_name) if part)
      bindings[name] = statement.value


class _Macros:
  """Replaces macros in values; each macro once, since a value may hold one many times."""

  def __init__(self, bindings: dict):
    self._bindings, self._known = bindings, {}

  def resolved(self, value, where: str, within: tuple = ()):
    """`value` without macros; `where`: the file and field; `within`: the macros that hold it."""
    if len(within) > _DEEPEST:
      raise errors.UserError(f"{where}: macros and lists are nested more than {_DEEPEST} deep: "
                             "bind the value itself in the gin file")
    if isinstance(value, _Macro):
      if value not in self._known:
        self._known[value] = self.resolved(self._bound(value, where, within), where,
                                           (*within, value))
      return self._known[value]
    if isinstance(value, list | tuple):
      return type(value)(self.resolved(v, where, (*within, None)) for v in value)
    return value

  def _bound(self, macro: _Macro, where: str, within: tuple):
    """What a macro is bound to."""
    if macro == "gin.REQUIRED":
      raise errors.UserError(f"{where}: %gin.REQUIRED: bind it in the gin file")
    names = [name for name in (str(macro), f"{macro}.value") if name in self._bindings]
    if macro in within or not names:
      what = "to itself" if macro in within else "nowhere"
      raise errors.UserError(f"{where}: macro %{macro} is bound {what}: bind it in the gin file")
    return self._bindings[names[0]]
