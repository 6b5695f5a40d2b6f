"""Where chat templates are found: a tokenizer's files, a GGUF file, or here; and their sandbox."""
from etils import epath

from ilm_jax import errors, files
from ilm_jax.data.tokenizer import Tokenizer

BUILT_IN = {
    "chatml": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
              "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "llama3": "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}"
              "<|end_header_id|>\n\n{{ m.content }}<|eot_id|>{% endfor %}"
              "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n"
              "{% endif %}",
    "gemma": "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}"
             "{{ raise_exception('no system role') }}{% endif %}<start_of_turn>"
             "{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content }}<end_of_turn>\n"
             "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
    "mistral": "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] "
               "{{ m.content }} [/INST]{% elif m.role == 'assistant' %} {{ m.content }}"
               "{{ eos_token }}{% else %}{{ raise_exception('no system role') }}{% endif %}"
               "{% endfor %}",
    # For a model that knows no template, such as a base model or T5.
    "none": "{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}\n"
            "{% elif m.role == 'user' %}User: {{ m.content }}\n{% else %}Recommender: "
            "{{ m.content }}{{ eos_token }}\n{% endif %}{% endfor %}"
            "{% if add_generation_prompt %}Recommender:{% endif %}",
}
# Control tokens that a tokenizer must have for it.
NEEDS = {"chatml": ("<|im_start|>", "<|im_end|>"), "gemma": ("<start_of_turn>", "<end_of_turn>"),
          "llama3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
          "mistral": (), "none": ()}


def of_tokenizer(path, tokenizer: Tokenizer) -> tuple[str, dict[str, str | None]]:
  """(the template in a tokenizer's files or "", the names of its bos_token and eos_token)."""
  path = epath.Path(path)
  if path.suffix == ".gguf":
    return _of_gguf(path, tokenizer)
  folder = path if path.is_dir() else path.parent
  fields = files.json_object(folder / "tokenizer_config.json")
  names = {key: value.get("content") if isinstance(value, dict) else value
           for key in ("bos_token", "eos_token") if (value := fields.get(key))}
  if (file := folder / "chat_template.jinja").exists():
    return file.read_text(), names
  source = (fields.get("chat_template")
            or files.json_object(folder / "chat_template.json").get("chat_template"))
  if isinstance(source, list):         # several by name
    by_name = {each.get("name"): each.get("template") for each in source
               if isinstance(each, dict)}
    source = by_name.get("default") or next(iter(by_name.values()), "")
  if not isinstance(source or "", str):
    raise errors.UserError(f"{folder}: chat_template is {source!r:.60}, expected a "
                           "text in Jinja; name another by --config.lm.chat_template")
  return source or "", names


def _of_gguf(path, tokenizer: Tokenizer) -> tuple[str, dict[str, str | None]]:
  from ilm_jax.data import gguf_file  # Only this function needs it; the import is slow.
  fields = gguf_file.read(path).value
  ids = {name: fields(f"tokenizer.ggml.{name}_token_id", None) for name in ("bos", "eos")}
  names: dict[str, str | None] = {
      f"{name}_token": tokenizer.spelled(i) for name, i in ids.items() if i is not None}
  return fields("tokenizer.chat_template", ""), names


def compiled(source: str, label: str):
  """The template in a sandbox: it reads no file and changes nothing."""
  import jinja2  # Only conversations need it.
  from jinja2 import sandbox

  def raise_exception(message):
    raise jinja2.TemplateError(message)

  environment = sandbox.ImmutableSandboxedEnvironment(
      trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
  environment.globals["raise_exception"] = raise_exception
  try:
    return environment.from_string(source)
  except jinja2.TemplateError as e:
    raise errors.UserError(f"{label} is no Jinja template ({' '.join(str(e).split())[:160]}); give "
                           "another by --config.lm.chat_template") from e
