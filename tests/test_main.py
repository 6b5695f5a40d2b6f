"""The command line: names of stages, workdirs that are refused, and how it ends."""
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import types

import pytest
from absl import flags

from ilm_jax import errors
from ilm_jax import main as cli
from ilm_jax.config import stages as stage_list
from ilm_jax.config import usage
from ilm_jax.config import workdir as workdir_lib
from ilm_jax.configs import base
from ilm_jax.stages import run as stages

ROOT = pathlib.Path(__file__).parents[1]


def main(*flags, **options):
  return subprocess.run(
      [sys.executable, "-m", "ilm_jax.main", "--config=configs/tiny.py", *flags], cwd=ROOT,
      **{"capture_output": True, "text": True, "check": False, **options})


# Stages.


@pytest.mark.parametrize(("text", "names"), [
    ("all", stage_list.ALL), ("phase1, phase2", ("phase1", "phase2")), (" eval ", ("eval",))])
def test_stages_by_name(text, names):
  assert stage_list.parse(text) == names


@pytest.mark.parametrize("name", ["audit", "chat", "serve", "export", "plan"])
def test_a_stage_of_one_process_refuses_a_job_of_two(name):
  stage_list.check_processes((name,), 1)
  stage_list.check_processes(("prepare", "eval", "report", "describe"), 2)
  with pytest.raises(errors.UserError, match=f"--stage={name} runs in one process, this job has 2"):
    stage_list.check_processes(("eval", name), 2)


@pytest.mark.parametrize(("text", "says"), [
    ("phase3", "unknown stage 'phase3': did you mean phase"), ("eval,", "unknown stage ''"),
    ("all,eval", "unknown stage 'all'")])
def test_no_such_stage(text, says):
  with pytest.raises(errors.UserError, match=says):
    stage_list.parse(text)


def test_the_list_of_stages_holds_together():
  """What a stage needs stands before it; those who run stages know the same ones."""
  before = []
  for stage in stage_list.STAGES:
    assert set(stage.needs) <= set(before)
    before.append(stage.name)
  assert stage_list.ALL == stage_list.TRAIN + stage_list.WATCH
  by_name = {"describe", "recommend", "chat", "serve", "export", "plan"}
  assert set(stages._STAGES) | by_name == set(stage_list.BY_NAME)
  assert set(stages._LOCKS) <= {stage.name for stage in stage_list.STAGES if stage.writes}


@pytest.mark.parametrize(("typed", "kept"), [
    (["--config=c.py", "--workdir=w", "--stage=all"], "--config=c.py --workdir=w"),
    (["--stage", "all", "--config", "c.py", "--tables", "--workdir=w"],
     "--config c.py --workdir=w"),
    (["-stage=eval,report", "--config.lm.asset=my lm", "--compare=runs/b", "--watch=3"],
     "'--config.lm.asset=my lm'")])
def test_the_same_command_for_another_stage(typed, kept):
  assert cli.command(typed).endswith(f" -m ilm_jax.main {kept}")


def test_the_same_command_of_the_program_ilm():
  assert cli.command(["--stage=all", "--config=c"], "ilm") == "ilm --config=c"


def test_the_same_command_of_a_script_that_gives_config_and_workdir(monkeypatch):
  monkeypatch.setenv("ILM_TYPED", "bash launch/quickstart.sh my\\ runs ")
  typed = ["--config=c.py", "--workdir", "/clone/my runs", "--stage=all", "--config.seed=1"]
  assert cli.command(typed) == "bash launch/quickstart.sh 'my runs' --config.seed=1"


@pytest.mark.parametrize(("arguments", "typed"), [
    ((), []), (("--config.seed=1",), []), (("my runs", "--config.seed=1"), ["my runs"]),
    (("/runs/a",), ["/runs/a"])])
