"""From what a model says to a decision: same, different or unknown; needs no torch.

`parse_decision` reads as a careful person would: JSON first, then what is said to be the decision,
then the last sentence that speaks of writers, with its negations. `parse_decision_compat` is the
rule of the authors' scripts, which looks for the bare words (specification 3.1).
"""

from __future__ import annotations

import json
import re
from typing import Any, Literal

Decision = Literal["same", "different", "unknown"]

DECISION_KEYS = ("decision", "final_decision", "verdict", "answer", "final_answer", "conclusion")
_BOOLEAN_KEYS = ("same_writer", "same", "is_same_writer", "same_author", "match")

_NOUN = (
    r"(?:writers?|authors?|persons?|people|individuals?|hands?|scribes?|penm[ae]n|authorship|"
    r"sources?|origins?|m[ae]n|wom[ae]n|handwritings?)"
)
_WHO = r"(?:writers?|authors?|authorship|persons?|people|individuals?|scribes?|penm[ae]n|sources?)"
_BE = r"(?:is|are|was|were|be|being|been|seem|seems|appear|appears|look|looks)"
_SUBJECT = r"(?:they|these|those|both|two|samples?|writings?|specimens?|handwritings?|words|images)"
_SAME = re.compile(
    rf"\b(?:same|identical|common|shared|single) (?:\w+ )?{_NOUN}\b"
    rf"|(?<!than )\bone {_WHO}\b"
    rf"|\b{_WHO} {_BE} (?:not )?(?:\w+ )?(?:the same|identical)\b"
    rf"|\b{_SUBJECT} {_BE} (?:not )?(?:\w+ )?(?:the )?(?:same|identical)$"
    rf"|\b{_WHO} (?:of|behind|who \w+) (?:the )?(?:known|first|questioned|second|reference)\b"
    r".*\b(?:wrote|write|written|produced?|authored?|penned)\b.*"
    r"\b(?:questioned|second|known|first|other|both)\b"
    rf"|\b(?:written|penned|produced|made) by the {_WHO} (?:of|behind|who \w+)\b"
    rf"|\b(?:known|first|reference) {_WHO} (?:also )?(?:did (?:not )?)?"
    r"(?:wrote|write|penned|produced?) (?:the )?(?:questioned|second|other|both)\b"
    r"|\b(?:share|shares|shared) (?:an?|the) (?:author|writer)\b"
    rf"|\ba match\b|\b{_SUBJECT} (?:(?:do|does|did) )?(?:not )?(?:\w+ly )?match$"
)
_DIFFERENT = re.compile(
    rf"\b(?:different|distinct|separate|differing|multiple|another|other) (?:\w+ )?{_NOUN}\b"
    rf"|\b(?:two|more than one) {_WHO}\b(?! {_BE}\b)|\btwo hands\b"
    r"|\bdifferent ones\b|\bsomeone else\b"
    rf"|\b(?:{_WHO}|hands) {_BE} (?:not )?(?:\w+ly )?(?:different|distinct)\b"
    r"|\b(?:writers|authors|hands) (?:do not |did not )?(?:\w+ly )?differ\b"
    r"|\bdiffers? in (?:authorship|origin|writer)\b"
    rf"|\b{_SUBJECT} {_BE} (?:not )?(?:\w+ly )?(?:different|distinct)$|\bmismatch\b"
)
_NEGATORS = (
    r"not|never|unlikely|improbable|implausible|doubtful|impossible|unsupported|false|untrue|"
    r"incorrect|wrong|refute[sd]?|reject(?:s|ed)?|disprove[sdn]?|exclude[sd]?|ruled out|"
    r"rules? out|eliminate[sd]?|dismiss(?:es|ed)?"
)
_NEGATED_AFTER = re.compile(rf"\b(?:{_NEGATORS})\b")
_NEGATED_BEFORE = re.compile(
    rf"\b(?:{_NEGATORS}|no|nor|neither|none|nothing|nobody|hardly|without|doubt|doubts|"
    r"den(?:y|ies)|against|away from|contrary to|inconsistent with|incompatible with|"
    r"fails? to|far from|hard to believe|less likely)\b"
)
_UNDECIDED = re.compile(
    r"\b(?:inconclusive|undetermined|undecided|indeterminate|indeterminable|undecidable)\b"
    r"|\b(?:can|could|do|is|am|are) not (?:\w+ly |possible to |able to |feasible to )*(?:be )?"
    r"(?:\w+ly )?(?:determin|decid|conclud|establish|tell|say|judg|assess|identif|ascertain|resolv|"
    r"know|give|provid|reach|draw|confirm|verif|make a|view|see)\w*"
    r"|\bnot possible to\b|\bimpossible to\b|\bunable to\b|\bno (?:\w+ )?(?:decision|conclusion)\b"
    r"|\bunknown\b(?! (?:\w+ )?(?:writer|author|person|hand|sample|writing|document|word|image|"
    r"specimen|exemplar))"
)
_NOT_EXCLUDED = re.compile(r"\bnot (?:be )?(?:\w+ly )?(?:rule out|ruled out|exclude|excluded)\b")
_LABEL = re.compile(r"(?P<named>[\w ]{4,40}?)\s*(?:[:=]|\s[-–—]+\s)\s*(?P<word>\w+)$")
_IDIOMS = re.compile(
    r"\b(?:(?:there (?:is|can be) )?(?:no|little|hardly any) (?:\w+ )?(?:doubt|question)"
    r"|without (?:a |any )?(?:\w+ )?doubt|beyond (?:a |any |all )?(?:\w+ )?(?:doubt|question)"
    r"|not (?:only|just|merely|simply)(?! one)|on (?:the )?one hand|on the other hand"
    r"|in other words)\b"
)
_DISMISSED = re.compile(r"\b(?:rather than|instead of|as opposed to|(?<!more )than)\b.*")
_LINK = re.compile(
    r"(?:(?:is|was|would be|will be|must be|remains|that|to be|for|as follows)\b[\s:=\"'\-–—,]*)+"
)
_BOTH_WORDS = re.compile(
    r"\bneither yes nor no\b|[(\[]?\byes\b['\"]?\s*(?:[/|,]|\bor\b|\band\b)\s*['\"]?no\b['\"]?"
    r"(?:\s*(?:[/|,]|\bor\b)+\s*(?:or\s+)?['\"]?(?:unknown|unsure|inconclusive)\b['\"]?)?[)\]]?"
)
_LEGEND = re.compile(r"\b(?:yes|no|unknown)\b['\"]?\s*(?:=|\bmeans\b|\bstands for\b)[^,.;\n)]*")
_EXPLICIT = re.compile(
    r"\b(?:decision|answer|verdict|conclusion|determination|opinion|finding|judge?ment|result|"
    r"response|conclude|decide|towards?|therefore|thus|hence)\b"
)
_STARTS = re.compile(r"(?:(?:probably|likely|clearly|definitely|certainly|a|an|it|is) )*")
_YES_NO = {"yes": "same", "yep": "same", "yeah": "same", "true": "same"}
_YES_NO |= {"no": "different", "nope": "different", "false": "different"}
_ONE_WORD = re.compile(rf"({'|'.join(_YES_NO)})\b")
_NO_AS_ANSWER = re.compile(
    r"no(?:\s*$|\s*[^\w\s]|\s+(?:they|these|those|the|it|i|both|based|as|because|since|this|we)\b)"
)
_LAST_WORD = re.compile(r"\b(yes|no)\W*$")
_SHORT = {"same": "same", "identical": "same", "match": "same", "identification": "same"}
_SHORT |= {"different": "different", "distinct": "different", "elimination": "different"}
_SHORT |= {"exclusion": "different", "mismatch": "different"}
_SHORT_WORD = re.compile(rf"(?:both |the )?(?P<not>not? )?(?:the )?(?P<word>{'|'.join(_SHORT)})\b")
_SUBORDINATE = re.compile(
    r"\b(because|since|although|though|even though|despite|while|given that|as|which)\b"
)
_CLAUSES = re.compile(r"[,;:()]|\s[-–—]+\s|\b(?:but|however|yet|so that|so|and)\b")


