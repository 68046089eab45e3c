#!/usr/bin/env python3
"""The domain of parley-mini: what is asked, in many phrasings, and what is answered.

A dialogue is a list of turns; a turn is a dict:

  question  what the user says; "" where nobody speaks (then `sound` names the kind of sound)
  answer    what the assistant says; "" means that it says nothing
  skill     one of SKILLS; turns that need the memory of earlier turns are called follow_*
  key       words that must stand in the answer, in this order and side by side
  held      True for phrasings that training never sees

`dialogues(n, seed)` makes training dialogues, `answers(n, seed)` sentences for the voice; both are
the same for the same arguments. `eval_dialogues()` is the evaluation set, which eval.json keeps:
more phrasings for training leave it as it is, and none of its questions is asked in training.

usage: domain.py --show N | --check | --draw-eval OUT.json | --answers N
"""

import argparse
import functools
import json
import random
import re
import zlib
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).resolve().parent

# ------------------------------------------------------------------------------------------------
# vocabularies
# ------------------------------------------------------------------------------------------------

ONES = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
        "fifteen sixteen seventeen eighteen nineteen").split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()

CAPITALS = dict(pair.split(":") for pair in """
France:Paris Germany:Berlin Italy:Rome Spain:Madrid England:London Ireland:Dublin
Scotland:Edinburgh Japan:Tokyo China:Beijing Russia:Moscow Egypt:Cairo Greece:Athens
Turkey:Ankara Poland:Warsaw Austria:Vienna Norway:Oslo Sweden:Stockholm Finland:Helsinki
Denmark:Copenhagen Portugal:Lisbon Canada:Ottawa Cuba:Havana Peru:Lima Chile:Santiago
Kenya:Nairobi Iraq:Baghdad Iran:Tehran Hungary:Budapest Belgium:Brussels Vietnam:Hanoi
Romania:Bucharest Bulgaria:Sofia Croatia:Zagreb Serbia:Belgrade Australia:Canberra
Lebanon:Beirut Syria:Damascus Thailand:Bangkok Indonesia:Jakarta Latvia:Riga Ghana:Accra
Ecuador:Quito Uganda:Kampala Colombia:Bogota Venezuela:Caracas Jamaica:Kingston
Netherlands:Amsterdam Libya:Tripoli India:New_Delhi Philippines:Manila""".split())
CAPITALS = {k: v.replace("_", " ") for k, v in CAPITALS.items()}
WITH_ARTICLE = {"Netherlands", "Philippines"}

OPPOSITE_PAIRS = [pair.split(":") for pair in """
hot:cold big:small up:down left:right day:night good:bad old:young fast:slow high:low happy:sad
rich:poor open:closed full:empty hard:soft long:short dark:light wet:dry early:late first:last
strong:weak clean:dirty near:far love:hate true:false easy:difficult win:lose push:pull
north:south east:west inside:outside buy:sell loud:quiet thick:thin alive:dead top:bottom
front:back wide:narrow rough:smooth cheap:expensive war:peace""".split()]
OPPOSITES = {a: b for x, y in OPPOSITE_PAIRS for a, b in ((x, y), (y, x))}

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = ("January February March April May June July August September October November "
          "December").split()

SPELL = """
cat dog horse cow fish bird lion tiger mouse snake frog duck wolf fox bear sheep goat monkey
rabbit zebra apple banana lemon orange cherry grape bread butter cheese milk honey sugar salt
coffee juice water soup cake cookie rice potato tomato carrot onion house window door table chair
lamp mirror clock spoon fork knife plate bottle cup garden kitchen bridge street city river lake
ocean island mountain valley forest desert beach cloud storm rain snow wind summer winter spring
autumn morning evening father mother brother sister uncle baby friend doctor teacher farmer pilot
king queen prince giant robot pirate red blue green yellow pink brown circle square book story
poem pencil paper letter number music song dance game toy ball car bus truck train boat ship
rocket moon star earth fire stone iron diamond tree leaf branch flower grass happy sad quick slow
loud quiet brave clever funny gentle""".split()

# Words that name a follow-up ("say that again") or open every other sentence stay out.
NOT_REPEATED = {"march", "may", "august", "again", "that", "it", "say", "repeat", "spell", "count",
                "multiply", "subtract", "add", "a", "i"}


