"""Personal data and keys: found by their forms and check digits, shown masked, and not seen where they are not."""

from __future__ import annotations

import pytest

from ft_core.data.personal import personal, secrets


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Write to anna.lind@gmail.com today.", "an e-mail address (a***@g***.com)"),
        ("邮箱zhang@firma.cn，谢谢", "an e-mail address (z***@f***.cn)"),
        ("<jo+tag@mail.corp-one.co.uk>", "an e-mail address (j***@m***.uk)"),
        ("Call +44 20 7946 0958 now", "a phone number (***58)"),
        ("Call +49 (0)30 1234567", "a phone number (***67)"),
        ("+14155552671", "a phone number (***71)"),
        ("ring 0034 612 345 678", "a phone number (***78)"),
        # A placeholder that was left in the data is worth a look too: the model would learn to say it.
        ("mail user@example.com now", "an e-mail address (u***@e***.com)"),
        ("It is (415) 555-2671.", "a phone number (***71)"),
        ("415-555-2671 or later", "a phone number (***71)"),
        ("Appelez le 06 12 34 56 78.", "a phone number (***78)"),
        ("Ring 020 7946 0958 before nine.", "a phone number (***58)"),
        ("Mobil: 0171 1234567", "a phone number (***67)"),
        ("Mi teléfono es 612345678", "a phone number (***78)"),
        ("手机：13812345678", "a phone number (***78)"),
        ("Pay with 4111 1111 1111 1111 please", "a card number (***1111)"),
        ("5555-5555-5555-4444", "a card number (***4444)"),
        ("amex 378282246310005.", "a card number (***0005)"),
        ("IBAN DE89 3704 0044 0532 0130 00", "an IBAN (DE***00)"),
        ("to GB29NWBK60161331926819, thanks", "an IBAN (GB***19)"),
    ],
)
def test_personal(text, masked):
    assert list(personal(text)) == [masked]


@pytest.mark.parametrize(
    "text",
    [
        "git clone git@github.com:a/b.git and icon@2x.png",
        "@anna and a @ b, pip install foo@1.2.3",
        "Order 4155552671 of 2021-03-04 10:15:30",
        "order number 415-555-2671",
        "Invoice no. 06 12 34 56 78",
        "On 01/02/2023, 03.04.2024 and 2019-2024",
        "£1,234,567.89 and $ 415 555 2671 and 1.234.567,00 €",
        "Version 10.12.3456.7890, 192.168.100.200 and 10.0.0.1:8080",
        "ISBN 978-3-16-148410-0, ISSN 0317-8471",
        "1 2 3 4 5 6 7 8 9 10 11 12 and 01 02 03 04 05 06",
        "3.14159265358979 and 1/2 (3) 4 and 2+12345678",
        "100000000 people, 123 456 789 stars",
        "call 1-800-273-8255 for free",
        "DE89 3704 0044 0532 0130 01 is wrong by its check digits",
        "4111 1111 1111 1112 is no card, nor is 1234 5678 9012 3456",
        "uuid 123e4567-e89b-12d3-a456-426614174000",
        "https://shop.example/item/4155552671/0612345678",
        "|  12 |  34 |  56 |\n| 78 | 90 | 12 |",
    ],
)
def test_not_personal(text):
    assert list(personal(text)) == []


RANDOM = "a8Kd92LmQx71ZpRt04VbNc36"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (f"key = 'sk-{RANDOM}'", "a key of OpenAI's or Anthropic's form (sk-a***)"),
        (f"sk-ant-{RANDOM}", "a key of OpenAI's or Anthropic's form (sk-a***)"),
        (f"HF_TOKEN=hf_{RANDOM}{RANDOM[:10]}", "a Hugging Face token (hf_a***)"),
        (f"ghp_{RANDOM}{RANDOM[:12]}", "a GitHub token (ghp_***)"),
        (f"github_pat_{RANDOM}", "a GitHub token (gith***)"),
        ("AKIA2J7Q4XK9P3LM5TZ8", "an AWS key (AKIA***)"),
        (f"AIza{RANDOM}{RANDOM[:11]}", "a Google key (AIza***)"),
        (f"xoxb-{RANDOM}", "a Slack token (xoxb***)"),
        (f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.{RANDOM}", "a JSON web token (eyJh***)"),
        (f"-H 'Authorization: Bearer {RANDOM}'", "a bearer token (Bear***)"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIB", "a private key"),
        ("-----BEGIN PRIVATE KEY-----\nMIIEpAIB", "a private key"),
    ],
)
def test_secrets(text, masked):
    assert list(secrets(text)) == [masked]
    assert RANDOM not in masked


@pytest.mark.parametrize(
    "text",
    [
        "a risk-free, task-based approach; sk-learn",
        "export OPENAI_API_KEY=sk-...",
        "sk-your-api-key-here-1234567890",
        "hf_" + "x" * 34,
        "Bearer YOUR_ACCESS_TOKEN_GOES_HERE and Bearer <token>",
        "ghp_short and AKIA and AIza, ASIAN FOOD",
        "-----BEGIN PUBLIC KEY-----\nMIIB",
        "The line -----BEGIN PRIVATE KEY----- opens it.",
        "eyJ is what base64 makes of an opening brace",
    ],
)
def test_not_secrets(text):
    assert list(secrets(text)) == []


def test_nothing_is_shown_whole():
    text = "anna.lind@gmail.com, +44 20 7946 0958, 4111 1111 1111 1111, DE89 3704 0044 0532 0130 00"
    shown = " ".join(personal(text))
    assert len(list(personal(text))) == 4
    assert not any(part in shown for part in ("anna", "gmail", "7946", "4111 ", "3704"))