_LONGEST, _MOST = 40_000, 100  # characters of an answer that are read, places that are tried


def parse_decision(text: str) -> Decision:
    """Return the decision that a careful reader finds in a model's answer.

    In this order: the decision of a JSON object; what follows the last "decision", "answer",
    "conclusion" or the like; and from the last sentence to the first one that speaks of the same or
    of different writers, is a Yes or No, or says that nothing can be decided. Yes means same.
    "Not the same", "no doubt", "rather than" and double negations are understood; questions and
    conditions are passed over.

    Args:
        text: any.

    Example:
        >>> parse_decision("There is no doubt that both were written by the same person.")
        'same'
        >>> parse_decision("No significant differences, but it is not possible to decide.")
        'unknown'
    """
    text = text[-_LONGEST:]
    found = _from_json(text)
    if found is not None:
        return found
    plain = _plain(text)
    sentences = _sentences(plain)
    if not sentences:
        return "unknown"
    if len(sentences) == 1 and len(sentences[0].split()) <= 6:
        short = _short(sentences[0])
        if short is not None:
            return short
    for keyword in [*_EXPLICIT.finditer(plain)][:-_MOST:-1]:
        start, end = keyword.span()
        found = _explicit(plain[max(0, start - 200) : start], plain[end : end + 400])
        if found is not None:
            return found
    for sentence in reversed(sentences):
        found = _in_sentence(sentence)
        if found is not None:
            return found
    return "unknown"  # also where the writer of the answer is not sure


