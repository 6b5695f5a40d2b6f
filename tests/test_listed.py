"""What is said of a list by places, and remarks beside lists."""
import pytest

from ilm_jax.conversation import listed, remarks

TITLES = ("Heat (1995)", "Emma (2020)", "Up (2009)")


@pytest.mark.parametrize(("text", "meant"), [
    ("I have seen 1 and 3", "I have seen Heat (1995) and Up (2009)"),
    ("seen 1, 2, and 3.", "seen Heat (1995), Emma (2020), and Up (2009)."),
    ("I loved 2, but not 1", "I loved Emma (2020), but not Heat (1995)"),
    ("more like number 3", "more like Up (2009)"), ("more like 3", "more like Up (2009)"),
    ("the second one was bad", "Emma (2020) was bad"), ("I know the last", "I know Up (2009)"),
    ("I have seen 12 Monkeys", "I have seen 12 Monkeys"), ("seen 4", "seen 4"),
    ("liked 2 of them", "liked 2 of them"), ("the first time I saw it", "the first time I saw it"),
    ("I gave it 3 stars", "I gave it 3 stars"), ("I like The Fifth Element (1997)",) * 2,
    ("seen the last crusade",) * 2, ("Indiana Jones and the Last Crusade, Number 23",) * 2])
def test_numbers_are_titles(text, meant):
  assert listed.resolved(text, TITLES) == meant


def test_a_line_of_a_list_may_be_a_title_with_two_blanks():
  text = "Try these:\n1. Heat (1995)  Crime, Drama\n2. Love  Me  Comedy\n3. Up (2009)\n4.\nSo?"
  assert listed.places(text) == [
      ["Heat (1995)  Crime, Drama", "Heat (1995)"],
      ["Love  Me  Comedy", "Love  Me", "Love"], ["Up (2009)"], [""]]
  assert len(listed.places("1. a  b\n" * 5000)) == 100
  assert len(listed.places("1. " + "a  " * 5000)[0]) == 4


@pytest.mark.parametrize(("text", "others"), [
    ("none of these", True), ("more", True), ("show me more, please", False),
    ("show me some more please", True), ("have you got any more?", True), ("other films", True),
    ("something else!", True), ("anything else?", True), ("next", True), ("no, not these", True),
    ("more horror", False), ("something else like Heat", False), ("other countries", False)])
def test_other_items_are_asked_for(text, others):
  assert listed.wants_others(text) is others


@pytest.mark.parametrize(("text", "only"), [
    ("thanks!", True), ("Thank you so much", True), ("great, thanks, that's perfect", True),
    ("thanks, but no horror", False), ("no thanks", False), ("great", False)])
def test_thanks(text, only):
  assert remarks.thanks(text) is only
