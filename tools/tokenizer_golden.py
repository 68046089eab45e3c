#!/usr/bin/env python3
"""Makes the golden of the tokenizer: strings and what the reference tokenizer makes of them.

    python3 tools/tokenizer_golden.py [--seed N] [--count N] VOCAB_DIR \\
        > tests/golden/tokenizer/qwen.txt
    python3 tools/tokenizer_golden.py --show LINE VOCAB_DIR < tests/golden/tokenizer/qwen.txt

VOCAB_DIR is what tools/fetch_qwen_vocab.sh made. Needs the `transformers` package, whose
Qwen2Tokenizer is the reference. A line of the golden is

    MODE COUNT HASH DECODED TEXT

MODE: `p` plain text (no added token is ever made), `a` added tokens are parsed. COUNT: number of
ids.
HASH: FNV-1a, 64 bits, over the ids as little-endian 32-bit numbers. DECODED: `=` when the decoded
ids are the NFC of the text, `-` when nothing is to be said. TEXT: to the end of the line, with
backslash, CR, LF and NUL written as \\\\, \\r, \\n and \\0. --show prints text and ids of one line.
"""

import argparse
import os
import random
import sys
import unicodedata

from transformers import Qwen2Tokenizer

# One or two sentences a language: greetings, numbers, punctuation and quotes as people write them.
SENTENCES = r"""Hello there! I'm fine, thanks; it's 3:45 p.m. and we've got 1,024 things to do, don't we?
Grüß Gott, wie geht's Ihnen? Straßenbahn Nr. 12 fährt um 18:30 Uhr über die Brücke nach Köln.
Où est-ce que tu as mis l'œuvre d'art ? « Ça va », dit-elle, à Noël 1999.
¿Cómo estás, señor Núñez? ¡El año pasado costó 2.500,50 €!
Olá, você já comeu pão de queijo em São João del-Rei? Não, ainda não.
Perché no? È già l'una e mezza, andiamo all'università di Forlì.
Het is 's ochtends vroeg; zo'n 30 auto's rijden naar 's-Hertogenbosch.
Zażółć gęślą jaźń, 15 września o godz. 7.05 — proszę państwa!
Příliš žluťoučký kůň úpěl ďábelské ódy. Kolik je to Kč?
Árvíztűrő tükörfúrógép: 1000 Ft, köszönöm szépen!
Björn åkte på räkmacka i Göteborg, æblegrød på Sjælland, blåbærsyltetøy i Tromsø.
Hyvää päivää, mitä kuuluu? Töölöntullinkatu 8, 00250 Helsinki.
Þetta er íslenska: það er ekki hægt að segja „já“ við öllu, Ðórður.
İstanbul'da ığdır çayı içtiniz mi? Şöyle böyle, 12'de görüşürüz.
Xin chào, bạn có khỏe không? Tôi muốn gọi một bát phở giá 50.000₫.
Здравствуйте! Как у вас дела? Ёлка стоит 1 500 ₽, съешь ещё этих мягких французских булок.
Привіт, їжачку! Ґанок і подвір'я — о 20-й годині.
Καλημέρα σας· τι κάνετε; Ἐν ἀρχῇ ἦν ὁ λόγος, 25 €.
Բարև Ձեզ, ինչպե՞ս եք։ გამარჯობა, როგორ ხართ?
שָׁלוֹם עֲלֵיכֶם, מה שלומך? יש לי 3 תפוחים ו־20 ש״ח.
السَّلَامُ عَلَيْكُمْ، كيف حالك؟ عندي ١٢٣ كتابًا و٤٥٪ خصم.
سلام، حال شما چطور است؟ می‌خواهم ۲۵ کتاب بخرم.
آپ کیسے ہیں؟ مجھے اردو بولنی ہے۔
नमस्ते, आप कैसे हैं? मुझे ₹१२३४ चाहिए, क़लम और ज़मीन।
আপনি কেমন আছেন? আমার ৫০০ টাকা লাগবে, ড়াঢ়া য়।
வணக்கம், எப்படி இருக்கிறீர்கள்? கொள்ளு ௧௨௩.
నమస్కారం, మీరు ఎలా ఉన్నారు? ಕನ್ನಡದಲ್ಲಿ ಹೇಳಿ. മലയാളം സംസാരിക്കുമോ?
ਸਤ ਸ੍ਰੀ ਅਕਾਲ, ਤੁਸੀਂ ਕਿਵੇਂ ਹੋ? કેમ છો, મજામાં?
ආයුබෝවන්, ඔබට කොහොමද? සිංහල ක්‍ෂ.
สวัสดีครับ คุณสบายดีไหม ราคา ๑๒๓ บาท น้ำใจ ก็ได้
ສະບາຍດີ ເຈົ້າສະບາຍດີບໍ່? မင်္ဂလာပါ နေကောင်းလား။ សួស្តី អ្នកសុខសប្បាយទេ?
བཀྲ་ཤིས་བདེ་ལེགས། ཁྱེད་རང་སྐུ་གཟུགས་བདེ་པོ་ཡིན་པས།
ሰላም፣ እንደምን አለህ? አዲስ አበባ ፳፻፲።
你好，今天天气怎么样？我花了３００元买了《红楼梦》，“真的吗？”他问。
繁體中文：臺灣的溫度是攝氏二十五度，請問幾點開始？
こんにちは、お元気ですか？「東京タワー」は３３３メートルです。がぎぐげご パピプペポ ﾊﾝｶｸ
안녕하세요, 잘 지내셨어요? 커피 두 잔에 9,000원입니다. 한글
Сайн байна уу? ᠮᠣᠩᠭᠣᠯ ᠪᠢᠴᠢᠭ
👩‍👩‍👧‍👦 family, 👍🏽 thumbs, 🇩🇪🇯🇵 flags, ❤️‍🔥 heart, 1️⃣2️⃣ keys, 🏴󠁧󠁢󠁥󠁮󠁧󠁿.
for (int i = 0; i < n; i++) {\n\tx[i] += a[i] * 0x1F;  // sum\n}\n
def f(self, *args):\n    return {k: v for k, v in args if k != "it's"}\r\n
SELECT * FROM t WHERE name = 'O''Brien' AND id >= 10; -- don't\n
https://example.org/a/b?c=d&e=%20f#g me@example.org C:\Windows\system32
E = mc², ∑_{i=1}^{n} i = n(n+1)/2, x ≈ ½·π, Ⅷ ≠ ⅷ, ⁴√16, ①②③, ℵ₀, Å Å Ω.
I'LL YOU'RE WE'VE HE'S I'M THEY'D CAN'T i'Ll you'Re we'Ve it'ſ 'ſt 'sſ 'RE're 'lL ''s '' 'x 'é ’s
""".strip().split("\n")