def number(n):
    """The words of a whole number of 0 to 100."""
    if n < 20:
        return ONES[n]
    if n == 100:
        return "one hundred"
    return TENS[n // 10 - 2] + ("-" + ONES[n % 10] if n % 10 else "")


def _load_words():
    """The 1,500 words of "repeat after me": all other vocabularies, then words.txt in its order."""
    own = ONES + TENS + ["hundred", "new"] + list(CAPITALS) + list(CAPITALS.values())
    own += list(OPPOSITES) + DAYS + MONTHS + SPELL
    listed = [w for line in (HERE / "words.txt").read_text(encoding="utf-8").splitlines()
              if not line.startswith("#") for w in line.split()]
    words = {}
    for w in [x for entry in own for x in entry.split()] + listed:
        if w.lower() not in NOT_REPEATED and w.lower() not in words:
            words[w.lower()] = w
    return list(words.values())[:1500]


WORDS = _load_words()

# ------------------------------------------------------------------------------------------------
# phrasings
# ------------------------------------------------------------------------------------------------
WRAP = [
    "", "", "", "", "", "", "", "[um ,] ", "(okay|well|so|now|right|alright) , ",
    "(hey|hi|hello) [parley] , ", "parley , ", "[and] please ", "quick question , ",
    "one more thing , ", "(let me ask you|tell me something) , ", "I have a question , ",
]
TAIL = ["", "", "", "", "", "", "", "", ", please", " please", ", thanks", ", if you can",
        " for me", ", (parley|my friend)"]


def load_phrases():
    """The lists of phrases.txt by name."""
    lists, name = {}, None
    for line in (HERE / "phrases.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("== "):
            name = line[3:]
            lists[name] = []
        elif line and not line.startswith("#"):
            lists[name].append(line)
    ask = "(" + "|".join(lists.pop("ask")) + ")"
    return {k: [line.replace("<ask>", ask) for line in v] for k, v in lists.items()}


PHRASES = load_phrases()
SOCIAL_HEADS = ["um , ", "so , ", "now , ", "parley , ", "ah , ", "yes , ", "right , ", "tell me , ",
                "hm , ", "excuse me , "]

# Small talk: the answer, and the words that must stand in it.
SOCIAL = {
    "greet": ("Hello! How can I help you?", "hello"),
    "morning": ("Good morning! How can I help you?", "good morning"),
    "evening": ("Good evening! How can I help you?", "good evening"),
    "how": ("I am fine, thank you.", "i am fine"),
    "name": ("My name is Parley.", "my name is parley"),
    "able": ("I can add, subtract, multiply, count, spell, name capitals "
             "and opposites, and repeat your words.", "i can add"),
    "being": ("I am a small speech model.", "i am a small speech model"),
    "thanks": ("You are welcome.", "you are welcome"),
    "bye": ("Goodbye!", "goodbye"),
    "night": ("Good night!", "good night"),
}

DECLINE = {
    "do": "I'm sorry, I can't do that.",
    "know": "I'm sorry, I don't know that.",
    "help": "I'm sorry, I can't help with that.",
}
NOTHING_SAID = "I have not said anything yet."

PEOPLE = ("John Mary Peter Anna David Sarah Tom Lucy Paul Emma James Kate Robert Linda George "
          "Susan Henry Alice Frank Julia Einstein Shakespeare Mozart Napoleon Picasso").split()
PEOPLE += ["Doctor Smith", "Mister Brown", "Missus Green"]
PLACES = ("kitchen garden office school station market park hotel hospital library museum city "
          "village street airport church theater forest river beach mountain shop restaurant farm "
          "bathroom bedroom garage factory university castle").split()
OTHER_COUNTRIES = ("Brazil Mexico Argentina Pakistan Korea Ukraine Israel Iceland Ethiopia Nigeria "
                   "Bolivia Tunisia Cambodia Malaysia Singapore Taiwan Africa America Texas "
                   "California Florida Chicago Boston Liverpool Munich Milan Barcelona Venice "
                   "Sydney Toronto Europe Asia Alaska Hawaii").split()
TIMES = ("today|tomorrow|tonight|yesterday|this morning|this evening|this week|next week|last year|"
         "last night|on Monday|on Friday|on Sunday|in the morning|at night|in the summer|now|"
         "next month|every day|later|soon").split("|")
VERBS = ("clean open close find follow watch paint carry build break like need push pull kick wash "
         "cook buy sell hold lift move visit fix pack burn count miss fill check touch").split()
PAST = ("cleaned opened found followed watched painted carried broke liked kicked washed bought "
        "sold").split()

SOUNDS = ["silence", "hiss", "white", "pink", "hum", "music", "beeps", "clicks", "wind", "crackle"]
EVAL_SOUNDS = {"silence": 4, "white": 4, "pink": 4, "music": 5, "beeps": 1, "hum": 1, "clicks": 1}

SKILLS = ["greet", "name", "able", "add", "subtract", "multiply", "capital", "opposite", "day",
          "month", "count", "spell", "repeat", "decline", "nonspeech", "follow_sum",
          "follow_again", "follow_capital", "follow_opposite", "follow_spell", "follow_order",
          "follow_count"]

# ------------------------------------------------------------------------------------------------
# filling in phrasings
# ------------------------------------------------------------------------------------------------


def pick_weighted(r, weights):
    """One key of a dict of weights."""
    return r.choices(list(weights), list(weights.values()))[0]


def expand(r, template):
    """Settle the (a|b) and [a] of a template, innermost first."""
    pattern = re.compile(r"\(([^()\[\]]*)\)|\[([^()\[\]]*)\]")
    while True:
        m = pattern.search(template)
        if not m:
            return template
        new = r.choice(m[1].split("|")) if m[1] is not None else (m[2] if r.random() < 0.5 else "")
        template = template[:m.start()] + new + template[m.end():]


def sentence(text):
    """Tidy blanks and give the text a capital letter."""
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r" ([,:.?!])", r"\1", text)
    text = re.sub(r"^[,: ]+", "", text)
    return text[:1].upper() + text[1:]


def is_question(text):
    return bool(re.match(r"(?i)(.*, )?(and )?(what|which|who|whose|how|can|could|would|do|does|did|"
                         r"is|are|was|will|where|when|why|have|may)\b", text))


def finish(text):
    """Closing mark as a writer would set it: text-to-speech reads it as melody."""
    text = sentence(text)
    return text if text[-1:] in ".?!" else text + ("?" if is_question(text) else ".")


def choose(r, name, held):
    """A phrasing of the list `name`: one of those kept for evaluation if `held`."""
    lines = [t for t in PHRASES[name] if t.startswith("*") == held]
    return r.choice(lines).lstrip("*")


def wrapped(r, text):
    """Polite and casual openings and closings around a phrasing."""
    head, tail = expand(r, r.choice(WRAP)), expand(r, r.choice(TAIL))
    if "please" in text or "please" in head:
        tail = tail.replace(", please", "").replace("please", "")
    if re.search(r"\b(you|me|I)\b", text):
        tail = tail.replace(" for me", "")
    return head + text + tail


def ask(r, name, held, wrap=True, **slots):
    text = expand(r, choose(r, name, held))
    text = text.format(**slots)
    return finish(wrapped(r, text) if wrap else text)


def kept_back(*content):
    """Evaluation asks a tenth of all contents (sums, ranges); training asks them all."""
    return zlib.crc32(repr(content).encode()) % 10 == 0


def words_of(text):
    """Lower-case words of a text, as a listener would write them down without marks."""
    return re.findall(r"[a-z']+", text.lower().replace("-", " "))


def turn(question, answer, skill, key, held, **more):
    return {"question": question, "answer": answer, "skill": skill, "key": key, "held": held,
            **more}


# ------------------------------------------------------------------------------------------------
# skills: each returns a turn and what the next turn may refer to
# ------------------------------------------------------------------------------------------------

OPS = {"add": ("plus", int.__add__), "subtract": ("minus", int.__sub__),
       "multiply": ("times", int.__mul__)}


def sum_answer(op, a, b):
    word, f = OPS[op]
    result = f(a, b)
    text = f"{number(a)} {word} {number(b)} is {number(result)}."
    return sentence(text), words_of("is " + number(result)), result


def sum_ok(op, a, b):
    return 0 <= OPS[op][1](a, b) <= 100


def make_sum(r, held, op=None):
    op = op or r.choice(list(OPS))
    while True:
        a, b = r.randint(0, 20), r.randint(0, 20)
        if sum_ok(op, a, b) and (not held or kept_back(op, a, b)):
            break
    answer, key, result = sum_answer(op, a, b)
    question = ask(r, op, held, a=number(a), b=number(b))
    return turn(question, answer, op, key, held), {"kind": "sum", "value": result}


def place(country):
    return ("the " if country in WITH_ARTICLE else "") + country


def capital_answer(country):
    city = CAPITALS[country]
    return f"The capital of {place(country)} is {city}.", words_of("is " + city)


def make_capital(r, held):
    country = r.choice(list(CAPITALS))
    answer, key = capital_answer(country)
    question = ask(r, "capital", held, c=place(country))
    return turn(question, answer, "capital", key, held), {"kind": "capital"}


def opposite_answer(word):
    return f"The opposite of {word} is {OPPOSITES[word]}.", ["is", OPPOSITES[word]]


def make_opposite(r, held):
    word = r.choice(list(OPPOSITES))
    answer, key = opposite_answer(word)
    question = ask(r, "opposite", held, w=word)
    return turn(question, answer, "opposite", key, held), {"kind": "opposite"}


def order_answer(kind, name, step):
    ring = DAYS if kind == "day" else MONTHS
    other = ring[(ring.index(name) + step) % len(ring)]
    side = "after" if step > 0 else "before"
    return f"The {kind} {side} {name} is {other}.", ["is", other.lower()], other


def make_order(r, held, kind=None):
    kind = kind or r.choice(["day", "month"])
    name, step = r.choice(DAYS if kind == "day" else MONTHS), r.choice([1, -1])
    answer, key, other = order_answer(kind, name, step)
    question = ask(r, "after" if step > 0 else "before", held, k=kind, d=name)
    return turn(question, answer, kind, key, held), {"kind": "order", "of": kind, "value": other}


def count_answer(a, b):
    step = 1 if b >= a else -1
    names = [number(n) for n in range(a, b + step, step)]
    return sentence(", ".join(names) + "."), names


def make_count(r, held):
    while True:
        name = r.choice(["count_to", "count_up", "count_up", "count_down", "count_down"])
        a, b = (1, r.randint(2, 20)) if name == "count_to" else sorted(r.sample(range(21), 2))
        if b - a > 11 and r.random() < 0.7:     # long ones take training time from all others
            continue
        if name == "count_down":
            a, b = b, a
        if name == "count_to" or not held or kept_back("count", a, b):
            break
    answer, key = count_answer(a, b)
    question = ask(r, name, held, a=number(a), b=number(b))
    return turn(question, answer, "count", key, held), {"kind": "count", "a": a, "b": b}


def spell_answer(word):
    letters = list(word.upper())
    return ", ".join(letters) + ".", [c.lower() for c in letters]


def make_spell(r, held):
    word = r.choice(SPELL)
    answer, key = spell_answer(word)
    return turn(ask(r, "spell", held, w=word), answer, "spell", key, held), {"kind": "spell"}


def random_words(r, n=None):
    return r.sample(WORDS, n or r.choice([1, 1, 2, 2, 3, 3, 4, 4, 5, 6]))


@functools.cache
def alike():
    """Of every word those that differ from it by a letter or two, as most do that sound alike."""
    groups = defaultdict(set)
    for w in WORDS:
        low = w.lower()
        once = {low[:i] + low[i + 1:] for i in range(len(low))}
        twice = {o[:i] + o[i + 1:] for o in once for i in range(len(o))} if len(low) > 4 else set()
        for key in {low} | once | twice:
            groups[key].add(w)
    found = defaultdict(set)
    for group in groups.values():
        for w in group:
            found[w] |= group - {w}
    return {w: sorted(others) for w, others in found.items() if others}


def similar_words(r):
    """A few words, each like another: nothing but their sound tells which it is."""
    words = random_words(r, r.choice([1, 1, 2, 2, 3]))
    for w in list(words):
        other = r.choice(alike().get(w, WORDS))
        if other not in words:
            words.append(other)
    r.shuffle(words)
    return words[:6]


def make_repeat(r, held):
    words = similar_words(r) if not held and r.random() < 0.25 else random_words(r)
    answer = sentence(" ".join(words) + ".")
    gap = r.choice([" ", " ", ", "])        # some speakers pause between the words
    text = expand(r, choose(r, "repeat", held))
    head = r.choice(WRAP[:12]) if r.random() < 0.5 else ""
    question = finish(expand(r, head) + text.format(s=gap.join(words)))
    return turn(question.rstrip("?.") + ".", answer, "repeat", [w.lower() for w in words],
                held), {"kind": "repeat"}


def make_social(r, held, kind=None):
    kind = kind or r.choice(list(SOCIAL))
    answer, key = SOCIAL[kind]
    skill = kind if kind in ("name", "able") else "greet"
    head = r.choice(SOCIAL_HEADS) if not held and r.random() < 0.25 else ""
    return turn(finish(head + expand(r, choose(r, kind, held))), answer, skill, key.split(), held), {"kind": "social"}


def plural(word):
    """Ending -s of nouns and of verbs of the third person."""
    if re.search(r"(s|x|sh|ch)$", word):
        return word + "es"
    return word[:-1] + "ies" if re.search(r"[^aeiou]y$", word) else word + "s"


def fill_other(r, template):
    pools = {"n": COMMON_NOUNS, "v": VERBS, "j": COMMON_ADJECTIVES, "p": PLACES, "h": PEOPLE,
             "z": OTHER_COUNTRIES, "t": TIMES, "w": PAST}
    text = expand(r, template)
    text = re.sub(r"\{([nv])\}s\b", lambda m: plural(r.choice(pools[m[1]])), text)
    text = re.sub(r"\{u\}", lambda _: number(r.randint(1, 99)), text)
    text = re.sub(r"\{([nvjphztw])\}", lambda m: r.choice(pools[m[1]]), text)
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)