def test_the_quickstart_says_how_it_was_typed(tmp_path, arguments, typed):
  """Of its arguments the workdir alone: the flags are known to the program it starts."""
  launch = tmp_path / "launch"
  launch.mkdir()
  shutil.copy(ROOT / "launch" / "quickstart.sh", launch)
  (launch / "_env.sh").write_text(f"root={tmp_path}\npython={tmp_path}/python\n")
  (tmp_path / "python").write_text('#!/bin/sh\nprintf %s "$ILM_TYPED"')
  (tmp_path / "python").chmod(0o755)
  done = subprocess.run(["bash", "launch/quickstart.sh", *arguments], cwd=tmp_path,
                        capture_output=True, text=True, check=True)
  assert shlex.split(done.stdout) == ["bash", "launch/quickstart.sh", *typed]


# A command in front, --help and --version.


@pytest.mark.parametrize(("typed", "read"), [
    (["eval", "--tables"], ["--stage=eval", "--tables"]), (["run"], ["--stage=all"]),
    (["eval, report"], ["--stage=eval, report"]), (["--stage=eval"], ["--stage=eval"]), ([], [])])
def test_a_command_is_a_stage(typed, read):
  assert usage.with_command(["ilm", *typed]) == ["ilm", *read]


@pytest.mark.parametrize(("typed", "says"), [
    (["evla"], "unknown command 'evla': did you mean eval. expected one of run, targets"),
    (["?"], "unknown command '.': expected one of"),
    (["eval", "--stage=report"], "command 'eval' and --stage: give one of them"),
    (["eval", "--stage", "report"], "command 'eval' and --stage: give one of them")])
def test_a_command_that_is_none_is_one_line(typed, says):
  with pytest.raises(errors.UserError, match=says):
    usage.with_command(["ilm", *typed])


def test_help_names_every_stage_and_flag_in_80_columns(capsys):
  assert cli.main(["ilm", "help"]) == 0
  without_stage = capsys.readouterr().out
  assert cli.main(["ilm", "--help"]) == 0
  shown = capsys.readouterr().out
  assert shown == without_stage
  assert max(map(len, shown.splitlines())) <= 80 and "ilm run --config=quickstart" in shown
  for stage in stage_list.STAGES:
    start = shown.index(f"\n{stage.name}: {stage.does}\n")
    assert shown[start:].splitlines()[2].startswith(f"  ilm {stage.name} --config=..")
  # Each flag of this program once; one that a single stage reads stands with that stage.
  for flag in flags.FLAGS.flags_by_module_dict()["ilm_jax.main"]:
    assert shown.count(f"\n    --{flag.name}: ") + shown.count(f"\n    --{flag.name}=..: ") == 1
  serve = shown[shown.index("\nserve: "):shown.index("\nexport: ")]
  assert "--port=..: the port; 0: any free port. (default: 8000)" in serve


@pytest.mark.parametrize("typed", [["phase1", "--help"], ["phase1", "--config=c.py", "-h"],
                                   ["help", "phase1"], ["--stage=phase1", "--help"],
                                   ["--help", "--stage", "phase1"]])
def test_help_of_a_stage_is_of_it_alone(capsys, typed):
  assert cli.main(["ilm", *typed]) == 0
  shown = capsys.readouterr().out
  assert max(map(len, shown.splitlines())) <= 80
  assert "\n  ilm phase1 --config=.. --workdir=.. --config.phase1.steps=800\n" in shown
  assert "\n    phase1: b2, batch_size, " in shown and " losses.itc," in shown
  assert "\n    seed\n" in shown and "\n    --workdir=..: " in shown
  for of_others in ("--port", "--liked", "beam_users", "endpoint", "chat: ", "phase2: "):
    assert of_others not in shown


def test_help_of_two_stages_has_the_flags_and_sections_of_both_once(capsys):
  assert cli.main(["ilm", "recommend,chat", "--help"]) == 0
  shown = capsys.readouterr().out
  assert shown.count("\n    --k=..: ") == shown.count("\n    --questions=..: ") == 1
  assert cli.main(["ilm", "chta", "--help"]) == 1
  assert "did you mean chat?" in capsys.readouterr().err


