"""The guard in front of every backend: what speaks to the reader instead of about the world is held back.

No text model is immune to a text that was written to move it, trained heads included; so the defence is outside of
them. The guard sees a text in several views (folded, squeezed, with look-alikes and digits read as letters, reversed,
decoded) and holds it back for what headlines do not have: instructions, roles, the answer's own words, special tokens,
hidden characters, one word over and over. It knows nothing of truth: a false headline passes.
"""

import base64
import binascii
import codecs
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from models.advisor.lexicon import FALLING, RISING
from models.advisor.text import CHARS_MAX, clean


@dataclass(frozen=True, slots=True)
class Verdict:
    """What may go on to a backend.

    Attributes:
        text: cleaned; what a backend is given where nothing is held back.
        held: "" or why the headline is held back: one of the keys of REASONS.
    """

    text: str
    held: str


REASONS = {
    "empty": "there is nothing to read",
    "hidden": "characters that nobody sees",
    "script": "letters of several alphabets in one word, or another alphabet",
    "special": "special tokens or roles of a conversation",
    "instruction": "it speaks to its reader",
    "answer": "it holds the words of an answer",
    "encoded": "it holds encoded text",
    "repetition": "the same words over and over",
}


def inspect(text: str) -> Verdict:
    """Clean a headline, and say whether it may be read by a backend."""
    seen = clean(text)
    if not re.search(r"\w", seen.text):
        return Verdict(seen.text, "empty")
    if seen.hidden:
        return Verdict(seen.text, "hidden")
    raw = unicodedata.normalize("NFKC", text[:CHARS_MAX])[:CHARS_MAX]  # one letter may become 18
    for view in dict.fromkeys((raw, seen.text)):
        if found := _special(view):
            return Verdict(seen.text, found)
    return Verdict(seen.text, _script(seen.text) or _said(seen.text) or _encoded(seen.text) or _repeated(seen.text))


# --- views ----------------------------------------------------------------------------------------------------------

_LOOK_ALIKE = str.maketrans(
    "аеорсухіїјѕԁһӏвнктмгпиАЕОРСУХІЈЅВНКТМαβεικνορτυχγηωΑΒΕΖΗΙΚΜΝΟΡΤΥΧıɪɡʏɴʟᴀʙᴄᴅᴇꜰɢʜᴊᴋᴍᴏᴘʀꜱᴛᴜᴠᴡᴢłøđ",
    "aeopcyxiijsdhlbhktmrnuaeopcyxijsbhktmabeiknoptuxynwabezhikmnoptyxiigynlabcdefghjkmoprstuvwzlod",
)
_DIGITS = str.maketrans("0134578@$!|", "oieastbasil")
_BLANKS = re.compile(r"\s+")
_NO_LETTER = re.compile(r"[^a-z]+")
_SINGLES = re.compile(r"(?<!\w)(?:[^\W\d_][\W_]+){3,}[^\W\d_](?!\w)")


def fold(text: str) -> str:
    """Small letters without accents; letters of other alphabets that look like Latin ones are read as those."""
    if text.isascii():
        return _BLANKS.sub(" ", text.lower())
    text = text.translate(_LOOK_ALIKE)
    text = unicodedata.normalize("NFKD", text.casefold())
    text = "".join(char for char in text if not unicodedata.combining(char))
    return _BLANKS.sub(" ", text.replace("’", "'").replace("‘", "'"))


def squeeze(text: str) -> str:
    """Its letters alone, digits that stand for letters read as those."""
    return _NO_LETTER.sub("", fold(text).translate(_DIGITS))


# --- what is looked for ---------------------------------------------------------------------------------------------

