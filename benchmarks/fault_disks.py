"""Cases of benchmarks.faults: full disks, read-only disks, lost permissions."""
import contextlib
import ctypes
import os
import pathlib
import resource
import shutil
import signal
import struct
import subprocess

from benchmarks import fault_bench


def full_disk(bench: fault_bench.Bench):
  """A disk with room for a stage's first files and half of the next file."""
  mountable = _mountable(bench)
  how = "tmpfs of falling size" if mountable else "RLIMIT_FSIZE, no tmpfs could be mounted"
  for stage in bench.args.stages:
    sizes = _sizes(bench, stage)
    wrong = [(_full if mountable else _limited)(bench, stage, size) for size in sizes]
    yield fault_bench.row(f"disk full in {stage}", len(sizes), wrong, how)


def _sizes(bench: fault_bench.Bench, stage: str) -> list[int]:
  """Disk sizes that end in the middle of a file of the stage, for evenly spaced files."""
  files = [p for name in fault_bench.OUTPUTS[stage] for p in (
      [bench.finished / name] if (bench.finished / name).is_file()
      else (bench.finished / name).rglob("*")) if p.is_file()]
  ends, total = [], 0
  for path in sorted(files, key=lambda p: p.stat().st_mtime_ns):
    size = -(-path.stat().st_size // 4096) * 4096       # a tmpfs allocates whole pages
    ends.append(total + size // 2)
    total += size
  step = max(1, len(ends) // bench.args.sizes)
  return ends[step // 2::step][:bench.args.sizes]


def _full(bench: fault_bench.Bench, stage: str, size: int) -> str:
  with _tmpfs(bench.root / "small", 4 << 30) as disk:
    workdir = bench.copy(stage, disk / "run")
    used = shutil.disk_usage(disk).used
    _remount(disk, f"size={(used + size) // 4096 * 4096}")      # rounded down to whole pages
    wrong = bench.in_one_line(bench.job(stage, workdir), "free some space|another --workdir")
    _remount(disk, f"size={4 << 30}")
    return wrong or bench.goes_on(stage, workdir)


def _limited(bench: fault_bench.Bench, stage: str, size: int) -> str:
  workdir = bench.copy(stage)

  def limit():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(size, 1), max(size, 1)))
  job = bench.job(stage, workdir, setup=limit)
  if job.wait(fault_bench.LIMIT) == 0:        # no file exceeded the limit
    return ""
  return bench.in_one_line(job, "free some space|another --workdir") or bench.goes_on(
      stage, workdir)


def read_only(bench: fault_bench.Bench):
  if not _mountable(bench):
    yield fault_bench.row("read-only workdir", 0, [], "not tried: no tmpfs could be mounted")
    return
  wrong = []
  for stage in bench.args.stages:
    with _tmpfs(bench.root / "small", 4 << 30) as disk:
      workdir = bench.copy(stage, disk / "run")
      _remount(disk, "ro")
      wrong.append(bench.in_one_line(bench.job(stage, workdir), "--workdir"))
      _remount(disk, "rw")
      wrong[-1] = wrong[-1] or bench.goes_on(stage, workdir)
  yield fault_bench.row("read-only workdir", len(wrong), wrong,
                        f"tmpfs, {','.join(bench.args.stages)}")


def permission(bench: fault_bench.Bench):
  """The folders of a phase lose their write permission while it trains."""
  workdir = bench.copy("phase1")
  job = bench.job("phase1", workdir, *fault_bench.LONG, setup=_obey_modes)
  fault_bench.when((workdir / "heartbeat.phase1.json"), job)
  folders = [workdir, *(p for p in workdir.rglob("*") if p.is_dir())]
  for folder in folders:
    folder.chmod(0o555)
  wrong = bench.in_one_line(job, "cannot be made or written.*--workdir")
  for folder in folders:
    if folder.exists():
      folder.chmod(0o755)
  shutil.rmtree(workdir / "phase1", ignore_errors=True)
  yield fault_bench.row("permission lost midway", 1, [wrong or bench.goes_on("phase1", workdir)],
            "modes 0555 while phase1 trains")


def _obey_modes() -> None:
  """Makes root's jobs obey file modes: drops CAP_DAC_OVERRIDE, _READ_SEARCH and FOWNER."""
  if os.geteuid():
    return
  libc = ctypes.CDLL(None, use_errno=True)
  header, data = struct.pack("Ii", 0x20080522, 0), ctypes.create_string_buffer(24)
  libc.capget(header, data)
  words = list(struct.unpack("6I", data.raw))
  words[0] &= ~0b1110
  words[1] &= ~0b1110
  if libc.capset(header, struct.pack("6I", *words)):
    raise OSError(ctypes.get_errno(), "capset")


@contextlib.contextmanager
def _tmpfs(folder: pathlib.Path, size: int):
  folder.mkdir(exist_ok=True)
  subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
  try:
    yield folder
  finally:
    subprocess.run(["umount", "-l", folder], check=True)


def _remount(folder, options: str) -> None:
  subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


def _mountable(bench: fault_bench.Bench) -> bool:
  try:
    with _tmpfs(bench.root / "small", 1 << 20):
      return True
  except (OSError, subprocess.CalledProcessError):
    return False
