"""Each flag on both sides: what it has to find, and what it has to leave alone."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest
import zaragoza_construction_faq
from hypothesis import given, settings
from hypothesis import strategies as st

from ft_core.conversation import Conversation, Message
from ft_core.data.flags import TEXT_FLAGS, WEIGHTS, language, score, text_flags

EXAMPLES = Path(__file__).resolve().parents[2] / "space_config" / "examples" / "roastery.jsonl"


def pair(prompt: str, answer: str) -> Conversation:
    return Conversation((Message("user", prompt), Message("assistant", answer)))


def found(answer: str, prompt: str = "Go on") -> dict[str, str]:
    return {flag.name: flag.reason for flag in text_flags(pair(prompt, answer))}


def roastery() -> list[Conversation]:
    return [Conversation.from_dict(json.loads(line)) for line in EXAMPLES.read_text(encoding="utf-8").splitlines()]


def construction(lang: str) -> list[Conversation]:
    return [pair(row["q"], row["a"]) for row in zaragoza_construction_faq.load(lang=lang)]


def corrupted(conversation: Conversation, chance: random.Random) -> Conversation:
    """15 % of the words of the answer with one slip each."""
    answer = conversation.messages[-1].content
    long = [match.start() for match in re.finditer(r"[^\W\d_]{4,}", answer)]
    chosen = set(chance.sample(long, min(len(long), round(0.15 * len(answer.split())))))

    def slip(match: re.Match[str]) -> str:
        word, at = match[0], chance.randrange(len(match[0]) - 1)
        if match.start() not in chosen:
            return word
        changed = (word[at + 1] + word[at] + word[at + 2 :], word[at + 1 :], chance.choice("qxzj") + word[at + 1 :])
        return word[:at] + chance.choice(changed)

    return pair("?", re.sub(r"[^\W\d_]{4,}", slip, answer))


@pytest.mark.parametrize("rows", [roastery(), construction("en"), construction("sv")], ids=["roastery", "en", "sv"])
def test_real_rows_are_clean(rows):
    flagged = {index: text_flags(row) for index, row in enumerate(rows) if text_flags(row)}
    assert len(flagged) <= len(rows) / 100, flagged


def test_the_same_rows_misspelt_are_flagged():
    chance = random.Random(7)
    rows = [row for row in construction("en") if len(row.messages[-1].content) > 150]
    hits = [row for row in rows if "misspelt" in {flag.name for flag in text_flags(corrupted(row, chance))}]
    assert len(hits) > 0.95 * len(rows)


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([Message("user", "Hi"), Message("assistant", "")], "the answer in turn 2 is empty"),
        ([Message("user", "Hi"), Message("assistant", " \n\t\u3000")], "the answer in turn 2 is empty"),
        ([Message("user", ""), Message("assistant", "Hello!")], "the question in turn 1 is empty"),
        ([Message("user", "Hi")], "there is no answer"),
        ([], "there is no answer"),
        ([Message("system", ""), Message("user", "Hi"), Message("assistant", "Hello!")], ""),
        ([Message("user", "?"), Message("assistant", "", '{"tool_calls":[{"id":"1"}]}'), Message("tool", "")], ""),
    ],
)
def test_empty(messages, reason):
    assert {flag.name: flag.reason for flag in text_flags(Conversation(tuple(messages)))}.get("empty", "") == reason


@pytest.mark.parametrize(
    ("name", "prompt", "answer"),
    [
        ("too_short", "What is it?", "..."),
        ("too_short", "What is it?", "-"),
        ("too_short", "What is it?", "NaN"),
        ("too_short", "What is it?", "undefined"),
        ("too_short", "Explain photosynthesis in detail.", "ok"),
        ("too_short", "Write a story about a fox.", "Sure."),
        ("too_long", "What is it?", "word " * 21_000),
        ("too_long", "word " * 210_000, "Yes, it is."),
    ],
)
def test_lengths_that_are_wrong(name, prompt, answer):
    assert name in found(answer, prompt)


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("Is it open on Sundays?", "Yes."),
        ("Classify the review: I loved it", "positive"),
        ("Which word best describes it? Explain in one word.", "calm"),
        ("1, 2 or 3?", "3"),
        ("Choose A, B, C or D.", "C"),
        ("How was it? Answer with an emoji.", "👍"),
        ("What does JSON call nothing?", "null"),
        ("天气怎么样？", "好"),
        ("Explain the rules.", "Each player draws a card."),
        ("A whole book: " + "word " * 50_000, "A summary of it."),
        ("Go", "word, another and a third one; " * 1),
    ],
)
def test_lengths_that_are_right(prompt, answer):
    assert not {"too_short", "too_long", "empty"} & set(found(answer, prompt))


PARAGRAPH = "Let the beans rest for a week before you open the bag, and keep them in a cool, dark place. "


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("I do not know. " * 12, "in phrases of 5 words that came before in turn 2"),
        ("buy now " * 200, "of the text is “buy now”"),
        ("\n".join(["Wash the cups by hand."] * 8 + ["And dry them well."]), "of the lines are repeated"),
        ("\n\n".join([PARAGRAPH, "Then do this one.", PARAGRAPH + " ", PARAGRAPH]), "paragraphs"),
        (" ".join(f"Step {n} is fine. {PARAGRAPH}" for n in range(20)), "of the text"),
        ("我不知道这个问题的答案。" * 30, "of the text"),
        ("Я не знаю ответа на этот вопрос. " * 10, "that came before"),
    ],
)
def test_repetition(answer, reason):
    assert reason in found(answer)["repetitive"]


@pytest.mark.parametrize(
    "answer",
    [
        "Yes, yes, yes!",
        "A big, big dog and a big, big cat met a big, big bird in a big, big town.",
        "1. The area of a square is a².\n2. The area of a circle is πr².\n3. The area of a triangle is bh/2.",
        "The train to Oslo leaves at nine. The train to Bergen leaves at ten. The train to Oslo leaves at noon too.",
        "- Monday: closed\n- Tuesday: closed\n- Wednesday: nine to four\n- Thursday: nine to four\n- Friday: closed",
        "```python\n" + "x = step(x)\nx = step(x)\n" * 40 + "```\nIt does the same step eighty times.",
        "Row, row, row your boat,\nGently down the stream.\nMerrily, merrily, merrily, merrily,\nLife is but a dream.",
        "| a | b |\n|---|---|\n" + "".join(f"| {n} | open |\n" for n in range(12)),
        "咖啡豆要放在阴凉干燥的地方，不要放进冰箱。开封以后三周之内喝完味道最好，没开封可以放八周。",
    ],
)
def test_what_only_recurs_is_not_repetitive(answer):
    assert "repetitive" not in found(answer)


CLEAN = {
    "en": "Please keep the coffee in a closed bag at a cool place and grind it right before you brew a fresh cup.",
    "de": "Bitte bewahren Sie den Kaffee in einer geschlossenen Tüte auf und mahlen Sie ihn kurz bevor Sie ihn "
    "brühen, denn gemahlen verliert er schnell seinen Geschmack und wird bitter.",
    "fr": "Conservez le café dans un sachet bien fermé, dans un endroit frais et sec, puis moulez les grains juste "
    "avant de préparer une tasse pour garder tout le goût.",
    "pt": "Guarde o café em um saco bem fechado, em um lugar fresco e seco, e moa os grãos pouco antes de preparar "
    "uma xícara para não perder o sabor.",
    "it": "Conserva il caffè in un sacchetto ben chiuso, in un luogo fresco e asciutto, e macina i chicchi poco prima "
    "di preparare una tazza per non perdere il sapore.",
    "nl": "Bewaar de koffie in een gesloten zak op een koele en droge plek en maal de bonen pas vlak voordat je een "
    "verse kop zet, anders verliest hij snel zijn smaak.",
}
SLIPPED = {
    "en": "Plese keep the cofee in a closd bag at a cool plcae and grnd it right befor you brew a frehs cup.",
    "de": "Bitte bewahern Sie den Kaffee in einer geschlosenen Tüte auf und malhen Sie ihn kurz befor Sie ihn "
    "brühhen, denn gemahlen verleirt er schnnell seinen Geschmack und wird biter.",
    "fr": "Conservez le caffé dans un sacheet bien fermmé, dans un endroti frais et sec, puis moullez les grians "
    "juste avnat de préparrer une tase pour garder tout le goût.",
    "pt": "Guarde o caféé em um saco bem fechaddo, em um luggar fresco e secco, e moa os grãoos pouco antes de "
    "prepparar uma xícarra para não perderr o saborr.",
    "it": "Conserva il caffèè in un sacchettto ben chiusso, in un luoggo fresco e asciuttto, e macina i chicchhi "
    "poco prima di prepparare una tazzza per non perdere il saporre.",
    "nl": "Bewaar de kofffie in een geslotten zak op een koelle en drogge plek en maal de boneen pas vlak voordatt "
    "je een verrse kop zet, anders verlieest hij snell zijn smaak.",
}


@pytest.mark.parametrize("code", sorted(CLEAN))
def test_spelling_by_language(code):
    assert language(pair("?", CLEAN[code])) == code
    assert found(CLEAN[code]) == {}
    assert "different words are misspelt" in found(SLIPPED[code])["misspelt"]


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("?", "Install it with `pip instal` and open https://exampel.example/hte/guied to read about it."),
        ("What is a friggebod?", "A friggebod is a small shed that you may build near a house without a permit."),
        ("?", "Our Quivvle and Brindlo machines use Fjordix burrs, so order the Quivvle kit to clean them."),
        ("?", "The colour of the labour centre was recognised by the neighbours, who organised a theatre programme."),
        ("?", "Mix sodium hypochlorite with acetaminophen, pseudoephedrine or benzodiazepine and see it fizz."),
        ("?", "```\nfro i in rnage(10): prnit(i, wrods, hte, lien)\n```\nIt prints the numbers from zero to nine."),
        ("?", "Grymvard is old. The grymvard and the holth stand at the quay, near Holth. Boats go at nine."),
        ("?", "The gryder and the flonder of Fjord are new. Gryder has a motor. Flonder has none. Both are quiet."),
        ("?", "Podemos enviar el pedido mañana por la mañana y está previsto que llegue dos días después a su casa."),
    ],
)  # fmt: skip
def test_terms_names_and_code_are_not_misspelt(prompt, answer):
    assert "misspelt" not in found(answer, prompt)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("First, rinse the filter. Then add the coffee. After that you slowly pour the hot water over the", "“the”"),
        ("It rains. We stay. The people who had come from the other side of town were waiting by", "full stop"),
        ("The best ways to reach us are by letter, by e-mail, or by visiting the shop,", "comma"),
        ("You will find that the house was re-", "hyphen"),
        ("Use this:\n```python\nfor i in range(3):\n    print(i)", "block of code"),
        ("They told us that it was closed (which we had seen on the door", "brackets or quotes"),
        ('She looked at the door and said "I will never come', "brackets or quotes"),
        ("El café se guarda en un lugar fresco. No lo ponga en la nevera. Después se muele, pero", "“pero”"),
        ("Der Kaffee bleibt frisch. Er mag keine Wärme. Am besten mahlen Sie ihn kurz vorher und", "“und”"),
        ("我们每周二和周四烘焙咖啡。前一天晚上下单就能赶上。如果您需要更多咖啡豆请联系客服或", "full stop"),
        ("Мы жарим кофе по вторникам. Заказ приходит быстро. Если вы хотите раньше, напишите нам и", "“и”"),
    ],
)  # fmt: skip
def test_cut_off(answer, reason):
    assert reason in found(answer)["cut_off"]


@pytest.mark.parametrize(
    "answer",
    [
        "positive",
        "New York",
        "Jane Austen and Charles Dickens",
        "The Old Man and the Sea",
        "apples, pears, plums",
        "- one cup of flour\n- two eggs\n- a pinch of salt and some butter from the fridge",
        "Three things are needed. They are cheap.\n\n1. A cup\n2. A spoon that is not too small for the cup you have",
        "The road goes on and on\nBeneath a silver sky\nAnd every bird that I have known\nHas told me how to fly",
        "Dear Ms Berg,\n\nThank you for your order. It is on its way.\n\nBest regards,\nAnna Lind",
        "See the guide. It has it all. You can read much more about how it works at https://fjord.example/guide",
        "def add(x, y):\n    return x + y",
        "It is short. It is quick. Here is what it does:\n```\nls\n```",
        "The answer is 42",
        "The two unknowns here are x and y",
        "It is what people die for and how they do",
        "The sum is 3 + 4 = 7. Double it. Then the result of all of this work is 14",
        "我们每周二和周四烘焙咖啡。前一天晚上八点之前下单就能赶上。",
        "هل تشحنون إلى النرويج؟ نعم، خلال أربعة أيام. هل هناك رسوم؟",
        "Well… who knows what tomorrow brings to all of us…",
        '"The only limit is our doubts of today." - Franklin D. Roosevelt',
        "Thank you so much for asking 😊",
        "i like it. it is nice (really). she said so too, and \"so did he\".",
        "Sentences of one line are closed. They are two. But what follows is not\n"
        "each of the lines here is long enough to be prose and has no end\n"
        "this one is written in the same way as the one that stands before it\n"
        "so the last of the lines is whole although it has no full stop either",
        "lower case and no full stop because that is the way in which this set is written\n"
        "another line of the same kind that goes on for a while and then ends\n"
        "and a third one that looks like the two before it and ends as they do",
    ],
)  # fmt: skip
def test_whole_answers_are_not_cut_off(answer):
    assert "cut_off" not in found(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, but I cannot assist with this request.",
        "Sorry, I can't do that.",
        "I cannot provide medical advice. Please see a doctor.",
        "I am unable to fulfill this request.",
        "Unfortunately, I am not able to generate such content.",
        "I can't write that for you, as it may be harmful.",
        "I must decline.",
        "As an AI language model, I do not have personal opinions.",
        "As an AI, I cannot browse the web.",
        "Lo siento, pero no puedo ayudarte con eso.",
        "Como modelo de lenguaje, no tengo opiniones.",
        "Je suis désolé, mais je ne peux pas vous aider avec cela.",
        "En tant qu'intelligence artificielle, je n'ai pas d'avis.",
        "Es tut mir leid, aber ich kann Ihnen dabei nicht helfen.",
        "Als KI-Sprachmodell habe ich keine Meinung.",
        "Desculpe, mas não posso ajudar com isso.",
        "Mi dispiace, ma non posso aiutarti con questo.",
        "Het spijt me, maar ik kan je daar niet mee helpen.",
        "Извините, но я не могу помочь с этим.",
        "很抱歉，我无法提供这方面的帮助。",
        "申し訳ありませんが、そのご質問にはお答えできません。",
        "عذرًا، لا أستطيع مساعدتك في ذلك.",
    ],
)
def test_refusals(answer):
    assert found(answer)["refusal"].startswith("the answer in turn 2")


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry to hear that. We will send you another bag.",
        "Sorry, we do not ship to Norway.",
        "I'm sorry, but I can't find your order. Could you give me its number?",
        "Unfortunately, we cannot refund opened bags after 30 days.",
        "We can't help with other shops' coffee, but we can tell you how to brew it.",
        "I can't recommend it enough: it is the best coffee of the year.",
        "Lo siento, no enviamos a Noruega.",
        "Es tut mir leid, das zu hören. Wir schicken Ihnen eine neue Tüte.",
        "Désolé, nous ne livrons pas en Norvège.",
        "To refuse politely, say: I'm sorry, but I can't help with that.",
        "As an AI assistant for Fjord, I answer questions about coffee.",
        "As an AI engineer, I train models every day.",
        "很抱歉给您带来不便，我们会重新发货。",
    ],
)
def test_polite_answers_are_no_refusals(answer):
    assert "refusal" not in found(answer)


def test_one_flag_of_a_name_with_its_places():
    conversation = Conversation(
        (
            Message("user", "Mail jo@corp-one.com or ann@corp-two.com"),
            Message("assistant", "Done. I wrote to bo@corp-three.com, al@corp-four.com and you."),
        ),
        rejected="I wrote to cy@corp-five.com.",
    )
    (flag,) = text_flags(conversation)
    assert flag.name == "personal_data"
    assert flag.reason == (
        "an e-mail address (j***@c***.com) in turn 1; an e-mail address (a***@c***.com) in turn 1; "
        "an e-mail address (b***@c***.com) in turn 2; 2 more"
    )
    worse = text_flags(Conversation((Message("user", "?"), Message("assistant", "Yes.")), rejected="x@corp-five.com"))
    assert worse[0].reason.endswith("in the worse answer")


def test_language():
    assert language(pair("?", "Wir rösten dienstags und donnerstags in der alten Halle.")) == "de"
    assert (
        language(pair("?", "コーヒー豆は涼しくて乾いた場所に置いてください。冷蔵庫には入れないでください。")) == "ja"
    )
    for unsure in ("", "positive", "42", "SELECT * FROM t", "```\nprint('a long line of code in English')\n```"):
        assert language(pair("Eine deutsche Frage, die hier nicht zählt?", unsure)) == ""


def test_score():
    assert score(()) == 100 and score(("similar",)) == 90 and score(("personal_data", "cut_off")) == 30
    assert score(("empty", "secret")) == 0 and score(("similar", "similar")) == 90
    assert set(TEXT_FLAGS) <= set(WEIGHTS)
    with pytest.raises(KeyError):
        score(("no such flag",))


anything = st.one_of(
    st.text(max_size=300),
    st.text("ab \n.,`\"'()[]*_-–:;@+0123456789/\\|#<>=“”«»。、\u200f\u202eא👍\u0000", max_size=300),
    st.lists(st.sampled_from(["word", "the", "```", "a@b.co", "+1 415", "4111", "\n\n", "sk-", "。", "DE89"])).map(
        " ".join
    ),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["system", "user", "assistant", "tool"]), anything), max_size=4), anything)
def test_any_text_is_looked_at(turns, rejected):
    conversation = Conversation(tuple(Message(role, text) for role, text in turns), rejected=rejected)
    found = text_flags(conversation)
    assert [flag.name for flag in found] == [name for name in TEXT_FLAGS if name in {flag.name for flag in found}]
    assert all(flag.reason for flag in found) and 0 <= score(flag.name for flag in found) <= 100
    assert text_flags(conversation) == found
    assert re.fullmatch(r"(?:[a-z]{2})?", language(conversation))


HOSTILE = [
    "a",
    "@",
    "1",
    "a.",
    "a@",
    "a@a.",
    " ",
    "1 ",
    "(",
    '"',
    "*",
    "`",
    "```",
    "<",
    "AA11",
    "sk-",
    "eyJ",
    "+1 ",
    "\n",
    "。",
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("part", HOSTILE)
def test_a_megabyte_of_anything_ends(part):
    """A pattern that is not linear would take hours here."""
    text = part * (1_000_000 // len(part))
    text_flags(Conversation((Message("user", text), Message("assistant", text))))
    text_flags(pair("?", "1" + text + "!"))
