"""What a user asks to change, in words: "darker", "less violent", "newer", "more like Heat (1995)".

The rules, without a language model:

  - "but", ";" and "that is not" split the text, then "," and "and" do. The rest of a part after
    "like" is a title: "more like X" likes it, "less like X" and "not like X" dislike it.
  - "less", "not", "no", "without", "hate", "sick of" and similar words, and "too" before a word,
    ask for less, everything else for more; "less war and horror" is less of both, "less war more
    horror" of one; "much", "far", "way" and "lot" double the step, "bit", "little", "slightly" and
    "somewhat" halve it.
  - The remaining words are an attribute if they are its name; a comparative of it ("scarier",
    "bigger", "stranger"); next to other words, if they begin alike ("more romantic": romance), with
    5 letters or more and 3 in 5 of the longer word in common; or if exactly one word of several is
    an attribute ("action filled": action).
  - The caller may guess (`guess`) an attribute for other words: those after "more", "less", "too",
    "something" or "anything", and a comparative by itself ("darker"). A text gets `MOST_GUESSES`;
    what follows them is unread.
  - "it does not matter", "either is fine" and "I do not mind", alone, ask for nothing.
  - "old" is less of "new", "recent" and "modern" are "new"; "funny" is "comedy", "scary" and
    "dark" are "horror", unless an attribute has that name.
"""
import collections
import itertools
import re
from collections.abc import Callable, Collection
from typing import NamedTuple

from ilm_jax import errors
from ilm_jax.conversation import attributes
from ilm_jax.conversation import session as session_lib
from ilm_jax.conversation import titles as titles_lib
from ilm_jax.data import interactions as interactions_lib

LESS = {"less", "not", "no", "without", "fewer", "hate", "dislike", "avoid", "except", "never",
        "nothing", "boring", "bored", "tired", "sick", "fed", "enough"}
AMOUNTS = {**dict.fromkeys(("much", "far", "way", "lot"), 2.0),
           **dict.fromkeys(("bit", "little", "slightly", "somewhat"), 0.5)}
OTHER_WORDS = {"old": (attributes.NEW, -1.0), "recent": (attributes.NEW, 1.0),
               "modern": (attributes.NEW, 1.0), "funny": ("comedy", 1.0),
               "scary": ("horror", 1.0), "dark": ("horror", 1.0)}
_EMPTY = {"a", "an", "the", "more", "so", "as", "very", "really", "something", "anything", "one",
          "film", "films", "movie", "movies", "please", "i", "want", "would", "it", "that", "is",
          "was", "make", "but", "for", "with", "some", "me", "give", "show", "too", "like",
          "love", "enjoy", "prefer", "of", "to", "do", "did", "am", "i'm", "i’m", "any",
          "watch", "see", "hello", "hi", "hey", "thanks", "thank", "you", "up", "good", "nice",
          "great", "maybe", "perhaps", "actually", "rather", "well", "ok", "okay", "yes", "also"}
_OPEN = {"more", "less", "too", "something", "anything"}
_NOT = ("n't", "n’t")
BUT = re.compile(r"\b(?:any|every)thing (?:but|except)\b", re.IGNORECASE)
_NOT_ENOUGH = re.compile(r"\bnot enough\b|n['’]t enough\b", re.IGNORECASE)
_PARTS = re.compile(r",? but |; ?|(?<=[.!?]) |\s+(?:that|which) (?=(?:is|are)(?:n['’]t| not)\b)")
_TURN = re.compile(rf"(?<!\S)(?:a )?(?:(?:{'|'.join(AMOUNTS)}) )?(?:more|less|fewer)\b",
                   re.IGNORECASE)
_LIKE = re.compile(r"^(?:.*?\b)?(?P<how>more|less|not|something|anything|one)\s+like\s+"
                   r"(?P<title>.+)$", re.IGNORECASE)
_EITHER = re.compile(r"it (?:does not|doesn['’]t) matter|no matter|i (?:do not|don['’]t) mind|"
                     r"either(?: is (?:fine|good|ok))?", re.IGNORECASE)
MOST_GUESSES = 5         # guesses in one text: each waits for the sentence encoder
_SAME, _SHARE = 5, 0.6   # first letters that two words must share, at least: number, and share


class Wishes(NamedTuple):
  """What a text asks for.

  Attributes:
    critiques: (attribute, steps); below 0: less of it.
    like, dislike: titles as the user wrote them.
    unread: parts that name no attribute.
  """
  critiques: tuple[tuple[str, float], ...] = ()
  like: tuple[str, ...] = ()
  dislike: tuple[str, ...] = ()
  unread: tuple[str, ...] = ()


