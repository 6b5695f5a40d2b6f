# %% [markdown]
# # Describe vectors, and move along concepts
#
# The language model of a run reads vectors, so it can describe any vector: a film, a point between
# two films, a film that became funnier. This notebook needs the run of the quickstart.

# %%
import numpy as np

from ilm_jax.config import reading
from ilm_jax.stages import context, describe

run = context.Run(reading.load("configs/quickstart.py"), "runs/quickstart")
describer = describe.Describer(run)

# %% [markdown]
# A vector is a dict: a name, and an array of the width C of collaborative filtering. Nothing in it
# comes from a text.

# %%
heat = describer.mean(["Heat (1995)"])
toys = describer.mean(["Toy Story (1995)"])
print({name: vector.shape for name, vector in heat.items()})

# %% [markdown]
# Three texts on the way from Heat to Toy Story. The vector in the middle belongs to no film.

# %%
way = describe.between(heat, toys, 3)
for share, text in zip((0.0, 0.5, 1.0), describer.say(way)):
  print(share, text)

# %% [markdown]
# A concept is a direction, from films that do not have it to films that have it. Any set of films
# gives one. Here it is comedy, by the genres in the data.

# %%
items = run.data.items
comedies = [row for row, genres in enumerate(items.genres, 1) if "Comedy" in genres]
comedy = describer.direction(comedies)
funnier = [describe.moved(heat, comedy, amount) for amount in (0.0, 1.0, 2.0)]
for amount, text in zip((0, 1, 2), describer.say(funnier)):
  print(f"Heat, {amount} steps towards comedy: {text}")

# %% [markdown]
# Does the direction order films as people would? The films that lie furthest along it, and the
# films that lie furthest the other way:

# %%
name = run.config.vectors[0]
vectors = run.entities.vectors[name][1:len(items) + 1]
share = vectors @ comedy[name] / np.linalg.norm(comedy[name])
order = np.argsort(-share)
print("most: ", [items.titles[i] for i in order[:5]])
print("least:", [items.titles[i] for i in order[-5:]])