def test_every_section_of_the_config_is_in_the_help_of_some_stage():
  sections = {name for stage in stage_list.STAGES for name in stage.sections}
  assert sections == set(base.get_config())


def test_the_version_is_that_of_setup_cfg(capsys):
  assert cli.main(["ilm", "--version"]) == 0
  version = capsys.readouterr().out.removeprefix("ilm-jax ").strip()
  assert f"\nversion = {version}\n" in (ROOT / "setup.cfg").read_text()


def test_the_program_finds_modules_in_the_current_folder(monkeypatch, tmp_path):
  """As `python -m` does: files of a user's tasks lie there."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(sys, "path", list(sys.path))
  monkeypatch.setattr(sys, "argv", ["ilm", "--version"])
  assert cli.script() == 0 and sys.path[0] == str(tmp_path)


# The workdir.


@pytest.mark.parametrize("name", ["[x]", "a*b", "a?b", "a\\b"])
def test_a_workdir_whose_checkpoints_could_not_be_read_is_refused(tmp_path, monkeypatch, name):
  with pytest.raises(errors.UserError, match="cannot be read again"):
    workdir_lib.resolve(f"runs/{name}")
  (tmp_path / name).mkdir()
  monkeypatch.chdir(tmp_path / name)
  with pytest.raises(errors.UserError, match="cannot be read again"):
    workdir_lib.resolve("run")


def test_a_tilde_in_the_workdir_is_the_home_folder(monkeypatch):
  monkeypatch.setenv("HOME", "/home/me")
  assert workdir_lib.resolve("~/runs/x") == "/home/me/runs/x"
  assert workdir_lib.resolve("gs://b/~x") == "gs://b/~x"


@pytest.mark.parametrize("name", ["gs:/bucket/run", "gs//bucket/run", "gs:///run"])
def test_an_address_that_is_none(name):
  with pytest.raises(errors.UserError, match="expected e.g. gs://bucket/run"):
    workdir_lib.resolve(name)


@pytest.mark.parametrize("names", [("describe",), ("report",), ("eval", "report"), ("phase2",)])
def test_a_workdir_that_is_not_there_is_not_made_by_those_who_read_it(tmp_path, names):
  with pytest.raises(errors.UserError, match=f"does not exist: --stage={names[0]} reads the"):
    workdir_lib.check(f"{tmp_path}/run", names)
  workdir_lib.check(str(tmp_path), names)
  workdir_lib.check(f"{tmp_path}/run", ("prepare", *names))
  workdir_lib.check(f"{tmp_path}/run", names, waits=True)


def test_a_bucket_that_does_not_answer_is_not_waited_for(monkeypatch):
  answers = threading.Event()
  monkeypatch.setattr("etils.epath.Path", lambda path: types.SimpleNamespace(exists=answers.wait))
  monkeypatch.setattr(workdir_lib, "WAIT", 0.05)
  with pytest.raises(errors.UserError, match=r"gs://b/run: no answer within 0.05 s: .*network"):
    workdir_lib.check("gs://b/run", ("prepare",))
  answers.set()
  workdir_lib.check("gs://b/run", ("phase2",))


def test_what_the_client_of_a_bucket_raises_comes_through(monkeypatch):
  def exists():
    raise PermissionError("403")
  monkeypatch.setattr("etils.epath.Path", lambda path: types.SimpleNamespace(exists=exists))
  with pytest.raises(PermissionError, match="403"):
    workdir_lib.check("gs://b/run", ("prepare",))


def test_a_workdir_that_is_a_file_or_cannot_be_written(tmp_path, monkeypatch):
  (tmp_path / "file").write_text("")
  for path in ("file", "file/run"):
    with pytest.raises(errors.UserError, match="file is a file, expected a folder"):
      workdir_lib.check(f"{tmp_path}/{path}", ("prepare",))
  monkeypatch.setattr(os, "access", lambda *_: False)
  with pytest.raises(errors.UserError, match="cannot be written"):
    workdir_lib.check(f"{tmp_path}/run", ("prepare",))
  workdir_lib.check(str(tmp_path), ("describe",))      # it only reads


def test_main_checks_the_workdir_before_it_begins(tmp_path):
  done = main("--stage= describe", f"--workdir={tmp_path}/rnu", "--items=x")
  assert (done.returncode, done.stdout) == (1, "") and not list(tmp_path.iterdir())
  assert done.stderr.startswith(f"error: --workdir={tmp_path}/rnu does not exist")
  assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(("flag", "stage"), [
    ("--liked=Up (2009)", "recommend"), ("--items=Up (2009)", "describe or recommend"),
    ("--search", "plan"), ("--k=10", "recommend or chat or serve"), ("--steps=5", "describe"),
    ("--beam_runner=DirectRunner", "prepare"), ("--beam_options=--x=y", "prepare"),
    ("--model=mlp", "describe or recommend or chat or serve or export"), ("--port=1", "serve")])
def test_a_flag_of_a_stage_that_does_not_run_is_refused(flag, stage, tmp_path):
  done = main("--stage=cf", f"--workdir={tmp_path}", flag)
  assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
  assert done.stderr.startswith(f"error: {flag.partition('=')[0]} is for --stage={stage}: add it")


# How it ends.


def test_nobody_reads_the_output(tmp_path):
  """As after `| head -1`: no stack trace, and the exit code that the shell gives SIGPIPE."""
  read, write = os.pipe()
  os.close(read)
  done = main("--stage=cf", f"--workdir={tmp_path}", "--gin_bindings=config.seed = 4",
              capture_output=False, stdout=write, stderr=subprocess.PIPE)
  os.close(write)
  assert done.returncode == 141
  assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr


STOPPED = """
import gc, signal, sys
from ilm_jax import errors, main
from ilm_jax.stages import run as stages
def stopped(*_):
  assert gc.get_threshold()[0] == 10_000 and gc.get_freeze_count() > 10_000
  raise errors.Preempted("phase1: saved step 3", signal.Signals(int(sys.argv[1])))
