"""Renders a foreign chat template in a process of its own, which imports no module of the project.

A template can loop for years or write gigabytes, even while it is compiled. Here its CPU time and
memory are limited, so that it cannot harm the process that started this one.

Standard input: a line of JSON {"source", "seconds", "bytes", "letters"}, then a line for each text
with the keyword arguments of `render`. Standard output: a line for each, {"text"} or {"error"}.
"""
import functools
import json
import resource
import sys
import time


def compiled(source: str):
  """The template in jinja's immutable sandbox. Raises the errors of jinja2."""
  import jinja2
  from jinja2 import sandbox

  def raise_exception(message):
    raise jinja2.TemplateError(message)

  environment = sandbox.ImmutableSandboxedEnvironment(
      trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
  environment.globals["raise_exception"] = raise_exception
  return environment.from_string(source)


def answered(function) -> dict:
  """{"text": result} of a function, or {"error": its error in one line}."""
  try:
    text = function()
    text.encode()              # half a surrogate is no letter
    return {"text": text}
  except Exception as e:       # a template may fail in any way
    return {"error": f"{type(e).__name__}: {' '.join(str(e)[:400].split())[:160]}"}


def main() -> None:
  """Answers until standard input ends."""
  asked = json.loads(sys.stdin.readline())
  template, letters = None, asked["letters"]
  compiled("")                       # jinja2 is imported before the limits apply
  resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
  resource.setrlimit(resource.RLIMIT_AS, (asked["bytes"], asked["bytes"]))

  def more_time():
    most = int(time.process_time() + asked["seconds"] + 1)
    resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))

  def say(answer):
    if len(answer.get("text") or "") > letters:
      answer = {"error": f"it writes more than {letters:,} letters"}
    print(json.dumps(answer), flush=True)

  def compile_it():
    nonlocal template
    template = compiled(asked["source"])
    return ""

  def render(line):
    assert template is not None      # the parent asks only if it was compiled
    return template.render(**json.loads(line))

  more_time()
  say(answered(compile_it))
  for line in sys.stdin:
    more_time()
    say(answered(functools.partial(render, line)))


if __name__ == "__main__":
  main()
