"""benchmarks/act_labels.py on made-up dialogs."""
import numpy as np

from benchmarks import act_labels


def dialog(*turns):
  return {"dialogue_info": {str(n): {"role": role, "utterance_text": text, act_labels._ACT: acts}
                            for n, (role, text, *acts) in enumerate(turns)}}


def test_what_is_known_before_each_turn():
  turns = act_labels.read({"a": dialog(
      ("seeker", "Hi"), ("recommender", "What do you like?", "Request", "OTH"),
      ("seeker", "@12 and @7 ?"), ("recommender", "Hm", "OTH"), ("seeker", "So"),
      ("recommender", "@9", "Recommend", "Explain"),
      ("recommender", "@9 or what?", "Recommend", "Request"))})
  np.testing.assert_array_equal(turns.asks_N, [True, False])       # one act of the two
  assert dict(zip(act_labels.FEATURES, turns.x_NF[1])) == {
      "films named": 2, "any film named": 1, "films in the last words": 0, "questions put": 1,
      "lists shown": 0, "turn": 5, "words of the last turn": 1, "asks in the last turn": 0}


def test_what_can_be_learned_is_learned_from_other_dialogs():
  """People ask where one word was said; the rule, which looks for films, is wrong half the time."""
  words = {True: "Hi", False: "any film will do for me tonight"}
  dialogs = {str(n): dialog(("seeker", words[n % 2 == 0] + " @1" * (n % 4 > 1)), (
      "recommender", "so", "Request" if n % 2 == 0 else "Recommend")) for n in range(80)}
  turns = act_labels.read(dialogs)
  np.testing.assert_array_equal(act_labels.held_out(turns), turns.asks_N)
  assert "| logistic regression | 1.000 [1.000, 1.000] | 0.500 [" in act_labels.table(turns)