stages.run = stopped
sys.exit(main.main(["main", "--config=configs/tiny.py", "--workdir=" + sys.argv[2]]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_exit_code_says_which_signal_came(tmp_path, number):
  """A stage begins with Python's collector at rest: it took a fifth of the time of tracing."""
  done = subprocess.run([sys.executable, "-c", STOPPED, str(int(number)), str(tmp_path)], cwd=ROOT,
                        capture_output=True, text=True, check=False)
  assert done.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
  assert done.stderr == ("stopped: phase1: saved step 3; run the same command again to go on\n")


def test_nobody_reads_the_manifests():
  """launch's programs end in the same way."""
  read, write = os.pipe()
  os.close(read)
  done = subprocess.run(
      [sys.executable, "-m", "launch.gke", "apply", "r", "--tpu=v6e", "--topology=4x4", "--image=I",
       "--dry_run", "--", "true"], cwd=ROOT, stdout=write, stderr=subprocess.PIPE, check=False)
  os.close(write)
  assert (done.returncode, done.stderr) == (141, b"")


def interrupted():
  raise KeyboardInterrupt


def preempted():
  raise errors.Preempted("phase1: saved step 3", signal.SIGTERM)


def mistaken():
  raise errors.UserError("a: expected b")


@pytest.mark.parametrize(("program", "code", "says"), [
    (lambda: None, 0, ""), (lambda: 7, 7, ""), (mistaken, 1, "error: a: expected b\n"),
    (interrupted, 130, "stopped by Ctrl-C\n"),
    (preempted, 143, "stopped: phase1: saved step 3; run the same command again to go on\n")])
def test_exit_codes(capsys, program, code, says):
  assert errors.exit_code(program) == code
  assert capsys.readouterr().err == says