# Blocks that random text is drawn from; first and last code point.
BLOCKS = [
    (0x20, 0x7E), (0xA0, 0xFF), (0x100, 0x24F), (0x250, 0x2FF), (0x300, 0x36F), (0x370, 0x3FF),
    (0x400, 0x52F), (0x530, 0x58F), (0x590, 0x5FF), (0x600, 0x6FF), (0x700, 0x7FF), (0x800, 0x8FF),
    (0x900, 0x97F), (0x980, 0x9FF), (0xA00, 0xAFF), (0xB00, 0xBFF), (0xC00, 0xCFF), (0xD00, 0xDFF),
    (0xE00, 0xEFF), (0xF00, 0xFFF), (0x1000, 0x109F), (0x10A0, 0x10FF), (0x1100, 0x11FF),
    (0x1200, 0x139F), (0x13A0, 0x167F), (0x1680, 0x17FF), (0x1800, 0x1AFF), (0x1B00, 0x1CFF),
    (0x1D00, 0x1DFF), (0x1E00, 0x1EFF), (0x1F00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x20CF),
    (0x20D0, 0x20FF), (0x2100, 0x218F), (0x2190, 0x23FF), (0x2400, 0x27BF), (0x27C0, 0x2BFF),
    (0x2C00, 0x2DFF), (0x2E00, 0x2FFF), (0x3000, 0x303F), (0x3040, 0x30FF), (0x3100, 0x33FF),
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xA000, 0xA4CF), (0xA4D0, 0xA7FF), (0xA800, 0xABFF),
    (0xAC00, 0xD7A3), (0xD7B0, 0xD7FF), (0xE000, 0xE0FF), (0xF900, 0xFAFF), (0xFB00, 0xFDFF),
    (0xFE00, 0xFE6F), (0xFE70, 0xFEFF), (0xFF00, 0xFFFF), (0x10000, 0x107FF), (0x10800, 0x10FFF),
    (0x11000, 0x117FF), (0x11800, 0x11FFF), (0x12000, 0x143FF), (0x16000, 0x16FFF),
    (0x1B000, 0x1BCFF), (0x1CC00, 0x1D3FF), (0x1D400, 0x1D7FF), (0x1D800, 0x1E2FF),
    (0x1E400, 0x1EFFF), (0x1F000, 0x1FAFF), (0x1FB00, 0x1FBFF), (0x20000, 0x2A6DF),
    (0x2A700, 0x2EE5F), (0x2F800, 0x2FA1F), (0x30000, 0x323AF), (0xE0000, 0xE01EF),
    (0x10FF00, 0x10FFFF),
]
SPACES = [" ", " ", " ", "\t", "\n", "\r", "\r\n", "\v", "\f", "\x85", "\xa0", "\u1680", "\u2003",
          "\u2028", "\u2029", "\u202f", "\u205f", "\u3000", "\u200b", "\u180e", "\ufeff", "\x1c"]
