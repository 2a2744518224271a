"""Small tokenizers of Hugging Face's kinds, made here.

The published ones are a download, and towers of random values do not care
which words they read. These have the same special tokens, padding and
normalisation, and so the same form of a prompt.
"""
from pathlib import Path

TEXT = ['a photo of a red car. a fire hydrant, a cat', 'the blurry picture of',
        'dog person bicycle traffic light potted plant dining table',
        'abcdefghijklmnopqrstuvwxyz . , \' - 0 1 2 3 4 5 6 7 8 9']
# Special tokens in the order of their ids, and the form of a prompt.
KINDS = {
    'bert': (['[PAD]', '[UNK]', '[CLS]', '[SEP]'], '[CLS] $A [SEP]',
             dict(pad_token='[PAD]', cls_token='[CLS]', sep_token='[SEP]')),
    't5': (['<pad>', '</s>', '<unk>'], '$A </s>',
           dict(pad_token='<pad>', eos_token='</s>')),
    'siglip': (['<unk>', '</s>'], '$A </s>',  # padded with the end token
               dict(pad_token='</s>', eos_token='</s>')),
    'gemma': (['<pad>', '<eos>', '<bos>', '<unk>'], '$A <eos>',
              dict(pad_token='<pad>', eos_token='<eos>')),
    'roberta': (['<s>', '<pad>', '</s>', '<unk>'], '<s> $A </s>',
                dict(bos_token='<s>', pad_token='<pad>', eos_token='</s>',
                     cls_token='<s>', sep_token='</s>')),
    'nllb': (['<s>', '<pad>', '</s>', '<unk>', 'eng_Latn'],
             'eng_Latn $A </s>',
             dict(bos_token='<s>', pad_token='<pad>', eos_token='</s>')),
}


def kind_of(name: str) -> str:
    """Which of them stands for a published one."""
    for word, kind in (('bert-base', 'bert'), ('mt5', 't5'),
                       ('nllb', 'nllb'), ('SigLIP2', 'gemma'),
                       ('SigLIP', 'siglip')):
        if word in name and 'roberta' not in name:
            return kind
    return 'roberta'  # and XLM-V


def make_tokenizer(kind: str, folder: Path) -> None:
    """Train one on a few words, and save it as ``AutoTokenizer`` reads it."""
    from tokenizers import (
        Tokenizer,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )
    from transformers import PreTrainedTokenizerFast
    special, form, names = KINDS[kind]
    unknown = next(token for token in special if 'unk' in token.lower())
    if kind == 'bert':
        tokenizer = Tokenizer(models.WordPiece(unk_token=unknown))
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=120,
                                            special_tokens=special)
    else:
        tokenizer = Tokenizer(models.BPE(unk_token=unknown))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
            prepend_scheme='never' if kind == 'gemma' else 'always')
        trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=special)
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=form, special_tokens=[
            (token, special.index(token)) for token in form.split()
            if token != '$A'])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=unknown,
                            **names).save_pretrained(folder)


def make_text_config(name: str, folder: Path, sizes: dict) -> None:
    """Save the configuration of a Hugging Face text model of these sizes:
    ``vocab``, ``width``, ``layers``, ``heads``."""
    from transformers import (
        M2M100Config,
        MT5Config,
        RobertaConfig,
        XLMRobertaConfig,
    )
    vocab, width, layers, heads = (
        sizes[key] for key in ('vocab', 'width', 'layers', 'heads'))
    if 'mt5' in name:
        config = MT5Config(vocab_size=vocab, d_model=width, num_layers=layers,
                           num_heads=heads, d_kv=width // heads,
                           d_ff=2 * width, num_decoder_layers=1)
    elif 'nllb' in name:
        config = M2M100Config(
            vocab_size=vocab, d_model=width, encoder_layers=layers,
            encoder_attention_heads=heads, encoder_ffn_dim=2 * width,
            decoder_layers=1, decoder_attention_heads=heads,
            decoder_ffn_dim=2 * width)
    else:
        kind = XLMRobertaConfig if 'xlm' in name else RobertaConfig
        config = kind(vocab_size=vocab, hidden_size=width,
                      num_hidden_layers=layers, num_attention_heads=heads,
                      intermediate_size=4 * width,
                      max_position_embeddings=514, type_vocab_size=1)
    config.save_pretrained(folder)