def read(text: str, names: Collection[str], guess: Callable[..., str] = lambda *forms: ""
         ) -> Wishes:
  """What `text` asks for.

  Args:
    text: what a user wrote.
    names: the known attributes, in lower case.
    guess: returns an attribute for lower-case words that name none; "": no guess. Its arguments are
      the words of which they may be the comparative, and last the words: ("dark", "darke",
      "darker").
  """
  critiques, like, dislike, unread, guesses = [], [], [], [], 0
  text = _NOT_ENOUGH.sub(" more", BUT.sub("no", " ".join(text.split())))
  for part in _PARTS.split(text):
    if _EITHER.fullmatch(part.strip(" .!?,")):
      continue
    if match := _LIKE.match(part):
      wanted, less = match["title"].strip(" .!?"), match["how"].lower() in LESS
      if wanted.casefold() in names:
        critiques.append((wanted.casefold(), -1.0 if less else 1.0))
      else:
        (dislike if less else like).append(wanted)
      continue
    less = False
    for wish in itertools.chain.from_iterable(map(
        _turns, re.split(r", (?:and |or )?| and | or ", part))):
      words = re.findall(r"[^\s.!?,\"]+", wish.casefold())
      phrase = " ".join(word for word in words if not _says_nothing(word))
      bare = phrase.split() == words
      name, steps = named(phrase, names, alike=not bare)
      # "less war and horror": a word by itself continues the wish before it.
      less = less if bare and phrase in names else _asks_for_less(words)
      forms = () if " " in phrase or {"more", "less"} & set(words) else _forms(phrase)[1:]
      if not name and phrase and (_OPEN & set(words) or forms) and guesses < MOST_GUESSES:
        name, steps, guesses = guess(*forms, phrase), 1.0, guesses + 1
      if name:
        for word in words:
          steps *= AMOUNTS.get(word, 1.0)
        critiques.append((name, -steps if less else steps))
      elif phrase:
        unread.append(wish.strip())
  return Wishes(*map(tuple, (critiques, like, dislike, unread)))


def _turns(wish: str) -> list[str]:
  """ "less talk more action" -> ["less talk", "more action"]."""
  starts = [match.start() for match in _TURN.finditer(wish)][1:]
  return [wish[start:end].strip() for start, end in zip([0, *starts], [*starts, len(wish)])]


def _says_nothing(word: str) -> bool:
  return word in {*LESS, *AMOUNTS, *_EMPTY} or word.endswith(_NOT)


def _asks_for_less(words: list[str]) -> bool:
  return bool(LESS & set(words)) or "too" in words[:-1] or any(w.endswith(_NOT) for w in words)


def named(phrase: str, names: Collection[str], alike: bool = True) -> tuple[str, float]:
  """(the attribute that a phrase in lower case means, 1 or -1); ("", 0): none.

  `alike`: whether a word that begins like an attribute's name may mean it.
  """
  for form in _forms(phrase):
    if form in names:
      return form, 1.0
    if form in OTHER_WORDS and OTHER_WORDS[form][0] in names:
      return OTHER_WORDS[form]
  words = phrase.split()
  if len(words) > 1:
    among = [word for word in words if word in names]
    return (among[0], 1.0) if len(among) == 1 else ("", 0.0)
  near = [name for name in names
          if alike and name.startswith(phrase[:_SAME]) and _alike(phrase, name)]
  return (min(near, key=lambda name: (len(name), name)), 1.0) if near else ("", 0.0)


def applied(session: session_lib.Session, wishes: Wishes, items: interactions_lib.Items,
            titles: titles_lib.Titles) -> session_lib.Session:
  """The session with the wishes added; constraints stay as they are. `titles`: of `items`.

  A wish that turns round earlier ones takes their steps back first: after "much more horror", "less
  horror" leaves one step for less. Of wishes about the year only the last holds
  (`Session.active_critiques`).

  Raises:
    UserError: a title is not in the catalogue, or is ambiguous.
  """
  for edit, written in ((session_lib.like, wishes.like), (session_lib.dislike, wishes.dislike)):
    for title in written:
      if not (row := titles.row(title)):
        hint = (f" (spelt almost like it: {interactions_lib.full_title(items, near)})"
                if (near := titles.near(title)) else "")
        raise errors.UserError(f"{title!r} is the title of no item, or of several{hint}; expected "
                               "a title of the catalogue, with its year")
      session = edit(session, items.ids[row - 1])
  sums = collections.defaultdict(float)
  for each in session.active_critiques:
    sums[each.attribute.casefold()] += each.steps
  without = set(map(str.casefold, session.constraint.without))
  for name, steps in wishes.critiques:
    turned = name != attributes.NEW and sums[name] * steps < 0
    added = steps - sums[name] if turned else steps
    session = session_lib.critique(session, name, added)
    if added <= 0 or name not in without:       # else it is not active
      sums[name] += added
  return session


def _forms(phrase: str) -> list[str]:
  """The phrase, and if it is a comparative, the words of which it may be one."""
  forms = [phrase]
  if phrase.endswith("ier"):
    forms.append(phrase[:-3] + "y")
  if phrase.endswith("er") and len(phrase) > 4:
    stem = phrase[:-2]
    forms += [stem, stem + "e"] + ([stem[:-1]] if stem[-1] == stem[-2] else [])
  return forms


def _alike(word: str, name: str) -> bool:
  same = next((n for n, (a, b) in enumerate(zip(word, name)) if a != b),
              min(len(word), len(name)))
  return " " not in name and same >= max(_SAME, _SHARE * max(len(word), len(name)))
