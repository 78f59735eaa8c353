"""What a question, and a draft of its answer, look like: counts, marks and cue words."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence

import numpy as np

_END_CHARS = 2048

SURFACE = {
    "log_chars": "ln(1 + characters)",
    "log_words": "ln(1 + words)",
    "mean_word_chars": "mean length of a word",
    "n_names": "runs of capitalised words, the first word apart",
    "capital_share": "share of words that are capitalised, the first word apart",
    "lower_case": "1: has letters with case, and none is a capital",
    "n_years": "numbers from 1000 to 2099",
    "n_numbers": "runs of digits",
    "bracket": "1: holds an opening bracket",
    "quoted": "1: holds a double quotation mark",
    "n_commas": "commas",
    "question_mark": "1: ends with a question mark of any script",
    "n_possessives": "'s",
    "n_of": "the word of",
    "n_the": "the word the",
}
"""What a question looks like, in any language."""


def _spelled(*phrases: str) -> frozenset[str]:
    """Words and pairs of words, given between commas."""
    return frozenset(phrase.strip() for text in phrases for phrase in text.split(","))


OPENINGS: Mapping[str, frozenset[str]] = {
    "yes_no": _spelled("is, are, was, were, did, does, do, has, have, can"),
    "wh": _spelled("who, when, where, what, which, how, why, whose"),
    "preposition": _spelled("in, at, on, from, of, for, to, according"),
}
"""English words that a question begins with."""

CUES: Mapping[str, frozenset[str]] = {
    "who": _spelled("who, whom, whose"),
    "when": _spelled("when"),
    "where": _spelled("where"),
    "what": _spelled("what"),
    "which": _spelled("which"),
    "amount_asked": _spelled("how many, how much, how long, how far, how old"),
    "how": _spelled("how"),
    "why": _spelled("why"),
    "name_asked": _spelled("name the, name a, the name"),
    "comparison": _spelled(
        "older, younger, earlier, later, longer, shorter, larger, smaller, bigger, more, higher",
        "same, both, between, or",
    ),
    "order": _spelled("first, last, latest, oldest, original"),
    "creator": _spelled(
        "director, directed, performer, author, composer, founder, founded, creator, created",
        "wrote, written, producer, producing",
    ),
    "kin": _spelled(
        "father, mother, son, daughter, wife, husband, spouse, child, children, brother, sister",
        "sibling, siblings, uncle, aunt, niece, nephew, grandfather, grandmother, grandson",
        "granddaughter, paternal, maternal, stepmother, stepfather",
    ),
    "birth_or_death": _spelled(
        "born, birth, birthday, birthplace, died, death, die, buried, burial"
    ),
    "date": _spelled("year, date, month, day, century, decade"),
    "place": _spelled(
        "country, nationality, city, state, county, place, located, location, headquarters",
        "province, town, continent, capital, district, region",
    ),
    "quantity": _spelled(
        "percent, percentage, population, number, size, distance, average, total, amount"
    ),
    "award": _spelled("award, awards, prize, won, win, nominated, medal, champion, winner"),
    "screen": _spelled(
        "film, movie, episode, season, series, show, tv, television, played, play, plays, cast",
        "actor, actress, voice, character, sitcom",
    ),
    "music": _spelled("song, sings, sang, album, band, music, singer, lyrics, rapper"),
    "sport": _spelled(
        "team, league, cup, player, players, football, baseball, basketball, nba, nfl, olympic",
        "olympics, game",
    ),
    "institution": _spelled(
        "company, university, college, school, organization, organisation, government, president",
        "king, queen, war, empire, church, law",
    ),
    "nature": _spelled("chemical, element, blood, cell, energy, disease, animal, species, theory"),
    "term_asked": _spelled("called, term, word, meaning, known"),
    "recency": _spelled(
        "current, currently, now, today, recent, recently, new, latest",
        ",".join(map(str, range(2010, 2030))),
    ),
    "nested": _spelled("that, who, whose, which, where the"),
    "copula": _spelled("was, were, is, are"),
    "auxiliary": _spelled("did, does, do"),
}
"""English words, or pairs of neighbours, that a question holds."""

_ASKED: Mapping[str, frozenset[str]] = {
    "date": _spelled("when, what year, which year, what date, birthday, date of"),
    "amount": _spelled("how many, how much, percent, percentage, population"),
    "person": _spelled("who, whose, whom"),
    "place": _spelled("where, what city, which city, country, place, county, state"),
    "choice": _spelled("which"),
    "manner": _spelled("why, how"),
}
ASKED = ("yes_no", *_ASKED, "other")
GIVEN = ("yes_no", "year", "date", "number", "name", "other")
DRAFT = (
    *("log_chars", "log_words", "hedges", "overlap", "in_question", "n_capitals", "n_commas"),
    *("bracket", "long", "one_word", "n_numbers", "has_and", "has_or"),
    *(f"given_{given}" for given in GIVEN),
    *(f"asked_{asked}_given_{given}" for asked, given in itertools.product(ASKED, GIVEN)),
)
"""What a draft looks like: its size and make-up, whether it hedges (see `hedges`), the share of
its words that the question holds, the kind of thing it gives, and that crossed with the kind of
thing asked for."""

_OPENING_MARKS = "\"'(\u201c\u2018\u00ab"
_QUOTATION_MARKS = '"\u201c\u201d\u00ab\u00bb\u300c'
_COMMAS = ",\u3001\uff0c"
_QUESTION_MARKS = ("?", "\uff1f", "\u061f")
_MONTHS = _spelled(
    "january, february, march, april, may, june, july, august, september, october, november",
    "december",
)
_WORD = re.compile(r"\w+")
_LETTERS = re.compile(r"[^\W\d_]+")
_NUMBER = re.compile(r"\d+")
_YEAR = re.compile(r"(?<!\d)(?:1\d{3}|20\d{2})(?!\d)")
_ONLY_YEAR = re.compile(r"\s*(?:in |c\. ?)?\d{4}\W*", re.I)
_HEDGE = re.compile(
    r"\bno (?:answer|information|mention|specific|indication|evidence)|\bnot (?:available|known"
    r"|possible|specified|mentioned?|provided?|clear|enough|sure|explicitly|stated|given|found"
    r"|applicable|sufficient)|\b(?:does|do) not\b|\b(?:does|do|is)n['\u2019]t\b|\bcannot\b"
    r"|\bcan['\u2019]t\b|\bunable\b|\bunknown\b|\bunclear\b|\binsufficient\b|\bn/a\b"
    r"|^\W*none\W*$",
    re.I,
)


def surface(question: str) -> list[float]:
    """The values of `SURFACE`; zeros for an empty text. Of a long one the two ends count."""
    text = _ends(question)
    lowered, spaced, letters = text.lower(), text.split(), _LETTERS.findall(text)
    capital = [word.lstrip(_OPENING_MARKS)[:1].isupper() for word in spaced[1:]]
    starts = [now and not before for before, now in itertools.pairwise([False, *capital])]
    return [
        np.log1p(len(text)),
        np.log1p(len(spaced)),
        sum(map(len, letters)) / max(len(letters), 1),
        sum(starts),
        sum(capital) / max(len(spaced), 1),
        text == lowered and text != text.upper(),
        len(_YEAR.findall(text)),
        len(_NUMBER.findall(text)),
        "(" in text,
        any(mark in text for mark in _QUOTATION_MARKS),
        sum(map(text.count, _COMMAS)),
        text.rstrip().endswith(_QUESTION_MARKS),
        lowered.count("'s") + lowered.count("\u2019s"),
        lowered.count(" of "),
        lowered.count(" the "),
    ]


def cues(question: str) -> list[bool]:
    """Whether each of `OPENINGS`, then each of `CUES` occurs. Of a long text the ends count."""
    words = _words(_ends(question))
    held = _held(words)
    opens = [bool(words) and words[0] in opening for opening in OPENINGS.values()]
    return opens + [not held.isdisjoint(cue) for cue in CUES.values()]


def drafted(question: str, draft: str) -> list[float]:
    """The values of `DRAFT`. Of long texts the two ends count."""
    asked_text, answer = _ends(question).lower(), _ends(draft)
    asked_words, words = _words(asked_text), _words(answer)
    held, lowered = set(asked_words), answer.lower()
    crossed = np.zeros((len(ASKED), len(GIVEN)))
    crossed[_asked(asked_words), _given(answer, words)] = 1.0
    kinds: list[float] = [*crossed.max(axis=0), *crossed.ravel()]
    return [
        np.log1p(len(answer)),
        np.log1p(len(words)),
        hedges(answer),
        sum(word in held for word in words) / max(len(words), 1),
        lowered.strip() in asked_text,
        sum(word[0].isupper() for word in answer.split()),
        answer.count(","),
        "(" in answer,
        len(words) > 12,
        len(words) == 1,
        len(_NUMBER.findall(answer)),
        " and " in lowered,
        " or " in lowered,
        *kinds,
    ]


def hedges(answer: str) -> bool:
    """Whether an English answer says that it does not know, or that the passages do not say."""
    return bool(_HEDGE.search(_ends(answer)))


def _asked(words: Sequence[str]) -> int:
    """Position in `ASKED` of what a question in these words asks for."""
    held = _held(words)
    for position, cue in enumerate(_ASKED.values(), start=1):
        if not held.isdisjoint(cue):
            return position
    opens_yes_no = bool(words) and words[0] in OPENINGS["yes_no"]
    return 0 if opens_yes_no else len(ASKED) - 1


def _given(answer: str, words: Sequence[str]) -> int:
    """Position in `GIVEN` of what an answer in these words gives."""
    digits = bool(_NUMBER.search(answer))
    kinds = (
        len(words) == 1 and words[0] in ("yes", "no"),
        _ONLY_YEAR.fullmatch(answer) is not None,
        digits and not _MONTHS.isdisjoint(words),
        digits,
        answer[:1].isupper(),
        True,
    )
    return kinds.index(True)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _held(words: Sequence[str]) -> set[str]:
    """The words and the pairs of neighbours."""
    return {*words, *(f"{left} {right}" for left, right in itertools.pairwise(words))}


def _ends(text: str) -> str:
    """The text, or its first and last 2,048 characters: the time per text is bounded."""
    if len(text) <= 2 * _END_CHARS:
        return text
    return f"{text[:_END_CHARS]} {text[-_END_CHARS:]}"