ODD = ["'", "s", "S", "\u017f", "t", "T", "re", "RE", "Ve", "ll", "M", "d", "K", "\u212a", "\u2019",
       "0", "9", "a", "Z", "!", "-", "_", "\x00", "\u0301", "\u00e9", "1", "<", "|", ">"]
EMOJI = ["\U0001f468", "\U0001f469", "\u200d", "\ufe0f", "\U0001f3fd", "\u2764", "\U0001f525",
         "\U0001f1e9", "\U0001f1ea", "\u20e3", "1", "\U0001f600", "\U000e0067", "\U000e007f"]
ADDED_PARTS = ["<|im_start|>", "<|im_end|>", "<|im_", "<|endoftext|>", "<|", "|>", "<think>",
               "</think>", "<tts_pad>", "<tts_text_bos>", "<tts_text_bos_single>", "<|audio_pad|>",
               "<tool_call>", "\n", " ", "user", "e", "\u0301", "  x", "it's", "\u0915\u093c"]


class Maker:
    """Random strings of several kinds, the same for the same seed."""

    def __init__(self, seed):
        self.r = random.Random(seed)
        self.marks = [c for c in range(0x300, 0x1F000) if unicodedata.combining(chr(c))]
        self.composed = [c for c in range(0xC0, 0x30000)
                         if unicodedata.normalize("NFD", chr(c)) != chr(c)]

    def join(self, parts, low, high):
        return "".join(self.r.choice(parts) for _ in range(self.r.randint(low, high)))

    def char(self, block):
        c = self.r.randint(*block)
        return "\ufffd" if 0xD800 <= c < 0xE000 else chr(c)

    def one_block(self):
        block = self.r.choice(BLOCKS)
        return "".join(self.char(block) for _ in range(self.r.randint(1, 14)))

    def blocks(self):
        blocks = self.r.sample(BLOCKS, 3) + [BLOCKS[0]]
        return "".join(self.char(self.r.choice(blocks)) for _ in range(self.r.randint(1, 14)))

    def marked(self):
        out = ""
        for _ in range(self.r.randint(1, 3)):
            base = chr(self.r.choice(self.composed)) if self.r.random() < 0.7 else "a"
            base = unicodedata.normalize("NFD", base) if self.r.random() < 0.5 else base
            out += base
            out += "".join(chr(self.r.choice(self.marks)) for _ in range(self.r.randint(0, 4)))
        return out

    def jamo(self):
        ranges = [(0x1100, 0x1112), (0x1161, 0x1175), (0x11A7, 0x11C2), (0xAC00, 0xD7A3)]
        return "".join(self.char(self.r.choice(ranges)) for _ in range(self.r.randint(1, 10)))

    def bytes(self):
        raw = bytes(self.r.choice((self.r.randint(0, 127), self.r.randint(128, 255)))
                    for _ in range(self.r.randint(1, 24)))
        return raw.decode("utf-8", "ignore")

    def sentence(self):
        line = self.r.choice(SENTENCES).replace("\\n", "\n").replace("\\r", "\r")
        line = line.replace("\\t", "\t")
        if self.r.random() < 0.2:
            line = unicodedata.normalize("NFD", line)
        if self.r.random() < 0.1:
            line = line.upper()
        start = self.r.randrange(len(line))
        return line[start : start + self.r.randint(4, 40)]

    def mixed(self):
        words = [self.r.choice(SENTENCES).split()[0] for _ in range(3)]
        return self.join(words + SPACES + ODD + ["  ", "\n\n", "..."], 2, 12)

    def text(self):
        makers = [(self.one_block, 16), (self.blocks, 12), (self.marked, 8), (self.jamo, 3),
                  (self.bytes, 5), (self.sentence, 24), (self.mixed, 12),
                  (lambda: self.join(SPACES, 1, 8), 4), (lambda: self.join(ODD, 1, 10), 6),
                  (lambda: self.join(SPACES + ODD, 1, 10), 8), (lambda: self.join(EMOJI, 1, 8), 3)]
        return self.r.choices([m for m, _ in makers], [w for _, w in makers])[0]()