_SPECIAL = re.compile(
    r"<\|?\s*/?\s*(?:im_start|im_end|im_sep|endoftext|end_of_text|begin_of_text|eot_id|start_header_id|end_header_id|"
    r"system|user|assistant|s|bos|eos|pad|unk|start_of_turn|end_of_turn|inst|sys)\s*\|?>"
    r"|<\|[^<>|]{0,32}\|>|<<\s*/?\s*sys\s*>>|\[\s*/?\s*(?:inst|sys|system|user|assistant)\s*\]"
    r"|\b(?:im_start|im_end|endoftext|eot_id)\b|<s>|</s>|###\s*\w+|\{\{.*\}\}|```",
    re.IGNORECASE,
)
_ROLE = re.compile(
    r"(?:^|[\s\"'(\[>*#.;|\-])(?:system|assistant|human|user|developer|administrator|admin|operator|moderator)"
    r"(?:\s+(?:prompt|message|note|override|instruction|notice|update|role))?\s*[:=>\])](?!\S*\.(?:com|org))"
)
_WORD_APART = r"[\s_\-./*|~+:,'\"`^\\]*"
_ANSWER = re.compile(rf"\b(?:buy|sell|hold){_WORD_APART}signal(?!s)\b|\b(?:buy|sell){_WORD_APART}signals?\b")
_SQUEEZED = re.compile(
    r"buysignal|sellsignal|holdsignal|ignore(?:all|any|the|every|your|these|this|my|previous|prior)"
    r"\w{0,24}(?:instruction|direction|rule|prompt|text|headline|above|context|message)|ignoreprevious|ignoreprior"
    r"|disregard(?:all|any|the|every|your|previous|prior)|previousinstruction|priorinstruction|systemprompt"
    r"|youmustanswer|replybuy|replysell|answerbuy|answersell|outputbuy|outputsell|saybuy|respondbuy"
    r"|replywith(?:buy|sell|positive|bullish)|endoftext"
)
# Each speaks to a reader; one is enough.
_ORDERS = re.compile(
    r"\b(?:ignor(?:e|ing)|disregard(?:ing)?|forget|skip|overrul(?:e|ing)|overrid(?:e|ing)|bypass|discard"
    r"|dismiss|drop|delete|erase)\b"
    r"[^.!?]{0,24}\b(?:instructions?|directions?|directives?|rules?|prompts?|guidelines?|orders|constraints|"
    r"(?:previous|prior|earlier|preceding|above|foregoing|other|rest of the) (?:\w+ )?(?:text|words?|headlines?"
    r"|news|messages?|"
    r"sentences?|content|context|lines?|conversation|article|tweet)|everything (?:above|before|prior|you)"
    r"|the above|what (?:came|was|you))\b"
    r"|\b(?:previous|prior|earlier|above|system|original|initial|new|updated|following|developer) (?:system )?"
    r"(?:instructions?|prompts?|directives?)\b"
    r"|\b(?<!analysts )(?<!brokers )"  # who rate a stock a buy, and tell nobody to
    r"(?:reply|respond|answer|return|output|print|emit|write|say|state|repeat|type|produce|generate|choose"
    r"|pick|select|"
    r"report|label|classify|mark|tag|flag|rate|score|treat|read|interpret|consider|count|categori[sz]e|judge"
    r"|rank|grade|set|assign|give|predict)\b"
    r"[^.!?]{0,40}\b(?:(?:as|with|only|exactly|is|be|to|the (?:word|label|answer|token|class)|one word|just"
    r"|a)\W+)+(?:very |strongly |extremely |clearly |the |a |an |word |label )*"
    r"(?:positive|negative|bullish|bearish|buy|sell|neutral)\b"
    r"(?! (?:growth|territory|returns?|cash|earnings|eps|results?|impact|effect|quarter|outlook|yields?|\d))"
    r"|\b(?:reply|respond|answer|output)\W+(?:only|just|exactly|with|positive|negative|bullish|bearish|buy|sell"
    r"|hold|yes)\b"
    r"|\byou (?:are|must|will|shall|should|have to|need to|can|may) (?:now |always |only |please |no longer |not )*"
    r"(?:an? (?:\w+ )?(?:ai|assistant|bot|model|classifier|advisor|analyst)|answer|reply|respond|output|return"
    r"|say|ignore|classify|label|"
    r"obey|comply|in (?:developer|debug|test)|buy|sell|signal|rate|predict|forget|disregard|free|unrestricted)\b"
    r"|\b(?:as an ai|ai (?:advisor|assistant reading|reader)|the classifier|"
    r"(?:this|the|your|dear) (?:model|classifier|algorithm|bot|ai)\b(?= (?:must|should|shall|will now|has to"
    r"|is to|:)))"
    r"|\b(?:sentiment|label|classification|class|verdict|answer|output|response|action|prediction|rating|score"
    r"|result|recommendation|signal)"
    r"\W{0,3}(?:is |must be |should be |= ?|:|->|=>)\W{0,3}(?:very |strongly |extremely |definitely "
    r"|always )?(?:positive|negative|bullish|bearish|buy|sell|hold|up|down|\+?1(?:\.0+)?)\b"
    r"|\b(?:hey|hi|hello|dear|to (?:the|any|all|every|whatever|my)|note to|message to|for the|attention) (?:the )?"
    r"(?:ai|llm|bot|chat ?bot|machine|model|classifier|algorithm|assistant|reader)s?\b(?= (?:reading|that read)|\W*:|,)"
    r"|\b(?:end|begin|start) of (?:the )?(?:headline|prompt|instructions?|input|context|conversation|user|system)\b"
    r"|\b(?:jailbreak|prompt injection|developer mode|debug mode|dan mode|do anything now)\b"
    r"|\b(?:act|behave|respond|pretend|roleplay|role-play) (?:as (?:an?|if|though|my)|like|to be|that you)\b"
    r"|\b(?:new|updated|revised|real|actual|true|your) (?:task|objective|goal|job|orders?|role)\b ?(?:is|:|=)"
)

