#!/usr/bin/env python3
"""Makes data/: tiny tokenizers of each family, awkward strings, and what the `tokenizers` library makes of them.

    python3 tests/engine/tokenizer/make_references.py     (wants: pip install tokenizers; written with 0.23)

data/<family>.json             a tokenizer.json
data/strings.json              texts, as a list
data/<family>.references.json  {"encode": [ids of each text], "x_with_special_tokens": ids of "x",
                                "decode": [[ids, text, text without special tokens], ...]}
Ids are written as characters, id + 0x20, since lists of numbers would take four times the bytes.
"""
import json
import pathlib
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).parent / "data"

CORPUS = """
The quick brown fox jumps over the lazy dog. It wasn't the dog's fault; they've said so, I'm sure, and we'll see.
In 1984 there were 365 days, 12 months and 52 weeks: 3.14159, 2,718,281 and 1e-9 are numbers too.
    def encode(self, text: str) -> list[int]:
        return [self.vocab[c] for c in text if c in self.vocab]  # comment
Der Fluß überquert die Straße; où est la bibliothèque? El niño comió piñas. İstanbul'da güneş doğdu.
Привет, мир! Как дела? Γειά σου Κόσμε. שלום עולם. مرحبا بالعالم. नमस्ते दुनिया। สวัสดีชาวโลก 你好，世界。こんにちは世界 안녕하세요 세계
HELLO WORLD Hello World hello world HeLLo  two  spaces   three    four\ttab\r\nline\n\nparagraph
"""
GPT4 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+")
QWEN = GPT4.replace("{1,3}", "")
O200K = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])


def special(text, **flags):
    return AddedToken(text, special=True, normalized=False, **flags)


def train(tokenizer, vocab_size, **options):
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False, **options)
    tokenizer.train_from_iterator(CORPUS.split("\n") * 3, trainer)
    return tokenizer


def byte_level(pre_tokenizer, normalizer=None, ignore_merges=False, vocab_size=420):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    return train(tokenizer, vocab_size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())


def template(tokenizer, begin, end=()):
    tokens = [(t, tokenizer.token_to_id(t)) for t in (*begin, *end)]
    return processors.TemplateProcessing(single=[*begin, "$A", *end], pair=[*begin, "$A", *end, "$B:1"],
                                         special_tokens=tokens)


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert=invert)


def gpt2():
    tokenizer = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens([special("<|endoftext|>")])
    return tokenizer


def llama3():
    pre = pre_tokenizers.Sequence([split(GPT4), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer = byte_level(pre, ignore_merges=True)
    tokenizer.add_special_tokens([special("<|begin_of_text|>"), special("<|end_of_text|>")]
                                 + [special(f"<|reserved_special_token_{i}|>") for i in range(12)]
                                 + [special("<|start_header_id|>"), special("<|end_header_id|>"), special("<|eot_id|>")])
    tokenizer.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), template(tokenizer, ["<|begin_of_text|>"])])
    return tokenizer


def qwen():
    pre = pre_tokenizers.Sequence([split(QWEN), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer = byte_level(pre, normalizer=normalizers.NFC())
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens([special("<|endoftext|>"), special("<|im_start|>"), special("<|im_end|>")])
    tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("<think>", normalized=False),
                          AddedToken("naïve", normalized=True), AddedToken("été", normalized=True)])
    return tokenizer