def parse_decision_compat(text: str) -> Literal["Yes", "No", "Both", "Unknown"]:
    """Return what the authors' script reads: the words Yes, No and Unknown, wherever they stand.

    It takes "no doubt it is the same person" for No; use it to compare with the paper only.

    Args:
        text: any.

    Example:
        >>> parse_decision_compat("Yes, there is no difference.")
        'Both'
    """
    yes, no, unknown = (
        re.search(rf"\b{word}\b", text, re.IGNORECASE) for word in ("yes", "no", "unknown")
    )
    if unknown or not (yes or no):
        return "Unknown"
    if yes and no:
        return "Both"
    return "Yes" if yes else "No"


def read_json(text: str) -> dict[str, Any] | None:
    """Return the last JSON object in `text`, also out of a fenced block; None if there is none.

    Args:
        text: an answer.
    """
    decoder, found, at = json.JSONDecoder(), None, text.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
        except (json.JSONDecodeError, RecursionError):
            end = at + 1
        else:
            found = value
        at = text.find("{", end)
    return found


def _from_json(text: str) -> Decision | None:
    value = read_json(text)
    if value is None:
        return None
    folded = {re.sub(r"[\s-]+", "_", str(key).strip().lower()): v for key, v in value.items()}
    for key in (*DECISION_KEYS, *_BOOLEAN_KEYS):
        said = folded.get(key)
        if isinstance(said, bool):
            return "same" if said else "different"
        if isinstance(said, str):
            plain = _plain(said)
            return _short(plain) or _in_sentence(plain) or "unknown"
    return None


def _plain(text: str) -> str:
    """Return `text` in lower case without mark-up, with straight quotes and whole words."""
    plain = text.lower().translate({0x2019: "'", 0x2018: "'", 0x201C: '"', 0x201D: '"'})
    plain = re.sub(r"\\boxed\s*\{([^{}]*)\}", r"\1", plain)
    plain = re.sub(r"<[^<>\n]{1,40}>|[*_`#$~>|]+", " ", plain)
    plain = re.sub(r"\b(?:cannot|can't)\b", "can not", plain).replace("won't", "will not")
    plain = plain.replace("one and the same", "the same")
    plain = re.sub(r"n't\b", " not", plain).replace("they're", "they are")
    plain = re.sub(r"(?<=\w)-(?=\w)", " ", plain)
    plain = _BOTH_WORDS.sub(" ", plain)
    if len(_LEGEND.findall(plain)) > 1:
        plain = _LEGEND.sub(" ", plain)
    plain = re.sub(r"\bnon match\b", "no match", plain)
    return re.sub(r"[ \t]+", " ", re.sub(r"\bno match\b", "not a match", plain)).strip()


def _sentences(plain: str) -> list[str]:
    """Return the sentences that state something: questions are left out."""
    parts = re.findall(r"[^.!?\n]+[.!?]*", re.sub(r"(?<=\d)\.(?=\d)", ",", plain))
    stated = [p.strip(" .!\"'-–—\t") for p in parts if not p.rstrip(" \"'").endswith("?")]
    return [sentence for sentence in stated if re.search(r"\w", sentence)]


def _explicit(before: str, after: str) -> Decision | None:
    """Return the decision said after the word "decision" or the like."""
    opening = re.split(r"[.!?\n]", before)[-1]
    if re.match(r"\s*(?:if|whether)\b", opening):
        return None
    rest = re.split(r"[.!?\n]", re.sub(r"^[\s:=\"'.\-–—,]+", "", after), maxsplit=1)[0]
    rest = re.sub(r"^(?:to|of|about|on|regarding) [^,;:]*?(?=\bis\b|:)", "", rest)
    rest = _LINK.sub("", rest, count=1) if _LINK.match(rest) else rest
    return _short(rest.strip(" \"'")) or _in_sentence(rest.strip(" \"'"))


