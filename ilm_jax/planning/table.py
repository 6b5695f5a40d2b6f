"""Prints plans as text."""
from ilm_jax.planning import search


def one(plan: dict) -> str:
  """The table of one plan: memory, work, collectives and time, per chip."""
  lines = [title(plan), ""]
  add = lambda name, value: lines.append(f"  {name:<36}{value}")  # noqa: E731
  for name, key in (("weights and entity table", "weight"), ("optimizer", "optimizer"),
                    ("activations, temporaries", "activation")):
    add(name, gib(plan[f"{key}_bytes_per_chip"]))
  fits = "fits" if plan["fits"] else "DOES NOT FIT"
  add("peak memory", f"{gib(plan['peak_bytes_per_chip'])} of "
                     f"{gib(plan['capacity_bytes_per_chip']).strip()}: {fits}")
  for x in plan.get("would_fit", ()):
    add("would fit, by arithmetic", f"{x['flags']}: {gib(x['peak_bytes_per_chip'])}")
  for line in plan.get("assumes", ()):
    add("assumes", line)
  if "xla_says" in plan:
    add("XLA says", plan["xla_says"])
  add("useful FLOPs, all chips", f"{plan['useful_flops']:.4g}")
  if plan["compiled_flops"]:
    add("FLOPs of the program, all chips", f"{plan['compiled_flops']:.4g} "
        f"({plan['compiled_over_useful_flops']:.3f} x useful)")
    add("bytes of memory moved, per chip", f"{plan['bytes_per_chip']:.4g}")
  for kind, x in plan["collectives"].items():
    add(kind, f"{x['count']} times, {x['bytes']:.4g} bytes; a chip sends "
              f"{x['sent_bytes']:.4g}")
  if plan["estimated_step_seconds"]:
    lines += ["", *times(plan)]
  return "\n".join(lines)


def title(plan: dict) -> str:
  mesh = " x ".join(f"{name} {n}" for name, n in plan["mesh"].items())
  what = (f"{_rows(plan)} through {plan['model']} ({plan['dtype']}, remat {plan['remat']})"
          if plan["phase"] == 2 else
          f"{plan['rows']} items with texts, {plan['pairs']} pairs of each kind{_scored(plan)}")
  return (f"phase {plan['phase']} on {plan['topology']}, {plan['chips']} chips ({mesh}): {what}; "
          "per chip")


def _rows(plan: dict) -> str:
  said = [f"{plan['rows']} rows of {plan['length']} tokens"] if plan["rows"] else []
  if "rank_rows" in plan:
    said.append(f"{plan['rank_rows']} rows that only rank, of {plan['rank_length']} tokens")
  return ", ".join(said) + _scored(plan)


def _scored(plan: dict) -> str:
  return f", {plan['catalogue']} items scored," if "catalogue" in plan else ""


def times(plan: dict) -> list[str]:
  """The lines on time and utilisation, each with its source."""
  line = plan["roofline_seconds"]
  lines = [f"  roofline at published peaks: matmuls {line['compute']:.4f} s, memory "
           f"{line['memory']:.4f} s, collectives {line['collectives']:.4f} s"
           + (f" ({line['exposed']:.4f} s beside no computation)" if "scheduled" in line else "")
           + f"; together at least {line['overlapped']:.4f} s, {line['serial']:.4f} s if "
           "collectives do not overlap"]
  if plan["xla_optimal_seconds"]:
    lines.append(f"  XLA's model of the program (optimal_seconds): "
                 f"{plan['xla_optimal_seconds']:.4f} s")
  lines.append(f"  estimated step {plan['estimated_step_seconds']:.4f} s by "
               f"{plan['estimate_of']}: useful utilisation {plan['useful_utilization']:.3f}")
  return lines


def ranking(planned: list[dict]) -> str:
  """The search's table, best first; the last line compares the best with the naive mesh."""
  lines = ["", f"  {'data x fsdp x tensor':<22}{'rows':>9} {'remat':<9}{'peak':>10}{'step s':>9}"
               f"{'ms / row':>10}{'useful':>8}"]
  for x in planned:
    plan, mesh = x["plan"], " x ".join(str(n) for n in x["mesh"].values())
    rows = "+".join(str(n) for n in search.rows_in(x).values())
    seconds = plan["estimated_step_seconds"] or 0.0
    numbers = (f"{seconds:>9.4f}{1e3 * search.per_row(x):>10.3f}"
               f"{plan['useful_utilization']:>8.3f}" if seconds and plan["fits"] else
               "   does not fit")
    lines.append(f"  {mesh:<22}{rows:>9} {x['remat']:<9}{gib(plan['peak_bytes_per_chip']):>10}"
                 f"{numbers}{'  naive FSDP' * x['naive']}")
  best, naive = planned[0], next(x for x in planned if x["naive"])
  if not best["naive"] and best["plan"]["fits"]:
    settings = {f"mesh.{name}": n for name, n in best["mesh"].items()}
    settings |= {search.FIELDS[kind]: n for kind, n in search.rows_in(best).items()}
    words = " ".join(f"--config.{name}={n}" for name, n in settings.items())
    gain = "naive FSDP does not fit" if not naive["plan"]["fits"] else (
        f"per row {search.per_row(naive) / search.per_row(best):.2f} times as fast as naive FSDP")
    lines.append(f"  best: {words} --config.lm.remat={best['remat']}; {gain}")
  return "\n".join(lines)


def gib(size: float) -> str:
  return f"{size / 2 ** 30:.2f} GiB"
