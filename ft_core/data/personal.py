"""Personal data and keys in a text: patterns, with check digits where there are some.

What is found is masked before anybody sees it. Every pattern is linear in the length of the text, whatever the text:
repetitions are bounded or possessive, and a look behind keeps a match from being tried at each character of a run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_MAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])([A-Za-z0-9._%+-]{1,64}+)@((?:[A-Za-z0-9-]{1,63}+\.){1,8})([A-Za-z]{2,24}+)(?![A-Za-z0-9-])"
)
_FILES = frozenset("png jpg jpeg gif svg webp ico css js ts mjs json html htm py md txt pdf zip xml yaml yml".split())
"""icon@2x.png is no address."""

_CARD = re.compile(r"(?<![\w+.-])[0-9](?:[ -]?[0-9]){12,18}+(?![\w-])")
_CARDS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|6(?:011|5\d\d|4[4-9]\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|3(?:0[0-5]|[68]\d)\d{11}|62\d{14,17}"
)
"""Visa, Mastercard, American Express, Discover, JCB, Diners Club, UnionPay: prefixes of ISO/IEC 7812 and lengths."""

_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}+(?: ?[A-Z0-9]{1,3}(?![A-Za-z0-9]))?")
_IBANS = {
    code: int(length)
    for code, length in (
        pair.split(":")
        for pair in "AD:24 AE:23 AL:28 AT:20 BA:20 BE:16 BG:22 BR:29 CH:21 CY:28 CZ:24 DE:22 DK:18 DO:28 EE:20 EG:29 "
        "ES:24 FI:18 FO:18 FR:27 GB:22 GE:22 GI:23 GL:18 GR:27 HR:21 HU:28 IE:22 IL:23 IS:26 IT:27 JO:30 KW:30 KZ:20 "
        "LB:28 LI:21 LT:20 LU:20 LV:21 MA:28 MC:27 MD:24 ME:22 MK:19 MT:31 NL:18 NO:15 PK:24 PL:28 PT:25 QA:29 RO:24 "
        "RS:22 SA:24 SE:24 SI:19 SK:24 SM:27 TN:24 TR:26 UA:29 VA:22 XK:20".split()
    )
}
"""Country -> characters of its IBAN."""

_DIGITS = re.compile(r"[0-9][0-9 ()./\u00a0\u2011-]{5,}[0-9]")
"""Where a phone number may be. It takes what goes on with digits as a whole, so it looks at each character once."""
_INTERNATIONAL = re.compile(r"[1-9][0-9]{0,2}(?:[ ./\u00a0\u2011-]{0,2}\(?[0-9]{1,5}\)?){1,6}")
_NATIONAL = re.compile(
    r"[2-9][0-9]{2}\)? ?[-. ]?[2-9][0-9]{2}[-. ][0-9]{4}"  # 415-555-2671, (415) 555-2671
    r"|0[1-9](?P<between>[ .-])[0-9]{2}(?:(?P=between)[0-9]{2}){3}"  # 06 12 34 56 78
    r"|0[1-9][0-9]{1,3}\)? [0-9]{3,4}[ -][0-9]{3,4}"  # 020 7946 0958
    r"|07[0-9]{3} [0-9]{6}"  # 07700 900123
    r"|0[1-9][0-9]{1,4}\)?[ /-]{1,3}[0-9]{5,8}"  # 0171 1234567
)
_TOLL_FREE = re.compile(r"1?(?:800|888|877|866|855|844|833)\d{7}|0?800\d{6,8}|44800\d{6,7}|49800\d{7,8}")
_DATE = re.compile(r"\d{1,4}[-./]\d{1,2}[-./]\d{1,4}(?!\d)")
_CALLED = re.compile(
    r"(?:\b(?:tel|telephone|phone|mobile|cell|fax|whats ?app|sms|tel[ée]fono|m[óo]vil|celular|t[ée]l[ée]phone|telefon"
    r"|telefonnummer|mobil|handy|tlf|telefono|cellulare|telefone|telem[óo]vel|telefoon|тел|телефон)\b"
    r"|电话|電話|手机|手機|هاتف|جوال|تلفن|موبایل)"
    r"(?: ?(?:number|no|nr|nummer|n[úu]mero|is|es|est|ist|é|è|at|on|is at|number is))?[\s:：.#(+=]*$",
    re.IGNORECASE,
)
_COUNTED = re.compile(
    r"(?:order|invoice|ref|reference|case|ticket|tracking|serial|isbn|issn|sku|part|model|version|id|account|parcel"
    r"|pedido|factura|bestellung|rechnung|auftrag|commande|facture|ordine|fattura|encomenda|bestelling|№)"
    r"(?: ?(?:number|no|nr|nummer|n[úu]mero|is))?[\s:.#(=°º-]*$|[$£€¥#/_=@]\s?$",
    re.IGNORECASE,
)
"""What stands before a number that is no phone's."""
_BEFORE = 32
"""So many characters before a number are looked at for what it is."""

