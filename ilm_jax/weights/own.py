"""Language models in our own layout: model.json and an Orbax checkpoint, read directly to a mesh.

Converting another layout can take minutes. It is done once; then each host reads only its part.
"""
import dataclasses
import json

import jax
import orbax.checkpoint as ocp
from etils import epath

from ilm_jax import errors, files
from ilm_jax.models import attention, decoder, language_model, products, t5
from ilm_jax.runtime import axes
from ilm_jax.weights import trees

_ACCEPTED = {int: (int,), float: (int, float), bool: (bool,), str: (str,)}
_LAYERS = ("num_layers", "num_encoder_layers")
_SIZES = ("width", "num_heads", "num_kv_heads", "head_dim", "mlp_width", "vocab_size")
_KINDS = {"decoder": decoder.DecoderConfig, "t5": t5.T5Config}


def save(folder, config: language_model.Config, params: dict) -> None:
  """Writes a model; UserError if `folder` holds one. model.json is written last: then it is whole.
  """
  folder = epath.Path(folder)
  if (folder / "model.json").exists():
    raise errors.UserError(f"{folder} holds a model already: choose another folder or delete it")
  with ocp.StandardCheckpointer() as saver:
    saver.save(folder.absolute() / "params", jax.tree.map(_whole, params), force=True)
  kind = next(name for name, of in _KINDS.items() if isinstance(config, of))
  files.write_text(folder / "model.json", json.dumps(
      {"kind": kind, **dataclasses.asdict(config)}, indent=1))


def _whole(x) -> jax.Array:
  return jax.numpy.asarray(products.unpacked(x))


def is_model(folder) -> bool:
  """Whether `load` would find a model."""
  return (epath.Path(folder) / "model.json").exists()


def is_encoder_decoder(folder) -> bool:
  """Whether the model in `folder` is a T5, by model.json alone. Raises UserError as `load`."""
  return language_model.is_encoder_decoder(_described(epath.Path(folder)))


def load(folder, dtype: str = "float32", mesh=None) -> tuple[language_model.Config, dict]:
  """Config and parameters that `save` wrote, kernels cast to `dtype`.

  Args:
    folder: folder of the model.
    dtype: dtype of the kernels, unless they are int8.
    mesh: where the parameters go; None: the default device.

  Raises:
    UserError: the folder is damaged, or does not hold exactly the model that model.json describes.
  """
  path = epath.Path(folder).absolute()
  config = dataclasses.replace(_described(path), dtype=dtype)
  want = language_model.abstract_params(config)
  where = (jax.tree.map(lambda _: jax.sharding.SingleDeviceSharding(jax.devices()[0]), want)
           if mesh is None else axes.param_sharding(mesh, want))
  try:
    with ocp.StandardCheckpointer() as reader:
      return config, reader.restore(path / "params", axes.shapes_at(want, where))
  except (MemoryError, jax.errors.JaxRuntimeError):
    raise
  except Exception as e:       # of a damaged folder Orbax raises anything
    raise errors.UserError(f"{path}/params is not the model of model.json ({type(e).__name__}: "
                           f"{' '.join(str(e).split())[:200]}): write the model again") from e


def _described(path: epath.Path) -> language_model.Config:
  try:
    return _config(files.parse_json((path / "model.json").read_text()))
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
    raise errors.UserError(f"{path}/model.json: not a readable description of a model "
                           f"({type(e).__name__}: {e}): write the model again") from e


def _config(fields: dict) -> language_model.Config:
  """The config that model.json describes; raises various errors if it describes none."""
  kind = _KINDS[fields.pop("kind")]
  for field in dataclasses.fields(kind):
    value, accepted = fields.get(field.name, field.default), _ACCEPTED.get(field.type)
    if accepted and type(value) not in accepted:
      raise TypeError(f"{field.name} is {errors.shown(value)}, expected {field.type.__name__}")
  trees.check_sizes("model.json", {name: fields[name] for name in _SIZES if name in fields},
                    {name: fields[name] for name in _LAYERS if name in fields})
  if scaling := fields.get("rope_scaling"):
    fields["rope_scaling"] = attention.RopeScaling(**scaling)
  if "local_layers" in fields:
    fields["local_layers"] = local = tuple(fields["local_layers"])
    if len(local) not in (0, fields["num_layers"]):
      raise ValueError(f"local_layers has {len(local)} entries, num_layers is "
                       f"{fields['num_layers']}")
  return kind(**fields)
