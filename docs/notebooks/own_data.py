# %% [markdown]
# # Your own data, before you train
#
# Read two CSV files, see what the k-core keeps, factorise, and look at neighbours. This takes
# seconds and no language model. If the neighbours make sense, train: docs/bring_your_data.md.

# %%
import collections
import pathlib
import random

import numpy as np

from ilm_jax.cf import ials
from ilm_jax.configs import base
from ilm_jax.data import interactions
from ilm_jax.tasks.datasets import table_files

# %% [markdown]
# Two files to try: 40 customers, 30 kettles. Half of the customers buy mostly even numbers, the
# others mostly odd ones.

# %%
folder = pathlib.Path("my_shop")
folder.mkdir(exist_ok=True)
draw = random.Random(0)
(folder / "products.csv").write_text("sku,name,released,tags\n" + "".join(
    f"P{n:03},Kettle no. {n},{2000 + n % 20},kitchen\n" for n in range(30)))
bought = [(user, 2 * draw.randrange(15) + (user + (draw.random() < 0.1)) % 2)
          for user in (draw.randrange(40) for _ in range(600))]
(folder / "orders.csv").write_text("customer,sku,ordered_at\n" + "".join(
    f"c{user},P{item:03},{n}\n" for n, (user, item) in enumerate(bought)))

# %% [markdown]
# Name the files and columns. For a mistake in a file, one error line names file, line and column.

# %%
columns = base.get_config().data.columns
columns.update(interactions_file="orders.csv", user="customer", item="sku", time="ordered_at",
               items_file="products.csv", id="sku", title="name", year="released", genres="tags")
paths = {name: folder / name for name in (columns.interactions_file, columns.items_file)}
users, items, times, values = table_files.read_log(paths, columns)
print(len(users), "events;", len(set(users)), "users;", len(set(items)), "items")

# %% [markdown]
# The k-core removes users and items with fewer than k events. Choose a k that keeps enough events.

# %%
for k in (1, 3, 10, 20):
  core = interactions.k_core(interactions.codes(users)[1], interactions.codes(items)[1], k)
  print(f"{k}-core: {np.sum(core)} events")

# %%
log, kept = interactions.build(users, items, times, values,
                               table_files.read_items(paths, columns), k=3)
counts = collections.Counter(log.item_N.tolist())
print("most bought:", [(kept.titles[row - 1], n) for row, n in counts.most_common(3)])

# %% [markdown]
# Factorise the training part only. Row 0 of the items is padding.

# %%
user_UC, item_I1C = ials.ials(interactions.train_histories(log), log.num_items, width=8, reg=5.0,
                              alpha=2.0, iterations=10, seed=0)
unit = item_I1C[1:] / np.linalg.norm(item_I1C[1:], axis=1, keepdims=True)
for row in (1, 2):
  near = np.argsort(-(unit @ unit[row - 1]))[1:4]
  print(kept.titles[row - 1], "is near", [kept.titles[i] for i in near])