# Words of someone who speaks of reading and answering. One is ordinary, two different ones are not: of 9,543 labelled
# headlines (Twitter Financial News Sentiment) 25 have two.
_TALK = re.compile(
    r"\b(?:instruct(?:ions?|ed)|prompts?|repl(?:y|ies)|respond|response|answers?|outputs?|labels?|labell?ed|"
    r"classif(?:y|ied|ier|ication)|sentiment|verdict|assistant|(?:chat ?bots?|chat ?gpt|gpt-?\d\w*|llms?)"
    r"(?: models?)?|bot|(?:language |ai )*models?|algorithms?|systems?|please"
    r"|ignore|"
    r"disregard|forget|pretend|correct|headlines?|reader|examples?|input|task|ratings?|translate|json|action"
    r"|confidence|"
    r"probability|score|you|must|always|only|regardless|consider|treat|never mind|whatever|instead|note|important|"
    r"evaluate|analysis|analyst|assess|the following|the above|tweet|sentence|word|text|token)\b"
)
_TALK_WORDS = 2
_FIELDS = re.compile(r"[{}]|[\"']\w+[\"']\s*:")
# Digits in two places of a word of three letters or more: "pr3v10us", but not "eur41m", "5bn", "3rd", "4q19".
_DIGIT_INSIDE = re.compile(r"\b(?=(?:\d*[a-z]){3})[a-z]*[0134578]+[a-z]+[0134578]+\w*")
_DIGIT_WORDS = 2
_WITH_DIGIT = re.compile(r"\b(?=(?:\d*[a-z]){3})(?=[a-z]*\d)\w+")  # of three letters: "s0ar", but not "70p"
_POLAR = RISING | FALLING


def _special(view: str) -> str:
    plain = fold(view)
    if _SPECIAL.search(view) or _FIELDS.search(view) or _ROLE.search(plain) or _ROLE.search(plain.translate(_DIGITS)):
        return "special"
    return ""


def _said(text: str) -> str:
    """Instructions and answers, whether in plain letters, spelled out, or in digits and look-alikes."""
    plain = fold(text)
    as_letters = plain.translate(_DIGITS)
    views = (plain, as_letters, _joined(plain), as_letters.replace("_", " "), plain[::-1])
    for view in dict.fromkeys(views):  # each once: most are alike
        if _ANSWER.search(view):
            return "answer"
        if _ORDERS.search(view):
            return "instruction"
    if any(len(set(_TALK.findall(view))) >= _TALK_WORDS for view in dict.fromkeys((plain, as_letters))):
        return "instruction"
    squeezed = squeeze(text)
    return "answer" if _SQUEEZED.search(squeezed) or _SQUEEZED.search(squeezed[::-1]) else ""


def _joined(plain: str) -> str:
    """Words that were spelled out, "i g n o r e", put together; two blanks or more part them."""
    return _SINGLES.sub(lambda run: re.sub(r"[\W_]", "", run[0]), plain)


_LETTERS = re.compile(r"[^\W\d_]+")


def _script(text: str) -> str:
    """A word of two alphabets, or a text that is mostly in another one than Latin."""
    latin = other = 0
    if text.isascii():
        return ""
    for word in _LETTERS.findall(text):
        scripts = {_alphabet(char) for char in word}
        if len(scripts & {"LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE"}) > 1:
            return "script"
        ours = sum(_alphabet(char) == "LATIN" for char in word)
        latin, other = latin + ours, other + len(word) - ours
    return "script" if other > 4 and 4 * other > latin + other else ""