def o200k():
    pre = pre_tokenizers.Sequence([split(O200K, "removed", invert=True),
                                   pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer = byte_level(pre)
    tokenizer.add_special_tokens([special("<|start|>", rstrip=True), special("<|message|>", lstrip=True, rstrip=True),
                                  special("<|end|>", single_word=True)])
    tokenizer.post_processor = template(tokenizer, ["<|start|>"], ["<|end|>", "<|end|>"])
    return tokenizer


def sentencepiece_model(vocab_size=560, unk="<unk>"):
    """A BPE with the three control tokens, all bytes and merges learned over words that begin with U+2581."""
    learner = Tokenizer(models.BPE(unk_token=unk))
    learner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    train(learner, vocab_size - 259, special_tokens=[unk, "<s>", "</s>"])
    learned = json.loads(learner.to_str())["model"]
    tokens = [unk, "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    tokens += [t for t in learned["vocab"] if t not in tokens]
    # Few characters of foreign scripts stay, so that bytes must stand in for the others.
    dropped = set("Γχψπשמנحبसตสあ你界세하ß")
    tokens = [t for t in tokens if not dropped & set(t)]
    kept = set(tokens)
    merges = [tuple(m) for m in learned["merges"] if {m[0], m[1], m[0] + m[1]} <= kept]
    return {t: i for i, t in enumerate(tokens)}, merges


SENTENCEPIECE_DECODER = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]


def llama2():
    vocab, merges = sentencepiece_model()
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([*SENTENCEPIECE_DECODER, decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens([special("<unk>"), special("<s>"), special("</s>")])
    tokenizer.add_tokens([AddedToken("▁▁▁▁", normalized=False), AddedToken("[INST]", normalized=True)])
    tokenizer.post_processor = template(tokenizer, ["<s>"])
    return tokenizer


def mistral():
    vocab, merges = sentencepiece_model()
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence([*SENTENCEPIECE_DECODER, decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens([special("<unk>"), special("<s>"), special("</s>"), special("[INST]", rstrip=True),
                                  special("[/INST]", lstrip=True)])
    tokenizer.post_processor = template(tokenizer, ["<s>"], ["</s>"])
    return tokenizer


def gemma():
    vocab, merges = sentencepiece_model()
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(SENTENCEPIECE_DECODER)
    tokenizer.add_special_tokens([special("<s>"), special("<start_of_turn>"), special("\n\n")])
    tokenizer.post_processor = template(tokenizer, ["<s>"])
    return tokenizer


def unknowns():
    """No bytes to fall back to, unfused unknown tokens, merges that need their exact order."""
    vocab, merges = sentencepiece_model(unk="<?>")
    vocab = {t: i for i, t in enumerate(t for t in vocab if not t.startswith("<0x"))}
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<?>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip(),
                                                 normalizers.Replace(Regex(r"[\t\r\n]+| {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Metaspace(prepend_scheme="always"), pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.Punctuation("contiguous")])
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.add_special_tokens([AddedToken("<Mask>", special=True, normalized=True)])
    tokenizer.add_tokens([AddedToken("Fox", normalized=True, single_word=True)])
    return tokenizer


def words():
    """Character classes: what each of the cutting pre-tokenizers takes for a word, a digit, punctuation, a space."""
    vocab, merges = sentencepiece_model()
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True,
                                     continuing_subword_prefix="", end_of_word_suffix=""))
    tokenizer.normalizer = normalizers.NFKD()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Whitespace(), pre_tokenizers.Digits(),
        pre_tokenizers.Punctuation("merged_with_next")])
    return tokenizer


FAMILIES = [gpt2, llama3, qwen, o200k, llama2, mistral, gemma, unknowns, words]

AWKWARD = [
    "", " ", "  ", "   ", "\n", "\r\n", "\r", "\t", "\n\n\n", " \n ", "a", " a", "a ", "  a  ", "\u00a0", "\u3000x",
    "Hello, world!", "hello   world", "I'm we'll THEY'VE it'S ꞌs 'ſ don't", "1", "12", "123", "1234", "12345678901",
    "3.14 1,000,000 ½ ² Ⅷ ٣٤٥ १२३ 𝟙𝟚𝟛", "the quick brown fox", "HELLO HeLLo", "\x00", "a\x00b\x01\x1f\x7f\x80\x9f",
    "é", "e\u0301", "a\u0301\u0323", "a\u0323\u0301", "\u0301", "\u0301a", "Å\u212b\u0041\u030a", "ﬁ ﬀ ㎏ ① Ａ ｱ",
    "\u1100\u1161\u11a8 각 \uac00\u11a8", "İI ı ẞß ΑΣ ς", "👍", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈 🇩🇪🇫🇷", "👨\u200d💻👨\u200d💻", "\u200d\u200c\u200b\ufeff",
    "你好，世界", "こんにちは 世界", "안녕하세요", "שלום עולם", "مرحبا بالعالم", "नमस्ते दुनिया", "สวัสดี", "Привет, мир",
    "Γειά σου", "mixed русский and 日本語 text", "\u202eabc\u202c", "\u180e \u180ex", "\u2028\u2029", "\u0085x",
    "x" * 300, " " * 200, " " * 200 + "x", "\n" * 100, "\t" * 64 + "y", "ab" * 150, "😀" * 40, "1" * 77, "!" * 65,
    "é" * 50, "\u0301" * 40, "a\u0301" * 30, "\u0301\u0323" * 25, "\U0010ffff\U000e0001\ufffd\ufffe\uffff",
    "<s>", "</s>", "<s></s>", "a<s>b", " <s> ", "<s", "<<s>>", "<unk>", "<unk><unk>", "<0x41>", "<0xE4><0xBD>",
    "<|endoftext|>", "x<|endoftext|>y", "<|endoftext|><|endoftext|>", "<|endoftext|", "<|im_start|>user\nhi<|im_end|>",
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>", "<|reserved_special_token_1|>1|>",
    "<|reserved_special_token_11|>", "<|reserved_special_token_1", "a <|start|>  b", "a  <|message|>  b", "x<|end|>y",
    "x <|end|> y", "<|end|>", "<|end|><|end|>", "_<|end|>", "é<|end|>", "-<|end|>-", "<|message|>  <|message|>", "  <|message|>",
    "[INST] hi [/INST]", "[INST][/INST]", "x[INST]   [/INST]y", " [INST] ", "▁", "▁▁", "▁▁▁▁", "▁▁▁▁▁", "a▁b", "▁ ▁",
    "naïve", "nai\u0308ve", "NAÏVE", "été", "e\u0301te\u0301", "<think>x</think>", "<tool_call>", "<Mask>", "<mask>",
    "<MASK>", "fox", "Fox", "FOX", "foxy Fox, a-fox", "a fox.", "<start_of_turn>x", "\n\n", "a\n\nb\n\n\nc",
    "def f(x):\n    return x  # y\n", "https://example.com/?q=a%20b&c=d#e", "C:\\path\\file", "{\"a\": [1, 2.5e-3, null]}",
    "a_b __c__ d-e f‿g", "don't won’t", "…—–«»“”", "price: $1.50 €2 £3 ¥4 ₹5", "±×÷=<>|~^`", "a\u0300b c\u0327",
]


def random_strings(count, seed):
    """Pieces of all sorts, thrown together."""
    rng = random.Random(seed)
    ranges = [(0x20, 0x7e)] * 6 + [(0, 0x1f), (0x80, 0xff), (0x100, 0x24f), (0x300, 0x36f), (0x370, 0x3ff),
              (0x400, 0x4ff), (0x5d0, 0x5ea), (0x620, 0x64a), (0x660, 0x669), (0x905, 0x96f), (0xe01, 0xe5b),
              (0x1100, 0x11f9), (0x1e00, 0x1fbc), (0x2000, 0x206f), (0x2070, 0x209c), (0x20a0, 0x20bf),
              (0x2100, 0x218b), (0x2460, 0x24ff), (0x3000, 0x30ff), (0x4e00, 0x4eff), (0xac00, 0xacff),
              (0xfb00, 0xfb06), (0xfe00, 0xfe0f), (0xff01, 0xffdc), (0x1d400, 0x1d7ff), (0x1f300, 0x1f64f)]
    words = CORPUS.split() + ["'s", "'LL", "'Ve", "\u200d", "\ufe0f", "👍🏽", "👩‍👧"]
    tokens = ["<s>", "</s>", "<unk>", "<|endoftext|>", "<|im_start|>", "<|eot_id|>", "<|start|>", "<|message|>",
              "<|end|>", "[INST]", "[/INST]", "<think>", "<Mask>", "fox", "naïve", "▁▁▁▁", "▁", "<0x0A>"]
    spaces = [" ", " ", " ", "  ", "   ", "\n", "\r\n", "\t", "\n\n", "\u00a0", "\u2003", "\u3000", " \n", "\u0085"]

    def piece():
        kind = rng.randrange(10)
        if kind < 3:
            return rng.choice(words)
        if kind < 5:
            return rng.choice(spaces)
        if kind == 5:
            return rng.choice(tokens)
        if kind == 6:
            return str(rng.randrange(10 ** rng.randrange(1, 9)))
        low, high = rng.choice(ranges)
        return "".join(chr(rng.randint(low, high)) for _ in range(rng.randrange(1, 5)))

    for _ in range(count):
        text = "".join(piece() for _ in range(rng.randrange(1, 9)))
        yield "".join(c for c in text if not 0xd800 <= ord(c) < 0xe000)


def write(name, value):
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    (HERE / name).write_text(text.replace("\u007f", "\\u007f") + "\n", encoding="utf-8")


def as_text(ids):
    return "".join(chr(i + 0x20) for i in ids)


def id_lists(tokenizer, count, seed):
    """Ids in no sensible order, byte runs among them, and some that no token has."""
    rng = random.Random(seed)
    size = tokenizer.get_vocab_size()
    bytes_begin = tokenizer.token_to_id("<0x00>")
    added = [i for i in tokenizer.get_added_tokens_decoder()]
    for _ in range(count):
        ids = []
        for _ in range(rng.randrange(1, 12)):
            kind = rng.randrange(6)
            if kind == 0 and added:
                ids.append(rng.choice(added))
            elif kind == 1 and bytes_begin is not None:
                ids += [bytes_begin + b for b in rng.choice(["é", "你", "😀", "a"]).encode()[:rng.randrange(1, 5)]]
            elif kind == 2:
                ids += tokenizer.encode(rng.choice(AWKWARD)[:12], add_special_tokens=False).ids
            elif kind == 3:
                ids.append(size + rng.randrange(40))
            else:
                ids.append(rng.randrange(size))
        yield ids


def without_special(tokenizer, ids):
    """Since 0.23 the library forgets to skip a special token whose normalized form differs from its text."""
    added = tokenizer.get_added_tokens_decoder()
    rest = [i for i in ids if i not in added or not added[i].special]
    text = tokenizer.decode(rest, skip_special_tokens=False)
    if not any(token.special and token.normalized for token in added.values()):
        assert text == tokenizer.decode(ids, skip_special_tokens=True)
    return text


def main():
    HERE.mkdir(exist_ok=True)
    strings = AWKWARD + list(random_strings(2400, seed=7))
    write("strings.json", strings)
    for family in FAMILIES:
        tokenizer = family()
        (HERE / f"{family.__name__}.json").write_text(tokenizer.to_str() + "\n", encoding="utf-8")
        tokenizer = Tokenizer.from_file(str(HERE / f"{family.__name__}.json"))
        encode = [as_text(tokenizer.encode(s, add_special_tokens=False).ids) for s in strings]
        with_special = as_text(tokenizer.encode("x", add_special_tokens=True).ids)
        decode = [[as_text(ids), tokenizer.decode(ids, skip_special_tokens=False), without_special(tokenizer, ids)]
                  for ids in id_lists(tokenizer, 300, seed=11)]
        write(f"{family.__name__}.references.json",
              {"encode": encode, "x_with_special_tokens": with_special, "decode": decode})


if __name__ == "__main__":
    main()