def make_decline(r, held):
    kind = pick_weighted(r, {"do": 3, "know": 4, "help": 4})
    text = fill_other(r, choose(r, "other_" + kind, False))
    if kind != "help" and r.random() < 0.4:
        text = wrapped(r, text)
    return turn(finish(text), DECLINE[kind], "decline", ["i'm", "sorry"], held), {"kind": "decline"}


def make_nonspeech(r, held):
    return turn("", "", "nonspeech", [], held, sound=r.choice(SOUNDS)), {"kind": "none"}


COMMON_NOUNS = [w for w in SPELL[:130] if w not in set("red blue green yellow purple pink brown "
                                                       "silver golden".split())]
COMMON_ADJECTIVES = sorted(set(w for w in OPPOSITES if w not in set(
    "up down left right day night north south east west love hate win lose push pull buy sell "
    "inside outside top bottom front back war peace first last".split())) | set(
    "red blue green yellow brown beautiful brave clever funny strange famous important wild "
    "friendly lazy heavy new tall pretty angry tired".split()))

MAKERS = {"sum": make_sum, "capital": make_capital, "opposite": make_opposite, "order": make_order,
          "count": make_count, "spell": make_spell, "repeat": make_repeat, "social": make_social,
          "decline": make_decline, "nonspeech": make_nonspeech}

