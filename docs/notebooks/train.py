# %% [markdown]
# # Train
#
# Change a config, run the stages, draw the loss and read the tables. The quickstart takes about
# eleven minutes on two cores. A second run skips the stages that are done.

# %%
import json
import pathlib

import matplotlib.pyplot as plt

from ilm_jax.config import reading
from ilm_jax.config import stages as stage_list
from ilm_jax.evaluation import rows
from ilm_jax.monitoring import scalars
from ilm_jax.stages import run as stages

# %% [markdown]
# A config is a file in `configs/`. The second argument changes fields by their dotted names.

# %%
config = reading.load("configs/quickstart.py", {"seed": 0})
workdir = pathlib.Path("runs/quickstart")
print(config.phase2.steps, "steps through", config.lm.asset, "of which it trains:", config.lm.train)

# %% [markdown]
# `stage_list.ALL` lists the stages from `targets` to `report`. You can also name only some.

# %%
stages.run(config, workdir, stage_list.ALL)

# %% [markdown]
# Each phase writes its curves to `metrics.jsonl` and to TensorBoard.

# %%
for phase in ("phase1", "phase2"):
  curve = scalars.read(workdir / phase / "metrics.jsonl")
  plt.plot([row["step"] for row in curve], [row["loss"] for row in curve], label=phase)
plt.xlabel("step")
plt.ylabel("loss")
plt.legend()
plt.show()

# %% [markdown]
# The report contains all tables. This one shows how well each method ranks.

# %%
report = json.loads((workdir / "report.json").read_text())
table = next(part for part in report["tables"] if part["title"].startswith("Next item, full"))
print(table["title"])
for row in table["rows"]:
  hit = row["metrics"]["hr@10"]
  print(f"{rows.label(row):40} HR@10 {hit['value']:.3f} [{hit['lo']:.3f}, {hit['hi']:.3f}]")
