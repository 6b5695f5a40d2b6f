"""Language models of random weights in our own layout, with SmolLM2's vocabulary.

    python tests/random_lm.py t5 runs/random_t5        then --config=configs/tiny_t5.py
    python tests/random_lm.py palm runs/random_palm    then --config=configs/tiny_palm.py
    python tests/random_lm.py openp5 runs/openp5_lm    then --config=configs/openp5_ml100k.py
"""
import sys

from ilm_jax.models import decoder, language_model, t5
from ilm_jax.weights import own

VOCAB = 49152
CONFIGS = {
    "t5": t5.T5Config(num_layers=2, num_encoder_layers=2, width=32, num_heads=2, head_dim=8,
                      mlp_width=48, vocab_size=VOCAB),
    "openp5": t5.T5Config(num_layers=3, num_encoder_layers=3, width=128, num_heads=4, head_dim=32,
                          mlp_width=256, vocab_size=VOCAB),
    "llama": decoder.DecoderConfig(
        num_layers=2, width=32, num_heads=4, num_kv_heads=2, head_dim=8, mlp_width=48,
        vocab_size=VOCAB),
    "palm": decoder.DecoderConfig(
        num_layers=2, width=32, num_heads=4, num_kv_heads=1, head_dim=8, mlp_width=48,
        vocab_size=VOCAB, parallel=True, norm="layer"),
}


def write(kind: str, folder) -> None:
  """Saves the random model called `kind`."""
  own.save(folder, CONFIGS[kind], language_model.init(CONFIGS[kind], 0))


if __name__ == "__main__":
  write(*sys.argv[1:])