# Shares of training: hearing 1,500 words takes the most examples.
SHARES = {"sum": 21, "capital": 6, "opposite": 7, "order": 7, "count": 8, "spell": 8, "repeat": 54,
          "social": 11, "decline": 14, "nonspeech": 2}

# ------------------------------------------------------------------------------------------------
# follow-ups
# ------------------------------------------------------------------------------------------------


def follow_sum(r, held, state):
    value = state["value"]
    while True:
        op = r.choice(list(OPS))
        b = r.randint(0, 20) if r.random() < 0.5 else r.randint(1, 5)
        if sum_ok(op, value, b):
            break
    answer, key, result = sum_answer(op, value, b)
    question = ask(r, "more", held, wrap=False, o=OPS[op][0], b=number(b))
    return turn(question, answer, "follow_sum", key, held), {"kind": "sum", "value": result}


def follow_capital(r, held, state):
    made, new = make_capital(r, held)
    country = next(c for c in CAPITALS if f"of {place(c)} is" in made["answer"])
    question = ask(r, "and_capital", held, wrap=False, c=place(country))
    return {**made, "question": question, "skill": "follow_capital"}, new


def follow_opposite(r, held, state):
    word = r.choice(list(OPPOSITES))
    answer, key = opposite_answer(word)
    question = ask(r, "and_opposite", held, wrap=False, w=word)
    return turn(question, answer, "follow_opposite", key, held), state


