"""What phase 1 is made of: its losses, their weights and their form."""
import dataclasses

from ilm_jax.config import names


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase1Config:
  """Weights of the losses (0: not computed at all) and their form."""
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
  logq: bool                    # of UI by InfoNCE: corrected for how often entities are drawn
  num_items: int = 0            # II and UI by softmax over all items, rows 1..num_items; 0: over
                                # what the batch holds
  negatives: int = 0            # of all items, so many are drawn a step; 0: all stay
  draw: str = "uniform"         # how; "popularity": by how often an item is met in training
  cf_temperature: float = 0.1   # of the collaborative-filtering scores that CF hands on
  margin: float = 1.0

  @classmethod
  def of(cls, section, num_items: int) -> "Phase1Config":
    """That of a config's section phase1, for so many items."""
    return cls(**{name: section.losses.get(name, 0.0) for name in names.LOSSES},
               label_smoothing=section.label_smoothing, contrastive=section.contrastive,
               logq=section.logq, num_items=num_items if section.candidates == "catalogue" else 0,
               negatives=section.negatives, draw=section.draw,
               cf_temperature=section.cf_temperature)

  @property
  def by_popularity(self) -> bool:
    """Whether items are drawn by how often they are met."""
    return self.negatives > 0 and self.draw == "popularity"

  @property
  def needs_log_draws(self) -> bool:
    """Whether `frozen` must say how often entities are drawn."""
    return self.logq or self.by_popularity

  @property
  def weights(self) -> dict[str, float]:
    """Loss -> its weight."""
    return {name: getattr(self, name) for name in names.LOSSES}


def joins_users(losses) -> bool:
  """Whether weights `ui` and `cf` bring users into the space of items: dot products there rank."""
  return bool(losses.ui or losses.cf)
