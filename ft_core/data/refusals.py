"""Answers that refuse, as assistants were trained to. A help desk that says no politely does not refuse.

What tells them apart is that the speaker is one ("I", never "we") and what it will not do: help, provide, write,
answer; not find, ship or refund.
"""

from __future__ import annotations

import re

_BEGIN = 240
"""Only so many characters of an answer are looked at: one that refuses does so at once."""

_MODEL = (
    r"as an? (?:ai|artificial intelligence|(?:large )?language model)(?: (?:language )?(?:model|assistant))?"
    r"(?: (?:developed|created|made|trained) by \w+)?,? (?:i|my|it)\b.{0,60}?"
    r"(?:can(?:no|')t|can not|do(?: not|n't)|am not|'m not|am unable|'m unable|won't|will not|never|impossible)",
    r"\bas an ai language model\b",
    r"\bcomo (?:un |uma? )?(?:modelo de (?:lenguaje|linguagem)|ia\b|intelig[eê]ncia artificial)",
    r"\ben tant qu(?:e |')(?:ia\b|intelligence artificielle|assistant (?:ia|virtuel)"
    r"|mod[èe]le (?:de langage|linguistique))",
    r"\bals (?:ki\b|künstliche intelligenz|(?:ki-|großes )?sprachmodell|ki-(?:modell|assistent))",
    r"\b(?:come|in quanto) (?:modello (?:linguistico|di linguaggio)|ia\b|intelligenza artificiale)",
    r"\bals (?:ai\b|ai-taalmodel|taalmodel|kunstmatige intelligentie)",
    r"\bкак (?:языковая модель|ии\b|искусственный интеллект)",
    r"作为(?:一个|一款|一名)?(?:ai|人工智能|大?型?语言模型)",
    r"aiとして|(?:ai)?言語モデルとして",
)
"""Speaks as a language model."""

_HELP = (
    r"(?:assist|help|provide|fulfil|comply|generate|create|write|produce|engage|discuss|support|participate|promote|"
    r"answer|offer|give (?:you )?(?:any |specific )?(?:advice|instructions|information|medical|legal|financial)|"
    r"do (?:that|this)|share|continue|encourage|condone|respond|complete|facilitate|endorse|browse)"
)
_I_CANNOT = (
    r"i (?:can(?:no|')t|can not|am not able to|am unable to|won't|will not|must decline to|"
    r"do(?: not|n't) feel comfortable|could not|couldn't)|i'm (?:not able to|unable to|not comfortable)"
)
_SORRY = r"(?:(?:i'm|i am) (?:\w+ )?sorry|sorry|i apologi[sz]e|my apologies|apologies|unfortunately|regrettably)"
_REFUSES = (
    rf"(?:{_SORRY}[,.;:!]? (?:but )?(?:for [^.]{{0,40}}[.,] )?)?(?:{_I_CANNOT}) (?:\w+ )?{_HELP}",
    rf"{_SORRY}[,.]? (?:but )?(?:that's|that is|this is) (?:not )?something i (?:can(?:no|')t|can|won't)",
    r"i must (?:respectfully )?(?:decline|refuse)\b",
    r"(?:lo siento|disculpa|perdón|lamentablemente|me temo)[^.]{0,12}?no puedo (?:\w+ )?"
    r"(?:ayudar|proporcionar|cumplir|generar|crear|asistir|responder|ofrecer|hacer eso|participar|escribir|dar)",
    r"(?:je suis (?:vraiment )?|)désolée?s?[^.]{0,10}?je ne (?:peux|suis) pas (?:en mesure )?(?:de |d')?(?:vous |t')?"
    r"(?:aider|répondre|fournir|générer|créer|assister|donner|écrire|faire cela|participer|satisfaire)",
    r"(?:es )?tut mir (?:sehr )?leid[^.]{0,10}?(?:ich kann|dabei kann ich|das kann ich)[^.]{0,50}?nicht "
    r"(?:helfen|beantworten|weiterhelfen|unterstützen|erstellen|schreiben|bereitstellen|geben|erfüllen|tun)",
    r"(?:desculpe|sinto muito|lamento|infelizmente)[^.]{0,10}?não posso (?:\w+ )?"
    r"(?:ajudar|fornecer|cumprir|gerar|criar|responder|oferecer|fazer isso|participar|escrever|dar)",
    r"(?:mi dispiace|spiacente|purtroppo)[^.]{0,10}?non posso (?:aiutar|fornir|generar|crear|risponder|offrir|farlo|"
    r"scriver|soddisfar|partecipar|dar)",
    r"(?:het spijt me|sorry|helaas)[^.]{0,10}?"
    r"ik kan[^.]{0,40}?niet (?:mee )?(?:helpen|beantwoorden|schrijven|geven|maken)",
    r"(?:извините|простите|к сожалению|мне жаль|прошу прощения)[^.]{0,10}?я не могу (?:\w+ )?"
    r"(?:помочь|предоставить|ответить|выполнить|создать|написать|дать|обсуждать)",
    r"(?:很|非常|十分)?(?:抱歉|对不起|不好意思)[，,。 ]{0,2}(?:但)?我(?:不能|无法|不可以|没办法)(?:\w{0,4})"
    r"(?:提供|帮助|帮|协助|回答|满足|生成|写|参与|讨论)",
    r"申し訳(?:ありません|ございません|ない)[^。]{0,40}(?:お手伝い|お答え|提供|作成|対応)[^。]{0,12}(?:できません|できかね)",
    r"죄송(?:합니다|하지만)[^.]{0,40}(?:도와|제공|답변|작성)[^.]{0,14}(?:수 없|드릴 수 없|어렵)",
    r"(?:عذرا|عذرًا|آسف|أعتذر|للأسف)[^.]{0,16}?(?:لا أستطيع|لا يمكنني|لا أقدر)[^.]{0,10}?"
    r"(?:مساعد|تقديم|الإجابة|كتابة|إنشاء)",
)
"""Refuses, from its first word on."""

_AS_A_MODEL = re.compile("|".join(_MODEL))
_NO = re.compile(rf"(?:\W{{0,4}})(?:{'|'.join(_REFUSES)})")


def refusal(answer: str) -> str:
    """How it refuses, as part of a sentence, or ''."""
    begin = answer[: 2 * _BEGIN].strip()[:_BEGIN].lower().replace("’", "'")
    if _NO.match(begin):
        return "refuses"
    return "speaks as a language model" if _AS_A_MODEL.search(begin) else ""
