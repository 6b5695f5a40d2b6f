"""The losses of phase 1: their weights and variants."""
import dataclasses

from ilm_jax.config import names


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase1Config:
  """Weights of the losses (0: not computed) and their variants."""
  itc: float
  itm: float
  itg: float
  ii: float
  ui: float
  cf: float
  rec: float
  uni: float
  label_smoothing: float
  contrastive: str              # of II and UI: "infonce" or "margin"
  logq: bool                    # UI by InfoNCE: correct for how often entities are drawn
  num_items: int = 0            # II and UI: softmax over all items, rows 1..num_items; 0: over the
                                # batch
  negatives: int = 0            # items drawn per step for that softmax; 0: all items
  draw: str = "uniform"         # how; "popularity": by an item's count in training
  cf_temperature: float = 0.1   # of the collaborative-filtering scores that CF distils
  margin: float = 1.0           # of the "margin" form

  @classmethod
  def of(cls, section, num_items: int) -> "Phase1Config":
    """The Phase1Config of a config's section phase1, for `num_items` items."""
    return cls(**{name: section.losses.get(name, 0.0) for name in names.LOSSES},
               label_smoothing=section.label_smoothing, contrastive=section.contrastive,
               logq=section.logq, num_items=num_items if section.candidates == "catalogue" else 0,
               negatives=section.negatives, draw=section.draw,
               cf_temperature=section.cf_temperature)

  @property
  def by_popularity(self) -> bool:
    """Whether items are drawn by their count in training."""
    return self.negatives > 0 and self.draw == "popularity"

  @property
  def needs_log_draws(self) -> bool:
    """Whether `frozen` must hold log_draws, the logarithms of how often entities are drawn."""
    return self.logq or self.by_popularity

  @property
  def weights(self) -> dict[str, float]:
    """Loss -> its weight."""
    return {name: getattr(self, name) for name in names.LOSSES}


def joins_users(losses) -> bool:
  """Whether `ui` or `cf` has a weight, so that dot products of users and items rank."""
  return bool(losses.ui or losses.cf)