def _short(said: str) -> Decision | None:
    """Return the decision of an answer that begins with it."""
    said = _STARTS.sub("", said.strip(" .!\"'"), count=1)
    flip = bool(re.match(r"(?:can |could )?not (?:be )?(?=['\"]?(?:yes|no)\b)", said))
    said = re.sub(r"^(?:can |could )?not (?:be )?(?=['\"]?(?:yes|no)\b)", "", said).lstrip("'\"")
    word = _ONE_WORD.match(said)
    if word and (word[1] != "no" or _NO_AS_ANSWER.match(said)) and not _has_phrase(said):
        return _flip(_YES_NO[word[1]], flip)
    if not _has_phrase(said) and (found := _SHORT_WORD.match(said)):
        return _flip(_SHORT[found["word"]], bool(found["not"]))
    return None


def _flip(decision: str, flip: bool) -> Decision:
    return "different" if (decision == "same") == flip else "same"


def _has_phrase(text: str) -> bool:
    return bool(_SAME.search(text) or _DIFFERENT.search(text))


def _in_label(sentence: str) -> Decision | None:
    """Return what a label and its value say, as in "same writer: no"."""
    found = _LABEL.match(sentence)
    if found is None:
        return None
    if found["word"] in _YES_NO and _has_phrase(found["named"]):
        named = _in_clause(found["named"])
        return named and _flip(named, _YES_NO[found["word"]] == "different")
    if found["word"] in _SHORT and re.search(rf"\b(?:{_WHO}|hands?)$", found["named"]):
        return _flip(_SHORT[found["word"]], False)
    return None


def _in_sentence(sentence: str) -> Decision | None:
    """Return what a sentence says: of writers, else by Yes or No at its start or end."""
    labelled = _in_label(sentence)
    if labelled is not None:
        return labelled
    stated = re.sub(r"\b(?:if|whether|unless|when)\b[^,;:.]*", " ", _IDIOMS.sub(" ", sentence))
    main, side = _divide(stated)
    clauses = [*reversed(main), *reversed(side)]
    for clause in clauses:
        found = _in_clause(clause)
        if found is not None:
            return found
    word = _ONE_WORD.match(sentence)
    if word and (word[1] != "no" or _NO_AS_ANSWER.match(sentence)):
        return _flip(_YES_NO[word[1]], False)
    last = _LAST_WORD.search(sentence)
    if last:
        return _flip(_YES_NO[last[1]], False)
    return None


def _divide(sentence: str) -> tuple[list[str], list[str]]:
    """Return the clauses of the main sentence, and those that begin with because, although, ..."""
    main, side, in_side = [], [], False
    for piece in re.split(r"([,;:()]|\b(?:but|however|so)\b)", sentence):
        head = _SUBORDINATE.search(piece)
        if re.fullmatch(r"[,;:()]|but|however|so", piece):
            in_side = False
            continue
        if head:
            main += _CLAUSES.split(piece[: head.start()])
            side += _CLAUSES.split(piece[head.start() :])
        else:
            (side if in_side else main).extend(_CLAUSES.split(piece))
    return [c.strip() for c in main if c.strip()], [c.strip() for c in side if c.strip()]


def _in_clause(clause: str) -> Decision | None:
    """Return what one clause says of writers, its negations counted."""
    if _UNDECIDED.search(clause):
        return "unknown"
    clause = _DISMISSED.sub(" ", clause).strip()
    said = set()
    for meaning, pattern in (("same", _SAME), ("different", _DIFFERENT)):
        for phrase in pattern.finditer(clause):
            before, after = clause[: phrase.start()], clause[phrase.end() :]
            if re.match(r"\s*(?:would|should|might|could)\b(?! (?:not|never|hardly))", after):
                continue
            inside = len(re.findall(r"\bnot\b", phrase[0]))
            flips = len(_NEGATED_BEFORE.findall(before)) + inside
            flips += len(_NEGATED_AFTER.findall(after))
            said.add(_flip(meaning, flips % 2 == 1))
    if said and _NOT_EXCLUDED.search(clause):
        return "unknown"
    if not said:
        return None
    return "unknown" if len(said) > 1 else said.pop()