def fixed_texts():
    """Whole sentences, and every code point in a few surroundings where classes matter."""
    for line in SENTENCES:
        yield line.replace("\\n", "\n").replace("\\r", "\r").replace("\\t", "\t")
    yield "\uac00\u11a7\u1161\u11a8 \u1100\u1161\u11a7\u11a8\u0301 \u1105\u1106\u11a7\u1175"
    yield "a\u07fd\u0301 a\u0301\u07fd \U00011935\U00011930 a\U00010eff\u0316 \u0b47\u0b3e"
    yield "a" * 3000
    yield " " * 3000 + "x"
    yield "\n " * 500
    yield "ab" * 900 + "!" * 900
    yield "e" + "\u0316\u0301" * 300


def fnv(ids):
    h = 0xCBF29CE484222325
    for i in ids:
        for b in int(i).to_bytes(4, "little"):
            h = (h ^ b) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return h


def escape(text):
    for a, b in (("\\", "\\\\"), ("\r", "\\r"), ("\n", "\\n"), ("\0", "\\0")):
        text = text.replace(a, b)
    return text


def unescape(text):
    out, i = "", 0
    while i < len(text):
        if text[i] == "\\":
            i += 1
            out += {"\\": "\\", "r": "\r", "n": "\n", "0": "\0"}[text[i]]
        else:
            out += text[i]
        i += 1
    return out


class Reference:
    def __init__(self, directory):
        import json

        with open(os.path.join(directory, "vocab.json"), encoding="utf-8") as f:
            vocab = json.load(f)
        with open(os.path.join(directory, "merges.txt"), encoding="utf-8", newline="\n") as f:
            merges = [tuple(m.rstrip("\n").split(" ")) for m in f if not m.startswith("#version")]
        config = os.path.join(directory, "tokenizer_config.json")
        with open(config, encoding="utf-8") as f:
            decoder = json.load(f)["added_tokens_decoder"]
        self.added = Qwen2Tokenizer.from_pretrained(directory)
        # Without added tokens, which would otherwise be found in any text.
        self.plain = Qwen2Tokenizer(vocab=vocab, merges=merges)._tokenizer
        spare = type(self.plain)(type(self.plain.model)(vocab=vocab, merges=merges))
        spare.normalizer, spare.decoder = self.plain.normalizer, self.plain.decoder
        spare.pre_tokenizer = self.plain.pre_tokenizer
        self.plain = spare
        for i, token in decoder.items():
            assert self.added.convert_tokens_to_ids(token["content"]) == int(i), token

    def ids(self, mode, text):
        if mode == "p":
            return self.plain.encode(text, add_special_tokens=False).ids
        return self.added.encode(text, add_special_tokens=False)

    def decode(self, mode, ids):
        return (self.plain if mode == "p" else self.added).decode(ids, skip_special_tokens=False)


def line_of(reference, mode, text):
    ids = reference.ids(mode, text)
    same = reference.decode(mode, ids) == reference.plain.normalizer.normalize_str(text)
    return f"{mode} {len(ids)} {fnv(ids):016x} {'=' if same else '-'} {escape(text)}\n"


def main():
    args = argparse.ArgumentParser()
    args.add_argument("directory")
    args.add_argument("--seed", type=int, default=2)
    args.add_argument("--count", type=int, default=22000)
    args.add_argument("--show", type=int)
    args = args.parse_args()
    reference = Reference(args.directory)
    if args.show:
        line = sys.stdin.buffer.read().split(b"\n")[args.show - 1].decode()
        mode, count, _, _, text = line.split(" ", 4)
        print(ascii(unescape(text)), reference.ids(mode, unescape(text)))
        return
    maker = Maker(args.seed)
    out = sys.stdout.buffer
    for text in fixed_texts():
        out.write(line_of(reference, "p", text).encode())
    for i in range(args.count):
        if i % 20 < 2:
            text = maker.join(ADDED_PARTS, 1, 8)
            out.write(line_of(reference, "ap"[i % 20], text).encode())
        else:
            out.write(line_of(reference, "p", maker.text()).encode())


if __name__ == "__main__":
    main()