_SECRETS = (
    ("a key of OpenAI's or Anthropic's form", "sk-", r"sk-(?:ant-|proj-|svcacct-|or-v1-)?[A-Za-z0-9_-]{20,250}+"),
    ("a Stripe key", "k_live_", r"[sr]k_live_[A-Za-z0-9]{16,128}+"),
    ("a Hugging Face token", "hf_", r"hf_[A-Za-z0-9]{30,64}+"),
    *(("a GitHub token", f"gh{kind}_", rf"gh{kind}_[A-Za-z0-9]{{36,255}}+") for kind in "pousr"),
    ("a GitHub token", "github_pat_", r"github_pat_[A-Za-z0-9_]{22,255}+"),
    ("a GitLab token", "glpat-", r"glpat-[A-Za-z0-9_-]{20,64}+"),
    *(("an AWS key", kind, rf"{kind}[A-Z0-9]{{16}}(?![A-Za-z0-9])") for kind in ("AKIA", "ASIA")),
    ("a Google key", "AIza", r"AIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])"),
    ("a Slack token", "xox", r"xox[abeprs]-[A-Za-z0-9-]{10,250}+"),
    ("a JSON web token", "eyJ", r"eyJ[A-Za-z0-9_-]{10,2000}+\.eyJ[A-Za-z0-9_-]{4,4000}+\.[A-Za-z0-9_-]{10,1000}+"),
    (
        "a private key",
        "PRIVATE KEY",
        r"-----BEGIN (?:[A-Z]{2,10} ){0,3}PRIVATE KEY(?: BLOCK)?-----(?:\r?\n|\\n)[A-Za-z0-9+/]",
    ),
    ("a bearer token", "earer ", r"[Bb]earer [A-Za-z0-9._~+/-]{20,4000}+={0,2}"),
)
"""What it is, letters without which the pattern is not tried, the pattern."""
_PATTERNS = tuple((what, part, re.compile(r"(?<![A-Za-z0-9_-])" + pattern)) for what, part, pattern in _SECRETS)


def personal(text: str) -> Iterator[str]:
    """What there is, masked: "an e-mail address (a***@g***.com)"."""
    if "@" in text:
        yield from _mails(text)
    if _DIGITS.search(text):
        ibans = _IBAN.findall(text)
        yield from (f"an IBAN ({_ends(iban, 2, 2)})" for iban in ibans if _is_iban(iban))
        text = _IBAN.sub("IBAN", text) if ibans else text  # a part of one is no card's and no phone's number
        cards = [card for card in _CARD.findall(text) if _is_card(card)]
        yield from (f"a card number ({_ends(card, 0, 4)})" for card in cards)
        text = _CARD.sub("card", text) if cards else text
        yield from (f"a phone number ({_ends(number, 0, 2)})" for number in _phones(text))


def secrets(text: str) -> Iterator[str]:
    """Keys, masked: "a GitHub token (ghp_***)". Words in the place of a key ("sk-your-key-here...") are none."""
    for what, part, pattern in _PATTERNS:
        if part in text:
            for found in pattern.finditer(text):
                key = found[0]
                if what == "a private key":
                    yield what
                elif _random(key):
                    yield f"{what} ({key[:4]}***)"


def _random(key: str) -> bool:
    """Has digits, and no character more than half of the time: xxxxxxxx and your_token_here are not keys."""
    tail = key[4:]
    if "your" in key.lower():
        return False
    return any(c.isdigit() for c in tail) and max(map(tail.count, set(tail))) <= len(tail) / 2


def _mails(text: str) -> Iterator[str]:
    for found in _MAIL.finditer(text):
        name, domain, top = found[1], found[2].lower(), found[3].lower()
        if top in _FILES or name == "git" or not name.strip("._%+-"):
            continue
        yield f"an e-mail address ({name[0]}***@{domain[0]}***.{top})"


def _is_card(found: str) -> bool:
    digits = re.sub(r"\D", "", found)
    if not _CARDS.fullmatch(digits) or len(set(digits)) < 2:
        return False
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


def _is_iban(found: str) -> bool:
    """ISO 13616: as a number, the country and check digits behind the rest, it leaves 1 when divided by 97."""
    iban = found.replace(" ", "")
    size = _IBANS.get(iban[:2])
    if size is None or len(iban) < size:
        return False
    iban = iban[:size]  # the next word may have been taken along
    return int("".join(str(int(c, 36)) for c in iban[4:] + iban[:4])) % 97 == 1


def _phones(text: str) -> Iterator[str]:
    for found in _DIGITS.finditer(text):
        start, end = found.span()
        if end - start > 40 or text[end : end + 1].isalnum():  # a table of numbers, a part of a name
            continue
        before = text[max(0, start - _BEFORE) : start]
        number = found[0]
        if _is_phone(before, number):
            yield number


def _is_phone(before: str, number: str) -> bool:
    digits = re.sub(r"\D", "", number)
    if not 7 <= len(digits) <= 15 or len(set(digits)) < 3 or _TOLL_FREE.fullmatch(digits):
        return False
    if before.endswith(("+", "+(")):
        sum_of = before.rstrip("(")[-2:-1].isalnum()  # 2+12345678901
        return len(digits) >= 9 and not sum_of and _INTERNATIONAL.fullmatch(number) is not None
    if number.startswith("00"):
        return len(digits) >= 11 and _INTERNATIONAL.fullmatch(number[2:].lstrip()) is not None and " " in number
    if before[-1:].isalnum() or before.endswith((".", ",", "-", "/")) and before[-2:-1].isalnum():
        return False
    if _DATE.match(number) or _COUNTED.search(before):
        return False
    return _NATIONAL.fullmatch(number) is not None or _CALLED.search(before) is not None


def _ends(number: str, first: int, last: int) -> str:
    """Only the first and last characters of it."""
    bare = re.sub(r"[^A-Z0-9]", "", number)
    return f"{bare[:first]}***{bare[-last:]}"