def follow_spell(r, held, state):
    word = r.choice(SPELL)
    answer, key = spell_answer(word)
    question = ask(r, "and_spell", held, wrap=False, w=word)
    return turn(question, answer, "follow_spell", key, held), state


def follow_order(r, held, state):
    step = r.choice([1, 1, -1])
    answer, key, other = order_answer(state["of"], state["value"], step)
    name = "and_after" if step > 0 else "and_before"
    question = ask(r, name, held, wrap=False, k=state["of"])
    return turn(question, answer, "follow_order", key, held), {**state, "value": other}


def follow_count(r, held, state):
    a, b = state["b"], state["a"]
    answer, key = count_answer(a, b)
    question = ask(r, "and_reverse", held, wrap=False)
    return turn(question, answer, "follow_count", key, held), {**state, "a": a, "b": b}


def follow_again(r, held, state, previous):
    """Says the previous answer once more; what later turns may refer to does not change."""
    question = ask(r, "again", held, wrap=False)
    return turn(question, previous["answer"], "follow_again", previous["key"], held), state


FOLLOW = {"sum": follow_sum, "capital": follow_capital, "opposite": follow_opposite,
          "spell": follow_spell, "order": follow_order, "count": follow_count}


def next_turn(r, held, state, previous):
    """A follow-up if the state allows one (half of the time), else another question."""
    x = r.random()
    if x < 0.2 and previous and previous["answer"]:
        return follow_again(r, held, state, previous)
    if x < 0.65 and state and state["kind"] in FOLLOW:
        return FOLLOW[state["kind"]](r, held, state)
    return MAKERS[pick_weighted(r, SHARES)](r, held)


