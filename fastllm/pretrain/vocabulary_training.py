"""Trains the small vocabulary that the shipped target and its drafters share.

Byte-pair encoding over words that carry their leading space, with the 256 bytes as a fallback, so
that every text has an encoding and decodes to itself (up to the normalisation of quotes and
blanks). Ids follow T5: 0 pads, 1 ends a text, 2 is unknown and never produced.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from fastllm.vocabulary import Vocabulary

PAD, EOS, UNK = "<pad>", "</s>", "<unk>"
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def train_tokenizer(
    texts: Iterable[str], folder: str | Path, size: int = 8192
) -> PreTrainedTokenizerFast:
    """Learns `size` ids, the special ones and the bytes among them, from texts that are read once.

    The folder then holds what `AutoTokenizer` reads.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=UNK))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Replace(Regex("[‘’‚‛]"), "'"),
            normalizers.Replace(Regex("[“”„‟]"), '"'),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="always"),
            # Letters, digits and punctuation never share a piece: "people," is "people" and ",",
            # so that a word copied from the article has the same ids wherever it stands.
            pre_tokenizers.Split(Regex(r"▁?\p{L}+|▁?\p{N}{1,3}|▁?[^\p{L}\p{N}▁]"), "isolated"),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(_BYTES),
        special_tokens=[PAD, EOS, UNK],
        limit_alphabet=200,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer = Tokenizer.from_str(_with_bytes(tokenizer.to_str()))
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1, right=0),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", special_tokens=[(EOS, 1)]
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        clean_up_tokenization_spaces=False,
    )
    Vocabulary(wrapped).save(folder)
    return wrapped


def _with_bytes(description: str) -> str:
    """Inserts the 256 byte pieces behind the special tokens and switches the fallback on."""
    tree = json.loads(description)
    learned = sorted(tree["model"]["vocab"], key=tree["model"]["vocab"].__getitem__)
    pieces = [PAD, EOS, UNK, *_BYTES, *(piece for piece in learned if piece not in (PAD, EOS, UNK))]
    tree["model"]["vocab"] = {piece: index for index, piece in enumerate(pieces)}
    tree["model"]["byte_fallback"] = True
    return json.dumps(tree)
