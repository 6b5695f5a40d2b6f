"""A SeqIO vocabulary over our tokenizers."""
import itertools

import numpy as np
import seqio
import tensorflow as tf

from ilm_jax.data import tokenizer as tokenizer_lib


class SlotVocabulary(seqio.Vocabulary):
  """The ids of a `Tokenizer`, the slot's included. Strings are encoded in Python."""

  def __init__(self, tokenizer: tokenizer_lib.Tokenizer):
    self.tokenizer = tokenizer
    super().__init__()

  @property
  def bos_id(self):
    return None

  @property
  def eos_id(self):
    return self.tokenizer.eos_id

  @property
  def unk_id(self):
    return None                  # nothing is unknown to a byte-level vocabulary

  @property
  def _base_vocab_size(self):
    return self.tokenizer.vocab_size + 1

  def _encode(self, s):
    return self.tokenizer.encode(s)

  def _decode(self, ids):
    return self.tokenizer.decode(ids)

  def _encode_tf(self, s):
    """Ids of a string, 1-D; of a vector of strings, ragged (one call into Python for all)."""
    if s.shape.rank == 0:
      return self._encode_tf(s[None])[0]
    flat, lengths = tf.numpy_function(
        self._encode_all, [s], (tf.int32, tf.int32), stateful=False)
    flat.set_shape([None])
    lengths.set_shape([None])
    return tf.RaggedTensor.from_row_lengths(flat, lengths)

  def _encode_all(self, texts):
    ids = [self.tokenizer.encode(text.decode()) for text in texts]
    lengths = np.array([len(i) for i in ids], np.int32)
    return np.fromiter(itertools.chain.from_iterable(ids), np.int32, lengths.sum()), lengths

  def _decode_tf(self, ids):
    text = tf.numpy_function(self.tokenizer.decode, [ids], tf.string, stateful=False)
    text.set_shape([])
    return text

  def __eq__(self, other):
    return (isinstance(other, SlotVocabulary)
            and other.tokenizer.fingerprint == self.tokenizer.fingerprint)

  def __hash__(self):
    return hash(self.tokenizer.fingerprint)