def _alphabet(char: str) -> str:
    return "LATIN" if char.isascii() else unicodedata.name(char, "NONE").split()[0]


# --- encoded --------------------------------------------------------------------------------------------------------

_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{12,}={0,2}")
_HEX = re.compile(r"(?:(?:0x|\\x|\\u00|%|&#x)?[0-9a-fA-F]{2}[\s,;:]?){6,}")
_PERCENT = re.compile(r"(?:%[0-9a-fA-F]{2}){2,}")
_NUMBERS = re.compile(
    r"(?:\b[01]{7,8}\b[\s,]*){3,}|(?:\b(?:3[2-9]|[4-9]\d|1[01]\d|12[0-6])\b[\s,]+){6,}|(?:[.\-]{1,5}[\s/]+){6,}"
)
_PLAIN_WORDS = re.compile(
    r"\b(?:the|and|buy|sell|signal|ignore|instructions?|previous|positive|bullish|bearish|negative|reply|answer"
    r"|system|all|only|"
    r"strong|output|respond|hold)\b"
)


def _encoded(text: str) -> str:
    plain = fold(text)
    if _NUMBERS.search(text) or _PERCENT.search(text) or len(_DIGIT_INSIDE.findall(plain)) >= _DIGIT_WORDS:
        return "encoded"
    if any(word.translate(_DIGITS) in _POLAR for word in _WITH_DIGIT.findall(plain)):
        return "encoded"
    for said in _decoded(text):
        if (
            _said(said)
            or len(_PLAIN_WORDS.findall(said.lower())) >= 2
            or squeeze(said) in ("bullish", "strongbuy", "positive")
        ):
            return "encoded"
    turned = fold(codecs.encode(text, "rot13"))
    backwards = fold(text[::-1])
    for view in (turned, backwards):
        if len(set(_PLAIN_WORDS.findall(view))) >= 2 or _said(view):
            return "encoded"
    return ""


def _decoded(text: str) -> Iterator[str]:
    """What its parts say when they are base64 or hexadecimal and printable."""
    for run in _BASE64.findall(text):
        body = run.rstrip("=").replace("-", "+").replace("_", "/")
        try:
            yield _printable(base64.b64decode(body[: len(body) // 4 * 4]))
        except (binascii.Error, ValueError):
            continue
    for run in _HEX.findall(text):
        yield _printable(
            bytes.fromhex("".join(re.findall(r"[0-9a-fA-F]{2}(?![xu])", re.sub(r"0x|\\x|\\u00|&#x", "", run))))
        )


def _printable(data: bytes) -> str:
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        return ""
    return text if text.isprintable() else ""


# --- repetition -----------------------------------------------------------------------------------------------------

_WORDS = re.compile(r"[a-z]{2,}(?:'[a-z]+)?")
_SMALL = frozenset(
    """
    the a an of to in on for and or at by is are was as it its be with from that this not but after over up than has
    will have you your he his their they we our what how why when says said new inc co corp ltd plc sa pct mln bln
    eur usd gbp sek million billion mn bn percent
    """.split()  # noqa: SIM905 - a list of words reads better as words
)
_RUN, _COUNT, _SHARE, _POLAR_RUN = 3, 4, 0.3, 4


def _repeated(text: str) -> str:
    words = _WORDS.findall(_NO_ADDRESS.sub(" ", fold(text)))
    content = [word for word in words if word not in _SMALL]
    if not content:
        return ""
    run = polar = 0
    before = ""
    for word in words:
        run = run + 1 if word == before else 1
        polar = polar + 1 if word in _POLAR else 0
        if run >= _RUN or polar >= _POLAR_RUN:
            return "repetition"
        before = word
    word, count = Counter(content).most_common(1)[0]
    if count >= _COUNT and count > _SHARE * len(content):
        return "repetition"
    if _TWICE.search(" ".join(content)):
        return "repetition"
    pairs = Counter(pairwise(content))
    return "repetition" if pairs and pairs.most_common(1)[0][1] >= 3 else ""


_TWICE = re.compile(r"\b(\S+ \S+(?: \S+)?) \1\b")  # two or three words, and at once the same again
_NO_ADDRESS = re.compile(r"[#$@]\w+")
