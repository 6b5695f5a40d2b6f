# %% [markdown]
# # Talk to a run, and serve it
#
# A conversation is a function: a session and a text go in, a reply and the next session come out.
# The terminal, the page and the API call the same function. This needs the run of the quickstart.

# %%
from starlette import testclient

from ilm_jax.config import reading, variants
from ilm_jax.conversation import session
from ilm_jax.serving import app, engine, limits
from ilm_jax.stages import context, talker

run = context.Run(reading.load("configs/quickstart.py"), "runs/quickstart")
talk = talker.Talker(run, variants.ILM, k=5)

# %%
known = session.Session()
for words in ("I loved Heat and Fargo", "something newer", "no drama", "why?"):
  reply = talk.reply(known, words)
  known = reply.session
  print(">", words)
  print(reply.text, *[f"{card.title} ({card.year})" for card in reply.cards], sep="\n  ")

# %% [markdown]
# A session is plain data. You can undo every statement, and save the session as JSON.

# %%
print("liked:", known.liked, "critiques:", known.critiques)
print("after undo:", session.undo(known).turns[-1].text)
assert session.from_json(session.to_json(known)) == known

# %% [markdown]
# Films near a film, and what the language model says about its vector:

# %%
print([card.title for card in talk.similar(known.liked[0], 5)])
print(talk.about(known.liked[0]))

# %% [markdown]
# The same over HTTP. `--stage=serve` opens a port; here a test client calls the app without one.

# %%
bounds = limits.Limits(together=1)      # requests that the model scores at once
served = engine.Engine(run, [variants.ILM], 5, bounds)
served.warm()                     # compiles; before that, requests get 503
with testclient.TestClient(app.create(served, bounds)) as client:
  asked = {"liked": ["Heat (1995)", "Fargo (1996)"], "k": 3}
  listed = client.post("/v1/recommend", json=asked).json()
  print([card["title"] for card in listed["recommendations"]])
  chat = client.post("/v1/chat/completions", json={"messages": [
      {"role": "user", "content": "I loved Fargo, but no horror"}]}).json()
  print(chat["choices"][0]["message"]["content"])
served.thread.stop()