def make_dialogue(r):
    turns, state = [], None
    if r.random() < 0.006:      # "what did you say?" before anything was said
        question = ask(r, "again", False, wrap=False)
        turns = [turn(question, NOTHING_SAID, "follow_again", words_of(NOTHING_SAID)[:4], False)]
    length = r.choices([1, 2, 3, 4], [50, 27, 15, 8])[0]
    while len(turns) < length:
        made, state = next_turn(r, False, state, turns[-1] if turns else None)
        turns.append(made)
    return turns


@functools.cache
def kept_questions():
    """What evaluation asks, as words: marks and capitals make no other question of it."""
    return {" ".join(words_of(t["question"])) for d in eval_dialogues() for t in d if t["question"]}


def dialogues(n, seed=1):
    """n training dialogues, in none of which a question of the evaluation is asked."""
    r = random.Random(f"dialogues {seed}")
    out = []
    while len(out) < n:
        made = make_dialogue(r)
        if not any(" ".join(words_of(t["question"])) in kept_questions() for t in made):
            out.append(made)
    return out


# ------------------------------------------------------------------------------------------------
# sentences for the voice
# ------------------------------------------------------------------------------------------------


def fixed_answers():
    """Every answer that is not made of free words or of free numbers."""
    out = [answer for answer, _ in SOCIAL.values()] + list(DECLINE.values()) + [NOTHING_SAID]
    out += [capital_answer(c)[0] for c in CAPITALS] + [opposite_answer(w)[0] for w in OPPOSITES]
    out += [order_answer(k, n, s)[0] for k, ring in (("day", DAYS), ("month", MONTHS))
            for n in ring for s in (1, -1)]
    out += [spell_answer(w)[0] for w in SPELL]
    return out


def heard_often():
    """How many times as often as others a sentence is said in training: most answers are one of
    a few hundred, which would be lost among the many of free words."""
    often = dict.fromkeys(fixed_answers(), 5)
    often.update(dict.fromkeys([a for a, _ in SOCIAL.values()] + [*DECLINE.values(),
                                                                   NOTHING_SAID], 25))
    return often


