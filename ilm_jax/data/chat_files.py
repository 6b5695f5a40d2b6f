"""Chat templates of a tokenizer's files, of a GGUF file, or built in; and their sandbox."""
import contextlib
import json
import os
import re
import select
import subprocess
import sys
import time
import weakref

from etils import epath

from ilm_jax import errors, files
from ilm_jax.data import template_child
from ilm_jax.data.tokenizer import Tokenizer

SECONDS = 5                  # most CPU time to render a foreign template; typical: .001
BYTES = 1 << 29              # most memory of the process that renders it
LETTERS = 1 << 20            # most letters of the rendered text
_HALF = re.compile("[\ud800-\udfff]")    # half of a pair of surrogates: no UTF-8 spells it
_PATIENCE, _TO_START = 60.0, 120.0     # wall seconds, enough on a busy machine

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
    # For a model that was not trained with a template, such as a base model or T5.
    "none": "{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}\n"
            "{% elif m.role == 'user' %}User: {{ m.content }}\n{% else %}Recommender: "
            "{{ m.content }}{{ eos_token }}\n{% endif %}{% endfor %}"
            "{% if add_generation_prompt %}Recommender:{% endif %}",
}
# Control tokens that the tokenizer must have for each template.
NEEDS = {"chatml": ("<|im_start|>", "<|im_end|>"), "gemma": ("<start_of_turn>", "<end_of_turn>"),
          "llama3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
          "mistral": (), "none": ()}


def of_tokenizer(path, tokenizer: Tokenizer) -> tuple[str, dict[str, str | None]]:
  """(template, names): the chat template in a tokenizer's files, "" if there is none, and its
  bos_token and eos_token.

  Raises:
    UserError: a file cannot be read, or the template in it is no text.
  """
  path = epath.Path(path)
  if path.suffix == ".gguf":
    return _of_gguf(path, tokenizer)
  folder = path if path.is_dir() else path.parent
  fields = files.json_object(folder / "tokenizer_config.json")
  names = {key: value.get("content") if isinstance(value, dict) else value
           for key in ("bos_token", "eos_token") if (value := fields.get(key))}
  for key, value in names.items():
    _checked(value, folder, key)
  if (file := folder / "chat_template.jinja").exists():
    return files.text(file), names
  source = (fields.get("chat_template")
            or files.json_object(folder / "chat_template.json").get("chat_template"))
  if isinstance(source, list):         # several by name
    by_name = {each.get("name"): each.get("template") for each in source
               if isinstance(each, dict) and isinstance(each.get("name"), str)}
    source = by_name.get("default") or next(iter(by_name.values()), "")
  return _checked(source, folder), names


def _checked(source, path, name: str = "chat_template") -> str:
  source = source or ""
  if not isinstance(source, str) or _HALF.search(source):
    raise errors.UserError(f"{path}: {name} is {errors.shown(source)}, expected a text without "
                           "half letters: get the tokenizer's files again, or name another "
                           "template by --config.lm.chat_template")
  return source


def _of_gguf(path, tokenizer: Tokenizer) -> tuple[str, dict[str, str | None]]:
  from ilm_jax.data import gguf_file  # Only this function needs it; the import is slow.
  reader = gguf_file.read(path)
  ids = {name: reader.special(name, tokenizer.vocab_size, None) for name in ("bos", "eos")}
  names: dict[str, str | None] = {
      f"{name}_token": tokenizer.spelled(i) for name, i in ids.items() if i is not None}
  return _checked(reader.value("tokenizer.chat_template", ""), path), names


def compiled(source: str, label: str) -> "Rendered":
  """The template, ready to render. Raises UserError if it is no template."""
  return Rendered(source, label)


class Rendered:
  """A template in a sandbox, where it can read no file and change nothing.

  A template of `BUILT_IN` is rendered in this process, any other in a process of its own
  (`template_child`) with `SECONDS` of CPU time for each text and `BYTES` of memory.

  Raises:
    UserError: the source is no template, or takes too long or too much memory to compile.
  """

  def __init__(self, source: str, label: str):
    self._made_of = source, label
    if source in BUILT_IN.values():
      render = template_child.compiled(source).render
      self._answer = lambda names: template_child.answered(lambda: render(**names))
      return
    child = _Child()
    answer = child.asked({"source": source, "seconds": SECONDS, "bytes": BYTES,
                          "letters": LETTERS}, _TO_START)
    if "error" in answer:
      raise errors.UserError(f"{label} is no Jinja template ({answer['error']}); give another by "
                             "--config.lm.chat_template")
    self._answer = child.asked

  def __reduce__(self):
    return Rendered, self._made_of

  def render(self, **names) -> str:
    """The rendered text.

    Raises:
      ValueError: the template fails, or takes too much time or memory; the message is one line.
    """
    answer = self._answer(names)
    if "error" in answer:
      raise ValueError(answer["error"])
    return answer["text"]


class _Child:
  """A process of `template_child`; it ends when this object is deleted."""

  def __init__(self):
    self._process = subprocess.Popen(
        [sys.executable, "-P", template_child.__file__], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert self._process.stdin and self._process.stdout      # since they are pipes
    self._stdin, self._stdout = self._process.stdin, self._process.stdout
    weakref.finalize(self, _end, self._process)

  def asked(self, question: dict, more: float = 0.0) -> dict:
    """The child's answer to one line; it has `_PATIENCE` + `more` seconds of wall time."""
    try:
      self._stdin.write(json.dumps(question).encode() + b"\n")
      self._stdin.flush()
      line = self._line(_PATIENCE + more)
    except (OSError, ValueError):      # it has ended already, or was ended here
      line = b""
    if not line.endswith(b"\n"):
      _end(self._process)
      return {"error": f"it takes more than {SECONDS} seconds or {BYTES >> 20} MiB"}
    return json.loads(line)

  def _line(self, seconds: float) -> bytes:
    """A line from the child; only a part of it if the child ends or takes too long."""
    pipe, until = select.poll(), time.monotonic() + seconds
    read: list[bytes] = []
    pipe.register(self._stdout, select.POLLIN)
    while (not read or read[-1][-1:] not in (b"", b"\n")) and time.monotonic() < until:
      if pipe.poll(1000):
        read.append(os.read(self._stdout.fileno(), 1 << 16))      # b"": it has ended
    return b"".join(read)


def _end(child: subprocess.Popen) -> None:
  for pipe in filter(None, (child.stdin, child.stdout)):
    with contextlib.suppress(OSError):
      pipe.close()
  child.kill()
  child.wait()