def answers(n, seed=1):
    """n distinct answers: the fixed ones, sums, counts, spellings of other words, words."""
    r = random.Random(f"answers {seed}")
    seen = dict.fromkeys(fixed_answers())
    sums = [(op, a, b) for op in OPS for a in range(101) for b in range(21) if sum_ok(op, a, b)]
    small = [s for s in sums if s[1] <= 20]
    for op, a, b in small + r.sample(sums, min(len(sums), n // 8)):
        seen.setdefault(sum_answer(op, a, b)[0])
    counts = [(a, b) for a in range(21) for b in range(21) if a != b and abs(a - b) <= 20]
    for a, b in r.sample(counts, min(len(counts), n // 60)):
        seen.setdefault(count_answer(a, b)[0])
    for word in r.sample([w for w in WORDS if 3 <= len(w) <= 7], n // 50):
        seen.setdefault(spell_answer(word)[0])      # more spellings than are asked for
    while len(seen) < n:
        words = random_words(r, r.choice([1, 2, 3, 4, 5, 6, 6]))
        seen.setdefault(sentence(" ".join(words) + "."))
    out = list(seen)[:n]
    r.shuffle(out)
    return out


# ------------------------------------------------------------------------------------------------
# evaluation
# ------------------------------------------------------------------------------------------------

EVAL_COUNTS = {"add": 24, "subtract": 24, "multiply": 22, "capital": 28, "opposite": 24, "day": 12,
               "month": 12, "count": 16, "spell": 24, "repeat": 52, "greet": 10, "name": 3,
               "able": 3}
EVAL_FOLLOW = {"sum": 14, "capital": 6, "opposite": 5, "order": 7, "spell": 4, "count": 3}
EVAL_AGAIN = 7


def eval_single(r, skill):
    if skill in OPS:
        return make_sum(r, True, skill)
    if skill in ("day", "month"):
        return make_order(r, True, skill)
    if skill in ("greet", "name", "able"):
        kinds = [k for k in SOCIAL if k not in ("name", "able")] if skill == "greet" else [skill]
        return make_social(r, True, r.choice(kinds))
    return MAKERS[skill](r, True)


def eval_follow(r, kind):
    """A first turn in a phrasing of training, so that only the follow-up is judged, then it."""
    first, state = MAKERS[kind](r, False)
    second, _ = FOLLOW[kind](r, True, state)
    return [first, second]


@functools.cache
def eval_dialogues():
    """The evaluation set. Only turns with `held` count; others lead up to them."""
    return json.loads((HERE / "eval.json").read_text(encoding="utf-8"))


def draw_eval(seed=7):
    """Another evaluation set of the same kind, of the phrasings as they are now."""
    r = random.Random(f"eval {seed}")
    out = []
    for skill, n in EVAL_COUNTS.items():
        seen = set()
        while len(seen) < n:
            made, _ = eval_single(r, skill)
            if made["question"] not in seen:
                seen.add(made["question"])
                out.append([made])
    for kind, n in EVAL_FOLLOW.items():
        out += [eval_follow(r, kind) for _ in range(n)]
    for i in range(EVAL_AGAIN):
        first, state = MAKERS[["sum", "capital", "repeat", "order", "opposite"][i % 5]](r, False)
        out.append([first, follow_again(r, True, state, first)[0]])
    for text in PHRASES["other_eval"]:
        out.append([turn(text, DECLINE["help"], "decline", ["i'm", "sorry"], True)])
    for sound, n in EVAL_SOUNDS.items():
        out += [[turn("", "", "nonspeech", [], True, sound=sound)] for _ in range(n)]
    return out


# ------------------------------------------------------------------------------------------------
# command line
# ------------------------------------------------------------------------------------------------


def check():
    """Sizes that the description of the domain names, and that evaluation is not in training."""
    assert len(CAPITALS) == 50 and len(OPPOSITES) == 80 and len(SPELL) == len(set(SPELL)) == 150
    assert len(WORDS) == len(set(WORDS)) == 1500, len(WORDS)
    assert {w.lower() for w in SPELL} <= {w.lower() for w in WORDS}
    train = dialogues(20000)
    asked = {t["question"] for d in train for t in d if t["question"]}
    words = {" ".join(words_of(q)) for q in asked}
    held = [t for d in eval_dialogues() for t in d if t["held"]]
    both = [t["question"] for d in eval_dialogues() for t in d
            if t["question"] and " ".join(words_of(t["question"])) in words]
    speech = [t for t in held if t["skill"] not in ("decline", "nonspeech")]
    follow = [t for t in speech if t["skill"].startswith("follow")]
    print(f"train: {len(train)} dialogues, {sum(map(len, train))} turns, {len(asked)} questions")
    print(f"eval: {len(speech)} questions ({len(follow)} follow-ups), "
          f"{len(held) - len(speech)} others; also in training: {both}")
    assert not both


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--show", type=int, help="print N dialogues")
    p.add_argument("--answers", type=int, help="print N sentences for the voice")
    p.add_argument("--draw-eval", type=Path, help="write another set of evaluation dialogues")
    p.add_argument("--check", action="store_true", help="check sizes and the split")
    p.add_argument("--seed", type=int, default=1)
    args = p.parse_args()
    if args.check:
        check()
    for d in dialogues(args.show or 0, args.seed):
        for t in d:
            print(f"{t['skill']:>15}  {t['question'] or t['sound']}  ->  {t['answer']}")
        print()
    for a in answers(args.answers, args.seed) if args.answers else []:
        print(a)
    if args.draw_eval:
        lines = ",\n".join(json.dumps(d) for d in draw_eval())
        args.draw_eval.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
